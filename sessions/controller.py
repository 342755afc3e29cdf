"""The only writer of sessions, instances and events.

A step claims a due row, asks the pure `lifecycle` for one action, performs it, records it, and sets when
to look again. Nothing sleeps, nothing chains; the code that goes on after a crash is the code that runs
every time.

Three kinds of writes, and each keeps to its kind:

*   decisions (states, deadlines of the next look) name the revision that the step claimed; a worker that
    wakes up too late writes nothing;
*   facts (an id, a sighting, a refusal) are written by whoever learns them, however late;
*   wishes to end are monotone: the first reason wins, and nothing takes one back.

No network inside a transaction. A provider's answer to a destroy is never taken for its end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from inventory import menu
from inventory.models import Offer
from providers import clock, deadman, registry, tag
from providers.base import (
    LaunchSpec,
    MachineState,
    NotSent,
    PriceParts,
    Provider,
    ProviderError,
    Refusal,
    Refused,
    SshTarget,
    Traits,
    Unauthorized,
    Unavailable,
)
from sessions import hardware, lifecycle, outlets, ssh, wake
from sessions.lifecycle import LIVE, MAY_EXIST, Reason, State, Status
from sessions.models import Account, Counter, Due, Event, Instance, Session

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=Due)

# Longer than any step but a create takes (a visit over SSH: 5 + 5 + 5 + 4 × 10 s at the very worst is cut
# by the server's own silence long before), short enough that after a crash of everything each row is under
# a decision again within half a minute. A create may outlive it: whoever comes second finds `launched_at`
# set and only waits.
LEASE = timedelta(seconds=30)

# Rows in flight are looked at this often; what they wait for comes by listings, probes and answers.
IN_FLIGHT_LOOK = timedelta(seconds=2)
AFTER_TROUBLE = timedelta(seconds=5)


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
    write(row, due_at=at)


def tell(
    kind: str,
    message: str,
    now: datetime,
    *,
    session: Session | None = None,
    instance: Instance | None = None,
    actor: str = "",
    **data: Any,
) -> Event:
    if session is None and instance is not None:
        session_id = instance.session_id
    else:
        session_id = session.pk if session else None
    event = Event.objects.create(
        at=now, kind=kind, message=message[:500], actor=actor, data=data,
        session_id=session_id, instance=instance,
    )  # fmt: skip
    for hear in outlets.told:
        hear(event)
    return event


def count(name: str, label: str = "", by: int = 1) -> None:
    Counter.objects.get_or_create(name=name, label=label)
    Counter.objects.filter(name=name, label=label).update(value=F("value") + by)


# --- Moves --------------------------------------------------------------------------------------------------


def _move(row: Instance, to: State, now: datetime, message: str, **fields: Any) -> bool:
    """Move an instance along the table, with its event, and wake whoever goes on."""
    if (row.state, to) not in lifecycle.MOVES:
        raise ValueError(f"an instance does not go from {row.state} to {to}")
    before, data = row.state, {}
    if reason := fields.get("end_reason"):
        data["reason"] = reason
    with transaction.atomic():
        moved = write(
            row, state=to, state_since=now, due_at=None if to is State.DESTROYED else now,
            revision=row.revision + 1, **fields,
        )  # fmt: skip
        if not moved:
            return False
        tell(f"instance_{to}", message, now, instance=row, before=str(before), **data)
        _nudge(row, now)
    log.info("instance %s: %s -> %s: %s", row.pk, before, to, message,
             extra={"session_id": str(row.session_id or ""), "instance_id": str(row.pk)})  # fmt: skip
    return True


def _nudge(row: Instance, now: datetime) -> None:
    """Wake the instance, its session, and the eyes on its account."""
    wake.instance(row.pk, ending=row.state in (State.DESTROYING, State.DESTROYED))
    if row.session_id:
        Session.objects.filter(pk=row.session_id).exclude(status__in=lifecycle.OVER).update(due_at=now)
        wake.session(row.session_id)
    look_soon(row.provider, now)


def look_soon(provider: str, now: datetime) -> None:
    """Have the account listed soon, unless it is being listed now."""
    Account.objects.filter(provider=provider, due_at__gt=now + IN_FLIGHT_LOOK, failures=0).update(
        due_at=now + IN_FLIGHT_LOOK
    )


def _end(row: Instance, reason: Reason, now: datetime, note: str = "") -> bool:
    message = f"Its end is wished: {reason.replace('_', ' ')}{': ' + note if note else ''}."
    return _move(
        row, State.DESTROYING, now, message,
        end_reason=row.end_reason or reason, end_note=(row.end_note or note)[:500],
    )  # fmt: skip


def _restatus(session: Session, to: Status, now: datetime, kind: str, message: str, **fields: Any) -> bool:
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


def wish_end(pk: UUID, reason: Reason, now: datetime, *, actor: str = "", note: str = "") -> bool:
    """Wish the end of a session and of every machine of it. False if that was wished before."""
    with transaction.atomic():
        wished = Session.objects.filter(pk=pk, status__in=LIVE).update(
            status=Status.STOPPING, end_reason=reason, end_note=note[:500], wished_at=now, due_at=now,
            waiting_for="", revision=F("revision") + 1,
        )  # fmt: skip
        if not wished:
            return False
        session = Session.objects.get(pk=pk)
        message = f"The end is wished: {reason.replace('_', ' ')}{': ' + note if note else ''}."
        tell("session_stopping", message, now, session=session, actor=actor, reason=str(reason))
        _end_instances(session, reason, now)
        wake.session(pk)
    log.info("session %s: %s", pk, message, extra={"session_id": str(pk)})
    return True


def _end_instances(session: Session, reason: Reason, now: datetime) -> None:
    for row in session.instances.filter(state__in=lifecycle.ALIVE).order_by("created_at"):
        _end(row, reason, now)


def wish_end_of_instance(row: Instance, reason: Reason, now: datetime, *, actor: str, note: str = "") -> bool:
    """An operator ends a machine that no session stands for."""
    with transaction.atomic():
        tell("instance_end_wished", "An operator wished its end.", now, instance=row, actor=actor)
        return _end(row, reason, now, note)


def extend(
    pk: UUID, additional: timedelta, now: datetime, *, actor: str = "", override_reason: str = ""
) -> Session | None:
    """Move the deadline of a live session, and of its machines. None if it is not live any more.

    The hard maximum moves only with `override_reason`, which is an operator's.

    Raises:
        OverHardMaximum: it would pass the hard maximum.
    """
    with transaction.atomic():
        session = Session.objects.select_for_update().filter(pk=pk, status__in=LIVE).first()
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


def learn_machine_id(row: Instance, machine_id: str, account: str, now: datetime) -> bool:
    """The id of the machine that this row's create made. Written once; the bill counts from the create."""
    with transaction.atomic():
        landed = Instance.objects.filter(pk=row.pk, machine_id="").update(
            machine_id=machine_id, account=account, due_at=now
        )
        if not landed:
            return Instance.objects.filter(pk=row.pk, machine_id=machine_id).exists()
        row.machine_id, row.account = machine_id, account
        tell("machine_known", f"The machine is {machine_id}.", now, instance=row, machine_id=machine_id)
        meter(row, row.launched_at or now, parts_of(row))
        wake.instance(row.pk, ending=row.state == State.DESTROYING)
    return True


