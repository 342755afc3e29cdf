"""What lives will still cost, if each session and each kept machine runs until its deadline at what it costs now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import F, Sum

from costs import budgeting
from costs.models import UsageInterval
from sessions.lifecycle import LIVE, State
from sessions.models import Session

# After the deadline of any session.
EVER_AFTER = datetime(9999, 1, 1, tzinfo=UTC)


def live(consumer: str | None = None, provider: str | None = None) -> list[Session]:
    """What runs, or is on its way there. What is ending costs seconds, which are not foretold."""
    named = {"consumer": consumer, "provider": provider}
    found = Session.objects.filter(status__in=LIVE, **{name: value for name, value in named.items() if value})
    return list(found.defer("onstart", "env", "ssh_private_key"))


def ahead(sessions: Sequence[Session], until: datetime, now: datetime) -> dict[UUID, int]:
    """Micro-dollars that each of these live sessions will cost from now to its deadline, or to `until`."""
    burns = rates(session.pk for session in sessions)
    return {
        session.pk: budgeting.ahead(
            burns.get(session.pk, session.price), session.expires_at or now + session.reservation, until, now
        )
        for session in sessions
    }


def rates(sessions: Iterable[UUID]) -> Mapping[UUID, int]:
    """Micro-dollars per hour that the machines of these sessions cost now; one without a machine yet is missing."""
    rows = UsageInterval.objects.filter(session__in=list(sessions), ended_at=None).order_by()
    return dict(rows.values_list("session").annotate(rate=Sum(F("compute") + F("storage"))))


def kept(until: datetime, now: datetime, provider: str | None = None) -> dict[str, int]:
    """Micro-dollars, by provider, that adopted machines which nobody ends will cost: each until its label's deadline.

    No consumer stands for them: the brake keeps them, or ORPHAN_AUTO_DESTROY is off.
    """
    rows = UsageInterval.objects.filter(session=None, ended_at=None, instance__state=State.RUNNING).order_by()
    if provider:
        rows = rows.filter(provider=provider)
    found: defaultdict[str, int] = defaultdict(int)
    for name, compute, storage, deadline in rows.values_list("provider", "compute", "storage", "instance__deadline"):
        found[name] += budgeting.ahead(compute + storage, deadline, until, now)
    return dict(found)


def ahead_by(column: str, until: datetime, now: datetime) -> dict[str, int]:
    """Micro-dollars that all that lives will cost from now on, for each `consumer` or `provider`."""
    sessions = live()
    costs = ahead(sessions, until, now)
    found: defaultdict[str, int] = defaultdict(int)
    for session in sessions:
        found[getattr(session, column)] += costs[session.pk]
    for provider, amount in kept(until, now).items():
        found["" if column == "consumer" else provider] += amount
    return dict(found)
