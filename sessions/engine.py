"""The two engines over the one table of due rows: Celery's ticks, and the guardian's plain loop.

Either alone keeps every promise. The tick sends a message for each due row; the guardian, which needs only
the database and the providers, itself takes the rows that nobody has taken for a minute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models import Q

from providers import clock, registry
from sessions import controller, lives, machines, outlets, reconcile, rows, trust, wake
from sessions.lifecycle import State
from sessions.models import Account, Heartbeat, Instance, Session
from sessions.rows import Row
from sessions.seats import Seats

log = logging.getLogger(__name__)

# A row that has been due for so long was missed by the other engine.
GUARDIAN_AFTER = timedelta(minutes=1)

# One provider that does not answer holds at most twice as many of a process's threads: machines that are to end
# do not stand in line behind those that boot.
PER_PROVIDER = 3
_seats = Seats(PER_PROVIDER)


def forget() -> None:
    """As a new process begins: it knows of nothing that the one before it was about to do."""
    _seats.clear()
    _sent.clear()
    trust.forget()


def step_instance(pk: str) -> None:
    row = Instance.objects.filter(pk=pk).only("provider", "state", "deadline").first()
    if row is not None:
        kind = "ending" if _is_ending(row, clock.now()) else "living"
        _seats.work(f"{kind} at {row.provider}", pk, machines.advance_instance)


def step_session(pk: str) -> None:
    lives.advance_session(pk)


def step_listing(provider: str) -> None:
    reconcile.reconcile(provider)


def beat(name: str, now: datetime, note: str = "") -> None:
    """Leave a sign of life."""
    if not Heartbeat.objects.filter(name=name).update(at=now, note=note):
        Heartbeat.objects.get_or_create(name=name, defaults={"at": now, "note": note})


def wake_due(name: str) -> int:
    """Send a message for each due row; returns how many."""
    now = clock.now()
    begin_round(name, now)
    accounts = rows.due(Account, now)
    instances = rows.due_instances(now)
    sessions = rows.due(Session, now)
    for row in _unsent(instances):
        wake.instance(row.pk, ending=_is_ending(row, now))
    for account in accounts:
        wake.listing(account.provider)
    for session in _unsent(sessions):
        wake.session(session.pk)
    return len(accounts) + len(sessions) + len(instances)


# A row that has been due since the same moment has its message in the queue. Hundreds at once would get one
# more with each tick, and the workers would be busy with those; a message that was lost costs so long.
RESEND_AFTER = 5.0  # seconds
_sent: dict[tuple[Any, datetime | None], float] = {}


def _unsent(due: Sequence[Row]) -> list[Row]:
    """Those rows for which this process has not just sent a message."""
    at = clock.monotonic()
    for known in [known for known, sent in _sent.items() if not 0 <= at - sent < RESEND_AFTER]:
        del _sent[known]
    return [row for row in due if _sent.setdefault((row.pk, row.due_at), at) == at]


# Work that is not about single rows (alarms, old keys) can wait this long.
PERIODIC = timedelta(seconds=15)


def begin_round(name: str, now: datetime) -> None:
    """Leave a sign of life; every now and then do the periodic work, whichever engine comes first."""
    beat(name, now)
    ensure_accounts(now)
    if _its_time(now):
        for work in (rows.recall, controller.forget_old_keys, *outlets.each_round):
            _tried(work, now)


def _its_time(now: datetime) -> bool:
    due = Q(at__lte=now - PERIODIC) | Q(at__gt=now + PERIODIC)  # the latter by a clock that was ahead
    if Heartbeat.objects.filter(due, name="periodic").update(at=now):
        return True
    return Heartbeat.objects.get_or_create(name="periodic", defaults={"at": now})[1]


def _tried(work: Callable[[datetime], None], now: datetime) -> None:
    try:
        work(now)
    except Exception:  # Whatever it is, machines are looked after all the same.
        log.exception("Periodic work failed (%s); it is tried again in %d s.", work, PERIODIC.total_seconds())


def _is_ending(row: Instance, now: datetime) -> bool:
    return row.state == State.DESTROYING or row.deadline <= now


def ensure_accounts(now: datetime) -> None:
    """Each enabled provider has an account row, so that it is listed."""
    known = set(Account.objects.values_list("provider", flat=True))
    for name in registry.all():
        if name not in known:
            Account.objects.get_or_create(provider=name, defaults={"due_at": now})


# --- The guardian ------------------------------------------------------------------------------------------


def guard(after: timedelta = GUARDIAN_AFTER, *, name: str = "guardian") -> int:
    """One round: do what has been due for `after`, one provider after the other. Returns the steps taken."""
    now = clock.now()
    begin_round(name, now)
    steps = sum(guard_provider(provider, now - after) for provider in providers_due(now - after))
    return steps + guard_sessions(now - after)


def providers_due(late: datetime) -> list[str]:
    """Providers with rows that were due at `late`, keys or not."""
    names = {account.provider for account in rows.due(Account, late)}
    names.update(Instance.objects.filter(due_at__lte=late).order_by().values_list("provider", flat=True).distinct())
    return sorted(names)


def guard_provider(provider: str, late: datetime) -> int:
    """The listing of one account and the steps of its machines, if they were due at `late`."""
    steps = 0
    if Account.objects.filter(provider=provider, due_at__lte=late).exists():
        steps += reconcile.reconcile(provider) is not None
    for row in rows.due_instances(late, provider):
        steps += machines.advance_instance(row.pk)
    return steps


def guard_sessions(late: datetime) -> int:
    return sum(lives.advance_session(session.pk) for session in rows.due(Session, late))


def work_once() -> int:
    """Everything that is due now, done here; for commands that work while the service is down."""
    return guard(timedelta(0), name="command")


class Guardian:
    """Round after round until `stop`; with `alone`, rows are taken as soon as they are due.

    A thread for each provider, since one that does not answer must not hold up the others' deadlines.
    """

    def __init__(self, stop: threading.Event, *, alone: bool = False) -> None:
        self.stop = stop
        self.after = timedelta(0) if alone else GUARDIAN_AFTER
        interval = settings.TICK if alone else settings.LIFECYCLE_CHECK_INTERVAL
        self.pause = interval.total_seconds()
        self._busy: dict[str, threading.Thread] = {}

    def run(self) -> None:
        while not self.stop.wait(self.pause):
            self._tried(self._round)
        for thread in self._busy.values():
            thread.join(self.pause)

    def _round(self) -> None:
        now = clock.now()
        begin_round("guardian", now)
        late = now - self._patience(now)
        for provider in providers_due(late):
            self._send_for(provider)
        guard_sessions(late)

    def _patience(self, now: datetime) -> timedelta:
        """None at all once the other engine has been silent for as long as its rows would be waited for."""
        alive = Heartbeat.objects.filter(name="beat", at__gt=now - self.after).exists()
        return self.after if alive else timedelta(0)

    def _send_for(self, provider: str) -> None:
        if provider in self._busy and self._busy[provider].is_alive():
            return
        thread = threading.Thread(target=self._look_after, args=(provider,), name=f"guardian-{provider}", daemon=True)
        self._busy[provider] = thread
        thread.start()

    def _look_after(self, provider: str) -> None:
        now = clock.now()
        self._tried(lambda: guard_provider(provider, now - self._patience(now)))
        connection.close()

    def _tried(self, work: Callable[[], object]) -> None:
        close_old_connections()
        try:
            work()
        except Exception:  # Whatever it is (a database that restarts): the next round tries again.
            log.exception("The guardian's round failed; the next one follows in %d s.", self.pause)


def guardian_loop(stop: threading.Event, *, alone: bool = False) -> None:
    Guardian(stop, alone=alone).run()