def meter(row: Instance, at: datetime, parts: PriceParts | None) -> None:
    for hear in outlets.metered:
        hear(row, at, parts)


def parts_of(row: Instance) -> PriceParts:
    return PriceParts(**row.price_parts) if row.price_parts else PriceParts(gpu=row.price)


def _learn_refusal(row: Instance, reason: Reason, note: str, now: datetime) -> None:
    Instance.objects.filter(pk=row.pk, refused_at=None).update(refused_at=now)
    Instance.objects.filter(pk=row.pk, end_reason="").update(end_reason=reason, end_note=note[:500])
    row.refused_at = now


# --- Instances --------------------------------------------------------------------------------------------------


def advance_instance(pk: UUID | str) -> bool:
    """One step of one instance; False if it was not due or somebody else has it."""
    now = clock.now()
    row = claim(Instance, pk, now)
    if row is None:
        return False
    provider = registry.get(row.provider)
    traits = provider.traits if provider else Traits()
    action = lifecycle.decide(facts_of(row, traits, now), limits_of(traits), now)
    if provider is None and isinstance(action, _NEEDS_PROVIDER):
        look_again(row, now + timedelta(seconds=30))  # Its key is missing: nothing is known, nothing lost.
        return True
    _PERFORM[type(action)](row, action, provider, now)
    return True


