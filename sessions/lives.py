"""What a session's next step is, and doing it: take an offer, hand over, end, close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from inventory import menu
from inventory.models import Offer
from providers import clock, registry, tag
from sessions import gates, lifecycle, outlets, ssh, trust, wake
from sessions.controller import IN_FLIGHT_LOOK, account_id, end_instances, look_soon, parts_json, restatus, wish_end
from sessions.lifecycle import LIVE, Reason, State, Status
from sessions.models import Account, Instance, Session
from sessions.rows import at_latest, claim, look_again, tell, was_set_back, write


def advance_session(pk: UUID | str) -> bool:
    """One step of one session; False if it was not due or somebody else has it."""
    now = clock.now()
    session = claim(Session, pk, now)
    if session is None:
        return False
    instances = list(session.instances.order_by("created_at", "id"))
    if session.expires_at is not None and session.expires_at <= now:
        trust.compare(session.provider, now)
    if was_set_back(session, now):
        return True
    held = trust.hold_until(session.provider, now)
    action = lifecycle.decide_session(wish_of(session, instances), attempts_of(session, instances), now, held)
    _PERFORM_SESSION[type(action)](session, action, instances, now)
    return True


def wish_of(session: Session, instances: list[Instance]) -> lifecycle.Wish:
    attempts = sum(row.adopted_at is None for row in instances)
    return lifecycle.Wish(
        status=Status(session.status), created_at=session.created_at,
        end_reason=Reason(session.end_reason) if session.end_reason else None,
        expires_at=session.expires_at, hard_deadline=session.hard_deadline,
        retries_left=session.max_retries - max(0, attempts - 1) if session.auto_retry else 0,
        launch_by=session.created_at + settings.PROVISION_TIMEOUT,
    )  # fmt: skip


def attempts_of(session: Session, instances: list[Instance]) -> list[lifecycle.Attempt]:
    """Its machines, oldest first. To its end those count too that are surplus under a label of it, and nobody's."""
    surplus = Instance.objects.filter(tag__in=[row.tag for row in instances], session=None, state=State.DESTROYING)
    return [attempt_of(row) for row in (*instances, *(surplus if session.end_reason else ()))]


def attempt_of(row: Instance) -> lifecycle.Attempt:
    return lifecycle.Attempt(
        state=State(row.state), reason=Reason(row.end_reason) if row.end_reason else None,
        has_machine_id=bool(row.machine_id),
    )  # fmt: skip


def _session_wait(session: Session, action: lifecycle.Wait, instances: list[Instance], now: datetime) -> None:
    look_again(session, action.until and at_latest(action.until, now))


def _open_attempt(session: Session, action: lifecycle.OpenAttempt, instances: list[Instance], now: datetime) -> None:
    offer = _offer_for(session, instances, now)
    if offer is None:
        wish_end(session.pk, Reason.NO_OFFER, now, note="no fitting offer is left on the menu")
        return
    if why := _second_machine(session, instances):
        _hold(session, why, now)
        return
    if (why := gates.closed(offer.provider, now)) and _may_go_elsewhere(session, now):
        closed = [name for name in registry.all() if gates.closed(name, now)]
        if elsewhere := _next_fitting(session, instances, now, closed):
            offer, why = elsewhere, ""
    if why:
        _hold(session, why, now)
        return
    _insert_attempt(session, offer, now)


# Most gates open again with the next listing. One that stays closed is no reason to wait where others are open.
ELSEWHERE_AFTER = timedelta(minutes=1)


def _may_go_elsewhere(session: Session, now: datetime) -> bool:
    return session.auto_retry and now >= session.created_at + ELSEWHERE_AFTER


def _second_machine(session: Session, instances: list[Instance]) -> str:
    return outlets.no_second_machine(session) if any(row.state != State.DESTROYED for row in instances) else ""


def _hold(session: Session, why: str, now: datetime) -> None:
    """Nothing is created for it now: say why, have the account listed, look again."""
    Account.objects.filter(provider=session.provider, failures=0, due_at__gt=now).update(due_at=now)
    write(session, waiting_for=why[:300], due_at=now + IN_FLIGHT_LOOK)
    wake.listing(session.provider)


def _offer_for(session: Session, instances: list[Instance], now: datetime) -> Offer | None:
    if not instances:
        chosen = menu.find(session.offer_id)
        if chosen is not None and chosen.price_for(session.disk_gb).total <= most(session):
            return chosen
        if not session.auto_retry:
            return None
    return _next_fitting(session, instances, now)


