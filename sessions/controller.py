"""The only writer of states: moves, wishes, and the facts that anybody may learn.

Three kinds of writes, and each keeps to its kind:

*   decisions (states, deadlines of the next look) name the revision that the step claimed; a worker that
    wakes up too late writes nothing;
*   facts (an id, a sighting, a refusal) are written by whoever learns them, however late;
*   wishes to end are monotone: the first reason wins, and nothing takes one back.

What a machine's next step is, and its doing, is in `sessions.machines`; a session's in `sessions.lives`.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from inventory import menu
from providers.base import PriceParts
from sessions import lifecycle, outlets, wake
from sessions.lifecycle import LIVE, Reason, State, Status
from sessions.models import Account, Instance, Session
from sessions.rows import LEASE, count, tell, with_said, write

log = logging.getLogger(__name__)

# Rows in flight are looked at this often; what they wait for comes by listings, probes and answers.
IN_FLIGHT_LOOK = timedelta(seconds=2)


# --- Moves --------------------------------------------------------------------------------------------------


def move(
    row: Instance, to: State, now: datetime, message: str, *, said: str = "", held: bool = False, **fields: Any
) -> bool:
    """Move an instance along the table, with its event, and wake whoever goes on.

    `held`: the step that moves it goes on itself, under a claim that lasts as long as any.
    """
    if (row.state, to) not in lifecycle.MOVES:
        raise ValueError(f"an instance does not go from {row.state} to {to}")
    before, data = row.state, {}
    if reason := fields.get("end_reason"):
        data["reason"] = reason
    with transaction.atomic(savepoint=False):
        _lock_session(row)
        moved = write(
            row, state=to, state_since=now, due_at=_next_look(to, now, held), revision=row.revision + 1, **fields,
        )  # fmt: skip
        if not moved:
            return False
        tell(f"instance_{to}", message, now, instance=row, said=said, before=str(before), **data)
        if not held:
            wake.instance(row.pk, ending=row.state in (State.DESTROYING, State.DESTROYED))
        _nudge(row, now)
    log.info("instance %s: %s -> %s: %s", row.pk, before, to, with_said(message, said),
             extra={"session_id": str(row.session_id or ""), "instance_id": str(row.pk)})  # fmt: skip
    return True


def _lock_session(row: Instance) -> None:
    """Before its instance, as each wish does: of two that lock in another order each would wait for the other."""
    if row.session_id and connection.features.has_select_for_update:  # SQLite has one writer anyway.
        list(Session.objects.select_for_update(no_key=True).filter(pk=row.session_id).values_list("pk"))


def _next_look(state: State, now: datetime, held: bool) -> datetime | None:
    if state is State.DESTROYED:
        return None
    return now + LEASE if held else now


def _nudge(row: Instance, now: datetime) -> None:
    """Wake its session, and the eyes on its account."""
    # A surplus machine is no session's; whose label it bears waits for its end.
    whose = (
        [row.session_id] if row.session_id else Instance.objects.filter(tag=row.tag).values_list("session", flat=True)
    )
    for pk in filter(None, whose):
        # The revision too: a step of the session under way, which has not seen this move, must not put it to sleep.
        Session.objects.filter(pk=pk).exclude(status__in=lifecycle.OVER).update(due_at=now, revision=F("revision") + 1)
        wake.session(pk)
    look_soon(row.provider, now)


def look_soon(provider: str, now: datetime) -> None:
    """Have the account listed soon, unless it is being listed now."""
    Account.objects.filter(provider=provider, due_at__gt=now + IN_FLIGHT_LOOK, failures=0).update(
        due_at=now + IN_FLIGHT_LOOK
    )


def end(row: Instance, reason: Reason, now: datetime, note: str = "", *, said: str = "", held: bool = False) -> bool:
    """`note` is ours, `said` the provider's. What is known of the first reason stays."""
    message = f"Its end is wished: {reason.replace('_', ' ')}{': ' + note if note else ''}."
    return move(
        row, State.DESTROYING, now, message, said=said, held=held, end_reason=row.end_reason or reason,
        end_note=(row.end_note or note)[:500], end_said=(row.end_said or said)[:500],
    )  # fmt: skip


def restatus(session: Session, to: Status, now: datetime, kind: str, message: str, **fields: Any) -> bool:
    if to not in lifecycle.STATUS_MOVES[Status(session.status)]:
        raise ValueError(f"a session does not go from {session.status} to {to}")
    with transaction.atomic():
        if not write(session, status=to, revision=session.revision + 1, **fields):
            return False
        tell(kind, message, now, session=session)
    log.info("session %s: %s: %s", session.pk, to, message, extra={"session_id": str(session.pk)})
    return True


# --- Wishes ---------------------------------------------------------------------------------------------------