_NEEDS_PROVIDER = (
    lifecycle.Launch, lifecycle.Relabel, lifecycle.LookUp, lifecycle.AskDestroy,
)  # fmt: skip


def facts_of(row: Instance, traits: Traits, now: datetime) -> lifecycle.Facts:
    session = row.session
    threshold = session.idle_threshold if session else None
    armed = row.dead_man_deadline
    return lifecycle.Facts(
        state=State(row.state), deadline=row.deadline, hard_deadline=row.hard_deadline,
        machine_id=row.machine_id, launched_at=row.launched_at, refused_at=row.refused_at,
        looked_at=row.looked_at, seen_at=row.seen_at, asked_at=row.asked_at, denied_at=row.denied_at,
        misses=row.misses, asks=row.asks,
        machine_state=MachineState(row.machine_state) if row.machine_state else None,
        useless_looks=row.useless_looks, useless_since=row.useless_since, up_since=row.up_since,
        mislabelled=row.label_seen is not None and row.label_seen != row.tag,
        has_target=bool(row.ssh_targets) and bool(row.our_key), probed_at=row.probed_at,
        inspected_at=row.inspected_at,
        inspect_every=_INSPECT_IDLE if threshold else _INSPECT, idle_since=row.idle_since,
        idle_threshold=threshold, can_relabel=traits.can_relabel,
        dead_man_due=armed is not None and abs(armed - row.hard_deadline) > timedelta(seconds=1)
        and (row.inspected_at is None or now - row.inspected_at > timedelta(seconds=30)),
    )  # fmt: skip


_INSPECT = timedelta(minutes=5)
_INSPECT_IDLE = timedelta(minutes=1)  # sampling the GPU's use asks for more than reading back a deadline


def limits_of(traits: Traits) -> lifecycle.Limits:
    return lifecycle.Limits(
        confirm=settings.DESTROY_CONFIRM,
        settle=settings.CREATE_SETTLE or traits.settle,
        boot_timeout=settings.PROVISION_TIMEOUT,
        ssh_timeout=settings.SSH_VERIFY_TIMEOUT,
        check_interval=settings.SSH_CHECK_INTERVAL or None,
    )


def _wait(row: Instance, action: lifecycle.Wait, provider: Provider | None, now: datetime) -> None:
    in_flight = row.state not in (State.RUNNING, State.DESTROYED)
    soon = now + IN_FLIGHT_LOOK if in_flight else None
    moments = [moment for moment in (action.until, soon) if moment is not None]
    look_again(row, min(moments, default=None))


def _launch(row: Instance, action: lifecycle.Launch, provider: Provider, now: datetime) -> None:
    """The create call. Whatever happens between these lines, the committed row leads to the machine."""
    with transaction.atomic():
        if not write(row, launched_at=now):
            return
        tell("create_sent", f"{row.provider} is asked for {row.gpu_type}.", now, instance=row, tag=row.tag)
    try:
        machine_id = provider.create(_spec(row))
    except Refused as refused:
        _refused(row, refused, now)
    except NotSent as error:
        # Our own pacing held it back: nothing was asked for, so this row may still ask.
        write(row, launched_at=None, due_at=now + timedelta(seconds=error.retry_after or 5))
    except Unauthorized as error:
        _learn_refusal(row, Reason.UNAUTHORIZED, str(error), now)
        _told(row, "create_refused", str(error), now)
    except ProviderError as error:
        # It may have happened: the listings find the tag, or stay silent for as long as they may lag.
        _told(row, "create_unanswered", f"No clear answer ({error}); the listings will tell.", now)
        look_again(row, now + IN_FLIGHT_LOOK)
    else:
        _told(row, "create_answered", f"{row.provider} answered with machine {machine_id}.", now)
        learn_machine_id(row, machine_id, account_id(row.provider), now)
        _move(row, State.BOOTING, now, "The provider says that it is being made.")


def _told(row: Instance, kind: str, message: str, now: datetime) -> None:
    tell(kind, message, now, instance=row)
    log.info("instance %s: %s: %s", row.pk, kind, message, extra={"instance_id": str(row.pk)})


