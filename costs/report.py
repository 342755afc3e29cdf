"""The report of some days: what we counted beside what was charged, by session and by provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet, Sum

from costs import billing, bills, ledger, metering
from costs.billing import Comparison
from costs.days import Days
from costs.ledger import Which
from costs.models import Balance, Bill, BilledCharge
from providers.money import usd
from rest.csv import Cell, Table
from sessions.models import Session


@dataclass(frozen=True, slots=True)
class SessionLine:
    session: UUID | None  # None: machines that nobody stood for
    consumer: str
    provider: str
    money: Comparison


NOT_TOLD = Comparison(0, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLine:
    """`money` compares like with like: only what has been charged, or the time between two balances."""

    provider: str
    estimated: int  # all that we counted
    by: str = "nothing"  # or charges, or balances
    money: Comparison = NOT_TOLD
    network: int = 0  # of what was charged: traffic, which no price on the menu tells
    unexplained: int = 0  # charged for machines that no session explains
    others: int = 0  # charged on the same account for machines under somebody else's name
    read_at: datetime | None = None
    error: str = ""  # of the last attempt to read the bill


@dataclass(frozen=True, slots=True)
class Report:
    days: Days
    providers: Sequence[ProviderLine]
    sessions: Sequence[SessionLine]


def of(days: Days, now: datetime) -> Report:
    sessions = _sessions(days, now)
    names = {line.provider for line in sessions} | set(bills.charging())
    names |= set(_charges(days).order_by().values_list("provider", flat=True).distinct())
    return Report(days, [_provider(name, sessions, days, now) for name in sorted(names)], sessions)


def _charges(days: Days) -> QuerySet[BilledCharge]:
    return BilledCharge.objects.filter(day__gte=days.first, day__lte=days.last)


def _sessions(days: Days, now: datetime) -> list[SessionLine]:
    """Each session at each of its providers; what nobody stood for comes last."""
    counted = ledger.amounts(Which(), days.since, days.until, now, by=("consumer", "session", "provider"))
    charged = _charged(days)
    estimated = {(session, provider): (consumer, amount) for (consumer, session, provider), amount in counted.items()}
    charged_only = [session for session, _ in charged.keys() - estimated.keys() if session]
    owners: dict[UUID | None, str] = dict(Session.objects.filter(pk__in=charged_only).values_list("pk", "consumer"))
    lines = []
    for key in estimated.keys() | charged.keys():
        session, provider = key
        consumer, amount = estimated.get(key) or (owners.get(session, ""), metering.NOTHING)
        money = Comparison(metering.micros(amount.total), charged.get(key))
        lines.append(SessionLine(session, consumer, provider, money))
    return sorted(lines, key=lambda line: (line.session is None, line.provider, line.consumer, str(line.session)))


def _charged(days: Days) -> Mapping[tuple[UUID | None, str], int]:
    of_ours = _charges(days).filter(instance__isnull=False).order_by()
    found = of_ours.values_list("instance__session", "provider").annotate(amount=Sum("amount"))
    return {(session, provider): amount for session, provider, amount in found}


def _provider(name: str, sessions: Iterable[SessionLine], days: Days, now: datetime) -> ProviderLine:
    bill = Bill.objects.filter(provider=name).first()
    line = ProviderLine(
        provider=name, estimated=ledger.cost(Which(provider=name), days.since, days.until, now),
        read_at=bill.read_at if bill else None, error=bill.error if bill else "",
    )  # fmt: skip
    charges = _charges(days).filter(provider=name)
    if not charges.exists():
        return _by_balances(line, days, now)
    compared = [each.money for each in sessions if each.provider == name and each.money.billed is not None]
    network = charges.filter(instance__isnull=False, kind="network").aggregate(amount=Sum("amount"))["amount"]
    unexplained, others = _of_nobody(charges)
    money = Comparison(sum(each.estimated for each in compared), sum(each.billed or 0 for each in compared))
    return replace(line, by="charges", money=money, network=network or 0, unexplained=unexplained, others=others)


def _of_nobody(charges: QuerySet[BilledCharge]) -> tuple[int, int]:
    """Charged for machines that nobody knows, and for those under somebody else's name."""
    unexplained = others = 0
    rows = charges.filter(instance=None).order_by().values_list("label").annotate(amount=Sum("amount"))
    for label, amount in rows:
        if bills.is_others(label):
            others += amount
        else:
            unexplained += amount
    return unexplained, others


def _by_balances(line: ProviderLine, days: Days, now: datetime) -> ProviderLine:
    """For a provider without a list of charges: what its balance lost between the first and the last reading."""
    told = Balance.objects.filter(provider=line.provider, at__gte=days.since, at__lt=days.until).order_by("at")
    readings = list(told.values_list("at", "amount"))
    if len(readings) < 2:
        return line
    counted = ledger.cost(Which(provider=line.provider), readings[0][0], readings[-1][0], now)
    return replace(line, by="balances", money=Comparison(counted, billing.paid([amount for _, amount in readings])))


def sessions_table(report: Report) -> Table:
    columns = (
        "session_id",
        "consumer_id",
        "provider",
        "estimated",
        "billed",
        "difference",
        "error_percent",
        "currency",
    )
    rows = (
        (str(line.session or ""), line.consumer, line.provider, *_cells(line.money), "USD") for line in report.sessions
    )
    return Table(f"costs-report-{report.days.first:%Y-%m}", columns, rows)


def _cells(money: Comparison) -> tuple[Cell, ...]:
    error = money.error_percent
    return (
        usd(money.estimated), _usd(money.billed), _usd(money.difference),
        None if error is None else Decimal(str(error)),
    )  # fmt: skip


def _usd(micros: int | None) -> Decimal | None:
    return None if micros is None else usd(micros)
