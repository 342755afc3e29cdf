"""Finding out: one complete listing of an account, compared with every row, written down as facts.

It decides nothing about a machine that has a row; `controller.advance_instance` does. It adopts what bears
our tag and has no row, and it never touches a stranger. No listing, no facts: an error moves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from weakref import WeakSet

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from providers import clock, registry, tag
from providers.base import Machine, MachineState, PriceParts, Provider, ProviderError, Traits, Unauthorized
from providers.tag import Ownership
from sessions import controller, outlets, wake
from sessions.lifecycle import MAY_EXIST, Facts, Reason, State, touched_at
from sessions.models import Account, Instance, Session, Stranger
from sessions.rows import claim, count, tell, write

log = logging.getLogger(__name__)

T = TypeVar("T")

# While something is in flight the listing is how it is watched; at rest it comes each
# RECONCILIATION_INTERVAL. A row that has been in flight for long is not worth a listing every 2 s.
FAST = timedelta(seconds=2)
SLOW = timedelta(seconds=20)
YOUNG = timedelta(minutes=20)
IDENTITY_FRESH = timedelta(hours=1)
BLIND_FIRST, BLIND_MOST = timedelta(seconds=5), timedelta(minutes=1)

# More unknown machines at once than accidents make: a restored or lost database, most likely, and these
# may be people's live machines.
AMNESIA_ABOVE = 3
AMNESIA_WITHIN = timedelta(minutes=10)
AMNESIA = (
    "several machines with our label and without a session were found (amnesia: perhaps a lost database); "
    "an operator has to release the brake"
)

# Between two looks that are further apart anything may have happened.
UNBROKEN = timedelta(minutes=2)
_CHUNK = 500
_USELESS = (MachineState.DOWN, MachineState.BROKEN)


@dataclass
class Outcome:
    """What one listing brought to light, for people and tests."""

    complete: bool = False
    listed: int = 0
    ours: int = 0
    foreign: int = 0
    suspect: int = 0
    adopted: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    missed: int = 0  # machines that should be there, for the first time not in it
    error: str = ""

    @property
    def mismatches(self) -> int:
        """What the listing shows otherwise than our rows do."""
        return len(self.adopted) + len(self.resurrected) + self.missed


def reconcile(name: str, *, even_if_not_due: bool = False) -> Outcome | None:
    """List the account of provider `name` and write down what that shows. None if it is not due."""
    now = clock.now()
    provider = registry.get(name)
    if provider is None:
        return None
    Account.objects.get_or_create(provider=name, defaults={"due_at": now})
    if even_if_not_due:
        Account.objects.filter(provider=name).update(due_at=now)
    account = claim(Account, name, now)
    if account is None:
        return None
    try:
        identity = _identity(provider, account)
        machines = [_storable(machine) for machine in provider.machines()]
    except ProviderError as error:
        return _blind(account, error, now)
    return _record(account, identity, provider.traits, machines, now)


# Whose account this process has asked for itself: another one, or an earlier, may have had another key.
_identified: WeakSet[Provider] = WeakSet()


def _identity(provider: Provider, account: Account) -> str:
    """The provider's id of the account; read again after any trouble, and once an hour."""
    read_at = account.identified_at
    fresh = read_at is not None and clock.now() - read_at < IDENTITY_FRESH and not account.failures
    if fresh and provider in _identified:
        return account.account
    found = provider.account()
    _identified.add(provider)
    write(account, identified_at=clock.now(), balance=found.balance)
    return found.id


def _storable(machine: Machine) -> Machine:
    """Names are other people's: half an emoji or a NUL in one must not cost the listing."""
    if machine.label is None:
        return machine
    return replace(machine, label=machine.label.encode(errors="replace").decode().replace("\0", "?")[:300])


def _blind(account: Account, error: ProviderError, now: datetime) -> Outcome:
    """Nothing was learnt. Only the account's own row says so."""
    pause = min(BLIND_MOST, BLIND_FIRST * 2 ** min(account.failures, 8))
    wait = getattr(error, "retry_after", None)
    if wait:
        pause = max(pause, timedelta(seconds=min(wait, 300)))
    write(
        account, tried_at=now, failures=account.failures + 1, error=str(error)[:500],
        unauthorized=account.unauthorized or isinstance(error, Unauthorized), due_at=now + pause,
    )  # fmt: skip
    count("listing_failures", account.provider)
    log.warning("provider %s: no complete listing (%s); nothing is concluded from it, next try in %d s.",
                account.provider, error, pause.total_seconds())  # fmt: skip
    return Outcome(error=str(error))


