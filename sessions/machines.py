"""What a machine's next step is, and doing it: claim, decide, act, record, set when to look again.

A step does one thing. Nothing sleeps, nothing chains; the code that goes on after a crash is the code that
runs every time. No network inside a transaction. A provider's answer to a destroy is never taken for its end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from inventory import menu
from providers import clock, registry
from providers.base import (
    LaunchSpec,
    MachineState,
    NotSent,
    Provider,
    ProviderError,
    Refusal,
    Refused,
    Traits,
    Unauthorized,
    Unavailable,
)
from sessions import gates, lifecycle, trust, visits, wake
from sessions.controller import (
    IN_FLIGHT_LOOK,
    account_id,
    end,
    learn_from,
    learn_machine_id,
    learn_refusal,
    look_soon,
    meter,
    move,
    parts_of,
    wish_end,
)
from sessions.lifecycle import Reason, State
from sessions.models import Instance
from sessions.rows import at_latest, claim, count, look_again, tell, was_set_back, with_said, write

log = logging.getLogger(__name__)

AFTER_TROUBLE = timedelta(seconds=5)
WITHOUT_A_KEY = timedelta(seconds=30)


def advance_instance(pk: UUID | str) -> bool:
    """One step of one instance; False if it was not due or somebody else has it."""
    now = clock.now()
    row = claim(Instance, pk, now)
    if row is None:
        return False
    before = row.state
    if row.state in lifecycle.ALIVE:
        trust.compare(row.provider, now)
    if was_set_back(row, now):
        return True
    _step(row, now)
    if row.state == State.DESTROYING != before:
        _step(row, now)  # Of two hundred that end at once, none waits for its call until all have been told of.
    return True


def _step(row: Instance, now: datetime) -> None:
    provider = registry.get(row.provider)
    traits = provider.traits if provider else Traits()
    if row.account and row.account != (account_id(row.provider) or row.account):
        provider = None  # Our key is another account's, where the same id may be somebody else's machine.
    limits = limits_of(traits, trust.hold_until(row.provider, now))
    action = lifecycle.decide(facts_of(row, traits, now), limits, now)
    if provider is None and isinstance(action, _NEEDS_PROVIDER):
        look_again(row, now + WITHOUT_A_KEY)  # Nothing is known, nothing is lost.
        return
    _PERFORM[type(action)](row, action, provider, now)


_NEEDS_PROVIDER = (
    lifecycle.Launch,
    lifecycle.AttachKeys,
    lifecycle.Relabel,
    lifecycle.LookUp,
    lifecycle.AskDestroy,
)


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
        too_dear=row.max_price is not None and parts_of(row).total > row.max_price,
        interruptible=row.interruptible is True,
        can_attach=traits.can_attach and bool(row.our_public_key), keyed_at=row.keyed_at,
        denied_login_at=row.denied_login_at,
        has_target=bool(row.ssh_targets) and bool(row.our_public_key), probed_at=row.probed_at,
        inspected_at=row.inspected_at,
        inspect_every=_INSPECT_IDLE if threshold else _INSPECT, idle_since=row.idle_since,
        idle_threshold=threshold, can_relabel=traits.can_relabel,
        dead_man_due=armed is not None and abs(armed - row.hard_deadline) > timedelta(seconds=1)
        and (row.inspected_at is None or now - row.inspected_at > timedelta(seconds=30)),
    )  # fmt: skip


_INSPECT = timedelta(minutes=5)
_INSPECT_IDLE = timedelta(minutes=1)  # sampling the GPU's use asks for more than reading back a deadline


def limits_of(traits: Traits, hold_deadlines_until: datetime | None = None) -> lifecycle.Limits:
    return lifecycle.Limits(
        confirm=settings.DESTROY_CONFIRM,
        settle=settings.CREATE_SETTLE or traits.settle,
        boot_timeout=settings.PROVISION_TIMEOUT,
        ssh_timeout=settings.SSH_VERIFY_TIMEOUT,
        check_interval=settings.SSH_CHECK_INTERVAL or None,
        hold_deadlines_until=hold_deadlines_until,
    )


def _wait(row: Instance, action: lifecycle.Wait, provider: Provider | None, now: datetime) -> None:
    in_flight = row.state not in (State.RUNNING, State.DESTROYED)
    soon = now + IN_FLIGHT_LOOK if in_flight else None
    moments = [moment for moment in (action.until, soon) if moment is not None]
    look_again(row, at_latest(min(moments), now) if moments else None)


def _launch(row: Instance, action: lifecycle.Launch, provider: Provider, now: datetime) -> None:
    """The create call. Whatever happens between these lines, the committed row leads to the machine."""
    if why := gates.closed(row.provider, now):
        log.info("instance %s: not launched yet: %s", row.pk, why, extra={"instance_id": str(row.pk)})
        look_soon(row.provider, now)
        look_again(row, now + IN_FLIGHT_LOOK)
        return
    spec = _spec(row)
    with transaction.atomic():
        if not write(row, launched_at=now):
            return
        tell("create_sent", f"{row.provider} is asked for {row.gpu_type}.", now, instance=row, tag=row.tag)
    asked_at = clock.now()  # This worker may have slept since it wrote; the bill begins with the call.
    try:
        machine_id = provider.create(spec)
    except Refused as refused:
        _refused(row, refused, now)
    except NotSent as error:
        # Our own pacing held it back: nothing was asked for, so this row may still ask.
        write(row, launched_at=None, due_at=now + timedelta(seconds=error.retry_after or 5))
    except Unauthorized as error:
        learn_refusal(row, Reason.UNAUTHORIZED, str(error), now)
        _told(row, "create_refused", "The provider refused.", now, said=str(error))
    except ProviderError as error:
        # It may have happened: the listings find the tag, or stay silent for as long as they may lag.
        _told(row, "create_unanswered", "No clear answer; the listings will tell.", now, said=str(error))
        look_again(row, now + IN_FLIGHT_LOOK)
    else:
        _told(row, "create_answered", f"{row.provider} answered with machine {machine_id}.", now)
        learn_machine_id(row, machine_id, account_id(row.provider), asked_at, began_at=asked_at)
        move(row, State.BOOTING, now, "The provider says that it is being made.")


def _told(row: Instance, kind: str, message: str, now: datetime, said: str = "") -> None:
    tell(kind, message, now, instance=row, said=said)
    log.info("instance %s: %s: %s", row.pk, kind, with_said(message, said), extra={"instance_id": str(row.pk)})


_REFUSALS = {
    Refusal.NO_MONEY: Reason.NO_MONEY,
    Refusal.INVALID: Reason.INVALID_REQUEST,
}


def _refused(row: Instance, refused: Refused, now: datetime) -> None:
    reason = _REFUSALS.get(refused.why, Reason.REFUSED)
    learn_refusal(row, reason, str(refused), now)
    _told(row, "create_refused", "The provider refused.", now, said=str(refused))
    if refused.why is Refusal.OFFER_GONE:
        menu.take_off(row.offer_id, now)
    if refused.machine_id:
        learn_machine_id(row, refused.machine_id, account_id(row.provider), now)
        end(row, reason, now, "it was made although the create was refused", said=str(refused))
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
        hard_deadline=row.hard_deadline, max_price=row.max_price,
    )  # fmt: skip


def _boot(row: Instance, action: lifecycle.Boot, provider: Provider | None, now: datetime) -> None:
    move(row, State.BOOTING, now, "Its tag was found in a listing.")


def _end_by(row: Instance, action: lifecycle.End, provider: Provider | None, now: datetime) -> None:
    if action.reason in lifecycle.GOOD_ENDS:
        _end_with_session(row, action.reason, now)
        return
    by_its_status = action.reason in (Reason.HOST_BROKEN, Reason.DIED)
    note, said = ("", row.machine_status) if by_its_status else (row.probe_note, "")
    if end(row, action.reason, now, note, said=said, held=True):
        learn_from(row, action.reason, now)


def _end_with_session(row: Instance, reason: Reason, now: datetime) -> None:
    """Its time is its session's time: both end in one commit, so that of two hundred at once none waits for two."""
    with transaction.atomic():
        if end(row, reason, now, held=True) and row.session_id:
            wish_end(row.session_id, reason, now)


