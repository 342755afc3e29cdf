"""An independent look at the service: does what the providers bill agree with what the rows promise?

It lists the accounts with its own keys, which may be read-only ones, and reads the database, which it can't
write to. It shares no decision with the engines: what it compares are listings, rows and the clock. It changes
nothing, whatever it finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import Error, connection

from gpushopper import alarms, signals
from gpushopper.alarms import minutes
from providers import http, registry, tag
from providers.base import Machine, Provider, ProviderError, Traits
from providers.tag import Ownership, Reading
from rest.admin import counted
from sessions.lifecycle import DESTROY_OVERDUE, MAY_EXIST, OVER, State
from sessions.models import Account, Heartbeat, Instance, Session, Stranger
from sessions.next_step import distance

# What is due is taken within a second, by the guardian after a minute; twice that, and nobody does.
UNCLAIMED = timedelta(minutes=2)
# A listing may trail behind a create or a destroy; what is younger than this proves nothing against the service.
YOUNG = timedelta(minutes=2)
# A create that is unresolved for so long after its settle time is one that nobody resolves.
UNRESOLVED_SLACK = timedelta(minutes=5)

WELL, ODD, WRONG = "ok", "warn", "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    verdict: str
    subject: str
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What one account holds, as the provider says now; None: it did not say."""

    began: datetime
    machines: Sequence[Machine] | None
    error: str = ""
    traits: Traits = field(default_factory=Traits)


def audit(now: datetime) -> list[Finding]:
    """Everything that is late, blind or wrong, and a line for each thing that is well."""
    with _no_figures_written():
        listings = {name: _list(provider, now) for name, provider in sorted(registry.all().items())}
    findings = list(_listings(listings))
    with read_only():
        told = signals.database()
        try:
            if told == signals.OK:
                return [*findings, *_rows(listings, now)]
        except Error as error:
            told = f"stopped answering ({type(error).__name__})"
    lost = Finding(WRONG, "database", f"The database {told}.", "Without it the service does nothing. Mend it first.")
    return [lost, *findings, *_by_labels_alone(listings, now)]


def _list(provider: Provider, now: datetime) -> Listing:
    try:
        return Listing(now, provider.machines(), traits=provider.traits)
    except ProviderError as error:
        return Listing(now, None, str(error), provider.traits)


@contextmanager
def _no_figures_written() -> Iterator[None]:
    """Errors of calls are counted in rows, by whoever makes them; not by one who only looks."""
    before = list(http.observers)
    http.observers.clear()
    try:
        yield
    finally:
        http.observers[:] = before