_REFUSALS = {
    Refusal.NO_MONEY: Reason.NO_MONEY,
    Refusal.INVALID: Reason.INVALID_REQUEST,
}


def _refused(row: Instance, refused: Refused, now: datetime) -> None:
    reason = _REFUSALS.get(refused.why, Reason.REFUSED)
    _learn_refusal(row, reason, str(refused), now)
    _told(row, "create_refused", str(refused), now)
    if refused.why is Refusal.OFFER_GONE:
        menu.take_off(row.offer_id, now)
    if refused.machine_id:
        learn_machine_id(row, refused.machine_id, account_id(row.provider), now)
        _end(row, reason, now, "it was made although the create was refused")
    else:
        look_again(row, now + IN_FLIGHT_LOOK)


def _spec(row: Instance) -> LaunchSpec:
    session = row.session
    if session is None:
        raise ValueError("nobody wishes for this machine")
    return LaunchSpec(
        label=row.tag, quote_id=row.quote_id, gpu_name=row.provider_gpu_name, gpu_count=row.gpu_count,
        disk_gb=row.disk_gb, cpu_cores=row.cpu_cores, ram_gb=row.ram_gb,
        ssh_public_keys=(session.ssh_public_key, row.our_public_key),
        image=session.image, template_hash_id=session.template_hash_id,
        env=json.loads(session.env) if session.env else {}, onstart=session.onstart,
        hard_deadline=row.hard_deadline, max_price=session.max_price,
    )  # fmt: skip


def account_id(provider: str) -> str:
    return Account.objects.filter(provider=provider).values_list("account", flat=True).first() or ""


def _boot(row: Instance, action: lifecycle.Boot, provider: Provider | None, now: datetime) -> None:
    _move(row, State.BOOTING, now, "Its tag was found in a listing.")


def _end_by(row: Instance, action: lifecycle.End, provider: Provider | None, now: datetime) -> None:
    note = row.machine_status if action.reason in (Reason.HOST_BROKEN, Reason.DIED) else row.probe_note
    if _end(row, action.reason, now, note if action.reason not in lifecycle.GOOD_ENDS else ""):
        _learn_from(row, action.reason, now)


def _learn_from(row: Instance, reason: Reason, now: datetime) -> None:
    """A launch that came to nothing lowers the confidence in its offer and its host."""
    if reason in lifecycle.RETRYABLE and row.verified_at is None and row.quote_id:
        menu.record_attempt(provider=row.provider, provider_id=row.quote_id, host=row.host, success=False, now=now)


def _conclude(row: Instance, action: lifecycle.Conclude, provider: Provider | None, now: datetime) -> None:
    reason = row.end_reason or action.reason or Reason.LAUNCH_LOST
    message = "Proven gone." if row.machine_id else "It never was: complete listings stayed silent."
    with transaction.atomic():
        concluded = _move(
            row, State.DESTROYED, now, message, end_reason=reason, ended_at=now,
            our_key="", our_public_key="",
        )  # fmt: skip
        if concluded and row.machine_id:
            meter(row, row.missed_at or now, None)
    if concluded and not row.machine_id:
        _learn_from(row, Reason(reason), now)


def _ask_destroy(row: Instance, action: lifecycle.AskDestroy, provider: Provider, now: datetime) -> None:
    asks = row.asks + 1
    with transaction.atomic():
        if not write(row, asked_at=now, asks=asks, misses=0):
            return
        tell("destroy_sent", f"{row.provider} is asked to destroy {row.machine_id} (ask {asks}).", now, instance=row)
    try:
        provider.destroy(row.machine_id)
    except ProviderError as error:
        count("destroy_failures", row.provider)
        _told(row, "destroy_failed", f"No yes to the destroy: {error}. It is asked again until it is gone.", now)
        pause = error.retry_after if isinstance(error, Unavailable) and error.retry_after else 0
        look_again(row, now + max(AFTER_TROUBLE, timedelta(seconds=pause)))
    else:
        # The answer is no proof: both providers say yes to deletes that do nothing.
        _told(row, "destroy_answered", "The provider says yes; its listings have to agree.", now)
        look_again(row, now + IN_FLIGHT_LOOK)
    look_soon(row.provider, now)
    if asks > 1:
        log.error(
            "instance %s: asked %d times to destroy machine %s at %s; it has been on its way out for %d min, "
            "bills until it is gone, and is asked again in %d s.",
            row.pk, asks, row.machine_id, row.provider, (now - row.state_since).total_seconds() // 60,
            lifecycle.ask_again_after(asks).total_seconds(), extra={"instance_id": str(row.pk)},
        )  # fmt: skip


