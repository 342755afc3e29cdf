"""Judging a run by the provider's books: the invariants I1 to I10, and that everything came to rest.

The world is the truth; our rows are what is judged. Both sides count: a machine that lives on although nobody
wants it (an orphan), and a healthy machine that was destroyed although somebody did (a false kill).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from django.conf import settings

from costs import ledger
from costs.budgeting import OnLimit
from costs.days import Days
from costs.models import Budget, UsageInterval
from providers import tag
from providers.tag import Ownership
from sessions import outlets
from sessions.lifecycle import MOVES, OVER, Reason, State, Status
from sessions.models import Event, Instance, Session
from sessions.rows import LEASE

if TYPE_CHECKING:
    from tests.simulation.run import Run

# What a machine may live on after nobody wants it any more, outages of its provider not counted.
ORPHAN_BOUND = timedelta(minutes=15)
# Deadlines by a clock that may be a minute off.
CLOCK_SLACK = timedelta(seconds=62)

# Ends of machines that no session ever held: what was not handed over was nobody's.
NEVER_WANTED = frozenset({Reason.REFUSED, Reason.LAUNCH_LOST, Reason.SURPLUS, Reason.ORPHAN})
# Nor what was waited for in vain.
NEVER_USABLE = frozenset({Reason.BOOT_TIMEOUT, Reason.SSH_TIMEOUT})
WISHED = frozenset({Reason.RELEASED, Reason.DELETED, Reason.TEARDOWN})
DUE = frozenset({Reason.EXPIRED, Reason.HARD_MAX})


@dataclass
class Verdict:
    violations: list[str] = field(default_factory=list)
    machines: int = 0
    orphans: int = 0
    false_kills: int = 0
    orphan_seconds: list[float] = field(default_factory=list)
    worst_cost_error: int = 0  # micro-dollars
    virtual_seconds: float = 0.0
    boundaries: int = 0
    deaths: int = 0
    pauses: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)


def judge(run: Run) -> Verdict:
    verdict = Verdict(
        virtual_seconds=(run.clock.instant - run.clock.began).total_seconds(),
        boundaries=run.stage.boundaries.crossed,
        deaths=run.service.deaths,
        pauses=run.service.pauses,
        names=dict(run.stage.boundaries.names),
        ends=dict(Counter(Instance.objects.exclude(end_reason="").values_list("end_reason", flat=True))),
    )
    checks = (
        _rest, _orphans, _kills, _foreign, _one_machine, _proof, _moves, _calls, _costs, _days, _budgets, _secrets,
        _answers,
    )  # fmt: skip
    for check in checks:
        verdict.violations += [f"{check.__doc__}: {found}" for found in check(run, verdict)]
    return verdict


def _ours(run: Run) -> list[Any]:
    """The world's machines that bear a tag of this deployment, as it was sent (labels may get lost there)."""
    return [m for m in run.world.machines.values() if m.id not in run.foreign and _is_ours(run, m)]


def _is_ours(run: Run, machine: Any) -> bool:
    sent = machine.sent_label or machine.label or ""
    return tag.read(sent, settings.DEPLOYMENT_ID, settings.TAG_KEYS).ownership is Ownership.OURS


def _rest(run: Run, verdict: Verdict) -> Iterator[str]:
    """Everything comes to rest"""
    if run.unrested:
        yield run.unrested


def _orphans(run: Run, verdict: Verdict) -> Iterator[str]:
    """I1, no orphan"""
    for machine in _ours(run):
        verdict.machines += 1
        unwanted = _unwanted_since(run, machine)
        lived_on = (machine.destroyed_at or run.clock.instant) - unwanted
        counted = lived_on - _outage(run, unwanted, machine.destroyed_at or run.clock.instant)
        verdict.orphan_seconds.append(max(0.0, counted.total_seconds()))
        if _is_lost(run, machine):
            continue  # Its label is gone and its id was never told: nobody can know it (docs/safety.md).
        if machine.destroyed_at is None:
            verdict.orphans += 1
            yield f"{machine.provider} {machine.id} ({machine.label}) lives on"
        elif counted > ORPHAN_BOUND:
            yield f"{machine.provider} {machine.id} lived on for {counted} after nobody wanted it"


def _is_lost(run: Run, machine: Any) -> bool:
    return machine.label != machine.sent_label and not Instance.objects.filter(machine_id=machine.id).exists()


def _unwanted_since(run: Run, machine: Any) -> datetime:
    """When its end was first decided or due; a machine that no row ever held was unwanted from the beginning."""
    rows = list(Instance.objects.filter(provider=machine.provider, machine_id=machine.id).order_by("created_at"))
    if not rows:
        return machine.created_at
    moments = [row.deadline for row in rows]
    first = Event.objects.filter(instance__in=rows, kind="instance_destroying").order_by("id").first()
    moments += [first.at] if first else []
    unwanted = [run.clock.true(min(moments))]
    # What a client was told is on its way out counts from then on, whatever our own rows say of it.
    promises = [run.promises.get(str(row.session_id)) for row in rows]
    unwanted += [promise.ended_at for promise in promises if promise and promise.ended_at]
    return max(machine.created_at, min(unwanted))