def _conclude(row: Instance, action: lifecycle.Conclude, provider: Provider | None, now: datetime) -> None:
    reason = row.end_reason or action.reason or Reason.LAUNCH_LOST
    message = "Proven gone." if row.machine_id else "It never was: complete listings stayed silent."
    with transaction.atomic():
        concluded = move(
            row, State.DESTROYED, now, message, end_reason=reason, ended_at=now,
            our_key="", our_public_key="",
        )  # fmt: skip
        if concluded and row.machine_id:
            meter(row, row.missed_at or now, None)
    if concluded and not row.machine_id:
        learn_from(row, Reason(reason), now)


def _ask_destroy(row: Instance, action: lifecycle.AskDestroy, provider: Provider, now: datetime) -> None:
    asks, before = row.asks + 1, row.asked_at
    with transaction.atomic():
        if not write(row, asked_at=now, asks=asks, misses=0):
            return
        tell("destroy_sent", f"{row.provider} is asked to destroy {row.machine_id} (ask {asks}).", now, instance=row)
    try:
        provider.destroy(row.machine_id)
    except NotSent as error:
        write(row, asked_at=before, asks=asks - 1, due_at=now + timedelta(seconds=error.retry_after or 5))
        return
    except ProviderError as error:
        _destroy_failed(row, error, now)
    else:
        # The answer is no proof: both providers say yes to deletes that do nothing.
        _after_destroy(
            row, "destroy_answered", "The provider says yes; its listings have to agree.", IN_FLIGHT_LOOK, now
        )
    if asks > 1:
        log.error(
            "instance %s: asked %d times to destroy machine %s at %s; it has been on its way out for %d min, "
            "bills until it is gone, and is asked again in %d s.",
            row.pk, asks, row.machine_id, row.provider, (now - row.state_since).total_seconds() // 60,
            lifecycle.ask_again_after(asks).total_seconds(), extra={"instance_id": str(row.pk)},
        )  # fmt: skip