def _record(account: Account, identity: str, traits: Traits, machines: Sequence[Machine], began: datetime) -> Outcome:
    """Rows are read after the listing began, so a machine that is listed has its row in sight."""
    outcome = Outcome(complete=True, listed=len(machines))
    with transaction.atomic():
        rows = _rows(account.provider, identity, machines)
        _forget_the_future(account, rows, began)
        matches, strangers = _match(rows, machines)
        for row, machine in matches:
            if row.state == State.DESTROYED:
                _resurrect(row, machine, began, outcome)
        live = [(row, machine) for row, machine in matches if row.state != State.DESTROYED]
        outcome.ours = len(live)
        _write_seen(live, identity, traits, began)
        seen = {row.pk for row, _ in matches}
        elsewhere = {row.pk for row in rows if identity and row.account not in ("", identity)}
        unseen = [r for r in rows if r.pk not in seen | elsewhere and r.state != State.DESTROYED]
        outcome.missed = _write_missed(unseen, began)
        _meet(account, identity, strangers, rows, began, outcome)
        _finish(account, identity, machines, began)
        if outcome.mismatches:
            count("reconciliation_mismatches", account.provider, outcome.mismatches)
    for hear in outlets.each_listing:
        hear(account.provider, began)
    return outcome


def _rows(provider: str, identity: str, machines: Sequence[Machine]) -> list[Instance]:
    """Every row that may exist, and those thought gone whose machine or tag is listed."""
    of_account = Instance.objects.filter(provider=provider)
    if identity:
        # Rows of another account at the same provider: this listing says nothing about them. But what bears a row's
        # label is that row's machine, whatever the account is called now.
        labels = [machine.label for machine in machines if machine.label]
        of_account = of_account.filter(Q(account="") | Q(account=identity) | Q(tag__in=labels))
    rows = list(of_account.filter(state__in=MAY_EXIST))
    known = {row.machine_id for row in rows if row.machine_id}
    rest = [machine for machine in machines if machine.id not in known]
    for chunk in _chunks(rest):
        gone = of_account.filter(state=State.DESTROYED).filter(
            Q(machine_id__in=[m.id for m in chunk]) | Q(tag__in=[m.label for m in chunk if m.label])
        )
        rows.extend(gone)
    return rows


# What cannot have happened later than now, and what is not known if a clock that was ahead wrote it.
_HAPPENED = ("launched_at", "seen_at", "asked_at", "state_since", "ended_at")
_NOT_KNOWN = ("looked_at", "denied_at", "probed_at", "inspected_at")


def _forget_the_future(account: Account, rows: Iterable[Instance], now: datetime) -> None:
    """Facts that are dated later than now, by a clock that this provider's own confirms, say less than they seem to.

    Left as they are, nothing that is seen now would be news until their time has come.
    """
    ahead, late = clock.ahead_of(account.provider), now + clock.AGREE
    if ahead is None or abs(ahead) > clock.AGREE:
        return
    if account.looked_at is not None and account.looked_at > late:
        Account.objects.filter(pk=account.pk).update(looked_at=None)
    for row in rows:
        dated: dict[str, Any] = dict.fromkeys(_HAPPENED, now) | dict.fromkeys(_NOT_KNOWN)
        wrong = {name: value for name, value in dated.items() if (getattr(row, name) or now) > late}
        if wrong:
            Instance.objects.filter(pk=row.pk).update(**wrong, misses=0)
            for name, value in wrong.items():
                setattr(row, name, value)
            row.misses = 0
            log.warning("instance %s: dated later than now, and not believed: %s. A clock of ours was ahead.",
                        row.pk, ", ".join(wrong), extra={"instance_id": str(row.pk)})  # fmt: skip


