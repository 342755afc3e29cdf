"""`/costs` and its kin, as a client sees them: exact windows, one's own only, and every bad parameter named."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from rest_framework.test import APIClient

from costs.models import BilledCharge
from providers.base import PriceParts
from sessions.lifecycle import Status
from sessions.models import Session
from tests.api.conformance import complaints
from tests.costs import usage
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order

pytestmark = pytest.mark.django_db

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIDNIGHT = datetime(2026, 1, 29, tzinfo=NOON.tzinfo)
AN_HOUR = 0.396  # USD, of `usage.RATE`


def get(client: APIClient, path: str = "costs", **query: Any) -> dict[str, Any]:
    answer = client.get(f"/api/v1/{path}", query)
    assert answer.status_code == 200, answer.content
    assert not complaints("GET", f"/api/v1/{path}", answer)
    body: dict[str, Any] = answer.json()
    return body


def rows(client: APIClient, path: str = "costs", **query: Any) -> list[dict[str, str]]:
    answer = client.get(f"/api/v1/{path}", {**query, "format": "csv"})
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


@pytest.fixture
def some(virtual: FakeClock) -> None:
    """Alice: three hours over midnight, and one that runs; bob: an hour elsewhere; an orphan: half an hour."""
    usage.used(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR)
    usage.used(NOON - 2 * HOUR, None, gpu_type="H100", status=Status.RUNNING, expires_at=NOON + HOUR)
    usage.used(NOON - HOUR, NOON, consumer="bob", provider="other")
    usage.used(NOON - HOUR, NOON - HOUR / 2, consumer="")


# --- What is shown ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("some")
def test_a_consumer_sees_its_own(alice: APIClient) -> None:
    assert get(alice) == {
        "consumer_id": "alice", "total_cost": 1.98, "currency": "USD", "session_count": 2, "hours_used": 5.0,
        "by_provider": {"fake": 1.98}, "by_gpu_type": {"RTX 4090": 1.188, "H100": 0.792}, "orphan_cost": 0.0,
        "period_start": "2026-01-28", "period_end": "2026-01-29",
    }  # fmt: skip


@pytest.mark.usefixtures("some")
def test_an_operator_sees_everybody_and_what_nobody_stood_for(operator: APIClient) -> None:
    found = get(operator)
    assert found["consumer_id"] is None
    assert found["total_cost"] == pytest.approx(6.5 * AN_HOUR)
    assert found["session_count"] == 3
    assert found["by_provider"] == {"fake": 2.178, "other": AN_HOUR}
    assert found["by_gpu_type"]["unknown"] == found["orphan_cost"] == AN_HOUR / 2


@pytest.mark.usefixtures("some")
def test_a_window_cuts_what_reaches_into_it(alice: APIClient) -> None:
    found = get(alice, start_date="2026-01-28", end_date="2026-01-28")
    assert (found["total_cost"], found["hours_used"], found["session_count"]) == (AN_HOUR, 1.0, 1)
    assert found["by_gpu_type"] == {"RTX 4090": AN_HOUR}
    before = get(alice, end_date="2026-01-27")
    assert (before["total_cost"], before["by_provider"], before["session_count"]) == (0.0, {}, 0)
    assert (before["period_start"], before["period_end"]) == ("2026-01-27", "2026-01-27")
    later = get(alice, start_date="2026-02-03")
    assert (later["total_cost"], later["session_count"], later["period_end"]) == (0.0, 0, "2026-02-03")


@pytest.mark.usefixtures("some")
def test_one_provider(operator: APIClient) -> None:
    assert get(operator, provider="other")["total_cost"] == AN_HOUR
    assert get(operator, provider="fake")["by_provider"] == {"fake": 2.178}


def test_days_add_up_to_the_month_asked_for_in_any_way(alice: APIClient, virtual: FakeClock) -> None:
    start = datetime(2026, 1, 1, tzinfo=NOON.tzinfo)
    for number in range(40):
        began = start + number * timedelta(hours=16, minutes=7, microseconds=number + 1)
        usage.used(began, began + timedelta(hours=9, seconds=number), parts=PriceParts(gpu=333_333 + number, storage=7))
    virtual.instant = start + 40 * DAY
    series = get(alice, period="daily", start_date="2026-01-01", end_date="2026-01-31")
    month = Decimal(str(series["total_cost"]))
    assert sum(Decimal(str(day["total_cost"])) for day in series["series"]) == month
    alone = [get(alice, start_date=day["start"], end_date=day["start"]) for day in series["series"]]
    assert len(alone) == 31
    assert sum(Decimal(str(day["total_cost"])) for day in alone) == month
    months = get(alice, period="monthly")
    assert [each["start"] for each in months["series"]] == ["2026-01-01", "2026-02-01"]
    assert months["series"][0]["total_cost"] == series["total_cost"]
    assert sum(Decimal(str(each["total_cost"])) for each in months["series"]) == Decimal(str(months["total_cost"]))
    for shares in ("by_provider", "by_gpu_type"):
        assert sum(Decimal(str(share)) for share in series[shares].values()) == month


def test_a_month_that_is_cut_begins_where_the_window_does(alice: APIClient) -> None:
    found = get(alice, period="monthly", start_date="2025-12-15", end_date="2026-02-02")
    assert [each["start"] for each in found["series"]] == ["2025-12-15", "2026-01-01", "2026-02-01"]


@pytest.mark.usefixtures("some")
def test_the_summary_is_the_month_with_what_is_to_come(alice: APIClient, operator: APIClient) -> None:
    found = get(alice, "costs/summary")
    assert (found["period_start"], found["period_end"]) == ("2026-01-01", "2026-01-31")
    assert found["total_cost"] == 1.98
    assert found["forecast"] == pytest.approx(1.98 + AN_HOUR), "an hour is left of what runs"
    assert get(operator, "costs/summary")["forecast"] == pytest.approx(7.5 * AN_HOUR)
    assert len(get(alice, "costs/summary", period="daily")["series"]) == 31


def test_nothing_spent_is_nothing(alice: APIClient, virtual: FakeClock) -> None:
    found = get(alice)
    assert (found["total_cost"], found["hours_used"], found["by_provider"]) == (0.0, 0.0, {})
    assert found["period_start"] == found["period_end"] == "2026-01-29"


# --- One session ----------------------------------------------------------------------------------------------------


def test_a_session_from_its_create_to_its_bill(
    alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider
) -> None:
    session = order(alice)
    assert get(alice, session_id=session["id"]) == {
        "session_id": session["id"], "total_cost": 0.0, "currency": "USD", "hours_used": 0.0,
        "parts": {"compute": 0.0, "storage": 0.0}, "provider_billed": None, "difference": None,
        "billed_final": False, "final": False, "forecast": 0.41,
    }  # fmt: skip
    engine.run(5)
    virtual.advance(1795)
    running = get(alice, session_id=session["id"])
    assert (running["total_cost"], running["hours_used"], running["final"]) == (0.205, 0.5, False)
    assert running["parts"] == {"compute": 0.2, "storage": 0.005}
    assert running["forecast"] == pytest.approx(0.41)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(120)
    ended = get(alice, session_id=session["id"])
    assert ended["final"] is True
    assert ended["forecast"] == ended["total_cost"] > 0.205
    row = Session.objects.get().instances.get()
    BilledCharge.objects.create(
        provider="fake", machine_id=row.machine_id, day=NOON.date(), line=0, kind="gpu", started_at=NOON,
        ended_at=NOON + HOUR, amount=300_000, imported_at=NOON, instance=row,
    )  # fmt: skip
    billed = get(alice, session_id=session["id"])
    assert billed["provider_billed"] == 0.3
    assert billed["difference"] == pytest.approx(0.3 - billed["total_cost"])


def test_a_session_by_days(alice: APIClient, virtual: FakeClock) -> None:
    row = usage.used(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR)
    found = get(alice, session_id=row.session_id, period="daily")
    assert [(each["start"], each["total_cost"]) for each in found["series"]] == [
        ("2026-01-28", AN_HOUR), ("2026-01-29", 2 * AN_HOUR),
    ]  # fmt: skip
    assert get(alice, session_id=row.session_id, end_date="2026-01-28")["total_cost"] == AN_HOUR


def test_somebody_elses_session_is_not_there(alice: APIClient, operator: APIClient, virtual: FakeClock) -> None:
    row = usage.used(NOON - HOUR, NOON, consumer="bob")
    for query in ({"session_id": row.session_id}, {"session_id": usage.UNKNOWN}):
        answer = alice.get("/api/v1/costs", query)
        assert (answer.status_code, answer.json()["error_type"]) == (404, "not_found")
    assert get(operator, session_id=row.session_id)["total_cost"] == AN_HOUR
    answer = operator.get("/api/v1/costs", {"session_id": row.session_id, "consumer_id": "alice"})
    assert answer.status_code == 404


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("some")
def test_csv_has_a_line_for_each_session(alice: APIClient, operator: APIClient) -> None:
    mine = rows(alice)
    assert {line["consumer_id"] for line in mine} == {"alice"}
    assert sum(Decimal(line["total_cost"]) for line in mine) == Decimal("1.98")
    every = rows(operator)
    assert sum(Decimal(line["total_cost"]) for line in every) == Decimal(str(get(operator)["total_cost"]))
    [orphan] = [line for line in every if not line["session_id"]]
    assert (orphan["consumer_id"], orphan["hours_used"], orphan["currency"]) == ("", "0.5", "USD")
    assert rows(alice, "costs/summary") == mine


@pytest.mark.usefixtures("some")
def test_csv_of_days(alice: APIClient) -> None:
    found = rows(alice, period="daily")
    assert [(line["start"], line["total_cost"]) for line in found] == [
        ("2026-01-28", "0.396000"), ("2026-01-29", "1.584000"),
    ]  # fmt: skip


def test_csv_runs_no_formula(operator: APIClient, virtual: FakeClock) -> None:
    usage.used(NOON - HOUR, NOON, gpu_type='=HYPERLINK("http://x")', consumer="@alice")
    [line] = rows(operator)
    assert line["gpu_type"] == '\'=HYPERLINK("http://x")'
    assert line["consumer_id"] == "'@alice"


def test_csv_is_saved_as_a_file_and_asked_for_by_accept_too(alice: APIClient, virtual: FakeClock) -> None:
    answer = alice.get("/api/v1/costs", HTTP_ACCEPT="text/csv")
    assert answer["Content-Disposition"] == 'attachment; filename="costs.csv"'
    assert answer.content.decode().splitlines()[0].startswith("session_id,consumer_id,provider,gpu_type")


@pytest.mark.parametrize("query", [{"colour": "red"}, {"session_id": usage.UNKNOWN}, {"start_date": "x"}])
def test_errors_are_json_whatever_was_asked_for(query: dict[str, Any], alice: APIClient, virtual: FakeClock) -> None:
    answer = alice.get("/api/v1/costs", {**query, "format": "csv"})
    assert answer.status_code in (400, 404)
    assert answer["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error", "error_type", "fields", "request_id"}
    assert alice.options("/api/v1/costs", HTTP_ACCEPT="text/csv").status_code == 200


def test_no_key_no_csv(db: None) -> None:
    answer = APIClient().get("/api/v1/costs?format=csv")
    assert (answer.status_code, answer.json()["error_type"]) == (401, "not_authenticated")


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"currency": "EUR"}, "currency"),
        ({"start_date": "2026-02-30"}, "start_date"),
        ({"start_date": "2026-13-01"}, "start_date"),
        ({"end_date": "yesterday"}, "end_date"),
        ({"end_date": ""}, "end_date"),
        ({"start_date": "2026-01-02", "end_date": "2026-01-01"}, "end_date"),
        ({"start_date": "0001-01-01"}, "start_date"),
        ({"end_date": "9999-12-31"}, "end_date"),
        ({"start_date": "2026-01-01T00:00:00Z"}, "start_date"),
        ({"period": "hourly"}, "period"),
        ({"period": "daily", "start_date": "1990-01-01"}, "period"),
        ({"period": "monthly", "start_date": "1971-01-01", "end_date": "9000-01-01"}, "period"),
        ({"session_id": "1"}, "session_id"),
        ({"session_id": "\u0000"}, "session_id"),
        ({"provider": "nowhere"}, "provider"),
        ({"provider": ""}, "provider"),
        ({"consumer_id": "alcie"}, "consumer_id"),
        ({"consumer_id": ""}, "consumer_id"),
        ({"consumer_id": "\u0000"}, "consumer_id"),
        ({"format": "xml"}, "format"),
        ({"limit": "5"}, "limit"),
        ({"start_date": ["2026-01-01", "2026-01-02"]}, "start_date"),
    ],
)
def test_a_bad_parameter_is_named(query: dict[str, Any], name: str, operator: APIClient, virtual: FakeClock) -> None:
    answer = operator.get("/api/v1/costs", query)
    assert answer.status_code == 400, answer.content
    assert list(answer.json()["fields"]) == [name]


@pytest.mark.parametrize("name", ["session_id", "start_date", "end_date"])
def test_the_summary_takes_no_window(name: str, operator: APIClient) -> None:
    answer = operator.get("/api/v1/costs/summary", {name: "2026-01-01"})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, [name])


@pytest.mark.parametrize("path", ["costs", "costs/summary"])
def test_somebody_elses_costs_are_forbidden(path: str, alice: APIClient) -> None:
    assert alice.get(f"/api/v1/{path}?consumer_id=bob").status_code == 403


def test_the_edges_of_the_calendar_are_days_too(operator: APIClient, virtual: FakeClock) -> None:
    for query in ({"start_date": "1970-01-02"}, {"end_date": "9990-12-31"}, {"start_date": "2028-02-29"}):
        assert get(operator, **query)["total_cost"] == 0