def _outage(run: Run, start: datetime, end: datetime) -> timedelta:
    spans = [min(end, until) - max(start, since) for since, until in [*run.outages, *run.service.downs]]
    return sum((span for span in spans if span > timedelta(0)), timedelta(0))


def _kills(run: Run, verdict: Verdict) -> Iterator[str]:
    """I3, no false kill"""
    for machine in _ours(run):
        if machine.destroyed_by != "api":
            continue
        row = Instance.objects.filter(provider=machine.provider, machine_id=machine.id).first()
        if row is None:
            yield f"{machine.id} was destroyed and has no row"
        elif wrong := _unjustified(run, row, machine):
            verdict.false_kills += 1
            yield f"{machine.provider} {machine.id} was destroyed because it {row.end_reason or '?'}: {wrong}"


def _unjustified(run: Run, row: Instance, machine: Any) -> str:
    reason = Reason(row.end_reason)
    excuses = run.scenario.excuses | (run.fault.excuses if run.fault else frozenset())
    if reason in excuses:
        return ""
    promise = run.promises.get(str(row.session_id))
    if reason in WISHED:
        wished = promise and promise.ended_at
        return "" if wished and machine.destroyed_at >= wished - timedelta(seconds=1) else "nobody had asked for it"
    if reason in DUE:
        return _too_early(run, row, machine, promise.hours if promise else None)
    if reason in NEVER_WANTED or reason in NEVER_USABLE:
        return "it had been handed over" if row.verified_at else ""
    return "" if _happened(reason, machine) else "nothing of that kind had happened"


def _happened(reason: Reason, machine: Any) -> bool:
    """What the world knows of the machine: it was made with a fault, or lost its label."""
    if reason is Reason.LABEL_LOST:
        return bool(machine.label != machine.sent_label)
    return any(name.startswith(("host.", "guest.", "ssh.", "net.", "create.")) for name in machine.faults)


def _too_early(run: Run, row: Instance, machine: Any, hours: float | None) -> str:
    if hours is None:
        kept = row.adopted_at and machine.destroyed_at >= row.deadline - CLOCK_SLACK
        return "" if kept else "no client was promised it"
    session = row.session
    assert session is not None and session.started_at is not None
    due = run.clock.true(session.started_at) + timedelta(hours=hours)
    return f"{due - machine.destroyed_at} too early" if machine.destroyed_at < due - 2 * CLOCK_SLACK else ""


def _foreign(run: Run, verdict: Verdict) -> Iterator[str]:
    """I2, strangers are never touched"""
    for machine_id in run.foreign:
        machine = run.world.machines[machine_id]
        if machine.destroyed_at is not None or machine.touched:
            yield f"{machine_id} ({machine.label}) was touched"


def _one_machine(run: Run, verdict: Verdict) -> Iterator[str]:
    """I4, one usable machine for a session, one create for a tag"""
    creates = Counter(call.label for call in run.world.calls if call.operation == "create" and call.label)
    for label, number in creates.items():
        if number > 1:
            yield f"{number} creates were sent for {label}"
    for session in Session.objects.all():
        rows = list(session.instances.filter(adopted_at=None).order_by("created_at"))
        for earlier, later in pairwise(rows):
            left = Event.objects.filter(instance=earlier, kind__in=("instance_destroying", "instance_destroyed"))
            if not left.filter(at__lte=later.created_at).exists():
                yield f"session {session.pk} has taken another offer while {earlier} was wanted"


def _proof(run: Run, verdict: Verdict) -> Iterator[str]:
    """I5, over means proven gone"""
    if run.restored or _lies(run):
        return
    for event in Event.objects.filter(kind__in=("session_stopped", "session_failed")):
        tags = set(Instance.objects.filter(session_id=event.session_id).values_list("tag", flat=True))
        at = run.clock.true(event.at)
        for machine in run.world.machines.values():
            alive = machine.created_at <= at and (machine.destroyed_at is None or machine.destroyed_at > at)
            if machine.sent_label in tags and alive:
                yield f"{event.session_id} was over at {at} while {machine.id} was alive"


LIES = ("get.deny", "list.hide", "destroy.resurrect", "create.late_row")


def _lies(run: Run) -> bool:
    """A provider that denies a machine on both channels for longer than any wait can't be seen through."""
    return run.scenario.lies or (run.fault is not None and run.fault.switch in LIES)


def _moves(run: Run, verdict: Verdict) -> Iterator[str]:
    """I6, states move along the table"""
    for row in Instance.objects.all():
        state = str(State.LAUNCHING)
        for event in row.events.filter(kind__startswith="instance_").order_by("id"):
            before, after = event.data.get("before"), event.kind.removeprefix("instance_")
            if before is None:
                continue
            if row.adopted_at is None and before != state:
                yield f"{row.pk} went from {before}, but was {state}"
            if (State(before), State(after)) not in MOVES:
                yield f"{row.pk} went from {before} to {after}"
            state = after


