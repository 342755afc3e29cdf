"""Time, in one place.

Everything that asks what time it is, or waits, asks here; tests and the simulation put their own
clock in its place. A step reads the clock once, at its top, and passes the instant down, so no rule
ever sees two different "nows".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
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


# --- What others say of the time ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What the latest answer of a provider said: exact to the second, and to the answer's own way."""

    time: datetime | None  # by its `Date`; None: it told none
    at: float  # when it came: seconds on our monotonic clock

    def time_at(self, at: float) -> datetime | None:
        """What its clock shows at another moment of our monotonic clock."""
        return self.time and self.time + timedelta(seconds=at - self.at)


# By provider; what this process has heard since it began.
told: dict[str, Told] = {}


def hear(provider: str, time: datetime | None) -> None:
    """A provider has answered, and told this time with it."""
    told[provider] = Told(time, monotonic())


def ahead_of(provider: str) -> timedelta | None:
    """By how much our clock is ahead of the provider's; None: it has told this process no time."""
    said = told.get(provider)
    theirs = said and said.time_at(monotonic())
    return now() - theirs if theirs else None


# Two clocks that differ by less agree.
AGREE = timedelta(minutes=1)

# --- A clock that is not believed at once -------------------------------------------------------------

# The wall clock drifts against the monotonic one by far less; NTP slews by less.
DRIFT = timedelta(seconds=5)
# A clock that was set wrong is mostly set right within minutes; until then no deadline may fall due by it.
DOUBT = timedelta(minutes=10)


class SteadyClock:
    """A wall clock whose jumps are not believed at once. Between looks it runs by the monotonic clock.

    What the providers' answers say since the jump decides: it is followed if they agree with the wall clock, and not
    if they agree with ours. While they say nothing, a jump ahead is followed after `DOUBT`, and one back is waited
    for. So it goes back only if it was wrong, by two others' word.
    """

    def __init__(self, wall: Clock | None = None, witnesses: Mapping[str, Told] = told) -> None:
        self._wall = wall or SystemClock()
        self._witnesses = witnesses
        self._lock = threading.Lock()
        self._at, self._since = self._wall.now(), self._wall.monotonic()
        self._doubted_from: float | None = None

    def now(self) -> datetime:
        with self._lock:
            wall, monotonic = self._wall.now(), self._wall.monotonic()
            expected = self._at + timedelta(seconds=monotonic - self._since)
            self._at, self._since = self._believed(wall, expected, monotonic), monotonic
            return self._at

    def _believed(self, wall: datetime, expected: datetime, monotonic: float) -> datetime:
        if abs(wall - expected) <= DRIFT:
            self._doubted_from = None
            return max(wall, self._at)
        if self._doubted_from is None:
            self._doubted_from = monotonic
        others = self._others(self._doubted_from, monotonic)
        if any(abs(wall - other) <= AGREE for other in others):
            return wall
        waited = monotonic - self._doubted_from >= DOUBT.total_seconds()
        return wall if wall > expected and waited and not others else expected

    def _others(self, since: float, monotonic: float) -> list[datetime]:
        """The time now by each provider that has told it since."""
        fresh = [said.time_at(monotonic) for said in dict(self._witnesses).values() if said.at >= since]
        return [time for time in fresh if time is not None]

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
