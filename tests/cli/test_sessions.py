"""`gpu-shopper sessions …` and `shutdown`: what a person sees and what happens to the sessions."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from gpushopper.cli import api as cli_api
from gpushopper.cli import waiting
from providers.base import Unavailable
from sessions.models import Session
from tests.cli.conftest import GpuShopper, World, new_key
from tests.fakes import FakeProvider

pytestmark = pytest.mark.usefixtures("alice")


@pytest.fixture
def rent(gpu_shopper: GpuShopper) -> Any:
    """`rent("fake-1")`: the id of a new session."""

    def renting(offer: str = "fake-1", *more: str) -> str:
        said = gpu_shopper("provision", "-i", offer, "-o", "json", *more)
        assert said.code == 0, said.err
        session_id: str = json.loads(said.out)["session"]["id"]
        return session_id

    return renting


def status(session_id: str) -> str:
    word: str = Session.objects.get(pk=session_id).status
    return word


def test_the_list_shows_what_is_not_over(gpu_shopper: GpuShopper, rent: Any) -> None:
    assert "No live session" in gpu_shopper("sessions", "list").out
    over, live = rent("fake-1", "-w"), rent("fake-2", "-w")
    gpu_shopper("sessions", "done", over, "--wait")
    said = gpu_shopper("sessions", "list")
    assert live[:8] in said.out
    assert "running" in said.out
    assert "in 59 min" in said.out, "when it ends"
    assert over[:8] not in said.out
    everything = gpu_shopper("sessions", "list", "--all")
    assert over[:8] in everything.out
    assert "stopped" in everything.out


def test_the_lists_bounds_are_passed_on(gpu_shopper: GpuShopper, rent: Any) -> None:
    one, two = rent("fake-1", "-w"), rent("fake-2")

    def listed(*arguments: str) -> list[str]:
        page = json.loads(gpu_shopper("sessions", "list", "-o", "json", *arguments).out)
        return [session["id"] for session in page["sessions"]]

    assert listed() == [two, one]
    assert listed("--limit", "1", "--offset", "1") == [one]
    assert listed("--status", "failed", "--status", "stopped") == []
    assert listed("--provider", "nobody") == []
    assert listed("-c", "alice") == [two, one]
    assert "1 of 2" in gpu_shopper("sessions", "list", "--limit", "1").out
    assert gpu_shopper("sessions", "list", "-c", "bob").code == 4


def test_a_session_is_named_by_its_first_characters(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent()
    assert session_id in gpu_shopper("sessions", "get", session_id[:8]).out
    assert session_id in gpu_shopper("sessions", "get", session_id.upper()).out


def test_characters_of_two_sessions_name_neither(
    gpu_shopper: GpuShopper, rent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"3f2a91c0-0000-4000-8000-00000000000{digit}" for digit in (1, 2)]
    monkeypatch.setattr(cli_api.Api, "pages", lambda *_, **__: iter([{"id": one} for one in ids]))
    said = gpu_shopper("sessions", "done", "3f2a91c0")
    assert said.code == 2
    assert "2 sessions begin with 3f2a91c0" in said.err


@pytest.mark.parametrize(("name", "code"), [("12", 2), ("../etc", 2), ("deadbeef", 1), ("not hex at all", 2)])
def test_a_name_that_is_none(gpu_shopper: GpuShopper, name: str, code: int) -> None:
    assert gpu_shopper("sessions", "get", name).code == code


def test_somebody_elses_session_is_not_there(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent()
    said = gpu_shopper("sessions", "done", session_id, "--api-key", new_key("bob"))
    assert said.code == 1
    assert "No such session" in said.err
    assert status(session_id) == "provisioning"


def test_get_shows_how_it_goes(gpu_shopper: GpuShopper, rent: Any) -> None:
    said = gpu_shopper("sessions", "get", rent("fake-1", "-w"))
    for text in ("running", "RTX 4090", "0.4100 USD/h", "ssh -p 22 root@127.0.0.1", "in 59 min"):
        assert text in said.out, text


def test_get_can_wait_until_it_runs(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent()
    said = gpu_shopper("sessions", "get", session_id, "--wait")
    assert said.code == 0
    assert "running" in said.out


def test_the_timeline(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent("fake-1", "-w")
    said = gpu_shopper("sessions", "events", session_id)
    page = json.loads(gpu_shopper("sessions", "events", session_id, "-o", "json").out)
    kinds = [event["type"] for event in page["events"]]
    assert page["total"] == page["count"] == len(kinds)
    assert kinds[0] == "session_requested"
    places = [said.out.find(kind) for kind in ("session_requested", "create_sent", "session_running")]
    assert -1 not in places
    assert places == sorted(places), "oldest first"


def test_diagnostics(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent()
    assert gpu_shopper("sessions", "diagnostics", session_id).code == 1, "it does not run yet"
    gpu_shopper("sessions", "get", session_id, "--wait")
    said = gpu_shopper("sessions", "diagnostics", session_id)
    assert said.code == 0
    assert "Dead man" in said.out
    assert "left" in said.out


def test_done_asks_for_the_end_and_says_where_the_proof_will_be(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent("fake-1", "-w")
    said = gpu_shopper("sessions", "done", session_id)
    assert said.code == 0
    assert "stopping" in said.out
    assert f"sessions get {session_id}" in said.out


def test_done_can_wait_for_the_proof(gpu_shopper: GpuShopper, rent: Any, provider: FakeProvider) -> None:
    said = gpu_shopper("sessions", "done", rent("fake-1", "-w"), "--wait")
    assert said.code == 0
    assert "Proven gone" in said.out
    assert "stopping" in said.err
    assert not provider.listed


def test_done_twice_is_refused_and_delete_twice_is_not(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent("fake-1", "-w")
    assert gpu_shopper("sessions", "delete", session_id, "-w").code == 0
    assert gpu_shopper("sessions", "delete", session_id).code == 0
    said = gpu_shopper("sessions", "done", session_id)
    assert said.code == 1
    assert "already" in said.err


def test_an_interrupted_wait_for_the_end_does_not_stop_the_end(
    gpu_shopper: GpuShopper, rent: Any, monkeypatch: pytest.MonkeyPatch, service: World
) -> None:
    session_id = rent("fake-1", "-w")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting.time, "sleep", interrupt)
    said = gpu_shopper("sessions", "done", session_id, "--wait")
    assert said.code == 130
    assert "goes on without us" in said.err
    service.engine.run(60)
    assert status(session_id) == "stopped"


def test_extend(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent("fake-1", "-w")
    said = gpu_shopper("sessions", "extend", session_id, "--hours", "1.5")
    assert said.code == 0, said.err
    assert "in 2 h" in said.out
    too_much = gpu_shopper("sessions", "extend", session_id, "-t", "12")
    assert too_much.code == 1
    assert "at most 9.5 h fit" in too_much.err
    assert gpu_shopper("sessions", "extend", session_id).code == 2, "how much longer?"


def test_going_beyond_the_maximum_takes_an_operator_and_a_reason(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent("fake-1", "-w")
    beyond = ("sessions", "extend", session_id, "-t", "20", "--override")
    operator = ("--api-key", new_key("ops", operator=True))
    assert gpu_shopper(*beyond, *operator).code == 2
    assert gpu_shopper(*beyond, "--reason", "a long run").code == 4
    assert gpu_shopper(*beyond, "--reason", "a long run", *operator).code == 0


# --- Shutdown --------------------------------------------------------------------------------------------


class Typing(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_shutdown_ends_all_live_sessions(gpu_shopper: GpuShopper, rent: Any, provider: FakeProvider) -> None:
    ids = [rent("fake-1", "-w"), rent("fake-2")]
    said = gpu_shopper("shutdown", "--force", "--wait")
    assert said.code == 0, said.err
    assert {status(one) for one in ids} == {"stopped"}
    assert not provider.listed
    assert all(one[:8] in said.out for one in ids)


def test_shutdown_asks_first(gpu_shopper: GpuShopper, rent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = rent("fake-1", "-w")
    monkeypatch.setattr(sys, "stdin", Typing("n\n"))
    said = gpu_shopper("shutdown")
    assert said.code == 1
    assert session_id[:8] in said.err, "what it would end"
    assert status(session_id) == "running"
    monkeypatch.setattr(sys, "stdin", Typing("y\n"))
    assert gpu_shopper("shutdown", "-o", "json").code == 0
    assert status(session_id) == "stopping"


def test_shutdown_with_nobody_to_ask_ends_nothing(gpu_shopper: GpuShopper, rent: Any) -> None:
    session_id = rent("fake-1", "-w")
    said = gpu_shopper("shutdown")
    assert said.code == 2
    assert "--force" in said.err
    assert status(session_id) == "running"


def test_shutdown_of_nothing(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("shutdown")
    assert said.code == 0
    assert "no live session" in said.out
    assert json.loads(gpu_shopper("shutdown", "-o", "json").out) == {"sessions": [], "count": 0, "total": 0}


def test_an_operators_shutdown_never_takes_everybody_by_accident(gpu_shopper: GpuShopper, rent: Any) -> None:
    alices = rent("fake-1", "-w")
    operator = ("--api-key", new_key("ops", operator=True))
    bobs = rent("fake-2", "-w", "-c", "bob", *operator)
    assert gpu_shopper("shutdown", "--force", *operator).code == 2
    assert (status(alices), status(bobs)) == ("running", "running")
    assert gpu_shopper("shutdown", "--force", "-c", "bob", *operator).code == 0
    assert (status(alices), status(bobs)) == ("running", "stopping")
    assert gpu_shopper("shutdown", "--force", "--everybody", *operator).code == 0
    assert status(alices) == "stopping"


def test_one_that_cannot_be_ended_does_not_save_the_others(
    gpu_shopper: GpuShopper, rent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [rent("fake-1", "-w"), rent("fake-2", "-w")]
    real = cli_api.Api.delete

    def delete(self: cli_api.Api, path: str) -> Any:
        if ids[1] in path:  # the newest comes first
            raise cli_api.NoAnswer("the connection broke")
        return real(self, path)

    monkeypatch.setattr(cli_api.Api, "delete", delete)
    said = gpu_shopper("shutdown", "--force")
    assert said.code == 1
    assert "1 of 2" in said.err
    assert ids[1] in said.err
    assert status(ids[0]) == "stopping"


def test_an_end_outlasts_a_provider_that_does_not_answer(
    gpu_shopper: GpuShopper, rent: Any, provider: FakeProvider
) -> None:
    session_id = rent("fake-1", "-w")
    provider.trouble["destroy"] = [Unavailable("no answer")] * 3
    assert gpu_shopper("sessions", "done", session_id, "--wait").code == 0
    assert not provider.listed
