"""For commands that end machines: do the work here, until the end is proven or time is up.

The service may be down, or it may be up: claims keep the two apart. Only the rows in question are worked on;
a command that ends one session must not launch another one's machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandError
from django.db.models import Q

from providers import clock, registry
from rest.admin import counted
from sessions import lives, machines, reconcile
from sessions.lifecycle import OVER, State
from sessions.models import Account, Instance, Session
from sessions.next_step import distance

# Exit codes: 0 all is well, 1 refused or used wrongly (nothing was done), and:
STILL_THERE = 3
NOT_SEEN = 4

PAUSE = 1.0  # seconds between two rounds
TELL_EVERY = 30.0  # seconds


def until_gone(
    sessions: Sequence[UUID], instances: Sequence[UUID], seconds: float, say: Callable[[str], object]
) -> list[str]:
    """Work until everything is proven gone, at most for `seconds`; returns a sentence for each that is not."""
    end, next_word = clock.monotonic() + seconds, clock.monotonic() + TELL_EVERY
    while left := _left(sessions, instances):
        if clock.monotonic() >= end:
            return left
        if clock.monotonic() >= next_word:
            next_word += TELL_EVERY
            for sentence in left:
                say(sentence)
        _round(sessions, instances)
        clock.sleep(PAUSE)
    return []


def _rows(sessions: Sequence[UUID], instances: Sequence[UUID]) -> list[Instance]:
    rows = Instance.objects.filter(Q(session__in=sessions) | Q(pk__in=instances))
    return list(rows.exclude(state=State.DESTROYED))


def _round(sessions: Sequence[UUID], instances: Sequence[UUID]) -> None:
    # What this process has no key for it leaves to the service, and claims nothing of it.
    rows = [row for row in _rows(sessions, instances) if registry.get(row.provider)]
    for provider in sorted({row.provider for row in rows}):
        reconcile.reconcile(provider)
    for row in rows:
        machines.advance_instance(row.pk)
    for pk in sessions:
        lives.advance_session(pk)


def _left(sessions: Sequence[UUID], instances: Sequence[UUID]) -> list[str]:
    now = clock.now()
    rows = _rows(sessions, instances)
    with_machine = {row.session_id for row in rows if row.session_id}
    waiting = Session.objects.filter(pk__in=sessions).exclude(status__in=OVER).exclude(pk__in=with_machine)
    return [
        *_machines(rows, now),
        *(f"session {pk}: about to be closed" for pk in waiting.values_list("pk", flat=True)),
    ]


def _machines(rows: Iterable[Instance], now: datetime) -> Iterable[str]:
    accounts = {account.provider: account for account in Account.objects.all()}
    for row in rows:
        account = accounts.get(row.provider)
        if registry.get(row.provider) is None:
            sight = "this process has no key for it, and waits for the service to do it"
        elif account and account.failures:
            sight = f"its account can't be seen: {account.error}"
        else:
            sight = f"last listed {distance(row.seen_at, now)}" if row.seen_at else "not seen in a listing"
        name = row.machine_id or "(id not known yet)"
        yield f"machine {name} at {row.provider}: asked {counted(row.asks, 'time')}, {sight}"


def answer(question: str) -> str:
    """What the person types; "" where nobody is there to type."""
    try:
        return input(question).strip()
    except EOFError:
        return ""


def no_provider() -> CommandError:
    """No account can be seen from here, which is not the same as an empty one."""
    if settings.SANDBOX:
        why = (
            "No provider key is set, and the built-in sandbox is there only while the service runs: start it "
            f"(`make run`) on this data folder, {settings.DATA_DIR}, or set DATA_DIR to the one it runs on."
        )
    else:
        why = "No provider is configured, so no account can be seen. Set VASTAI_API_KEY or TENSORDOCK_API_TOKEN."
    return CommandError(why, returncode=NOT_SEEN)