def _match(
    rows: Sequence[Instance], machines: Sequence[Machine]
) -> tuple[list[tuple[Instance, Machine]], list[Machine]]:
    """Machines by id, else by tag where the row knows no id yet; of two under one tag the oldest."""
    by_id = {row.machine_id: row for row in rows if row.machine_id}
    by_tag = {row.tag: row for row in rows if not row.machine_id and row.adopted_at is None}
    matches: list[tuple[Instance, Machine]] = []
    strangers: list[Machine] = []
    for machine in sorted(machines, key=_age):
        row = by_id.get(machine.id)
        if row is not None and row.state == State.DESTROYED and machine.label not in (None, row.tag, row.label_seen):
            row = None  # The provider gave its id to another machine.
        row = row or by_tag.pop(machine.label or "", None)
        if row is not None:
            matches.append((row, machine))
        else:
            strangers.append(machine)
    return matches, strangers


def _age(machine: Machine) -> tuple[datetime, int, str]:
    """Oldest first; ids of one provider grow, where they are numbers."""
    return (machine.started_at or _NEVER, len(machine.id), machine.id)


_NEVER = datetime.max.replace(tzinfo=UTC)


# --- Facts about rows -------------------------------------------------------------------------------------------


def _write_seen(pairs: Sequence[tuple[Instance, Machine]], identity: str, traits: Traits, began: datetime) -> None:
    here = {"account": identity} if identity else {}  # What our key shows is in its account, whatever that was called.
    for chunk in _chunks(pairs):
        # The same for all of them; older knowledge never overwrites newer.
        Instance.objects.filter(pk__in=[row.pk for row, _ in chunk]).filter(_older(began)).update(
            seen_at=began, looked_at=began, misses=0, **here
        )
    for row, machine in pairs:
        if row.looked_at is None or row.looked_at < began:
            _write_details(row, machine, traits, began)


def _older(began: datetime) -> Q:
    return Q(looked_at=None) | Q(looked_at__lt=began)


def _write_details(row: Instance, machine: Machine, traits: Traits, began: datetime) -> None:
    if not row.machine_id:
        controller.learn_machine_id(row, machine.id, row.account, began, began_at=machine.started_at)
    changed = {name: value for name, value in _seen(row, machine, began).items() if getattr(row, name) != value}
    if changed:
        material = changed.keys() & {"machine_state", "ssh_targets", "label_seen", "useless_looks", "interruptible"}
        if material and row.state != State.DESTROYING:
            changed["due_at"] = began
            wake.instance(row.pk, ending=False)
        Instance.objects.filter(pk=row.pk).update(**changed)
    if row.missed_at is not None:
        Instance.objects.filter(pk=row.pk).update(missed_at=None)
        controller.meter(row, row.missed_at, controller.parts_of(row))
    _reprice(row, machine, traits, began)


def _seen(row: Instance, machine: Machine, began: datetime) -> dict[str, Any]:
    useless = machine.state in _USELESS
    unbroken = row.seen_at is not None and began - row.seen_at <= UNBROKEN
    return {
        "machine_state": str(machine.state),
        "machine_status": machine.status[:300],
        "interruptible": machine.interruptible if machine.interruptible is not None else row.interruptible,
        "label_seen": machine.label if machine.label is not None else row.label_seen,
        "useless_looks": row.useless_looks + 1 if useless else 0,
        "useless_since": (row.useless_since if unbroken and row.useless_since else began) if useless else None,
        "up_since": (row.up_since or began) if machine.state is MachineState.UP else None,
        "ssh_targets": [asdict(target) for target in machine.ssh_targets] or row.ssh_targets,
    }


def _reprice(row: Instance, machine: Machine, traits: Traits, began: datetime) -> None:
    """Another price than so far opens a new interval of the bill."""
    if machine.price is None:
        return
    parts = billed(machine.price, machine.state, traits)
    if parts == controller.parts_of(row):
        return
    Instance.objects.filter(pk=row.pk).update(price_parts=controller.parts_json(parts))
    row.price_parts = controller.parts_json(parts)
    controller.meter(row, began, parts)
    tell("price_changed", f"It now costs {parts.total / 1_000_000:.4f} USD/h.", began, instance=row)


def billed(price: PriceParts, state: MachineState, traits: Traits) -> PriceParts:
    """What a machine costs in this state: a stopped one may cost its storage only."""
    if state is MachineState.DOWN and not traits.bills_stopped:
        return PriceParts(gpu=0, storage=price.storage)
    return price


