"""Providers' bills: read without doubling, matched with machines, compared, and what nobody stands for is an alarm."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from costs import billing, bills, report, tasks
from costs.billing import Comparison
from costs.days import Days, day_of, month_of
from costs.models import Balance, Bill, BilledCharge
from gpushopper import alarms
from providers import registry, tag
from providers.base import Charge, Unavailable
from sessions.lifecycle import State
from sessions.models import Account, Event, Instance
from tests.costs import usage
from tests.fakes import NOON, FakeClock, FakeProvider
from tests.operators.commands import run

pytestmark = pytest.mark.django_db

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MIDNIGHT = datetime(2026, 1, 29, tzinfo=NOON.tzinfo)
JANUARY = month_of(date(2026, 1, 1))
USD = 1_000_000


class Billing(FakeProvider):
    """Charges what it is told to, cut at the days that are asked for, as Vast.ai does."""

    def __init__(self, name: str = "fake") -> None:
        super().__init__(name, has_charges=True)
        self.charged: list[Charge] = []

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        self._asked("charges", day_of(since))
        return [charge for charge in self.charged if charge.started_at < until and charge.ended_at > since]


def charge(
    machine_id: str, start: datetime, end: datetime, amount: int, *, kind: str = "gpu", label: str = ""
) -> Charge:
    return Charge(machine_id=machine_id, label=label, kind=kind, started_at=start, ended_at=end, amount=amount)


@pytest.fixture
def provider(virtual: FakeClock, db: None) -> Billing:
    made = Billing()
    registry.use({"fake": made})
    return made


@pytest.fixture
def row(provider: Billing) -> Instance:
    """An hour before noon, gone five minutes after it."""
    made = usage.used(NOON - HOUR, NOON)
    Instance.objects.filter(pk=made.pk).update(state=State.DESTROYED, ended_at=NOON + 5 * MINUTE)
    return made


def lines() -> list[tuple[str, int]]:
    return list(BilledCharge.objects.order_by("pk").values_list("machine_id", "amount"))


# --- Reading --------------------------------------------------------------------------------------------------


def test_reading_twice_doubles_nothing(provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 300_000),
                        charge(row.machine_id, NOON - HOUR, NOON, 30_000, kind="storage")]  # fmt: skip
    for _ in range(3):
        found = bills.read(provider, NOON)
    assert (found.lines, found.amount) == (2, 330_000)
    assert lines() == [(row.machine_id, 300_000), (row.machine_id, 30_000)]
    assert set(BilledCharge.objects.values_list("instance", flat=True)) == {row.pk}


def test_a_charge_that_has_grown_replaces_what_was_read(provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON - HOUR / 2, 150_000)]
    bills.read(provider, NOON)
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 300_000)]
    bills.read(provider, NOON + DAY)
    assert lines() == [(row.machine_id, 300_000)]


def test_a_bill_that_shows_less_takes_nothing_back(provider: Billing, row: Instance) -> None:
    """Bills lag: a machine that an answer lacks keeps what was read of it."""
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 300_000)]
    bills.read(provider, NOON)
    provider.charged = []
    bills.read(provider, NOON + HOUR)
    assert lines() == [(row.machine_id, 300_000)]


def test_a_charge_across_midnight_is_counted_once(provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, MIDNIGHT - HOUR, MIDNIGHT + HOUR, 500_000)]
    bills.read(provider, NOON, since=date(2026, 1, 27))
    assert provider.asked.count(("charges", date(2026, 1, 28))) == 1
    assert lines() == [(row.machine_id, 500_000)]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_bill_that_breaks_off_keeps_the_days_that_came(kept: int, provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, MIDNIGHT - (2 - day) * DAY, MIDNIGHT - (1.5 - day) * DAY, day + 1)
                        for day in range(3)]  # fmt: skip
    answers = iter(range(9))

    def breaks(since: datetime, until: datetime) -> Sequence[Charge]:
        if next(answers) == kept:
            raise Unavailable("no answer")
        return Billing.charges(provider, since, until)

    provider.charges = breaks  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        bills.read(provider, NOON, since=date(2026, 1, 27))
    assert len(lines()) == kept
    bill = Bill.objects.get()
    assert (bill.read_at, bill.failures, bill.error) == (None, 1, "no answer")


def test_the_last_days_are_read_again(provider: Billing, row: Instance, virtual: FakeClock) -> None:
    bills.read(provider, NOON)
    provider.asked.clear()
    bills.read(provider, NOON + DAY)
    assert [day for _, day in provider.asked] == [date(2026, 1, day) for day in (26, 27, 28, 29, 30)]


def test_the_first_time_a_bill_is_read_from_the_first_usage(provider: Billing, virtual: FakeClock) -> None:
    usage.used(NOON - 5 * DAY, NOON - 4 * DAY)
    bills.read(provider, NOON)
    assert next(day for _, day in provider.asked) == date(2026, 1, 24)


def test_a_machine_that_is_known_later_gets_its_charges(provider: Billing) -> None:
    provider.charged = [charge("m-late", NOON - 9 * DAY, NOON - 8 * DAY, 300_000)]
    bills.read(provider, NOON, since=date(2026, 1, 20))
    made = usage.machine(usage.session(), machine_id="m-late")
    bills.read(provider, NOON)
    assert BilledCharge.objects.get().instance == made


def test_each_night_the_bills_are_read(
    provider: Billing, row: Instance, virtual: FakeClock, no_messages: list[tuple[str, object]]
) -> None:
    def asked() -> int:
        tasks.tick()
        told = [argument for task, argument in no_messages if task == bills.IMPORT]
        no_messages.clear()
        for name in told:
            tasks.import_charges(name)
        return len(told)

    assert asked() == 1
    assert Bill.objects.get().read_at == NOON
    assert asked() == 0
    virtual.advance(11 * 3600)
    assert asked() == 0, "not before midnight"
    virtual.advance(3 * 3600)
    assert asked() == 1
    assert asked() == 0


def test_a_bill_that_failed_is_tried_again_in_an_hour(provider: Billing, virtual: FakeClock) -> None:
    provider.trouble["charges"] = [Unavailable("no answer")]
    bills.wake_due(NOON)
    assert bills.read_if_due("fake") is None
    assert Bill.objects.get().due_at == NOON + HOUR
    virtual.advance(3600)
    assert bills.read_if_due("fake") is not None
    assert (Bill.objects.get().failures, Bill.objects.get().error) == (0, "")


def test_two_workers_read_a_bill_once(provider: Billing, virtual: FakeClock) -> None:
    bills.wake_due(NOON)
    seen = []

    def charges(since: datetime, until: datetime) -> Iterable[Charge]:
        seen.append(bills.read_if_due("fake"))
        return ()

    provider.charges = charges  # type: ignore[assignment, method-assign]
    assert bills.read_if_due("fake") is not None
    assert set(seen) == {None}


def test_a_provider_without_charges_is_not_asked(virtual: FakeClock, no_messages: Any) -> None:
    registry.use({"plain": FakeProvider("plain")})
    bills.wake_due(NOON)
    assert not Bill.objects.exists()
    assert not no_messages


# --- Side by side ---------------------------------------------------------------------------------------------


def test_the_error_is_in_per_cent_of_the_bill() -> None:
    assert Comparison(1_010_000, 1_000_000).error_percent == 1.0
    assert Comparison(990_000, 1_000_000).error_percent == -1.0
    assert Comparison(990_000, 1_000_000).difference == 10_000
    assert (Comparison(5, None).difference, Comparison(5, None).error_percent) == (None, None)
    assert Comparison(5, 0).error_percent is None


@given(balances=st.lists(st.integers(-(10**9), 10**9), max_size=20))
def test_what_was_paid_is_at_least_what_the_balance_lost(balances: list[int]) -> None:
    paid = billing.paid(balances)
    assert paid >= 0
    if balances:
        assert paid >= balances[0] - balances[-1]
    assert billing.paid(sorted(balances)) == 0


def test_each_session_and_provider_with_its_error(provider: Billing, row: Instance) -> None:
    still = usage.used(NOON - HOUR, NOON, consumer="bob")
    provider.charged = [
        charge(row.machine_id, NOON - HOUR, NOON, 400_000),
        charge(row.machine_id, NOON - HOUR, NOON, 40_000, kind="network"),
        charge("m-unknown", NOON - HOUR, NOON, 7_000),
        charge("m-theirs", NOON - HOUR, NOON, 9_000, label="somebody's box"),
    ]
    bills.read(provider, NOON)
    found = report.of(JANUARY, NOON)
    by_session = {line.session: line.money for line in found.sessions}
    assert by_session == {row.session_id: Comparison(396_000, 440_000), still.session_id: Comparison(396_000, None)}
    [line] = found.providers
    assert (line.by, line.estimated, line.money) == ("charges", 792_000, Comparison(396_000, 440_000))
    assert (line.network, line.unexplained, line.others) == (40_000, 7_000, 9_000)
    assert line.money.error_percent == -10.0


def test_a_month_has_its_own_days_only(provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 396_000)]
    bills.read(provider, NOON)
    december = report.of(month_of(date(2025, 12, 1)), NOON)
    assert [(line.estimated, line.money.billed) for line in december.providers] == [(0, None)]
    assert not december.sessions


def test_what_nobody_stood_for_is_compared_too(provider: Billing, virtual: FakeClock) -> None:
    orphan = usage.used(NOON - HOUR, NOON, consumer="")
    provider.charged = [charge(orphan.machine_id, NOON - HOUR, NOON, 400_000)]
    bills.read(provider, NOON)
    [line] = report.of(JANUARY, NOON).sessions
    assert (line.session, line.consumer, line.money) == (None, "", Comparison(396_000, 400_000))


def test_without_a_list_of_charges_the_balance_tells(virtual: FakeClock) -> None:
    registry.use({"fake": FakeProvider()})
    usage.used(NOON - 3 * HOUR, NOON)
    account = Account.objects.create(provider="fake")
    for hours, balance in ((3, 50 * USD), (2, 50 * USD - 400_000), (1, 60 * USD), (0, 60 * USD - 400_000)):
        Account.objects.filter(pk=account.pk).update(balance=balance, identified_at=NOON - hours * HOUR)
        for _ in range(2):
            bills.note_balances(NOON)
    assert Balance.objects.count() == 4
    [line] = report.of(JANUARY, NOON).providers
    assert (line.by, line.money) == ("balances", Comparison(3 * 396_000, 800_000))


def test_one_balance_compares_nothing(virtual: FakeClock) -> None:
    registry.use({"fake": FakeProvider()})
    usage.used(NOON - HOUR, NOON)
    Balance.objects.create(provider="fake", at=NOON, amount=USD)
    [line] = report.of(JANUARY, NOON).providers
    assert (line.by, line.money.billed) == ("nothing", None)


def test_a_bill_is_final_a_day_after_the_end(provider: Billing, row: Instance) -> None:
    bills.read(provider, NOON + HOUR)
    assert not bills.is_settled(["fake"], NOON)
    bills.read(provider, NOON + DAY)
    assert bills.is_settled(["fake"], NOON)
    assert not bills.is_settled(["fake", "plain"], NOON)
    assert not bills.is_settled(["fake"], None)


# --- What no session explains ---------------------------------------------------------------------------------


def noticed(now: datetime = NOON + HOUR) -> list[tuple[str, int]]:
    return [(found.machine_id, found.amount) for found in bills.unexplained(now)]


def test_money_for_a_machine_that_no_row_knows_is_an_alarm(provider: Billing, row: Instance) -> None:
    provider.charged = [charge("m-unknown", NOON - HOUR, NOON, 300_000),
                        charge("m-unknown", NOON - HOUR, NOON, 50_000, kind="storage")]  # fmt: skip
    bills.read(provider, NOON)
    assert noticed() == [("m-unknown", 350_000)]
    alarms.raise_new(NOON)
    alarms.raise_new(NOON + MINUTE)
    [event] = Event.objects.filter(kind="unexplained_charge")
    assert "fake charges 0.3500 USD for machine m-unknown" in event.message
    assert "no row knows that machine" in event.message
    assert not noticed(NOON + 8 * DAY), "a week later it is history"


def test_our_own_label_on_an_unknown_machine_is_an_alarm(provider: Billing, settings: Any) -> None:
    label = tag.mint(settings.DEPLOYMENT_ID, NOON, settings.TAG_KEYS[0])
    for name, text in (("m-ours", label), ("m-damaged", label[:25]), ("m-other", "gs-elsewhere-x"), ("m-box", "box")):
        provider.charged.append(charge(name, NOON - HOUR, NOON, 1_000, label=text))
    bills.read(provider, NOON)
    assert {machine for machine, _ in noticed()} == {"m-ours", "m-damaged"}


@pytest.mark.parametrize(("later", "expected"), [(4, False), (14, False), (16, True), (600, True)])
def test_money_after_the_proof_of_absence_is_an_alarm(
    later: int, expected: bool, provider: Billing, row: Instance
) -> None:
    """Ten minutes are left for clocks that differ."""
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON + later * MINUTE, 400_000)]
    bills.read(provider, NOON)
    assert bool(noticed()) is expected
    if expected:
        [found] = bills.unexplained(NOON + HOUR)
        assert found.instance == row
        assert "after it was proven gone at 2026-01-29 12:05 UTC" in found.what


def test_a_live_machine_and_a_charge_of_nothing_are_no_alarm(provider: Billing, virtual: FakeClock) -> None:
    alive = usage.used(NOON - HOUR, None)
    provider.charged = [charge(alive.machine_id, NOON - HOUR, NOON, 300_000), charge("m-free", NOON - HOUR, NOON, 0)]
    bills.read(provider, NOON)
    assert not noticed()


# --- Commands and doors ---------------------------------------------------------------------------------------


def test_import_charges_says_what_it_read(provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 300_000), charge("m-x", NOON - HOUR, NOON, 10_000)]
    ran = run("import_charges", since="2026-01-28")
    assert ran.code == 0
    assert "fake: 2 charges from 2026-01-28 to 2026-01-29, 0.3100 USD" in ran.out
    assert "for machine m-x" in ran.out, "what nobody explains is told at once"


@pytest.mark.parametrize("since", ["2026-02-30", "yesterday", "2026-01-30", "2020-01-01", "9999-12-31"])
def test_import_charges_from_no_such_day(since: str, provider: Billing) -> None:
    ran = run("import_charges", since=since)
    assert (ran.code, provider.count("charges")) == (1, 0)
    assert "--since" in ran.err


def test_import_charges_that_fails_says_so(provider: Billing) -> None:
    registry.use({"fake": provider, "plain": FakeProvider("plain")})
    provider.trouble["charges"] = [Unavailable("no answer")]
    ran = run("import_charges")
    assert ran.code == 4
    assert "fake: no answer" in ran.err
    assert "plain: has no list of charges" in ran.out


def test_import_charges_without_such_a_provider(provider: Billing) -> None:
    assert "No such provider: nowhere. Configured: fake." in run("import_charges", provider="nowhere").err
    registry.use({})
    assert "No provider" in run("import_charges").err


def test_the_report_as_text_and_csv(provider: Billing, row: Instance) -> None:
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 400_000)]
    bills.read(provider, NOON)
    ran = run("cost_report")
    assert ran.code == 0
    assert "2026-01-01 to 2026-01-31, USD" in ran.out
    [mine] = [line.split() for line in ran.out.splitlines() if str(row.session_id) in line]
    assert mine[1:] == ["alice", "fake", "0.396000", "0.400000", "0.004000", "-1.0000", "%"]
    [written] = csv.DictReader(io.StringIO(run("cost_report", csv=True, month="2026-01").out))
    assert written == {
        "session_id": str(row.session_id), "consumer_id": "alice", "provider": "fake", "estimated": "0.396000",
        "billed": "0.400000", "difference": "0.004000", "error_percent": "-1.0", "currency": "USD",
    }  # fmt: skip


def test_a_report_of_nothing_has_no_line_of_zeros(provider: Billing, virtual: FakeClock) -> None:
    ran = run("cost_report")
    assert ran.out.splitlines() == ["2026-01-01 to 2026-01-31, USD", "fake: nothing counted, nothing charged"]


@pytest.mark.parametrize("month", ["2026-13", "january", "2026", "9999-12"])
def test_a_report_of_no_such_month(month: str, db: None) -> None:
    assert "--month" in run("cost_report", month=month).err


def test_the_report_over_the_api(provider: Billing, row: Instance, operator: APIClient, alice: APIClient) -> None:
    provider.charged = [charge(row.machine_id, NOON - HOUR, NOON, 400_000)]
    bills.read(provider, NOON)
    body = operator.get("/api/v1/costs/report?month=2026-01").json()
    assert (body["period_start"], body["period_end"], body["count"], body["total"]) == (
        "2026-01-01",
        "2026-01-31",
        1,
        1,
    )
    assert body["sessions"] == [{
        "session_id": str(row.session_id), "consumer_id": "alice", "provider": "fake", "estimated": 0.396,
        "billed": 0.4, "difference": 0.004, "error_percent": -1.0,
    }]  # fmt: skip
    [line] = body["providers"]
    assert (line["compared_by"], line["error_percent"], line["read_at"]) == ("charges", -1.0, "2026-01-29T12:00:00Z")
    assert (
        operator.get("/api/v1/costs/report?format=csv")
        .content.decode()
        .splitlines()[1]
        .startswith(f"{row.session_id},alice,fake,0.396000,0.400000")
    )
    assert alice.get("/api/v1/costs/report").status_code == 403
    for month in ("2026-13", "2026", "9999-12", "0000-01"):
        answer = operator.get("/api/v1/costs/report", {"month": month})
        assert (answer.status_code, list(answer.json()["fields"])) == (400, ["month"]), month


def test_days_and_months() -> None:
    days = Days(date(2024, 1, 30), date(2024, 3, 1))
    assert [each.first.isoformat() for each in days.each_month()] == ["2024-01-30", "2024-02-01", "2024-03-01"]
    assert [each.last.isoformat() for each in days.each_month()] == ["2024-01-31", "2024-02-29", "2024-03-01"]
    assert len(list(days.each_day())) == 32
    assert days.until - days.since == 32 * DAY


def test_a_few_days_read_by_hand_leave_no_hole_before_them(provider: Billing) -> None:
    began = NOON - 10 * DAY
    row = usage.used(began, began + HOUR)
    provider.charged = [charge(row.machine_id, began, began + HOUR, 400_000)]
    bills.read(provider, NOON, since=day_of(NOON - DAY))
    assert not BilledCharge.objects.exists()
    bills.read(provider, NOON + DAY)
    assert BilledCharge.objects.count() == 1