def begin(session: Session, now: datetime, *, actor: str = "") -> None:
    """Record the wish. Raises what `outlets.before_commitment` raises; then nothing is recorded."""
    with transaction.atomic():
        session.created_at, session.due_at = now, now
        for may in outlets.before_commitment:
            may(session, now)
        session.save(force_insert=True)
        tell("session_requested", f"{session.gpu_type} at {session.provider} wished for "
             f"{session.reservation.total_seconds() / 3600:g} h.", now, session=session, actor=actor,
             offer_id=session.offer_id)  # fmt: skip
        wake.session(session.pk)
        look_soon(session.provider, now)


def wish_end(pk: UUID, reason: Reason, now: datetime, *, actor: str = "", note: str = "", said: str = "") -> bool:
    """Wish the end of a session and of every machine of it. False if that was wished before."""
    with transaction.atomic(savepoint=False):
        wished = Session.objects.filter(pk=pk, status__in=LIVE).update(
            status=Status.STOPPING, end_reason=reason, end_note=note[:500], end_said=said[:500],
            wished_at=now, due_at=now, waiting_for="", revision=F("revision") + 1,
        )  # fmt: skip
        if not wished:
            return False
        session = Session.objects.get(pk=pk)
        message = f"The end is wished: {reason.replace('_', ' ')}{': ' + note if note else ''}."
        tell("session_stopping", message, now, session=session, actor=actor, said=said, reason=str(reason))
        end_instances(session, reason, now)
        wake.session(pk)
    log.info("session %s: %s", pk, message, extra={"session_id": str(pk)})
    return True


def end_instances(session: Session, reason: Reason, now: datetime) -> None:
    for row in session.instances.filter(state__in=lifecycle.ALIVE).order_by("created_at"):
        end(row, reason, now)


def wish_end_of_instance(row: Instance, reason: Reason, now: datetime, *, actor: str, note: str = "") -> bool:
    """An operator ends a machine that no session stands for."""
    with transaction.atomic():
        tell("instance_end_wished", "An operator wished its end.", now, instance=row, actor=actor)
        # Minutes may have gone by while the operator was asked.
        fresh = Instance.objects.select_for_update().get(pk=row.pk)
        return fresh.state in lifecycle.ALIVE and end(fresh, reason, now, note)


def extend(
    pk: UUID, additional: timedelta, now: datetime, *, actor: str = "", override_reason: str = ""
) -> Session | None:
    """Move the deadline of a live session, and of its machines. None if it is not live any more.

    The hard maximum moves only with `override_reason`, which is an operator's.

    Raises:
        OverHardMaximum: it would pass the hard maximum.
    """
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).filter(pk=pk, status__in=LIVE).first()
        if session is None or (session.expires_at is not None and session.expires_at <= now):
            return None
        reservation = session.reservation + additional
        if reservation > settings.HARD_MAX and not override_reason:
            raise OverHardMaximum
        session.reservation = reservation
        for may in outlets.before_commitment:
            may(session, now)
        _extend_rows(session, reservation, additional, now)
        text = f"Extended by {additional.total_seconds() / 3600:g} h"
        text += f", beyond the hard maximum: {override_reason}." if override_reason else "."
        tell("session_extended", text, now, session=session, actor=actor, override=bool(override_reason))
    return session


class OverHardMaximum(ValueError):
    """The session would last longer than the hard maximum."""


def _extend_rows(session: Session, reservation: timedelta, additional: timedelta, now: datetime) -> None:
    if session.started_at is not None:
        session.expires_at = session.started_at + reservation
        session.hard_deadline = max(session.hard_deadline or session.expires_at, session.expires_at)
    Session.objects.filter(pk=session.pk).update(
        reservation=reservation, expires_at=session.expires_at, hard_deadline=session.hard_deadline,
        due_at=now, revision=F("revision") + 1,
    )  # fmt: skip
    if session.expires_at is not None:
        session.instances.filter(state__in=lifecycle.ALIVE).update(
            deadline=session.expires_at, hard_deadline=session.hard_deadline, due_at=now,
            revision=F("revision") + 1,
        )  # fmt: skip


def forget_key(session: Session, now: datetime, *, actor: str = "") -> None:
    """Erase the consumer's private key: it is acknowledged. Done twice it is no error."""
    with transaction.atomic():
        if (
            Session.objects.filter(pk=session.pk)
            .exclude(ssh_private_key="")
            .update(ssh_private_key="", ssh_key_until=None)
        ):
            tell("ssh_key_erased", "The private key is erased here.", now, session=session, actor=actor)


def forget_old_keys(now: datetime) -> None:
    """Keys that nobody acknowledged in time."""
    for session in Session.objects.filter(ssh_key_until__lte=now)[:100]:
        forget_key(session, now)
        Session.objects.filter(pk=session.pk).update(ssh_key_until=None)


# --- Facts ------------------------------------------------------------------------------------------------------


