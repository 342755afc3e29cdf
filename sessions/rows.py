"""How rows are claimed, written, told of and found: the mechanics under every step.

A claim is one conditional UPDATE; a write names the revision that was claimed, so a worker that wakes up too
late writes nothing. What may be written is the business of `sessions.controller`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Case, F, Q, QuerySet, Value, When

from providers import clock
from sessions import outlets
from sessions.lifecycle import State
from sessions.models import Account, Counter, Due, Event, Instance, Session

Row = TypeVar("Row", bound=Due)

# Longer than any step but a create takes (a visit over SSH: 5 + 5 + 5 + 4 × 10 s at the very worst is cut
# by the server's own silence long before), short enough that after a crash of everything each row is under
# a decision again within half a minute. A create may outlive it: whoever comes second finds `launched_at`
# set and only waits.
LEASE = timedelta(seconds=30)


# Nothing waits for longer without a look, whatever it waits for: what wants to, was written by a wrong clock.
LONGEST_WAIT = timedelta(minutes=5)


def at_latest(until: datetime, now: datetime) -> datetime:
    """When a row that waits until then is looked at."""
    return min(until, now + LONGEST_WAIT)


# --- Claims and guarded writes ----------------------------------------------------------------------------


def claim(model: type[Row], pk: Any, now: datetime) -> Row | None:
    """Take the row for one step, if it is due and nobody else has it."""
    row = model._default_manager.filter(pk=pk, due_at__lte=now).first()
    if row is None:
        return None
    taken = model._default_manager.filter(pk=pk, revision=row.revision, due_at__lte=now).update(
        due_at=now + LEASE, revision=F("revision") + 1
    )
    row.revision += 1
    return row if taken else None


def write(row: Due, **fields: Any) -> bool:
    """A decision: lands only if nobody has claimed or changed the row since this step's claim."""
    landed = type(row)._default_manager.filter(pk=row.pk, revision=row.revision).update(**fields)
    if landed:
        for name, value in fields.items():
            setattr(row, name, value)
    return bool(landed)


def look_again(row: Due, at: datetime | None) -> None:
    """When this row wants its next step; None: when a fact or a wish arrives."""
    write(row, due_at=at)


def was_set_back(row: Due, now: datetime) -> bool:
    """The clock was set back since this step read it: its "now" has not come, and nothing may be decided by it."""
    told = clock.now()
    if told < now:
        look_again(row, told)
    return told < now


# --- Events and figures -------------------------------------------------------------------------------------


def tell(
    kind: str,
    message: str,
    now: datetime,
    *,
    session: Session | None = None,
    instance: Instance | None = None,
    actor: str = "",
    said: str = "",
    **data: Any,
) -> Event:
    """Add a line to the timeline, and let everybody hear of it in the same transaction.

    `message` is ours, and for everybody; `said` is what the provider said of it, and for operators.
    """
    of_session = session.pk if session else instance.session_id if instance else None
    with transaction.atomic(savepoint=False):
        event = Event.objects.create(
            at=now,
            kind=kind,
            message=message[:500],
            said=said[:500],
            actor=actor,
            data=data,
            session_id=of_session,
            instance=instance,
        )
        for hear in outlets.told:
            hear(event)
    return event


def with_said(text: str, said: str) -> str:
    """For operators: our sentence, and the provider's own words after it."""
    return f"{text} ({said})" if text and said else text or said


def count(name: str, label: str = "", by: int = 1) -> None:
    """Add to a figure that has to be right across processes and restarts."""
    Counter.objects.get_or_create(name=name, label=label)
    Counter.objects.filter(name=name, label=label).update(value=F("value") + by)


# --- What is due ----------------------------------------------------------------------------------------------


def recall(now: datetime) -> None:
    """Wake what waits for longer than anything does: it was put to sleep by a clock that was ahead."""
    late = now + max(LONGEST_WAIT, settings.RECONCILIATION_INTERVAL) + timedelta(minutes=1)
    for model in (Account, Session, Instance):
        if is_any_due_after(model, late):
            model._default_manager.filter(due_at__gt=late).update(due_at=now)


AT_ONCE = 500
AT_ONCE_EACH = 200


def due(model: type[Row], now: datetime) -> list[Row]:
    """Rows that want to be looked at, the longest overdue first."""
    if not is_any_due(model, now):
        return []
    return _scan(model._default_manager.filter(due_at__lte=now).order_by("due_at")[:AT_ONCE])


def is_any_due(model: type[Due], now: datetime) -> bool:
    return _is_any(model, "due_at <= %s", now)


def is_any_due_after(model: type[Due], moment: datetime) -> bool:
    return _is_any(model, "due_at > %s", moment)


def _is_any(model: type[Due], condition: str, moment: datetime) -> bool:
    """Nearly every look finds nothing, and building its query takes ten times as long as answering this one."""
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1",  # noqa: S608 - the model's own name
            [connection.ops.adapt_datetimefield_value(moment)],
        )
        return cursor.fetchone() is not None


def due_instances(now: datetime, provider: str | None = None) -> list[Instance]:
    """Of each provider: ends first, then the longest overdue.

    Counted for each provider, so that what one that does not answer leaves undone hides nobody else's.
    """
    if not is_any_due(Instance, now):
        return []
    rows = Instance.objects.filter(due_at__lte=now)
    names = [provider] if provider else rows.order_by().values_list("provider", flat=True).distinct()
    ending = Q(state=State.DESTROYING) | Q(deadline__lte=now)
    order = (Case(When(ending, then=Value(0)), default=Value(1)), "due_at")
    found: list[Instance] = []
    for name in names:
        found += _scan(rows.filter(provider=name).order_by(*order)[:AT_ONCE_EACH])
    return found


def _scan(rows: QuerySet[Row, Row]) -> list[Row]:
    """What somebody writes this very moment is not looked at (PostgreSQL; SQLite has one writer anyway)."""
    if not connection.features.has_select_for_update_skip_locked:
        return list(rows)
    with transaction.atomic():
        return list(rows.select_for_update(skip_locked=True, of=("self",)))