def _look_up(row: Instance, action: lifecycle.LookUp, provider: Provider, now: datetime) -> None:
    try:
        machine = provider.machine(row.machine_id)
    except ProviderError as error:
        log.warning("instance %s: the look-up by id failed: %s", row.pk, error)
        look_again(row, now + AFTER_TROUBLE)
        return
    if machine is None:
        Instance.objects.filter(pk=row.pk).filter(Q(denied_at=None) | Q(denied_at__lt=now)).update(denied_at=now)
        _told(row, "machine_denied", f"{row.provider} knows no machine {row.machine_id}.", now)
    else:
        Instance.objects.filter(pk=row.pk).filter(Q(seen_at=None) | Q(seen_at__lt=now)).update(seen_at=now, misses=0)
    look_again(row, now)
    wake.instance(row.pk, ending=True)


def _relabel(row: Instance, action: lifecycle.Relabel, provider: Provider, now: datetime) -> None:
    """Only a machine whose id our own create was answered with comes here."""
    _told(row, "relabel_sent", f"The provider shows the label {row.label_seen!r}; ours is put back.", now)
    try:
        provider.relabel(row.machine_id, row.tag)
    except ProviderError as error:
        _told(row, "relabel_failed", f"The label could not be put back: {error}.", now)
    else:
        Instance.objects.filter(pk=row.pk).update(label_seen=None)
    look_again(row, now + AFTER_TROUBLE)
    look_soon(row.provider, now)


# --- Over SSH -----------------------------------------------------------------------------------------------------


def _targets(row: Instance) -> list[SshTarget]:
    if row.ssh_host:
        return [SshTarget(row.ssh_host, row.ssh_port, row.ssh_user)]
    return [SshTarget(**target) for target in row.ssh_targets]


def _visit(row: Instance, commands: Sequence[str]) -> tuple[SshTarget, ssh.Visit]:
    """Run the commands at the first address that takes our key. Raises the last `SshError`."""
    trouble: ssh.SshError = ssh.Unreachable("no address is known yet")
    for target in _targets(row):
        try:
            return target, ssh.run(target, row.our_key, commands, host_key=row.host_key)
        except ssh.SshError as error:
            trouble = error
    raise trouble


def _probe(row: Instance, action: lifecycle.Probe, provider: Provider | None, now: datetime) -> None:
    began = clock.monotonic()
    try:
        target, visit = _visit(row, (hardware.QUERY, hardware.CUDA, hardware.DISK, deadman.read_back_command()))
        found = hardware.gpus(visit.outputs[0].stdout) if visit.outputs[0].exit_status == 0 else []
    except (ssh.SshError, ValueError) as error:
        if isinstance(error, ssh.Denied) and provider is not None:
            _attach_key_again(row, provider)
        count("ssh_verify_failures", row.provider)
        write(row, probed_at=now, probe_note=str(error)[:300], due_at=now + lifecycle.PROBE_SOONEST)
        return
    if not found:
        note = "SSH works, but nvidia-smi does not (yet)"
        write(row, probed_at=now, probe_note=note, due_at=now + AFTER_TROUBLE)
        return
    _verified(row, target, visit, found, now, clock.monotonic() - began)


def _attach_key_again(row: Instance, provider: Provider) -> None:
    """A key given at create does not always arrive; adding it again is harmless."""
    keys = [row.our_public_key] + ([row.session.ssh_public_key] if row.session else [])
    try:
        for key in keys:
            provider.attach_key(row.machine_id, key)
    except ProviderError as error:
        log.info("instance %s: the key could not be attached: %s", row.pk, error)