@contextmanager
def read_only() -> Iterator[None]:
    """A connection on which a write is an error: held by the database, not by our good will."""
    on, off = (
        ("SET default_transaction_read_only = on", "SET default_transaction_read_only = off")
        if connection.vendor == "postgresql"
        else ("PRAGMA query_only = ON", "PRAGMA query_only = OFF")
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(on)
    except Error:  # It does not answer: nothing is written then either, and `signals.database` says so.
        yield
        return
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(off)


# --- What can be said without rows -------------------------------------------------------------------------


def _listings(listings: Mapping[str, Listing]) -> Iterator[Finding]:
    if not listings:
        yield Finding(
            WRONG,
            "providers",
            "No provider key is set here, so nothing can be checked.",
            "The built-in sandbox can be seen while `make run` runs on this DATA_DIR."
            if settings.SANDBOX
            else "Give the auditor keys of its own; read-only ones will do.",
        )
    for name, listing in listings.items():
        if listing.machines is None:
            yield Finding(
                WRONG,
                name,
                f"The auditor itself gets no complete listing: {listing.error}.",
                "Look at its key, the network and the provider's status page.",
            )
        else:
            kinds = [_read(machine).ownership for machine in listing.machines]
            yield Finding(
                WELL,
                name,
                f"listed: {counted(len(kinds), 'machine')}, {kinds.count(Ownership.OURS)} ours, "
                f"{kinds.count(Ownership.FOREIGN)} foreign",
            )
            for machine in listing.machines:
                if _read(machine).ownership is Ownership.SUSPECT:
                    yield Finding(
                        ODD,
                        f"{name} {machine.id}",
                        f"Its label resembles ours and is not signed by us: {machine.label!r}.",
                        "It is never touched by rule. Look at it.",
                    )


def _read(machine: Machine) -> Reading:
    return tag.read(machine.label, settings.DEPLOYMENT_ID, settings.TAG_KEYS)


def _by_labels_alone(listings: Mapping[str, Listing], now: datetime) -> Iterator[Finding]:
    """A label says until when its machine may live, unless an operator has overridden the hard maximum since."""
    for name, listing in listings.items():
        for machine in listing.machines or ():
            deadline = _read(machine).deadline
            if deadline and now - deadline > alarms.DEADLINE_OVERDUE:
                yield Finding(
                    ODD,
                    f"{name} {machine.id}",
                    f"It outlives the deadline in its label by {minutes(now - deadline)}.",
                    "Destroy it there, unless it was extended.",
                )


# --- The service itself -------------------------------------------------------------------------------------


def _rows(listings: Mapping[str, Listing], now: datetime) -> Iterator[Finding]:
    yield from _engines(now)
    yield from _unclaimed(now)
    for name, listing in listings.items():
        yield from _sight(name, now)
        if listing.machines is not None:
            yield from _compare(name, listing, listing.machines, now)
    yield from _promises(listings, now)


def _engines(now: datetime) -> Iterator[Finding]:
    told = signals.lifecycle(now)
    beats = {beat.name: beat.at for beat in Heartbeat.objects.filter(name__in=("beat", "guardian"))}
    guardian = beats.get("guardian")
    alive = f"last sign of life {distance(guardian, now)}" if guardian else "no sign of life yet"
    if told == signals.OK:
        at_work = f"beat and workers are at work, last sign of life {distance(beats['beat'], now)}"
        yield Finding(WELL, "engines", f"{at_work}; the guardian: {alive if settings.GUARDIAN else 'switched off'}")
    elif guardian is not None and now - guardian <= alarms.GUARDIAN_SILENT:
        yield Finding(
            ODD,
            "engines",
            f"Beat or its worker is silent: {told} The guardian does their work ({alive}).",
            f"Start beat and a worker. A guardian counts as dead after {minutes(alarms.GUARDIAN_SILENT)} of silence.",
        )
    else:
        yield Finding(
            WRONG,
            "engines",
            f"Nobody is at work: {told} The guardian is silent too ({alive}).",
            "Start the service: nothing is ended by it until then.",
        )


def _unclaimed(now: datetime) -> Iterator[Finding]:
    late = now - UNCLAIMED
    for model, what in ((Instance, "machine"), (Session, "session"), (Account, "account")):
        rows = model._default_manager.filter(due_at__lt=late).order_by("due_at")
        if model is Account:
            rows = rows.filter(provider__in=registry.all())
        if oldest := rows.values_list("due_at", flat=True).first():
            yield Finding(
                WRONG,
                "engines",
                f"Due and taken by nobody: {counted(rows.count(), what)}, the oldest for {minutes(now - oldest)}.",
                "Start workers or the guardian; look at their logs.",
            )


def _sight(name: str, now: datetime) -> Iterator[Finding]:
    account = Account.objects.filter(provider=name).first()
    if account is None or account.looked_at is None:
        yield Finding(
            WRONG,
            name,
            "The service has never seen this account completely.",
            "Does it have a key for it? `manage.py doctor` there says more.",
        )
        return
    if now - account.looked_at > alarms.blind_after():
        yield Finding(
            WRONG,
            name,
            f"The service is blind: no complete listing for {minutes(now - account.looked_at)}. "
            f"{account.error}".rstrip(),
            "Look at its key, the network and the workers.",
        )
    if account.brake:
        yield Finding(ODD, name, f"The brake is applied: {account.brake}.", "An operator has to decide; see the admin.")


# --- Listings against rows ----------------------------------------------------------------------------------


def _compare(name: str, listing: Listing, machines: Sequence[Machine], now: datetime) -> Iterator[Finding]:
    rows = Instance.objects.filter(provider=name).defer("our_key")
    by_id = {row.machine_id: row for row in rows.filter(machine_id__in=[m.id for m in machines])}
    by_tag = {row.tag: row for row in rows.filter(machine_id="", tag__in=[m.label for m in machines if m.label])}
    for machine in machines:
        row = by_id.get(machine.id) or by_tag.get(machine.label or "")
        found = _listed_row(name, machine, row, listing, now) if row else _rowless(name, machine, now)
        if found:
            yield found
    yield from _not_listed(name, machines, now)


def _listed_row(name: str, machine: Machine, row: Instance, listing: Listing, now: datetime) -> Finding | None:
    subject = f"{name} {machine.id}"
    if row.state == State.DESTROYED and row.ended_at and row.ended_at < listing.began:
        return Finding(
            WRONG,
            subject,
            f"It was written down as gone {minutes(now - row.ended_at)} ago and exists.",
            "The next listing takes it up again; if it does not, destroy it there.",
        )
    if row.state in MAY_EXIST and now - row.deadline > alarms.DEADLINE_OVERDUE:
        return Finding(
            WRONG,
            subject,
            f"It outlives its deadline by {minutes(now - row.deadline)} "
            f"({row.state}, asked {counted(row.asks, 'time')}).",
            "Destroy it in the provider's own console.",
        )
    return None


def _rowless(name: str, machine: Machine, now: datetime) -> Finding | None:
    if _read(machine).ownership is not Ownership.OURS:
        return None
    met = Stranger.objects.filter(provider=name, machine_id=machine.id).values_list("first_seen_at", flat=True).first()
    known_for = now - min(moment for moment in (met, machine.started_at, now) if moment)
    patience = settings.ORPHAN_GRACE_PERIOD + settings.RECONCILIATION_INTERVAL + YOUNG
    late = known_for > patience
    return Finding(
        WRONG if late else ODD,
        f"{name} {machine.id}",
        f"It bears our label, no row stands for it, and it has been there for {minutes(known_for)}.",
        "The service should have adopted it; `manage.py cleanup_orphans` shows it."
        if late
        else f"The service adopts it within {minutes(patience)}.",
    )


def _not_listed(name: str, machines: Sequence[Machine], now: datetime) -> Iterator[Finding]:
    """Machines that a consumer believes to have and the provider does not."""
    listed = {machine.id for machine in machines}
    believed = Instance.objects.filter(provider=name, state=State.RUNNING, state_since__lt=now - YOUNG)
    for machine_id, seen_at in believed.exclude(machine_id="").values_list("machine_id", "seen_at"):
        if machine_id not in listed:
            unseen = f"last seen {minutes(now - seen_at)} ago" if seen_at else "never seen in a listing"
            late = seen_at is None or now - seen_at > alarms.blind_after()
            yield Finding(
                WRONG if late else ODD,
                f"{name} {machine_id}",
                f"It counts as running and is not listed, {unseen}.",
                "The service ends its session when two listings and a look-up agree.",
            )


# --- What the rows themselves promise -----------------------------------------------------------------------


def _promises(listings: Mapping[str, Listing], now: datetime) -> Iterator[Finding]:
    found = [
        *_overdue(now),
        *_unresolved(listings, now),
        *_ended_too_early(now),
        *_unlisted_past_deadline(listings, now),
    ]
    yield from found
    if not found:
        count = Instance.objects.filter(state__in=MAY_EXIST).count()
        yield Finding(WELL, "promises", f"{counted(count, 'machine')} may exist; none is late, none is unresolved")


def _overdue(now: datetime) -> Iterator[Finding]:
    rows = Instance.objects.filter(state=State.DESTROYING, state_since__lt=now - DESTROY_OVERDUE)
    for row in rows.exclude(machine_id="").defer("our_key"):
        yield Finding(
            WRONG,
            f"{row.provider} {row.machine_id}",
            f"Its end was wished {minutes(now - row.state_since)} ago and is not proven; "
            f"asked {counted(row.asks, 'time')}.",
            "Destroy it in the provider's own console.",
        )


def _unresolved(listings: Mapping[str, Listing], now: datetime) -> Iterator[Finding]:
    unclear = Instance.objects.filter(
        state__in=(State.LAUNCHING, State.DESTROYING), machine_id="", launched_at__isnull=False, refused_at=None
    )
    for row in unclear.defer("our_key"):
        traits = listings[row.provider].traits if row.provider in listings else Traits()
        settle = settings.CREATE_SETTLE or traits.settle
        if row.launched_at and now - row.launched_at > settle + UNRESOLVED_SLACK:
            yield Finding(
                WRONG,
                f"{row.provider} {row.tag}",
                f"A create sent {minutes(now - row.launched_at)} ago has no outcome yet.",
                "Look for this label in the provider's console.",
            )


def _ended_too_early(now: datetime) -> Iterator[Finding]:
    """`stopped` and `failed` mean: everything is proven gone."""
    rows = Instance.objects.filter(session__status__in=OVER).exclude(state=State.DESTROYED).defer("our_key")
    for row in rows:
        yield Finding(
            WRONG,
            f"session {row.session_id}",
            f"It is over, and machine {row.machine_id or row.tag} at {row.provider} is {row.state}.",
            "Destroy the machine; keep the rows for whoever looks into it.",
        )


def _unlisted_past_deadline(listings: Mapping[str, Listing], now: datetime) -> Iterator[Finding]:
    """Where the auditor sees nothing itself, the rows alone have to tell."""
    seen = [name for name, listing in listings.items() if listing.machines is not None]
    late = Instance.objects.filter(deadline__lt=now - alarms.DEADLINE_OVERDUE, state__in=MAY_EXIST)
    for row in late.exclude(provider__in=seen).exclude(machine_id="").defer("our_key"):
        yield Finding(
            WRONG,
            f"{row.provider} {row.machine_id}",
            f"By the rows it outlives its deadline by "
            f"{minutes(now - row.deadline)}; the account can't be seen from here.",
            "Look into the provider's own console.",
        )
