"""One pace for all processes that share a provider key: a row for each method and route.

Both providers count calls by key, so two workers that each keep the pace break it together. The booking is
one conditional UPDATE, which holds on SQLite and PostgreSQL alike; a wait is never spent in a transaction.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import DatabaseError, IntegrityError, InterfaceError

from gpushopper.models import Pace
from providers import clock
from providers.http import LONGEST_WAIT, LocalPacer

log = logging.getLogger(__name__)

# Each loser of a booking has a winner in front of it, and a wait of more than LONGEST_WAIT is not booked.
TRIES = 20
# A row further ahead than any limiter's penalty was written by a clock that was wrong.
NONSENSE = timedelta(hours=2)
# While the database is away, the first call finds out; the others do not each wait for it again.
ALONE_FOR = 10.0  # seconds


class SharedPacer:
    """Paces every process on the same database. Without the database, the threads of this one only.

    A destroy is worth more than a perfect pace: a database that does not answer holds no call up.
    """

    def __init__(self) -> None:
        self._local = LocalPacer()
        self._alone_until = 0.0  # on the monotonic clock

    def reserve(self, key: str, interval: float) -> float:
        # Booked here as well, so that this process keeps its own pace when the database goes away.
        here = self._local.reserve(key, interval)
        if clock.monotonic() < self._alone_until:
            return here
        try:
            return max(here, _book(key, interval))
        except (DatabaseError, InterfaceError) as error:
            self._alone_until = clock.monotonic() + ALONE_FOR
            log.warning("The shared pace can't be kept (%s): this process paces its own calls only for %d s.",
                        type(error).__name__, ALONE_FOR)  # fmt: skip
            return here


def _book(key: str, interval: float) -> float:
    for _ in range(TRIES):
        now = clock.now()
        free_at = Pace.objects.filter(key=key).values_list("free_at", flat=True).first()
        slot = _slot(free_at, now)
        wait = (slot - now).total_seconds()
        if wait > LONGEST_WAIT or (interval == 0 and wait == 0):
            return wait
        if _take(key, free_at, slot + timedelta(seconds=interval)):
            return wait
    return wait


def _slot(free_at: datetime | None, now: datetime) -> datetime:
    if free_at is None or free_at - now > NONSENSE:
        return now
    return max(now, free_at)


def _take(key: str, known: datetime | None, until: datetime) -> bool:
    """False: somebody else was quicker."""
    if known is not None:
        return bool(Pace.objects.filter(key=key, free_at=known).update(free_at=until))
    try:
        Pace.objects.create(key=key, free_at=until)
    except IntegrityError:
        return False
    return True