def _verified(
    row: Instance, target: SshTarget, visit: ssh.Visit, found: list[hardware.Gpu], now: datetime, took: float
) -> None:
    cuda = hardware.cuda_version(visit.outputs[1].stdout)
    disk_gb = hardware.disk_total_gb(visit.outputs[2].stdout)
    promise = hardware.Promise(row.gpu_type, row.gpu_count, row.vram_gb, row.cuda_version, row.disk_gb)
    if wrong := hardware.mismatches(promise, found, cuda, disk_gb):
        if _end(row, Reason.WRONG_HARDWARE, now, "; ".join(wrong)):
            _learn_from(row, Reason.WRONG_HARDWARE, now)
        return
    moved = _move(
        row, State.RUNNING, now, f"SSH login at {target.host}:{target.port} worked; the hardware is as offered.",
        ssh_host=target.host, ssh_port=target.port, ssh_user=target.user, host_key=visit.host_key,
        verified_at=now, probed_at=now, inspected_at=now, probe_note="", verify_seconds=_verify_seconds(row, now),
        hardware=_shown(found, cuda, disk_gb), dead_man_deadline=deadman.parse_state(visit.outputs[3].stdout),
        dead_man_read_at=now,
    )  # fmt: skip
    if moved:
        menu.record_attempt(provider=row.provider, provider_id=row.quote_id, host=row.host, success=True, now=now)


def _verify_seconds(row: Instance, now: datetime) -> float:
    return (now - (row.up_since or row.launched_at or now)).total_seconds()


def _shown(found: list[hardware.Gpu], cuda: str, disk_gb: float | None) -> dict[str, Any]:
    return {
        "gpus": [{"name": g.name, "vram_mib": g.vram_mib, "busy_percent": g.busy_percent} for g in found],
        "driver_version": found[0].driver if found else "",
        "cuda_version": cuda,
        "disk_gb": round(disk_gb) if disk_gb is not None else None,
    }


IDLE_BELOW_PERCENT = 5


def _inspect(row: Instance, action: lifecycle.Inspect, provider: Provider | None, now: datetime) -> None:
    """Is the GPU busy, is the dead man's switch armed with our deadline? Not knowing ends nothing."""
    commands = [hardware.QUERY, deadman.read_back_command()]
    if row.dead_man_deadline is not None and row.dead_man_deadline != row.hard_deadline:
        commands.insert(1, deadman.rearm_command(row.hard_deadline))
    try:
        _, visit = _visit(row, commands)
    except ssh.HostKeyChanged as error:
        count("host_key_changed", row.provider)
        _told(row, "host_key_changed", f"{error}. The pinned key stays; look into it before logging in.", now)
        write(row, inspected_at=now, idle_since=None, due_at=now)
        return
    except ssh.SshError as error:
        write(row, inspected_at=now, idle_since=None, probe_note=str(error)[:300], due_at=now)
        return
    write(
        row, inspected_at=now, probe_note="", due_at=now, idle_since=_idle_since(row, visit.outputs[0], now),
        dead_man_deadline=deadman.parse_state(visit.outputs[-1].stdout), dead_man_read_at=now,
    )  # fmt: skip


def _idle_since(row: Instance, output: ssh.Output, now: datetime) -> datetime | None:
    try:
        found = hardware.gpus(output.stdout) if output.exit_status == 0 else []
    except ValueError:
        return None
    idle = found and all(g.busy_percent is not None and g.busy_percent < IDLE_BELOW_PERCENT for g in found)
    return (row.idle_since or now) if idle else None


_PERFORM: dict[type[lifecycle.Action], Callable[[Instance, Any, Any, datetime], None]] = {
    lifecycle.Wait: _wait,
    lifecycle.Launch: _launch,
    lifecycle.Boot: _boot,
    lifecycle.Probe: _probe,
    lifecycle.Inspect: _inspect,
    lifecycle.Relabel: _relabel,
    lifecycle.LookUp: _look_up,
    lifecycle.AskDestroy: _ask_destroy,
    lifecycle.End: _end_by,
    lifecycle.Conclude: _conclude,
}


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
            hard_deadline=deadline, launched_at=started_at or now, seen_at=now, looked_at=now, due_at=now,
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
        moved = _move(fresh, State.DESTROYING, now, "A listing shows it again.", ended_at=None, denied_at=None,
                      misses=0, missed_at=None)  # fmt: skip
        if moved:
            count("resurrections", row.provider)
            meter(fresh, fresh.missed_at or now, parts_of(fresh))
            _reopen(fresh, now)
    log.error("instance %s: machine %s at %s was proven gone and is listed again; it is being destroyed.",
              row.pk, row.machine_id, row.provider, extra={"instance_id": str(row.pk)})  # fmt: skip
    return moved


