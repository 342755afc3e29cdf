"""The two engines over the one table of due rows: Celery's ticks, and the guardian's plain loop.

Either alone keeps every promise. The tick sends a message for each due row; the guardian, which needs only
the database and the providers, itself takes the rows that nobody has taken for a minute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db import close_old_connections

from providers import clock, registry
from sessions import controller, reconcile, wake
from sessions.lifecycle import State
from sessions.models import Account, Heartbeat, Instance, Session

log = logging.getLogger(__name__)

# A row that has been due for so long was missed by the other engine.
GUARDIAN_AFTER = timedelta(minutes=1)

# One provider that does not answer holds at most this many of a process's threads; what finds none free
# stays due and comes again with the next tick.
PER_PROVIDER = 4
_seats: dict[str, threading.BoundedSemaphore] = {}
_seats_lock = threading.Lock()


@contextmanager
def _seat(provider: str) -> Iterator[bool]:
    with _seats_lock:
        seats = _seats.setdefault(provider, threading.BoundedSemaphore(PER_PROVIDER))
    taken = seats.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            seats.release()


def step_instance(pk: str) -> None:
    provider = Instance.objects.filter(pk=pk).values_list("provider", flat=True).first()
    if provider is None:
        return
    with _seat(provider) as taken:
        if taken:
            controller.advance_instance(pk)


def step_session(pk: str) -> None:
    controller.advance_session(pk)


def step_listing(provider: str) -> None:
    reconcile.reconcile(provider)


def beat(name: str, now: datetime, note: str = "") -> None:
    """Leave a sign of life."""
    Heartbeat.objects.update_or_create(name=name, defaults={"at": now, "note": note})


def wake_due(name: str) -> int:
    """Send a message for each due row; returns how many."""
    now = clock.now()
    beat(name, now)
    ensure_accounts(now)
    accounts = controller.due(Account, now)
    sessions = controller.due(Session, now)
    instances = controller.due(Instance, now)
    for row in sorted(instances, key=lambda row: row.state != State.DESTROYING):
        wake.instance(row.pk, ending=_is_ending(row, now))
    for account in accounts:
        wake.listing(account.provider)
    for session in sessions:
        wake.session(session.pk)
    return len(accounts) + len(sessions) + len(instances)


def _is_ending(row: Instance, now: datetime) -> bool:
    return row.state == State.DESTROYING or row.deadline <= now


def ensure_accounts(now: datetime) -> None:
    """Each enabled provider has an account row, so that it is listed."""
    known = set(Account.objects.values_list("provider", flat=True))
    for name in registry.all():
        if name not in known:
            Account.objects.get_or_create(provider=name, defaults={"due_at": now})


def guard(after: timedelta = GUARDIAN_AFTER, *, name: str = "guardian") -> int:
    """One round of the guardian: do what has been due for `after`. Returns how many steps it took."""
    now = clock.now()
    beat(name, now)
    ensure_accounts(now)
    late = now - after
    steps = 0
    for account in controller.due(Account, late):
        reconcile.reconcile(account.provider)
        steps += 1
    instances = controller.due(Instance, late)
    for row in sorted(instances, key=lambda row: row.state != State.DESTROYING):
        steps += controller.advance_instance(row.pk)
    for session in controller.due(Session, late):
        steps += controller.advance_session(session.pk)
    return steps


def work_once() -> int:
    """Everything that is due now, done here; for commands that work while the service is down."""
    return guard(timedelta(0), name="command")


def guardian_loop(stop: threading.Event, *, alone: bool = False) -> None:
    """Round after round until `stop`; with `alone`, rows are taken as soon as they are due."""
    after = timedelta(0) if alone else GUARDIAN_AFTER
    pause = settings.TICK.total_seconds() if alone else settings.LIFECYCLE_CHECK_INTERVAL.total_seconds()
    while not stop.wait(pause):
        close_old_connections()
        try:
            guard(after)
        except Exception:  # Whatever it is (a database that restarts): the next round tries again.
            log.exception("The guardian's round failed; the next one follows in %d s.", pause)
