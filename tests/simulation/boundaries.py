"""Where a process can die: every commit, provider call, SSH visit and publish is a numbered boundary.

They are found by instrumentation, not listed by hand: the database's own commits and statements, the one
transport that every provider call goes through, the one runner of SSH commands, the one place that publishes.
Any other effect (a socket, a process, a file that is written) is caught by `nothing_else` and fails the run.

What happens at a boundary is up to `on_cross`: nothing, a death, a pause, a change of workers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import OperationalError, connection, transaction


class Killed(BaseException):
    """The process is dead. Not an Exception: nothing of ours may survive it."""


class Uninstrumented(AssertionError):
    """The service did something to the outside that is no boundary, so no kill was ever tried there."""


@dataclass
class Boundaries:
    """Counts what is crossed, by name, while the service works."""

    on_cross: Callable[[int, str], None] | None = None
    crossed: int = 0
    names: dict[str, int] = field(default_factory=dict)
    _off: int = 1  # outside of the service's own work nothing counts
    dead: bool = False
    disk_is_full: bool = False

    def cross(self, name: str) -> None:
        if self.dead:
            raise Killed(name)
        if self._off:
            return
        self.crossed += 1
        self.names[name] = self.names.get(name, 0) + 1
        if self.on_cross is not None:
            self.on_cross(self.crossed, name)

    def die(self, name: str) -> None:
        """From here on nothing that the dying process still does has any effect, until `bury`."""
        self.dead = True
        raise Killed(name)

    def bury(self) -> None:
        self.dead = False
        self._off = 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """The service is at work. What the simulation itself does, outside of this, is no effect of it."""
        self._off -= 1
        try:
            yield
        finally:
            self._off = min(1, self._off + 1)


_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b\s*(?:INTO|FROM)?\s*\"?(\w+)", re.IGNORECASE)


@contextmanager
def instrumented_database(boundaries: Boundaries) -> Iterator[None]:
    """Each outermost commit is a boundary, and each statement that writes outside of a transaction."""
    leave = transaction.Atomic.__exit__

    def leave_and_cross(atomic: transaction.Atomic, *raised: Any) -> None:
        leave(atomic, *raised)
        if raised[0] is None and not connection.in_atomic_block:
            boundaries.cross("commit")

    def statement(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if boundaries.dead:
            raise Killed("a dead process writes nothing")
        found = _WRITES.match(sql)
        if found and boundaries.disk_is_full:
            raise OperationalError("database or disk is full")
        result = execute(sql, params, many, context)
        if found and not connection.in_atomic_block:
            boundaries.cross(f"{found[1].lower()} {found[2]}")
        return result

    transaction.Atomic.__exit__ = leave_and_cross  # type: ignore[method-assign]
    try:
        with connection.execute_wrapper(statement):
            yield
    finally:
        transaction.Atomic.__exit__ = leave  # type: ignore[method-assign]


_EFFECTS = ("socket.connect", "socket.sendto", "subprocess.Popen", "os.remove", "os.rename", "os.system")
_watched: list[Boundaries] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or _watched[-1]._off:
        return
    writes_a_file = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in _EFFECTS or writes_a_file:
        raise Uninstrumented(f"{event}{arguments!r:.120} is no boundary")


@contextmanager
def nothing_else(boundaries: Boundaries) -> Iterator[None]:
    """While the service works, every other effect on the outside raises `Uninstrumented`."""
    if not getattr(sys, "_simulation_audits", False):
        sys.addaudithook(_audit)  # There is no way to take one off again.
        sys._simulation_audits = True  # type: ignore[attr-defined]
    _watched.append(boundaries)
    try:
        yield
    finally:
        _watched.remove(boundaries)