def _reopen(row: Instance, now: datetime) -> None:
    reopened = Session.objects.filter(pk=row.session_id, status__in=lifecycle.OVER).update(
        status=Status.STOPPING, stopped_at=None, due_at=now, revision=F("revision") + 1
    )
    if reopened:
        tell("session_stopping", "A machine of it is listed again.", now, instance=row)


def parts_json(parts: PriceParts) -> dict[str, int]:
    return {"gpu": parts.gpu, "storage": parts.storage, "cpu": parts.cpu, "ram": parts.ram}


# --- Sessions -----------------------------------------------------------------------------------------------------


def advance_session(pk: UUID | str) -> bool:
    """One step of one session; False if it was not due or somebody else has it."""
    now = clock.now()
    session = claim(Session, pk, now)
    if session is None:
        return False
    instances = list(session.instances.order_by("created_at", "id"))
    action = lifecycle.decide_session(wish_of(session), [attempt_of(row) for row in instances], now)
    _PERFORM_SESSION[type(action)](session, action, instances, now)
    return True


def wish_of(session: Session) -> lifecycle.Wish:
    attempts = session.instances.filter(adopted_at=None).count()
    return lifecycle.Wish(
        status=Status(session.status), created_at=session.created_at,
        end_reason=Reason(session.end_reason) if session.end_reason else None,
        expires_at=session.expires_at, hard_deadline=session.hard_deadline,
        retries_left=session.max_retries - max(0, attempts - 1) if session.auto_retry else 0,
        launch_by=session.created_at + settings.PROVISION_TIMEOUT,
    )  # fmt: skip


def attempt_of(row: Instance) -> lifecycle.Attempt:
    return lifecycle.Attempt(
        state=State(row.state), reason=Reason(row.end_reason) if row.end_reason else None,
        has_machine_id=bool(row.machine_id),
    )  # fmt: skip


def _session_wait(session: Session, action: lifecycle.Wait, instances: list[Instance], now: datetime) -> None:
    look_again(session, action.until)


def _open_attempt(session: Session, action: lifecycle.OpenAttempt, instances: list[Instance], now: datetime) -> None:
    offer = _offer_for(session, instances, now)
    if offer is None:
        wish_end(session.pk, Reason.NO_OFFER, now, note="no fitting offer is left on the menu")
        return
    if why := closed_gate(offer.provider, now):
        _hold(session, why, now)
        return
    _insert_attempt(session, offer, now)


def _hold(session: Session, why: str, now: datetime) -> None:
    """Creates are stopped at this account: say why, have it listed, look again."""
    Account.objects.filter(provider=session.provider, failures=0, due_at__gt=now).update(due_at=now)
    write(session, waiting_for=why[:300], due_at=now + IN_FLIGHT_LOOK)
    wake.listing(session.provider)


def closed_gate(provider: str, now: datetime) -> str:
    """Why nothing may be created at this account now; "" if it may."""
    account = Account.objects.filter(provider=provider).first()
    rows = Instance.objects.filter(provider=provider)
    oldest = rows.filter(state=State.DESTROYING).order_by("state_since").first()
    return lifecycle.closed_gate(
        lifecycle.AccountView(
            looked_at=account.looked_at if account else None,
            braked=account.brake if account else "",
            unresolved_creates=rows.filter(state__in=(State.LAUNCHING, State.DESTROYING), machine_id="",
                                           launched_at__isnull=False, refused_at=None).count(),
            oldest_destroy=oldest.state_since if oldest else None,
        ),
        now,
    )  # fmt: skip


def _offer_for(session: Session, instances: list[Instance], now: datetime) -> Offer | None:
    if not instances:
        return menu.find(session.offer_id)
    tried = [row.offer_id for row in instances]
    busy = Session.objects.filter(consumer=session.consumer, status__in=LIVE).exclude(pk=session.pk)
    return menu.next_fitting(
        session.criteria, scope=session.retry_scope, gpu_type=session.gpu_type, gpu_count=session.gpu_count,
        vram_gb=session.vram_gb, disk_gb=session.disk_gb, max_price=session.max_price,
        exclude_offers=[*tried, *busy.values_list("offer_id", flat=True)],
        exclude_hosts=[row.host for row in instances if row.host], now=now,
    )  # fmt: skip


