"""What a known mistake is: a wrong piece of the product, and those who have to notice it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    name: str
    sentence: str
    make: Callable[[], None]
    hunters: tuple[str, ...]  # each has to catch it


MISTAKES: dict[str, Mistake] = {}


def mistake(*hunters: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """`hunters` are ids of tests below `tests/`, or what follows `python -m tests.simulation`."""

    def register(make: Callable[[], None]) -> Callable[[], None]:
        name = make.__name__.replace("_", "-")
        MISTAKES[name] = Mistake(name, (make.__doc__ or "").strip(), make, hunters)
        return make

    return register
