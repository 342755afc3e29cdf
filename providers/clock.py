"""Time, in one place.

Everything that asks what time it is, or waits, asks here; tests and the simulation put their own
clock in its place. A step reads the clock once, at its top, and passes the instant down, so no rule
ever sees two different "nows".
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that only runs forward; for pacing and durations, never for records."""

    def sleep(self, seconds: float) -> None:
        """Wait. Only for pacing provider calls; work that waits is a row with a `due_at`."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


_clock: Clock = SystemClock()


def use(clock: Clock) -> Clock:
    """Put `clock` in place of the present one, which is returned so that it can be put back."""
    global _clock
    previous, _clock = _clock, clock
    return previous


def now() -> datetime:
    return _clock.now()


def monotonic() -> float:
    return _clock.monotonic()


def sleep(seconds: float) -> None:
    _clock.sleep(seconds)