def _insert_attempt(session: Session, offer: Offer, now: datetime) -> None:
    """The intent: one row with a fresh tag, committed before any call."""
    started = session.started_at or now
    expires = session.expires_at or started + session.reservation
    hard = session.hard_deadline or started + max(settings.HARD_MAX, session.reservation)
    parts = offer.price_for(session.disk_gb)
    private, public = ssh.make_key_pair(f"gpu-shopper-{session.pk.hex[:8]}")
    with transaction.atomic():
        landed = write(
            session, status=Status.PROVISIONING, revision=session.revision + 1, due_at=expires,
            started_at=started, expires_at=expires, hard_deadline=hard, waiting_for="",
            provider=offer.provider, offer_id=offer.pk, gpu_type=offer.gpu_type, gpu_count=offer.gpu_count,
            vram_gb=offer.vram_gb, price=parts.total if parts else offer.price,
        )  # fmt: skip
        if not landed:
            return
        row = Instance.objects.create(
            session=session, provider=offer.provider, account=account_id(offer.provider),
            tag=tag.mint(settings.DEPLOYMENT_ID, hard, settings.TAG_KEYS[0]),
            offer_id=offer.pk, quote_id=offer.provider_id, provider_gpu_name=offer.provider_gpu_name,
            gpu_type=offer.gpu_type, gpu_count=offer.gpu_count, vram_gb=offer.vram_gb,
            cuda_version=offer.cuda_version, cpu_cores=offer.cpu_cores, ram_gb=offer.ram_gb,
            disk_gb=session.disk_gb, host=offer.host, price=session.price,
            price_parts=parts_json(parts) if parts else {}, created_at=now, state_since=now, due_at=now,
            deadline=expires, hard_deadline=hard, our_key=private, our_public_key=public,
        )  # fmt: skip
        tell("attempt_opened", f"Offer {offer.pk} is taken, at {session.price / 1_000_000:.4f} USD/h.", now,
             session=session, instance=row, offer_id=offer.pk)  # fmt: skip
        wake.instance(row.pk, ending=False)
        look_soon(offer.provider, now)


def _hand_over(session: Session, action: lifecycle.HandOver, instances: list[Instance], now: datetime) -> None:
    row = instances[-1]
    _restatus(session, Status.RUNNING, now, "session_running",
              f"Ready: ssh -p {row.ssh_port} {row.ssh_user}@{row.ssh_host}",
              running_at=now, due_at=session.expires_at)  # fmt: skip


def _end_session(session: Session, action: lifecycle.EndSession, instances: list[Instance], now: datetime) -> None:
    note = instances[-1].end_note if instances and action.reason not in lifecycle.GOOD_ENDS else ""
    wish_end(session.pk, action.reason, now, note=note)


def _tell_instances(session: Session, action: lifecycle.EndInstances, instances: list[Instance], now: datetime) -> None:
    with transaction.atomic():
        _end_instances(session, Reason(session.end_reason), now)
    look_again(session, now + AFTER_TROUBLE)


def _close(session: Session, action: lifecycle.Close, instances: list[Instance], now: datetime) -> None:
    _restatus(session, action.status, now, f"session_{action.status}",
              "Everything that was made for it is proven gone.", stopped_at=now, due_at=None)  # fmt: skip


_PERFORM_SESSION: dict[type[lifecycle.SessionAction], Callable[[Session, Any, list[Instance], datetime], None]] = {
    lifecycle.Wait: _session_wait,
    lifecycle.OpenAttempt: _open_attempt,
    lifecycle.HandOver: _hand_over,
    lifecycle.EndSession: _end_session,
    lifecycle.EndInstances: _tell_instances,
    lifecycle.Close: _close,
}


# --- What is due --------------------------------------------------------------------------------------------------


def due(model: type[Row], now: datetime, limit: int = 500) -> list[Row]:
    """Rows that want to be looked at, ends first, then the longest overdue."""
    rows = model._default_manager.filter(due_at__lte=now).order_by("due_at")
    return list(rows[:limit])


def unproven(provider: str | None = None) -> list[Instance]:
    """Every row that may stand for a billing machine."""
    rows = Instance.objects.filter(state__in=MAY_EXIST)
    return list(rows.filter(provider=provider) if provider else rows)
