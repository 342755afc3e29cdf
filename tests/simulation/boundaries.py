"""Where a process can die: every commit, provider call, SSH visit and publish is a numbered boundary.

They are found by instrumentation, not listed by hand: the database's own commit and statements, the one
transport that every provider call goes through, the one runner of SSH commands, the one place that
publishes. Crossing the boundary at which a run is to die raises `Killed`, which no code may catch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection


class Killed(BaseException):
    """The process is dead. Not an Exception: nothing of ours may survive it."""


@dataclass
class Boundaries:
    """Counts what is crossed; at `kill_at` it kills, and from then on counts for the next life."""

    kill_at: frozenset[int] = frozenset()
    crossed: int = 0
    names: list[str] = field(default_factory=list)
    keep_names: bool = False
    pause_at: int | None = None
    on_pause: Callable[[], None] | None = None
    quiet: int = 0

    def cross(self, name: str) -> None:
        if self.quiet:
            return
        self.crossed += 1
        if self.keep_names:
            self.names.append(name)
        if self.crossed == self.pause_at and self.on_pause is not None:
            self.on_pause()
        if self.crossed in self.kill_at:
            raise Killed(f"at boundary {self.crossed}: {name}")

    @contextmanager
    def silent(self) -> Iterator[None]:
        """What the simulation itself does is no effect of the service."""
        self.quiet += 1
        try:
            yield
        finally:
            self.quiet -= 1


_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b\s*(?:INTO|FROM)?\s*\"?(\w+)", re.IGNORECASE)


@contextmanager
def instrumented_database(boundaries: Boundaries) -> Iterator[None]:
    """Every commit is a boundary: of a transaction, or of one statement outside of any."""
    commit = connection.commit

    def commit_and_cross() -> None:
        commit()
        boundaries.cross("commit")

    def statement(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        result = execute(sql, params, many, context)
        found = _WRITES.match(sql)
        if found and not connection.in_atomic_block:
            boundaries.cross(f"{found[1].lower()} {found[2]}")
        return result

    connection.commit = commit_and_cross  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(statement):
            yield
    finally:
        connection.commit = commit  # type: ignore[method-assign]
