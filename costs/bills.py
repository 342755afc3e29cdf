"""Providers' bills: read day by day, matched with machines by their ids, and compared with what we counted.

Bills lag by hours and grow for a day, so the last days are read again each time; a day's lines of a machine are then
replaced, never added to. What is charged and no session explains is the second way to find a machine that was lost:
by its money.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum

from costs import billing, ledger
from costs.days import Days, day_of, midnight
from costs.models import Balance, Bill, BilledCharge
from providers import clock, registry, tag
from providers.base import Charge, Provider, ProviderError
from providers.money import written
from providers.tag import Ownership
from sessions import rows, wake
from sessions.lifecycle import State
from sessions.models import Account, Instance

log = logging.getLogger(__name__)

IMPORT = "costs.tasks.import_charges"
QUEUE = "misc"

# Charges of a day were seen to grow all day and some hours after a machine's end; three days leave room.
READ_AGAIN = timedelta(days=3)
FIRST_TIME = timedelta(days=31)

# Each night, when the day before is nearly settled.
AT_NIGHT = timedelta(hours=2)
AFTER_TROUBLE = timedelta(hours=1)
LEASE = timedelta(minutes=10)  # A month of days, each a call of a second, with pages to spare.
DAY = timedelta(days=1)


# --- Reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    days: Days
    lines: int
    amount: int  # micro-dollars


def wake_due(now: datetime) -> None:
    """Have every bill read that wants to be."""
    for name in charging():
        Bill.objects.get_or_create(provider=name, defaults={"due_at": now})
    for bill in rows.due(Bill, now):
        if bill.provider in charging():
            wake.publish(IMPORT, bill.provider, QUEUE)


def charging() -> list[str]:
    """The providers that show what they charge."""
    return sorted(name for name, provider in registry.all().items() if provider.traits.has_charges)


def read_if_due(name: str) -> Reading | None:
    """Read one bill, unless somebody else does or it is not due."""
    now = clock.now()
    bill = rows.claim(Bill, name, now)
    provider = registry.get(name)
    if bill is None or provider is None or not rows.write(bill, due_at=now + LEASE):
        return None
    try:
        return read(provider, now)
    except ProviderError as error:
        log.warning("provider %s: its bill could not be read (%s); what was read before stands, next try in %d min.",
                    name, error, AFTER_TROUBLE.total_seconds() // 60)  # fmt: skip
        return None


def read(provider: Provider, now: datetime, *, since: date | None = None) -> Reading:
    """Read a bill from a day on until today, and note that, or how it failed.

    Raises:
        ProviderError: not all of it came. The days before are kept as they were read.
    """
    bill, _ = Bill.objects.get_or_create(provider=provider.name, defaults={"due_at": now})
    first = _first_day(bill, now)
    days = Days(since or first, day_of(now))
    lines: list[BilledCharge] = []
    try:
        for day in days.each_day():
            lines += _replace(provider.name, day.first, provider.charges(day.since, day.until), now)
    except ProviderError as error:
        _note(bill, tried_at=now, failures=F("failures") + 1, error=str(error)[:300], due_at=now + AFTER_TROUBLE)
        raise
    _match_again(provider.name)
    if days.first <= first:  # A few days read by hand leave no hole before them.
        _note(bill, tried_at=now, read_at=now, failures=0, error="", due_at=midnight(days.last) + DAY + AT_NIGHT)
    return Reading(days, len(lines), sum(line.amount for line in lines))


def _note(bill: Bill, **fields: object) -> None:
    Bill.objects.filter(pk=bill.pk).update(revision=F("revision") + 1, **fields)


def _first_day(bill: Bill, now: datetime) -> date:
    if bill.read_at is not None:
        return day_of(bill.read_at - READ_AGAIN)
    began = ledger.began(ledger.Which(provider=bill.provider)) or now - READ_AGAIN
    return day_of(max(began, now - FIRST_TIME))


def _replace(name: str, day: date, charges: Iterable[Charge], now: datetime) -> list[BilledCharge]:
    """A machine that the answer does not show keeps what was read of it before: bills lag, they don't take back."""
    found = billing.lines_of(day, charges)
    known = _machines(name, found)
    lines = [
        BilledCharge(
            provider=name, machine_id=machine_id, label=charge.label[:300], day=day, line=number, kind=charge.kind[:20],
            started_at=charge.started_at, ended_at=charge.ended_at, amount=charge.amount, imported_at=now,
            instance_id=known.get(machine_id),
        )
        for machine_id, of_machine in found.items()
        for number, charge in enumerate(of_machine)
    ]  # fmt: skip
    with transaction.atomic():
        for some in _some(found):
            BilledCharge.objects.filter(provider=name, day=day, machine_id__in=some).delete()
        BilledCharge.objects.bulk_create(lines, batch_size=500)
    return lines


def _machines(name: str, machine_ids: Iterable[str]) -> dict[str, UUID]:
    found: dict[str, UUID] = {}
    for some in _some(machine_ids):
        instances = Instance.objects.filter(provider=name, machine_id__in=some).order_by("created_at")
        found |= dict(instances.values_list("machine_id", "pk"))
    return found