def _next_fitting(
    session: Session, instances: list[Instance], now: datetime, exclude_providers: Sequence[str] = ()
) -> Offer | None:
    tried = [row.offer_id for row in instances]
    busy = Session.objects.filter(consumer=session.consumer, status__in=LIVE).exclude(pk=session.pk)
    return menu.next_fitting(
        session.criteria, scope=session.retry_scope, gpu_type=session.gpu_type, gpu_count=session.gpu_count,
        vram_gb=session.vram_gb, disk_gb=session.disk_gb, max_price=session.max_price,
        hours=session.reservation / timedelta(hours=1),
        exclude_offers=[*tried, *busy.values_list("offer_id", flat=True)],
        exclude_hosts=[row.host for row in instances if row.host], now=now,
        passed_on=[name for name in menu.PASSED_ON if getattr(session, name)], exclude_providers=exclude_providers,
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
            session, status=Status.PROVISIONING, revision=session.revision + 1, due_at=_end_of(expires, now),
            started_at=started, expires_at=expires, hard_deadline=hard, waiting_for="",
            provider=offer.provider, offer_id=offer.pk, gpu_type=offer.gpu_type, gpu_count=offer.gpu_count,
            vram_gb=offer.vram_gb, price=parts.total,
        )  # fmt: skip
        if not landed:
            return
        row = Instance.objects.create(
            session=session,
            provider=offer.provider,
            account=account_id(offer.provider),
            tag=tag.mint(settings.DEPLOYMENT_ID, hard, settings.TAG_KEYS[0]),
            offer_id=offer.pk,
            quote_id=offer.provider_id,
            provider_gpu_name=offer.provider_gpu_name,
            gpu_type=offer.gpu_type,
            gpu_count=offer.gpu_count,
            vram_gb=offer.vram_gb,
            cuda_version=offer.cuda_version,
            cpu_cores=offer.cpu_cores,
            ram_gb=offer.ram_gb,
            disk_gb=session.disk_gb,
            host=offer.host,
            price=session.price,
            price_parts=parts_json(parts),
            max_price=most(session),
            created_at=_later_than(session, now),
            state_since=now,
            due_at=now,
            deadline=expires,
            hard_deadline=hard,
            our_key=private,
            our_public_key=public,
        )
        tell("attempt_opened", f"Offer {offer.pk} is taken, at {session.price / 1_000_000:.4f} USD/h.", now,
             session=session, instance=row, offer_id=offer.pk)  # fmt: skip
        wake.instance(row.pk, ending=False)
        look_soon(offer.provider, now)


def _later_than(session: Session, now: datetime) -> datetime:
    """Attempts are told apart by when they began; the clock may show the same for two of them."""
    last = session.instances.aggregate(last=Max("created_at"))["last"]
    return now if last is None else max(now, last + timedelta(microseconds=1))


# Prices drift between the menu and the machine. This much is taken, and is what budgets set aside on top.
DRIFT_PERCENT = 10


def most(session: Session) -> int:
    """The dearest machine that is taken for this session's price, in micro-dollars per hour."""
    drifted = session.price * (100 + DRIFT_PERCENT) // 100
    return drifted if session.max_price is None else min(drifted, session.max_price)


def _end_of(expires_at: datetime | None, now: datetime) -> datetime | None:
    end = lifecycle.own_end(expires_at)
    return end and at_latest(end, now)


def _hand_over(session: Session, action: lifecycle.HandOver, instances: list[Instance], now: datetime) -> None:
    row = instances[-1]
    restatus(session, Status.RUNNING, now, "session_running",
              f"Ready: ssh -p {row.ssh_port} {row.ssh_user}@{row.ssh_host}",
              running_at=now, due_at=_end_of(session.expires_at, now))  # fmt: skip


def _end_session(session: Session, action: lifecycle.EndSession, instances: list[Instance], now: datetime) -> None:
    of_its_machine = instances and action.reason not in lifecycle.GOOD_ENDS
    note, said = (instances[-1].end_note, instances[-1].end_said) if of_its_machine else ("", "")
    wish_end(session.pk, action.reason, now, note=note, said=said)


def _tell_instances(session: Session, action: lifecycle.EndInstances, instances: list[Instance], now: datetime) -> None:
    with transaction.atomic():
        end_instances(session, Reason(session.end_reason), now)
    look_again(session, now + IN_FLIGHT_LOOK)


def _close(session: Session, action: lifecycle.Close, instances: list[Instance], now: datetime) -> None:
    restatus(session, action.status, now, f"session_{action.status}",
              "Everything that was made for it is proven gone.", stopped_at=now, due_at=None)  # fmt: skip


_PERFORM_SESSION: dict[type[lifecycle.SessionAction], Callable[[Session, Any, list[Instance], datetime], None]] = {
    lifecycle.Wait: _session_wait,
    lifecycle.OpenAttempt: _open_attempt,
    lifecycle.HandOver: _hand_over,
    lifecycle.EndSession: _end_session,
    lifecycle.EndInstances: _tell_instances,
    lifecycle.Close: _close,
}