def _write_missed(rows: Iterable[Instance], began: datetime) -> int:
    """These are not in the listing; returns how many of them should have been, and were so far."""
    written, surprises = clock.now(), 0
    for row in rows:
        if row.looked_at is not None and row.looked_at >= began:
            continue
        touched = touched_at(_touch_facts(row))
        counts = touched is not None and began > touched
        landed = Instance.objects.filter(
            pk=row.pk, looked_at=row.looked_at, asked_at=row.asked_at, seen_at=row.seen_at
        ).update(looked_at=began, misses=row.misses + counts)
        if landed and counts:
            surprises += row.misses == 0 and row.state in (State.BOOTING, State.RUNNING)
            _missing(row, written)
    return surprises


def _missing(row: Instance, written: datetime) -> None:
    """The bill stands still while the listings lack a machine, and goes on from there if it comes back."""
    if row.missed_at is None and row.machine_id:
        Instance.objects.filter(pk=row.pk).update(missed_at=written)
        controller.meter(row, written, None)
    if row.state == State.RUNNING:
        Instance.objects.filter(pk=row.pk).update(due_at=written)


def _touch_facts(row: Instance) -> Facts:
    return Facts(
        state=State(row.state), deadline=row.deadline, hard_deadline=row.hard_deadline,
        launched_at=row.launched_at, asked_at=row.asked_at, seen_at=row.seen_at,
    )  # fmt: skip


def _resurrect(row: Instance, machine: Machine, began: datetime, outcome: Outcome) -> None:
    if row.looked_at is not None and row.looked_at >= began:
        return  # An old listing that came late: it shows the time before the end.
    if row.ended_at is not None and row.ended_at >= began:
        return
    if not row.machine_id:
        controller.learn_machine_id(row, machine.id, row.account, began, began_at=machine.started_at)
    if controller.resurrect(row, began):
        outcome.resurrected.append(machine.id)
        Instance.objects.filter(pk=row.pk).update(
            seen_at=began, looked_at=began, misses=0, machine_state=str(machine.state)
        )


# --- Machines without a row --------------------------------------------------------------------------------------


def _meet(
    account: Account, identity: str, strangers: Sequence[Machine], rows: Sequence[Instance],
    began: datetime, outcome: Outcome,
) -> None:  # fmt: skip
    known_tags = {row.tag for row in rows}
    ripe: list[tuple[Machine, datetime]] = []
    for machine in strangers:
        reading = tag.read(machine.label, settings.DEPLOYMENT_ID, settings.TAG_KEYS)
        stranger = _note_stranger(account.provider, machine, reading.ownership, began)
        if reading.ownership is Ownership.SUSPECT:
            outcome.suspect += 1
        elif reading.ownership is Ownership.FOREIGN:
            outcome.foreign += 1
        elif machine.label in known_tags:
            _adopt(account, identity, machine, reading.deadline or began, began, Reason.SURPLUS, outcome)
        elif stranger.first_seen_at < began and began - stranger.first_seen_at >= settings.ORPHAN_GRACE_PERIOD:
            ripe.append((machine, reading.deadline or began))
    _adopt_ripe(account, identity, ripe, began, outcome)
    Stranger.objects.filter(provider=account.provider, seen_at__lt=began).delete()


def _note_stranger(provider: str, machine: Machine, ownership: Ownership, began: datetime) -> Stranger:
    fields = {"seen_at": began, "ownership": str(ownership), "label": (machine.label or "")[:300],
              "status": machine.status[:300]}  # fmt: skip
    stranger, met = Stranger.objects.update_or_create(
        provider=provider, machine_id=machine.id, defaults=fields,
        create_defaults={**fields, "first_seen_at": began},
    )  # fmt: skip
    if met and ownership is Ownership.SUSPECT:
        count("suspect_labels", provider)
        log.error("provider %s: machine %s has a label that resembles ours and is not signed by us: %r. "
                  "It is never touched by rule; look at it.", provider, machine.id, machine.label)  # fmt: skip
    return stranger