def _match_again(name: str) -> None:
    """Machines that we have come to know since."""
    unknown = BilledCharge.objects.filter(provider=name, instance=None)
    ids = unknown.order_by().values_list("machine_id", flat=True).distinct()
    for machine_id, instance in _machines(name, ids).items():
        unknown.filter(machine_id=machine_id).update(instance=instance)


def _some(ids: Iterable[str]) -> Iterator[list[str]]:
    every = list(ids)
    for start in range(0, len(every), 500):
        yield every[start : start + 500]


# --- Balances -----------------------------------------------------------------------------------------------------


def note_balances(now: datetime) -> None:
    """Keep each balance that a listing has brought, with when it was read."""
    for account in Account.objects.all():
        if account.balance is not None and account.identified_at is not None:
            Balance.objects.get_or_create(
                provider=account.provider, at=account.identified_at, defaults={"amount": account.balance}
            )


# --- What no session explains ---------------------------------------------------------------------------------------

# An alarm of money stands for so long after the last charge of its kind.
STANDS_FOR = timedelta(days=7)

# Providers' clocks and the ends of their billing are not ours; a machine that lives on bills longer than this.
AFTER_THE_END = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexplained:
    """Charges of one machine for which no session, and no machine of ours that may exist, stands."""

    provider: str
    machine_id: str
    amount: int  # micro-dollars
    since: datetime
    until: datetime
    label: str
    instance: Instance | None  # one that was proven gone before it was charged; None: never known

    @property
    def subject(self) -> str:
        return f"{self.provider} {self.machine_id}"

    @property
    def what(self) -> str:
        charged = f"{self.provider} charges {written(self.amount)} USD for machine {self.machine_id}"
        span = f"between {self.since:%Y-%m-%d %H:%M} and {self.until:%Y-%m-%d %H:%M} UTC"
        if self.instance is None:
            named = f", labelled {self.label!r}," if self.label else ""
            return f"{charged}{named} {span}; no row knows that machine."
        return f"{charged} {span}, after it was proven gone at {self.instance.ended_at:%Y-%m-%d %H:%M} UTC."

    @property
    def meanwhile(self) -> str:
        return "Nothing is destroyed because of a bill."

    @property
    def advice(self) -> str:
        return (
            "Look for the machine in the provider's console. If it runs and is nobody's, destroy it there; "
            "`manage.py cleanup_orphans` shows what bears our label."
        )


def unexplained(now: datetime) -> list[Unexplained]:
    """What was charged lately and nobody stands for; each machine once."""
    found: defaultdict[tuple[str, str], list[BilledCharge]] = defaultdict(list)
    for charge in _suspects(BilledCharge.objects.filter(ended_at__gt=now - STANDS_FOR)):
        found[charge.provider, charge.machine_id].append(charge)
    return [
        Unexplained(
            provider=provider, machine_id=machine_id, amount=sum(charge.amount for charge in charges),
            since=min(charge.started_at for charge in charges), until=max(charge.ended_at for charge in charges),
            label=charges[-1].label, instance=charges[-1].instance,
        )
        for (provider, machine_id), charges in sorted(found.items())
    ]  # fmt: skip


def _suspects(charges: QuerySet[BilledCharge]) -> Iterator[BilledCharge]:
    after_its_end = Q(instance__state=State.DESTROYED, ended_at__gt=F("instance__ended_at"))
    for charge in charges.filter(Q(instance=None) | after_its_end, amount__gt=0).select_related("instance"):
        row = charge.instance
        late = row is not None and row.ended_at is not None and charge.ended_at > row.ended_at + AFTER_THE_END
        if late or (row is None and not is_others(charge.label)):
            yield charge


def is_others(label: str) -> bool:
    """The charge bears somebody else's name: another deployment's, or a person's. Without any name it may be ours."""
    return bool(label) and tag.read(label, settings.DEPLOYMENT_ID, settings.TAG_KEYS).ownership is Ownership.FOREIGN


# --- Side by side -----------------------------------------------------------------------------------------------------


def billed(session: UUID, days: Days | None = None, provider: str | None = None) -> int | None:
    """Micro-dollars that were charged for a session's machines; None if nothing was, so far as we know."""
    found = BilledCharge.objects.filter(instance__session=session)
    if days is not None:
        found = found.filter(day__gte=days.first, day__lte=days.last)
    if provider is not None:
        found = found.filter(provider=provider)
    amount: int | None = found.aggregate(amount=Sum("amount"))["amount"]
    return amount


# So long after the end nothing more was seen to be added to a bill.
SETTLED = timedelta(hours=24)


def is_settled(providers: Sequence[str], stopped_at: datetime | None) -> bool:
    """Whether everything that these will charge for what stopped then has been read."""
    if stopped_at is None:
        return False
    read_at = dict(Bill.objects.filter(provider__in=providers).values_list("provider", "read_at"))
    settled = [(at := read_at.get(name)) is not None and at >= stopped_at + SETTLED for name in providers]
    return bool(settled) and all(settled)
