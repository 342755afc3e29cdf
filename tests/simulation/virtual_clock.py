"""A clock that only moves when told; nothing in the simulation waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)


class VirtualClock:
    def __init__(self, start: datetime = START) -> None:
        self.instant = start
        self.began = start
        self.skew = timedelta(0)  # how wrong the service's wall clock is

    def now(self) -> datetime:
        return self.instant + self.skew

    def true(self, moment: datetime) -> datetime:
        """The true instant at which the service's clock shows `moment`."""
        return moment - self.skew

    def monotonic(self) -> float:
        return (self.instant - self.began).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)

    def at(self, seconds: float) -> datetime:
        return self.began + timedelta(seconds=seconds)


class TrueClock:
    """What the world sees: the same instants without the service's skew."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    def now(self) -> datetime:
        return self.clock.instant

    def monotonic(self) -> float:
        return self.clock.monotonic()
