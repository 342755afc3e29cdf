"""What a budget allows: its periods, the worst case of a wish, thresholds.

Pure. Amounts are integer micro-dollars, rates micro-dollars per hour, thresholds ten-thousandths of the
limit. No clock, no database, no settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Period(StrEnum):
    DAILY = "daily"
    MONTHLY = "monthly"
    TOTAL = "total"


class OnLimit(StrEnum):
    ALERT = "alert"  # tells, and refuses nothing
    BLOCK = "block"  # refuses what would not fit
    STOP = "stop"  # refuses, and ends what runs when the limit is reached


HARD = (OnLimit.BLOCK, OnLimit.STOP)

WHOLE = 10_000  # the threshold that is the limit itself

# On top of what a session would cost by its deadline: a destruction takes its time, and is billed. A tenth of a
# short one would be too little for it: a tick, the call, and a minute or two until it takes effect.
MARGIN_PERCENT = 10
END_TAKES = timedelta(minutes=3)

# Without an upper price of its own, a wish under a hard budget may become dearer by so much: by another offer, if
# it may go on to one; else by the price that drifts between the menu and the machine, for which half of the margin
# is there. The other half is for the end.
DEARER_PERCENT = 25
DRIFT_PERCENT = 5

_HOUR = timedelta(hours=1)
_EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


# --- Periods -------------------------------------------------------------------------------------------------


def window(period: Period, now: datetime) -> tuple[datetime, datetime]:
    """The period [start, end) in which `now` lies, by UTC."""
    if period is Period.TOTAL:
        return _EVER
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.DAILY:
        return day, day + timedelta(days=1)
    start = day.replace(day=1)
    return start, (start + timedelta(days=32)).replace(day=1)


def windows(period: Period, since: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Every period from that of `since` to that of `now`: what a look must compare after a pause."""
    start, end = window(period, min(since, now))
    while start <= now:
        yield start, end
        if end > now:
            return
        start, end = window(period, end)


# --- Reservations ---------------------------------------------------------------------------------------------


def worst_case(rate: int, reservation: timedelta) -> int:
    """What a session may have cost when it is gone, rounded up."""
    span = reservation + margin(reservation)
    return -(-rate * _microseconds(span) // _microseconds(_HOUR))


def worst_now(rate: int, burns: int, spent: int, began: datetime, reservation: timedelta, now: datetime) -> int:
    """The worst case as it was wished; or what is spent and what it still burns, if that has become more."""
    wished = worst_case(rate, reservation)
    if not burns:
        return wished
    end = began + reservation + margin(reservation)
    return max(wished, spent + ahead(max(rate, burns), end, end, now))


def margin(reservation: timedelta) -> timedelta:
    """What its end may take beyond its deadline."""
    return max(timedelta(microseconds=-(-_microseconds(reservation) * MARGIN_PERCENT // 100)), END_TAKES)


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def dearest(price: int, upper: int | None, *, may_retry: bool) -> int:
    """The highest rate that a session can come to have."""
    return max(price, upper or 0) if may_retry else price


def upper_price(price: int, named: int | None, *, may_retry: bool) -> int:
    """Above it nothing is taken under a hard budget. A wish that may go on is reserved for at the price it names."""
    if may_retry and named is not None:
        return named
    upper = price * (100 + (DEARER_PERCENT if may_retry else DRIFT_PERCENT)) // 100
    return upper if named is None else min(upper, named)


@dataclass(frozen=True, slots=True)
class Commitment:
    """One session that is not over: what it may cost in all, and what of that is spent."""

    worst: int
    spent: int

    @property
    def reserved(self) -> int:
        return max(0, self.worst - self.spent)


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget at one instant."""

    limit: int
    spent: int
    reserved: int

    @property
    def remaining(self) -> int:
        """Below zero if more is spent or reserved than the limit, which may have been lowered since."""
        return self.limit - self.spent - self.reserved

    def fits(self, asked: int) -> bool:
        return asked <= self.remaining

    @property
    def is_used_up(self) -> bool:
        return self.spent >= self.limit


def standing(limit: int, spent: int, commitments: Iterable[Commitment]) -> Standing:
    """Of a budget, with the commitments of all its consumer's sessions that are not over."""
    return Standing(limit, spent, sum(each.reserved for each in commitments))


# --- Thresholds -------------------------------------------------------------------------------------------------


def crossed(thresholds: Sequence[int], limit: int, spent: int) -> list[int]:
    """Those that are reached, ascending; the limit itself always counts as one. Nothing spent crosses nothing."""
    return [each for each in sorted({*thresholds, WHOLE}) if spent and spent * WHOLE >= each * limit]


# --- What is to come ---------------------------------------------------------------------------------------------


def ahead(rate: int, until: datetime, end: datetime, now: datetime) -> int:
    """What a rate will have cost from now until a deadline, or the period's end, whichever is first."""
    span = max(timedelta(0), min(until, end) - now)
    return rate * _microseconds(span) // _microseconds(_HOUR)