def learn_machine_id(
    row: Instance, machine_id: str, account: str, now: datetime, *, began_at: datetime | None = None
) -> bool:
    """The id of the machine that this row's create made. Written once.

    The bill counts from the create, or from where the provider says that a machine which came late began.
    """
    with transaction.atomic():
        landed = Instance.objects.filter(pk=row.pk, machine_id="").update(
            machine_id=machine_id, account=account, due_at=now
        )
        if not landed:
            return Instance.objects.filter(pk=row.pk, machine_id=machine_id).exists()
        row.machine_id, row.account = machine_id, account
        tell("machine_known", f"The machine is {machine_id}.", now, instance=row, machine_id=machine_id)
        since = row.launched_at or now
        meter(row, max(since, min(began_at or since, now)), parts_of(row))  # Its clock may be ahead of ours.
        wake.instance(row.pk, ending=row.state == State.DESTROYING)
    return True


def account_id(provider: str) -> str:
    """The provider's id of the account that our key belongs to; "" while it is not known."""
    return Account.objects.filter(provider=provider).values_list("account", flat=True).first() or ""


def meter(row: Instance, at: datetime, parts: PriceParts | None) -> None:
    for hear in outlets.metered:
        hear(row, at, parts)


def parts_of(row: Instance) -> PriceParts:
    return PriceParts(**row.price_parts) if row.price_parts else PriceParts(gpu=row.price)


def learn_refusal(row: Instance, reason: Reason, said: str, now: datetime) -> None:
    Instance.objects.filter(pk=row.pk, refused_at=None).update(refused_at=now)
    Instance.objects.filter(pk=row.pk, end_reason="").update(end_reason=reason, end_said=said[:500])
    row.refused_at = now


def learn_from(row: Instance, reason: Reason, now: datetime) -> None:
    """A launch that came to nothing lowers the confidence in its offer and its host."""
    if reason in lifecycle.RETRYABLE and row.verified_at is None and row.quote_id:
        menu.record_attempt(provider=row.provider, provider_id=row.quote_id, host=row.host, success=False, now=now)


def release_brake(provider: str, now: datetime, *, actor: str) -> None:
    """An operator has looked: creates at this account may go on."""
    with transaction.atomic():
        if Account.objects.filter(provider=provider).exclude(brake="").update(brake="", due_at=now):
            tell("brake_released", f"Creates at {provider} may go on.", now, actor=actor, provider=provider)


# --- What listings bring to light ------------------------------------------------------------------------------


def adopt(
    provider: str, account: str, machine_id: str, label: str, deadline: datetime, parts: PriceParts | None,
    now: datetime, *, reason: Reason | None, started_at: datetime | None,
) -> Instance:  # fmt: skip
    """A machine of ours without a row becomes a row: on its way out, or (amnesia) until its deadline."""
    state = State.DESTROYING if reason else State.RUNNING
    price = parts or PriceParts(gpu=0)
    with transaction.atomic():
        row = Instance.objects.create(
            provider=provider, account=account, tag=label, adopted_at=now, machine_id=machine_id,
            state=state, state_since=now, end_reason=reason or "", created_at=now, deadline=deadline,
            hard_deadline=deadline, launched_at=min(started_at or now, now), seen_at=now, looked_at=now, due_at=now,
            label_seen=label, price=price.total, price_parts=parts_json(price),
        )  # fmt: skip
        count("orphans_detected", provider)
        tell("orphan_adopted", f"Machine {machine_id} bears our tag and nobody wants it" if reason else
             f"Machine {machine_id} bears our tag and has no row; it is kept until the deadline in its tag, "
             f"{deadline:%Y-%m-%d %H:%M} UTC, or until an operator decides", now, instance=row)  # fmt: skip
        meter(row, row.launched_at or now, price)
        wake.instance(row.pk, ending=True)
    log.error("provider %s: machine %s bears our tag without a session: %s.", provider, machine_id,
              "it is being destroyed" if reason else f"kept until {deadline}",
              extra={"instance_id": str(row.pk)})  # fmt: skip
    return row


def resurrect(row: Instance, now: datetime) -> bool:
    """A machine that was proven gone, or never to have been, is in a listing: it is on its way out again."""
    with transaction.atomic():
        fresh = Instance.objects.get(pk=row.pk)
        missed_at = fresh.missed_at
        moved = move(fresh, State.DESTROYING, now, "A listing shows it again.", ended_at=None, denied_at=None,
                      misses=0, missed_at=None)  # fmt: skip
        if moved:
            count("resurrections", row.provider)
            meter(fresh, missed_at or now, parts_of(fresh))  # It was there all the time.
            _reopen(fresh, now)
    log.error("instance %s: machine %s at %s was proven gone and is listed again; it is being destroyed.",
              row.pk, row.machine_id, row.provider, extra={"instance_id": str(row.pk)})  # fmt: skip
    return moved


def _reopen(row: Instance, now: datetime) -> None:
    if row.session_id is None:
        return
    reopened = Session.objects.filter(pk=row.session_id, status__in=lifecycle.OVER).update(
        status=Status.STOPPING, stopped_at=None, due_at=now, revision=F("revision") + 1
    )
    if reopened:
        tell("session_stopping", "A machine of it is listed again.", now, instance=row)


def parts_json(parts: PriceParts) -> dict[str, int]:
    return {"gpu": parts.gpu, "storage": parts.storage, "cpu": parts.cpu, "ram": parts.ram}
