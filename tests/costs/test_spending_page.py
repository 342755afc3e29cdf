"""The operators' page about money: what it shows is what the API says, and nothing is lost between days."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from costs import budgets, ledger
from costs.days import Days, month_of
from costs.ledger import Which
from costs.models import Bill, BilledCharge, Budget, UsageInterval
from gpushopper.models import Consumer
from providers.base import PriceParts
from sessions.lifecycle import State, Status
from sessions.models import Instance
from tests.costs.usage import used
from tests.fakes import NOON, FakeClock

pytestmark = pytest.mark.django_db

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONTH = month_of(NOON.date())
PAGE = "/admin/costs/spending/"


@pytest.fixture
def staff(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("sam", is_staff=True))
    return client


@pytest.fixture
def now(virtual: FakeClock) -> datetime:
    """The 28th of the month, at noon: most of it lies behind."""
    virtual.advance((datetime(MONTH.first.year, MONTH.first.month, 28, 12, tzinfo=UTC) - NOON).total_seconds())
    return virtual.now()


def shown(client: Client, **query: str) -> str:
    answer = client.get(PAGE, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def texts(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("</style>")[-1]))


# --- Days ---------------------------------------------------------------------------------------------------

stretches = st.lists(
    st.tuples(
        st.integers(-3 * 24 * 60, 33 * 24 * 60), st.integers(0, 30 * 60), st.booleans(), st.sampled_from("abc"),
        st.integers(0, 10**7),
    ),
    max_size=8,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(stretches=stretches, until=st.integers(0, 33 * 24 * 60))
def test_the_days_of_anybody_add_up_to_what_he_used(stretches: list[Any], until: int) -> None:
    UsageInterval.objects.all().delete()
    now = MONTH.since + timedelta(minutes=until, microseconds=1)
    for start, minutes, is_open, consumer, rate in stretches:
        began = MONTH.since + timedelta(minutes=start)
        end = None if is_open else began + timedelta(minutes=minutes)
        used(began, end, parts=PriceParts(gpu=rate, storage=7), consumer=consumer)
    found: defaultdict[str, int] = defaultdict(int)
    for (day, name), amount in ledger.by_day("consumer", MONTH, now).items():
        assert MONTH.first <= day <= MONTH.last
        assert amount.total == ledger.used(Which(consumer=name), *edges(day), now).total
        found[name] += amount.total
    for name in "abc":
        assert found[name] == ledger.used(Which(consumer=name), MONTH.since, MONTH.until, now).total
    costs = ledger.cost_by("consumer", MONTH.since, MONTH.until, now)
    assert all(costs.get(name, 0) == ledger.spent(name, MONTH.since, MONTH.until, now) for name in "abc")


def edges(day: date) -> tuple[datetime, datetime]:
    return Days(day, day).since, Days(day, day).until


# --- The page -----------------------------------------------------------------------------------------------


def test_it_shows_each_day_and_name_and_their_sums(staff: Client, now: datetime) -> None:
    used(now - 10 * HOUR, now - 5 * HOUR, consumer="alice")
    used(now - 24 * HOUR, now - 14 * HOUR, consumer="bob", parts=PriceParts(gpu=1_000_000))
    page = texts(shown(staff))
    today, yesterday = f"{now:%Y-%m-%d}", f"{now - DAY:%Y-%m-%d}"
    assert "Day bob alice Together All days $10.0000 $1.9800 $11.9800" not in page, "from ten dollars on, cents"
    assert "Day bob alice Together All days $10.00 $1.98 $11.98" in page
    assert f"{today} $1.98 $1.98" in page
    assert f"{yesterday} $10.00 $10.00" in page
    assert f"{yesterday}, bob: $10.00" in page, "the picture says it too"


def test_nobodys_machines_are_nobodys(staff: Client, now: datetime) -> None:
    used(now - 10 * HOUR, now - 5 * HOUR, consumer="")
    page = texts(shown(staff))
    assert "Nobody&#x27;s $1.98" in page
    assert "Day nobody Together All days $1.9800" in page


def test_by_provider(staff: Client, now: datetime) -> None:
    used(now - 10 * HOUR, now - 5 * HOUR, provider="vastai")
    used(now - 10 * HOUR, now - 9 * HOUR, provider="tensordock")
    assert "Day vastai tensordock Together" in texts(shown(staff, by="provider"))


def test_what_runs_burns_and_is_foretold(staff: Client, now: datetime) -> None:
    used(now - HOUR, None, status=Status.RUNNING, expires_at=now + 3 * HOUR)
    page = texts(shown(staff))
    assert "Burning now $0.3960/h" in page
    assert f"{MONTH.first:%B %Y} $0.3960" in page
    assert "Forecast $1.58 $1.19 more, if what lives runs until its deadline" in page
    assert "Consumer Burns Still to come alice $0.3960/h $1.19" in page


def test_an_adopted_machine_that_is_kept_is_foretold_as_nobodys(
    staff: Client, operator: APIClient, alice: APIClient, now: datetime
) -> None:
    row = used(now - HOUR, None, consumer="")
    Instance.objects.filter(pk=row.pk).update(state=State.RUNNING, deadline=now + 3 * HOUR)
    page = texts(shown(staff))
    assert "Forecast $1.58 $1.19 more, if what lives runs until its deadline" in page
    assert "Consumer Burns Still to come nobody $0.3960/h $1.19" in page
    assert "Provider Burns Still to come fake $0.3960/h $1.19" in texts(shown(staff, by="provider"))
    assert operator.get("/api/v1/costs/summary").json()["forecast"] == 1.584
    assert operator.get("/api/v1/costs/summary?provider=fake").json()["forecast"] == 1.584
    assert alice.get("/api/v1/costs/summary").json()["forecast"] == 0
    Instance.objects.update(state=State.DESTROYING)
    assert "Forecast $0.3960 $0.00 more" in texts(shown(staff)), "what is ending is not foretold"


def test_a_month_that_is_over_has_no_forecast(staff: Client, now: datetime) -> None:
    used(now - 40 * DAY, now - 40 * DAY + HOUR)
    last = month_of((now - 40 * DAY).date())
    page = texts(shown(staff, month=f"{last.first:%Y-%m}"))
    assert f"{last.first:%B %Y} $0.3960" in page
    assert "Forecast $" not in page
    assert "→" in page and "→" not in texts(shown(staff)), "nobody looks into the future"


def test_a_budget_is_a_bar_with_its_numbers(staff: Client, now: datetime) -> None:
    Consumer.objects.get_or_create(name="alice")
    budget = Budget.objects.create(consumer="alice", period="monthly", limit=3_960_000, on_limit="stop", created_at=now)
    used(now - 7 * HOUR, None, status=Status.RUNNING, started_at=now - 7 * HOUR, expires_at=now + 3 * HOUR,
         reservation=10 * HOUR)  # fmt: skip
    page = shown(staff)
    assert "alice , monthly $2.77 of $3.96, 70 %" in texts(page)
    assert "$1.58 reserved for what runs, -$0.3960 left. Forecast: $3.96 . At the limit: stop." in texts(page)
    assert "Nothing new fits." in texts(page)
    assert 'width="70.0" height="6"' in page and 'x="70.0" width="30.0"' in page
    assert reverse("admin:costs_budget_change", args=[budget.pk]) in page


def test_a_budget_that_will_be_passed_says_so(staff: Client, now: datetime) -> None:
    Budget.objects.create(consumer="alice", period="daily", limit=1_000_000, on_limit="alert", created_at=now)
    used(now - HOUR, None, status=Status.RUNNING, expires_at=now + 3 * HOUR)
    assert '<span class="gs-bad">$1.58</span>' in shown(staff)


def test_outlooks_of_many_are_those_of_each(now: datetime) -> None:
    for name, period in (("alice", "daily"), ("alice", "total"), ("bob", "monthly"), ("carol", "daily")):
        Budget.objects.create(consumer=name, period=period, limit=3_000_000, on_limit="block", created_at=now)
    used(now - 30 * HOUR, now - HOUR, consumer="alice")
    used(now - HOUR, None, consumer="alice", status=Status.RUNNING, expires_at=now + 3 * HOUR)
    used(now - HOUR, None, consumer="bob", status=Status.PROVISIONING)
    many = budgets.outlooks(list(Budget.objects.all()), now)
    for outlook in many:
        alive = budgets.not_over(outlook.budget.consumer)
        assert outlook.standing == budgets.standing(outlook.budget, alive, now)
    assert [outlook.forecast > outlook.standing.spent for outlook in many] == [True, True, True, False]


def test_what_was_charged_stands_beside_it(staff: Client, now: datetime) -> None:
    row = used(now - 10 * HOUR, now - 5 * HOUR, provider="vastai")
    Bill.objects.create(provider="vastai", read_at=now, error="")
    for machine, line, of in ((row.machine_id, 2_000_000, row), ("99", 700_000, None)):
        BilledCharge.objects.create(
            provider="vastai", machine_id=machine, day=now.date(), line=0, kind="gpu", started_at=now, ended_at=now,
            amount=line, imported_at=now, instance=of,
        )  # fmt: skip
    page = shown(staff)
    assert "vastai $1.98 charges $1.98 $2.00 $0.0200 -1.00 % $0.7000" in texts(page)
    assert row.session_id is not None
    assert f"{row.session_id.hex[:8]} alice vastai $1.98 $2.00 $0.0200 -1.00 %" in texts(page)


def test_the_report_can_be_taken_away_as_csv(staff: Client, now: datetime) -> None:
    row = used(now - 10 * HOUR, now - 5 * HOUR)
    [link] = re.findall(r'href="([^"]+format=csv)"', shown(staff))
    answer = staff.get(link.replace("&amp;", "&"))
    assert answer.status_code == 200
    assert f"{row.session_id},alice,fake,1.98" in answer.content.decode()


# --- Bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("month", ["2026-13", "yesterday", "0000-01", "9999-12", "2026-1", "-1", "２０２６-01"])
def test_a_month_that_is_none_is_told_and_changes_nothing(staff: Client, now: datetime, month: str) -> None:
    page = texts(shown(staff, month=month))
    understood = month == "9999-12"
    assert understood or ("Not understood: month. A month is YYYY-MM." in page and f"{MONTH.first:%B %Y}" in page)


def test_by_something_else_is_told(staff: Client, now: datetime) -> None:
    assert "Not understood: by." in texts(shown(staff, by="secret"))


def test_a_name_is_text_and_no_markup(staff: Client, now: datetime) -> None:
    used(now - 10 * HOUR, None, consumer="<script>alert(1)</script>", status=Status.RUNNING, expires_at=now + HOUR)
    assert "<script>alert(1)" not in shown(staff)


def test_only_operators_see_it(now: datetime) -> None:
    client = Client()
    assert client.get(PAGE).status_code == 302
    client.force_login(User.objects.create_user("ann"))
    assert client.get(PAGE).status_code == 302


def test_nothing_is_asked_of_anybody_elses_address(staff: Client, now: datetime) -> None:
    used(now - 10 * HOUR, now - 5 * HOUR)
    page = shown(staff)
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page)


def test_more_sessions_take_no_more_queries(staff: Client, now: datetime) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as asked:
            shown(staff)
        return len(asked)

    def more(name: str) -> None:
        Budget.objects.create(consumer=name, period="monthly", limit=3_000_000, on_limit="block", created_at=now)
        used(now - 30 * HOUR, now - HOUR, consumer=name, provider="vastai")
        used(now - HOUR, None, consumer=name, status=Status.RUNNING, expires_at=now + 3 * HOUR, provider="vastai")

    more("alice")
    few = queries()
    for number in range(12):
        more(f"c{number}")
    assert queries() == few
    assert few <= 45