def _calls(run: Run, verdict: Verdict) -> Iterator[str]:
    """I6, each changing call has its event before it"""
    sent = Counter(Event.objects.filter(kind="destroy_sent").values_list("instance__machine_id", flat=True))
    asked = Counter(call.machine for call in run.world.calls if call.operation == "destroy" and call.machine)
    if not run.restored:
        for machine_id, number in asked.items():
            if sent[machine_id] < number:
                yield f"{machine_id}: {number} destroys were sent, {sent[machine_id]} told of"
    created = Event.objects.filter(kind="create_sent").count()
    calls = sum(1 for call in run.world.calls if call.operation == "create")
    if created < calls and not run.restored:
        yield f"{calls} creates were sent, {created} told of"


def _costs(run: Run, verdict: Verdict) -> Iterator[str]:
    """I7, our cost is the provider's bill"""
    if run.restored:
        return
    now = run.clock.now()
    for session in Session.objects.all():
        rows = list(session.instances.all())
        machines = [m for m in run.world.machines.values() if m.sent_label in {row.tag for row in rows}]
        billed = sum(run.world.bill(machine.id) for machine in machines)
        counted = outlets.costs_of([session.pk], now).get(session.pk, 0)
        error = abs(counted - billed)
        verdict.worst_cost_error = max(verdict.worst_cost_error, error)
        if error > _unseen(run, rows) + 2:
            yield f"session {session.pk}: {counted} micro-dollars counted, {billed} billed"


def _days(run: Run, verdict: Verdict) -> Iterator[str]:
    """I7, the days add up to the whole"""
    now = run.clock.now()
    first = UsageInterval.objects.order_by("started_at").first()
    if first is None:
        return
    days = Days(first.started_at.date(), now.date())
    by_day = sum(amount.total for amount in ledger.by_day("consumer", days, now).values())
    whole = ledger.used(ledger.Which(), days.since, now, now).total
    if by_day != whole:
        yield f"{by_day} grains on the days, {whole} in all"


def _budgets(run: Run, verdict: Verdict) -> Iterator[str]:
    """I8, what was rented under a budget stays within it"""
    if run.restored:
        return
    for budget in Budget.objects.exclude(on_limit=OnLimit.ALERT):
        held = Session.objects.filter(consumer=budget.consumer, created_at__gte=budget.created_at)
        rows = list(Instance.objects.filter(session__in=held))
        tags = {row.tag for row in rows}
        billed = sum(run.world.bill(m.id) for m in run.world.machines.values() if m.sent_label in tags)
        if billed > budget.limit + _unseen(run, rows):
            yield f"{billed} micro-dollars were billed under a limit of {budget.limit}"


# From the provider's end of a machine to the listing that lacks it: two looks while something is in flight.
LOOKS = timedelta(seconds=10)


def _unseen(run: Run, rows: list[Instance]) -> int:
    """What may be billed otherwise than counted, in micro-dollars: what happened while nobody could look.

    An end that nobody asked for is seen by the next listing at rest; an outage, or a dead service, sees nothing, nor
    does anybody else for as long as a worker that stopped holds its claim.
    """
    rate = sum(row.price for row in rows)
    downs = sum((until - since for since, until in run.service.downs), timedelta(0))
    blind = LOOKS + downs + run.service.pauses * LEASE + (3 * CLOCK_SLACK if run.clock.skew else timedelta(0))
    blind += sum((until - since for since, until in run.outages), timedelta(0))
    blind += run.service.on_the_way
    if run.repriced:
        blind += settings.RECONCILIATION_INTERVAL  # Another price is seen by the next listing, too.
    if any(row.end_reason in UNASKED or (row.asks and run.fault) for row in rows):
        blind += settings.RECONCILIATION_INTERVAL * 2
    return int(rate * blind.total_seconds() / 3600)


UNASKED = (Reason.VANISHED, Reason.DIED, Reason.HOST_BROKEN)

CANARIES = ("PRIVATE KEY", "sandbox-vastai-key", "sandbox-tensordock-token", "gs_")


def _secrets(run: Run, verdict: Verdict) -> Iterator[str]:
    """I10, no secret is told"""
    for message, said, data in Event.objects.values_list("message", "said", "data"):
        for canary in CANARIES:
            if canary in message or canary in said or canary in str(data):
                yield f"{canary} in {message!r}"


def _answers(run: Run, verdict: Verdict) -> Iterator[str]:
    """What clients were promised is kept"""
    for session_id, promise in run.promises.items():
        session = Session.objects.filter(pk=session_id).first()
        if session is None:
            if not run.restored:
                yield f"{session_id} was promised and is lost"
            continue
        if promise.ended_at and session.status not in OVER:
            yield f"{session_id} was ended by its client and is {session.status}"
        if session.status == Status.STOPPED and session.end_reason == "":
            yield f"{session_id} is stopped for no reason"
