"""What monitors ask, and whether the figures are those of the rows."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError
from django.test import Client

from costs.models import Budget, Delivery, Endpoint
from gpushopper import signals
from inventory import refresh
from providers import registry
from providers.base import Unauthorized, Unavailable
from sessions import engine as engines
from sessions import rows
from sessions.lifecycle import Reason, State
from sessions.models import Account, Heartbeat, Instance, Session
from tests.costs.usage import used
from tests.fakes import Engine, FakeClock, FakeProvider, quote
from tests.sessions.conftest import engine, guests, no_messages, provider

__all__ = ["engine", "guests", "no_messages", "provider"]
pytestmark = pytest.mark.django_db


def figures(client: Client) -> dict[str, float]:
    """Every sample of /metrics: `name{labels}` and its value."""
    text = client.get("/metrics").content.decode()
    samples = (re.fullmatch(r"(gpu_\S+?(?:\{.*\})?) (\S+)", line) for line in text.splitlines())
    return {found[1]: float(found[2]) for found in samples if found}


def test_health_holds_for_three_ticks_after_a_beat_and_no_longer(
    client: Client, virtual: FakeClock, provider: FakeProvider
) -> None:
    assert client.get("/health").status_code == 503, "nobody has looked yet"
    engines.beat("beat", virtual.now())
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok", "timestamp": "2026-01-29T12:00:00Z",
        "services": dict.fromkeys(("database", "broker", "lifecycle", "inventory", "ready"), "ok"),
    }  # fmt: skip
    virtual.advance(15)
    assert client.get("/ready").json() == {"ready": True, "timestamp": "2026-01-29T12:00:15Z"}
    virtual.advance(1)
    late = client.get("/health")
    assert (late.status_code, late["Retry-After"], late.json()["status"]) == (503, "5", "unhealthy")
    assert "no tick for 16 s" in late.json()["services"]["lifecycle"]
    assert client.get("/ready").status_code == 503


def test_the_tick_is_a_setting(client: Client, virtual: FakeClock, settings: Any) -> None:
    settings.LIFECYCLE_CHECK_INTERVAL = timedelta(seconds=1)
    engines.beat("beat", virtual.now())
    virtual.advance(4)
    assert client.get("/health").status_code == 503


def test_without_a_database_it_says_so(client: Client) -> None:
    with mock.patch("django.db.backends.utils.CursorWrapper.execute", side_effect=OperationalError("secret host")):
        answer = client.get("/health")
        assert client.get("/ready").status_code == 503
    assert answer.status_code == 503
    assert "DATABASE_URL" in answer.json()["services"]["database"]
    assert b"secret host" not in answer.content


def test_a_database_that_is_not_migrated_is_not_ready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_migrated", False)
    monkeypatch.setattr("django.db.migrations.executor.MigrationExecutor.migration_plan", lambda *given: ["one"])
    answer = client.get("/health")
    assert answer.status_code == 503
    assert "manage.py migrate" in answer.json()["services"]["database"]


def test_old_offers_and_a_rejected_key_degrade_but_do_not_fail(client: Client, virtual: FakeClock) -> None:
    registry.use({"fake": FakeProvider(quotes=[quote("1")])})
    engines.beat("beat", virtual.now())
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert "fake" in answer.json()["services"]["inventory"]
    Account.objects.create(provider="fake", unauthorized=True)
    assert "credentials rejected by fake" in client.get("/health").json()["services"]["inventory"]


def test_the_metrics_are_open_unless_a_token_is_set(client: Client, settings: Any) -> None:
    assert client.get("/metrics").status_code == 200
    settings.METRICS_TOKEN = "sesame"
    for header in ("", "Bearer open", "Bearer é", "Basic sesame", "sesame"):
        answer = client.get("/metrics", HTTP_AUTHORIZATION=header)
        assert answer.status_code == 401, header
        assert answer.json()["error_type"] == "not_authenticated"
    assert client.get("/metrics", HTTP_AUTHORIZATION="Bearer sesame").status_code == 200


def test_each_family_has_its_promised_name(client: Client) -> None:
    text = client.get("/metrics").content.decode()
    families = dict(re.findall(r"# TYPE (gpu_\w+) (\w+)", text))
    gauges = ("sessions_active", "unresolved_creates", "last_complete_listing_age_seconds", "destroys_overdue")
    counters = ("orphans_detected", "destroy_failures", "reconciliation_mismatches", "ssh_verify_failures",
                "provider_api_errors", "orphan_seconds")  # fmt: skip
    expected = {
        **{f"gpu_{name}": "gauge" for name in gauges},
        **{f"gpu_{name}_total": "counter" for name in counters},
        "gpu_ssh_verify_duration_seconds": "histogram",
    }
    assert {name: families.get(name) for name in expected} == expected


def test_the_figures_are_those_of_the_rows(
    client: Client, alice: Any, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    for number in (1, 2):
        alice.post("/api/v1/sessions", {"offer_id": f"fake-{number}", "reservation_hours": 1})
    engine.run(5)
    alice.post("/api/v1/sessions", {"offer_id": "fake-3", "reservation_hours": 1})
    found = figures(client)
    assert found['gpu_sessions_active{provider="fake",status="running"}'] == 2
    assert found['gpu_sessions_active{provider="fake",status="pending"}'] == 1
    assert found["gpu_ssh_verify_duration_seconds_count"] == 2
    assert found['gpu_ssh_verify_duration_seconds_bucket{le="5.0"}'] == 2
    assert found['gpu_unresolved_creates{provider="fake"}'] == 0
    age = (virtual.now() - Account.objects.get().looked_at).total_seconds()  # type: ignore[operator]
    assert found['gpu_last_complete_listing_age_seconds{provider="fake"}'] == age
    Session.objects.all().update(status="stopped")
    assert not [name for name in figures(client) if name.startswith("gpu_sessions_active{")]


def test_what_goes_wrong_is_counted_by_provider(client: Client, virtual: FakeClock) -> None:
    now = virtual.now()
    rows.count("provider_api_errors", "fake/create", 3)
    for name in ("orphans_detected", "destroy_failures", "reconciliation_mismatches"):
        rows.count(name, "fake", 2)
    common = {"provider": "fake", "deadline": now + timedelta(hours=1), "hard_deadline": now + timedelta(hours=1)}
    Instance.objects.create(**common, tag="a", state=State.DESTROYING, state_since=now - timedelta(minutes=11),
                            machine_id="1", adopted_at=now - timedelta(seconds=90))  # fmt: skip
    Instance.objects.create(**common, tag="b", state=State.LAUNCHING, launched_at=now)
    Instance.objects.create(**common, tag="c", state=State.DESTROYED, machine_id="2", end_reason=Reason.SSH_TIMEOUT,
                            adopted_at=now - timedelta(seconds=60), ended_at=now - timedelta(seconds=50))  # fmt: skip
    found = figures(client)
    assert found['gpu_provider_api_errors_total{operation="create",provider="fake"}'] == 3
    assert found['gpu_orphans_detected_total{provider="fake"}'] == 2
    assert found['gpu_destroy_failures_total{provider="fake"}'] == 2
    assert found['gpu_reconciliation_mismatches_total{provider="fake"}'] == 2
    assert found['gpu_destroys_overdue{provider="fake"}'] == 1
    assert found['gpu_unresolved_creates{provider="fake"}'] == 1
    assert found['gpu_ssh_verify_failures_total{provider="fake"}'] == 1
    assert found['gpu_orphan_seconds_total{provider="fake"}'] == 100


def test_the_providers_and_how_well_they_are_seen(
    alice: Any, provider: FakeProvider, engine: Engine, virtual: FakeClock
) -> None:
    engine.run(3)
    [shown] = alice.get("/api/v1/providers").json()["providers"]
    assert (shown["name"], shown["enabled"], shown["last_error"], shown["creates_stopped"]) == ("fake", True, "", "")
    assert shown["last_complete_listing"].startswith("2026-01-29T12:00:0")
    provider.trouble["machines"] = [Unauthorized("wrong key")]
    virtual.advance(400)
    engine.settle()
    [shown] = alice.get("/api/v1/providers").json()["providers"]
    assert shown["last_error"]
    assert shown["rate_limited_until"]
    provider.trouble["quotes"] = [Unavailable("x")]
    refresh.refresh("fake", even_if_not_due=True)


def test_the_heartbeats_have_an_age(client: Client, virtual: FakeClock) -> None:
    Heartbeat.objects.create(name="guardian", at=virtual.now() - timedelta(seconds=7))
    assert figures(client)['gpu_heartbeat_age_seconds{engine="guardian"}'] == 7


def test_money_has_figures_without_names(client: Client, virtual: FakeClock) -> None:
    now = virtual.now()
    used(now - timedelta(hours=1), None, consumer="alice", provider="vastai")
    for limit, on_limit in ((100_000, "stop"), (9_000_000, "stop"), (100_000, "alert")):
        Budget.objects.create(consumer="alice", period="total", limit=limit, on_limit=on_limit)
    endpoint = Endpoint.objects.create(url="https://example.org", secret="whsec_x", disabled_at=now)
    for given_up in (None, None, now):
        Delivery.objects.create(endpoint=endpoint, kind="budget.exceeded", body="{}", gave_up_at=given_up)
    found = figures(client)
    assert found['gpu_burn_usd_per_hour{provider="vastai"}'] == 0.396
    assert found['gpu_budgets_used_up{on_limit="stop"}'] == 1
    assert found['gpu_budgets_used_up{on_limit="block"}'] == 0
    assert found['gpu_budgets_used_up{on_limit="alert"}'] == 1
    assert found["gpu_webhook_deliveries_waiting"] == 2
    assert found["gpu_webhook_deliveries_given_up"] == 1
    assert found["gpu_webhook_endpoints_disabled"] == 1
    assert "alice" not in client.get("/metrics").content.decode()
