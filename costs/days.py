"""Days and months, by UTC. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Days:
    """From one day to another, both included."""

    first: date
    last: date

    @property
    def since(self) -> datetime:
        return midnight(self.first)

    @property
    def until(self) -> datetime:
        return midnight(self.last + _DAY)

    def each_day(self) -> Iterator[Days]:
        for number in range((self.last - self.first).days + 1):
            day = self.first + number * _DAY
            yield Days(day, day)

    def each_month(self) -> Iterator[Days]:
        """The months, the first and the last of them cut where these days begin and end."""
        first = self.first
        while first <= self.last:
            last = min(month_of(first).last, self.last)
            yield Days(first, last)
            first = last + _DAY


def midnight(day: date) -> datetime:
    """The instant at which a day begins."""
    return datetime.combine(day, time(), UTC)


def day_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def month_of(day: date) -> Days:
    first = day.replace(day=1)
    return Days(first, (first + 32 * _DAY).replace(day=1) - _DAY)
