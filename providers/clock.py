"""Time, in one place.

Everything that asks what time it is, or waits, asks here; tests and the simulation put their own
clock in its place. A step reads the clock once, at its top, and passes the instant down, so no rule
ever sees two different "nows".
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
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


# The wall clock drifts against the monotonic one by far less; NTP slews by less.
DRIFT = timedelta(seconds=5)
# A clock that was set wrong is mostly set right within minutes; until then no deadline may fall due by it.
DOUBT = timedelta(minutes=10)


class SteadyClock:
    """A wall clock that never goes back, and whose jumps ahead are not believed for `DOUBT`.

    Between looks it runs by the monotonic clock. A wall clock that is set back is waited for; one that is set ahead
    is followed when it has stayed there for so long.
    """

    def __init__(self, wall: Clock | None = None) -> None:
        self._wall = wall or SystemClock()
        self._lock = threading.Lock()
        self._at, self._since = self._wall.now(), self._wall.monotonic()
        self._doubted_from: float | None = None

    def now(self) -> datetime:
        with self._lock:
            told, monotonic = self._wall.now(), self._wall.monotonic()
            expected = self._at + timedelta(seconds=monotonic - self._since)
            believed = self._believed(told, expected, monotonic)
            self._at, self._since = max(self._at, believed), monotonic
            return self._at

    def _believed(self, told: datetime, expected: datetime, monotonic: float) -> datetime:
        if told - expected <= DRIFT:
            self._doubted_from = None
            return told if expected - told <= DRIFT else expected
        if self._doubted_from is None:
            self._doubted_from = monotonic
        return told if monotonic - self._doubted_from >= DOUBT.total_seconds() else expected

    def monotonic(self) -> float:
        return self._wall.monotonic()

    def sleep(self, seconds: float) -> None:
        self._wall.sleep(seconds)


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
