"""The settings that a person writes in the environment, read with one rule each.

Reading never fails: a bad value is replaced by its default and noted in `problems`, which
`manage.py check` reports by name and every server refuses to start on. Only a folder has no substitute (`needed`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 100 * 365 * 86400.0
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
# A shorter key is guessed from one label. Earlier keys may be shorter: machines that they signed are still ours.
SHORTEST_KEY = 16


def duration(text: str) -> timedelta:
    """`90s`, `5m`, `12h`, `1h30m`, or seconds. Raises ValueError."""
    text = text.strip().lower()
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise ValueError("write a duration such as 90s, 5m, 12h, or a number of seconds")
    seconds = sum(float(part[1]) * _SECONDS[part[2] or ""] for part in parts)
    if seconds > _LONGEST:
        raise ValueError("write a duration that a person lives to see the end of")
    return timedelta(seconds=seconds)


def boolean(text: str) -> bool:
    """Raises ValueError."""
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise ValueError("write true or false")


class Environment:
    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.problems: dict[str, str] = {}

    def text(self, name: str, default: str = "", *, one_of: tuple[str, ...] = ()) -> str:
        def read(value: str) -> str:
            if not one_of:
                return value
            for known in one_of:
                if value.lower() == known.lower():
                    return known
            raise ValueError(f"write one of {', '.join(one_of)}")

        return self._read(name, default, read)

    def url(self, name: str, *schemes: str) -> str:
        """What is wrong with it is told without repeating it: there may be a password in it."""

        def read(value: str) -> str:
            scheme, _, rest = value.partition("://")
            if scheme not in schemes or not (rest or scheme == "memory"):
                raise ValueError(f"write a URL that begins with {', '.join(f'{scheme}://' for scheme in schemes)}")
            if scheme not in ("sqlite", "memory") and not _has_a_host(value):
                raise ValueError("its host or port can't be read; in a password, / is written %2F, # is %23, @ is %40")
            return value

        return self._read(name, "", read, repeat=False)

    def signing_keys(self, name: str, made: str) -> list[str]:
        """Keys with commas between them: the first signs, all verify. `made`: what holds if none is given.

        What is wrong with them is told without repeating them. An empty one would let anybody sign.
        """

        def read(value: str) -> list[str]:
            keys = [part.strip() for part in value.split(",")]
            if not all(keys):
                raise ValueError("one of its keys is empty; write them with one comma between two")
            if len(keys[0]) < SHORTEST_KEY:
                raise ValueError(f"the first key, which signs, has at least {SHORTEST_KEY} characters")
            return keys

        return self._read(name, [part.strip() for part in made.split(",") if part.strip()], read, repeat=False)

    def boolean(self, name: str, default: bool) -> bool:
        return self._read(name, default, boolean)

    def integer(self, name: str, default: int, *, least: int = 0, most: int = 2**31) -> int:
        def read(value: str) -> int:
            number = int(value) if value.isascii() and value.lstrip("+-").isdigit() and len(value) < 20 else least - 1
            if not least <= number <= most:
                raise ValueError(f"write a whole number from {least} to {most}")
            return number

        return self._read(name, default, read)

    def hours(self, name: str, default: float, *, most: float) -> timedelta:
        """A number of hours (`12`), or a duration with its unit (`12h`)."""

        def read(value: str) -> timedelta:
            try:
                span = duration(f"{value}h" if _is_number(value) else value)
            except ValueError:
                span = timedelta(0)
            if not timedelta(0) < span <= timedelta(hours=most):
                raise ValueError(
                    f"write a number of hours such as 12 or 1.5, or a duration with its unit such as 90m, "
                    f"above 0 and up to {most:g} hours"
                )
            return span

        return self._read(name, timedelta(hours=default), read)

    def duration(self, name: str, default: str, *, least: str = "0s", most: str = "30d") -> timedelta:
        def read(value: str) -> timedelta:
            span = duration(value)
            if not duration(least) <= span <= duration(most):
                raise ValueError(f"write a duration from {least} to {most}")
            return span

        return self._read(name, duration(default), read)

    def _read(self, name: str, default: T, read: Callable[[str], T], *, repeat: bool = True) -> T:
        value = self.values.get(name, "").strip()
        if not value:
            return default
        try:
            return read(value)
        except ValueError as error:
            self.problems[name] = f"{error}; {value[:40]!r} is not that" if repeat else str(error)
            return default


def dotenv(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a file, read as Docker Compose does; {} without the file.

    The environment itself goes before them.
    """
    if not path.is_file():
        return {}
    lines = (line.strip().removeprefix("export ") for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): _value(text.strip()) for name, _, text in pairs}


def _value(text: str) -> str:
    """In quotes as it stands; else up to a blank and a `#`, from where on it is a comment."""
    if text[:1] in ("'", '"'):
        return text[1:].partition(text[0])[0]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()


@contextmanager
def needed(path: Path, name: str) -> Iterator[None]:
    """There is no going on without the folder `path`, which setting `name` names.

    Raises ImproperlyConfigured, with a sentence for a person, if the system refuses what is done inside.
    """
    try:
        yield
    except OSError as error:
        raise ImproperlyConfigured(
            f"{name}: {path} can't be used ({error.strerror or type(error).__name__}). Name a folder that this user "
            "may write to, in the environment or in .env."
        ) from error


def load(base: Path) -> Environment:
    return Environment({**dotenv(base / ".env"), **os.environ})


def _has_a_host(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _is_number(value: str) -> bool:
    return value.replace(".", "", 1).isdigit()
