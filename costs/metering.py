"""What machines cost: intervals with their rates, cut at any window, priced exactly.

Pure. Rates are whole micro-dollars per hour and time is whole microseconds, so a cost is a whole number of
*grains*, the 3,600,000,000th part of a micro-dollar. Grains are summed; they are divided and rounded half-even once,
where an amount is shown. So splitting an interval anywhere never changes a sum, and a cost never decreases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

GRAINS = 3600 * 1_000_000  # in one micro-dollar: microseconds in an hour
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-dollars per hour."""

    compute: int = 0  # GPU, CPU and RAM
    storage: int = 0

    @property
    def total(self) -> int:
        return self.compute + self.storage


@dataclass(frozen=True, slots=True)
class Amount:
    """Grains, and for how long."""

    compute: int = 0
    storage: int = 0
    microseconds: int = 0

    @property
    def total(self) -> int:
        return self.compute + self.storage

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.compute + other.compute, self.storage + other.storage, self.microseconds + other.microseconds
        )


NOTHING = Amount()


def within(
    start: datetime, end: datetime, rates: Rates, since: datetime | None = None, until: datetime | None = None
) -> Amount:
    """The part of [start, end) that lies in [since, until); nothing if that is empty."""
    start = start if since is None else max(start, since)
    end = end if until is None else min(end, until)
    microseconds = max(0, (end - start) // _MICROSECOND)
    return Amount(rates.compute * microseconds, rates.storage * microseconds, microseconds)


def total(amounts: Iterable[Amount]) -> Amount:
    return sum(amounts, NOTHING)


def micros(grains: int) -> int:
    """Micro-dollars, rounded half-even."""
    whole, rest = divmod(grains, GRAINS)
    return whole + (2 * rest > GRAINS or (2 * rest == GRAINS and whole % 2))


def apportion(grains: Sequence[int], before: int = 0) -> list[int]:
    """Micro-dollars for each part, such that they add up to the rounded whole, to the last digit.

    Each part is what the rounded running sum grows by, so it is off by less than one micro-dollar. With the grains of
    all that came `before`, a day costs the same whether it is asked for alone or in its month, and the days of any
    month add up to it.
    """
    shares, so_far, shown = [], before, micros(before)
    for part in grains:
        so_far += part
        shares.append(micros(so_far) - shown)
        shown += shares[-1]
    return shares
