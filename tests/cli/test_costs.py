"""`gpu-shopper costs`: what is asked for, and how the answers of the API read."""

from __future__ import annotations

import json

import pytest
import responses

from tests.cli.conftest import GpuShopper

SERVER = "http://gpu.example.org"
SESSION = "3f2a91c0-0000-4000-8000-000000000001"
TOTAL = {
    "consumer_id": "alice", "total_cost": 12.345678, "currency": "USD", "session_count": 3, "hours_used": 30.5,
    "by_provider": {"vastai": 10.0, "tensordock": 2.345678}, "by_gpu_type": {"RTX 4090": 12.345678},
    "period_start": "2026-01-01", "period_end": "2026-01-31",
}  # fmt: skip
OF_A_SESSION = {
    "session_id": SESSION, "total_cost": 0.041, "currency": "USD", "hours_used": 0.1,
    "parts": {"compute": 0.04, "storage": 0.001}, "provider_billed": 0.0411, "final": True,
}  # fmt: skip


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> responses.RequestsMock:
    monkeypatch.setenv("GPU_SHOPPER_URL", SERVER)
    with responses.RequestsMock() as mock:
        yield mock


def answer(wire: responses.RequestsMock, path: str, body: object, **query: str) -> None:
    wire.get(f"{SERVER}/api/v1{path}", json=body, match=[responses.matchers.query_param_matcher(query)])


def test_a_total(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    answer(wire, "/costs", TOTAL)
    said = gpu_shopper("costs")
    assert said.code == 0
    for text in ("alice", "12.3457 USD", "2026-01-01 to 2026-01-31", "vastai", "10.0000", "RTX 4090"):
        assert text in said.out, text


def test_a_shares_figures_may_come_with_others(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    answer(wire, "/costs", {**TOTAL, "by_provider": {"vastai": {"total_cost": 10.0, "hours_used": 1.0}}})
    assert "10.0000" in gpu_shopper("costs").out


def test_every_bound_is_passed_on(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    series = [{"start": "2026-01-01", "total_cost": 1.5, "hours_used": 3.25}]
    answer(
        wire, "/costs", {**TOTAL, "series": series}, consumer_id="alice", provider="vastai", period="daily",
        start_date="2026-01-01", end_date="2026-01-31",
    )  # fmt: skip
    said = gpu_shopper(
        "costs", "-c", "alice", "--provider", "vastai", "--period", "daily", "--start-date", "2026-01-01",
        "--end-date", "2026-01-31",
    )  # fmt: skip
    assert "1.5000" in said.out
    assert "3.2500" in said.out


def test_of_one_session(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    answer(wire, "/costs", OF_A_SESSION, session_id=SESSION)
    said = gpu_shopper("costs", "--session-id", SESSION)
    assert "0.0410 USD" in said.out
    assert "so far" not in said.out
    assert "compute 0.0400, storage 0.0010" in said.out
    assert "0.0411 USD by the provider" in said.out


def test_what_is_not_final_says_so(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    answer(wire, "/costs", {**OF_A_SESSION, "final": False, "provider_billed": None}, session_id=SESSION)
    said = gpu_shopper("costs", "--session-id", SESSION)
    assert "so far" in said.out
    assert "by the provider" not in said.out


def test_the_summary(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    answer(wire, "/costs/summary", TOTAL, consumer_id="alice")
    assert "12.3457 USD" in gpu_shopper("costs", "summary", "-c", "alice").out


@pytest.mark.parametrize("arguments", [["costs", "-o", "json"], ["-o", "json", "costs"]])
def test_json_is_what_the_api_said(gpu_shopper: GpuShopper, wire: responses.RequestsMock, arguments: list[str]) -> None:
    answer(wire, "/costs", TOTAL)
    assert json.loads(gpu_shopper(*arguments).out) == TOTAL


@pytest.mark.parametrize(
    "arguments",
    [["costs", "-o", "json", "summary"], ["costs", "summary", "-o", "json"], ["-o", "json", "costs", "summary"]],
)
def test_options_of_every_command_may_stand_anywhere(
    gpu_shopper: GpuShopper, wire: responses.RequestsMock, arguments: list[str]
) -> None:
    answer(wire, "/costs/summary", TOTAL)
    assert json.loads(gpu_shopper(*arguments).out) == TOTAL


@pytest.mark.usefixtures("alice")
def test_a_session_of_today_against_the_service_itself(gpu_shopper: GpuShopper) -> None:
    """The answers above are written down here; these are the API's own."""
    rented = gpu_shopper("provision", "-i", "fake-1", "-w", "-o", "json")
    session_id = json.loads(rented.out)["session"]["id"]
    assert gpu_shopper("sessions", "done", session_id, "-w").code == 0
    for command in (["costs"], ["costs", "summary"], ["costs", "--period", "daily"]):
        said = gpu_shopper(*command)
        assert said.code == 0, said.err
        assert "fake" in said.out
        assert "RTX 4090" in said.out
    of_it = gpu_shopper("costs", "--session-id", session_id[:8])
    assert "compute" in of_it.out
    assert json.loads(gpu_shopper("costs", "-o", "json").out)["total_cost"] > 0
    assert gpu_shopper("costs", "-c", "bob").code == 4
    assert gpu_shopper("costs", "--start-date", "yesterday").code == 1


def test_what_orphans_cost_is_shown_if_there_were_any(gpu_shopper: GpuShopper, wire: responses.RequestsMock) -> None:
    answer(wire, "/costs", {**TOTAL, "orphan_cost": 0.25})
    assert "0.2500 USD" in gpu_shopper("costs").out