def _destroy_failed(row: Instance, error: ProviderError, now: datetime) -> None:
    seconds = error.retry_after if isinstance(error, Unavailable) and error.retry_after else 0
    pause = max(AFTER_TROUBLE, timedelta(seconds=seconds))
    message = "No yes to the destroy. It is asked again until it is gone."
    with transaction.atomic():
        count("destroy_failures", row.provider)
        _after_destroy(row, "destroy_failed", message, pause, now, said=str(error))


def _after_destroy(row: Instance, kind: str, message: str, pause: timedelta, now: datetime, said: str = "") -> None:
    """In one commit, since many machines may end at once and each commit waits for the disk."""
    with transaction.atomic(savepoint=False):
        _told(row, kind, message, now, said)
        look_again(row, now + pause)
        look_soon(row.provider, now)


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
    _told(row, "relabel_sent", "The provider shows another label; ours is put back.", now, said=row.label_seen or "")
    try:
        provider.relabel(row.machine_id, row.tag)
    except ProviderError as error:
        _told(row, "relabel_failed", "The label could not be put back.", now, said=str(error))
    else:
        Instance.objects.filter(pk=row.pk).update(label_seen=None)
        _told(row, "relabel_answered", "The provider says yes; its listings have to agree.", now)
    look_again(row, now + AFTER_TROUBLE)
    look_soon(row.provider, now)


def _attach_keys(row: Instance, action: lifecycle.AttachKeys, provider: Provider, now: datetime) -> None:
    """A key given at create does not always arrive, and may be wiped later; this is the dependable way."""
    if not write(row, keyed_at=now):
        return
    _told(row, "keys_sent", "The keys are attached through the provider.", now)
    keys = [row.our_public_key, *([row.session.ssh_public_key] if row.session else [])]
    try:
        for key in keys:
            provider.attach_key(row.machine_id, key)
    except ProviderError as error:
        _told(row, "keys_failed", "They could not be attached; the start script has them too.", now, said=str(error))
    else:
        _told(row, "keys_answered", "The provider says that they are on their way.", now)
    look_again(row, now)


def _visited(visit: Callable[[Instance, datetime], None]) -> Callable[[Instance, Any, Any, datetime], None]:
    def perform(row: Instance, action: Any, provider: Any, now: datetime) -> None:
        visit(row, now)

    return perform


_PERFORM: dict[type[lifecycle.Action], Callable[[Instance, Any, Any, datetime], None]] = {
    lifecycle.Wait: _wait,
    lifecycle.Launch: _launch,
    lifecycle.Boot: _boot,
    lifecycle.AttachKeys: _attach_keys,
    lifecycle.Probe: _visited(visits.probe),
    lifecycle.Inspect: _visited(visits.inspect),
    lifecycle.Relabel: _relabel,
    lifecycle.LookUp: _look_up,
    lifecycle.AskDestroy: _ask_destroy,
    lifecycle.End: _end_by,
    lifecycle.Conclude: _conclude,
}