def _adopt_ripe(
    account: Account, identity: str, ripe: Sequence[tuple[Machine, datetime]], began: datetime, outcome: Outcome
) -> None:
    lately = Instance.objects.filter(
        provider=account.provider, end_reason=Reason.ORPHAN, adopted_at__gt=began - AMNESIA_WITHIN
    )
    too_many = len(ripe) + lately.count() > AMNESIA_ABOVE if ripe else False
    keep = not settings.ORPHAN_AUTO_DESTROY or too_many or account.brake == AMNESIA
    if ripe and keep:
        Account.objects.filter(pk=account.pk).update(brake=AMNESIA)
        log.error("provider %s: %d machines bear our tags and have no rows. They are kept until the deadlines "
                  "in their tags, nothing new is created there, until an operator releases the brake.",
                  account.provider, len(ripe))  # fmt: skip
    for machine, deadline in ripe:
        reason = None if keep and deadline > began else Reason.ORPHAN
        _adopt(account, identity, machine, deadline, began, reason, outcome)


def _adopt(
    account: Account, identity: str, machine: Machine, deadline: datetime, began: datetime,
    reason: Reason | None, outcome: Outcome,
) -> None:  # fmt: skip
    controller.adopt(
        account.provider, identity, machine.id, machine.label or "", deadline, machine.price, began,
        reason=reason, started_at=machine.started_at,
    )  # fmt: skip
    Stranger.objects.filter(provider=account.provider, machine_id=machine.id).delete()
    outcome.adopted.append(machine.id)


def adopt_by_hand(provider: str, machine: Machine, now: datetime, *, actor: str) -> None:
    """An operator says that this machine of ours, which no live session stands for, has to go.

    Raises:
        ValueError: it does not bear our signed tag, or a live session stands for it.
    """
    reading = tag.read(machine.label, settings.DEPLOYMENT_ID, settings.TAG_KEYS)
    if reading.ownership is not Ownership.OURS:
        raise ValueError(f"machine {machine.id} does not bear our tag")
    known = Q(machine_id=machine.id) | Q(tag=machine.label, machine_id="")
    row = Instance.objects.filter(known, provider=provider).order_by("-created_at").first()
    if row is None:
        adopted = controller.adopt(
            provider, controller.account_id(provider), machine.id, machine.label or "", reading.deadline or now,
            machine.price, now, reason=Reason.ORPHAN, started_at=machine.started_at,
        )  # fmt: skip
        tell("instance_end_wished", "An operator wished its end.", now, instance=adopted, actor=actor)
    elif row.state == State.DESTROYED:
        controller.resurrect(row, now)
    elif row.session_id is None:
        controller.wish_end_of_instance(row, Reason.ORPHAN, now, actor=actor)
    else:
        raise ValueError(f"a session stands for machine {machine.id}")


# --- The account itself ---------------------------------------------------------------------------------------------


def _finish(account: Account, identity: str, machines: Sequence[Machine], began: datetime) -> None:
    # A fact, also when the listing took longer than the claim; only when to look again is the claim's to say.
    Account.objects.filter(_older(began), pk=account.pk).update(
        account=identity, looked_at=began, tried_at=began, listed=len(machines), failures=0, error="",
        unauthorized=False,
    )  # fmt: skip
    write(account, due_at=clock.now() + _pause(account.provider, began))


def _pause(provider: str, now: datetime) -> timedelta:
    """How long until the next listing: the calls grow with the providers, not with the sessions."""
    in_flight = Instance.objects.filter(provider=provider, state__in=(State.LAUNCHING, State.BOOTING, State.DESTROYING))
    doubtful = Q(misses__gt=0) | Q(useless_looks__gt=0)
    missing = Instance.objects.filter(doubtful, provider=provider, state=State.RUNNING)
    if in_flight.filter(state_since__gt=now - YOUNG).exists() or missing.exists():
        return min(FAST, settings.RECONCILIATION_INTERVAL)
    waiting = Session.objects.filter(provider=provider, status="pending")
    if in_flight.exists() or waiting.exists():
        return min(SLOW, settings.RECONCILIATION_INTERVAL)
    grace = settings.ORPHAN_GRACE_PERIOD
    if Stranger.objects.filter(provider=provider, ownership=Ownership.OURS).exists():
        return min(max(grace / 2, FAST), settings.RECONCILIATION_INTERVAL)
    return settings.RECONCILIATION_INTERVAL


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
