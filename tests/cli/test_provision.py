"""Renting from the command line: what is asked for, where the key goes, and how waiting ends."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from gpushopper.cli import keys, waiting
from providers.base import Refusal, Refused
from sessions.models import Session
from sessions.ssh import make_key_pair
from tests.cli.conftest import GpuShopper, World, new_key
from tests.fakes import FakeProvider

pytestmark = pytest.mark.usefixtures("alice")


def private_key(session_id: object) -> str:
    kept: str = Session.objects.get(pk=session_id).ssh_private_key
    return kept


def only_session() -> Session:
    return Session.objects.get()


# --- What is asked for -----------------------------------------------------------------------------------


def test_by_offer(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("provision", "--offer-id", "fake-2", "--hours", "2")
    assert said.code == 0, said.err
    session = only_session()
    assert (session.offer_id, session.consumer, session.reservation.total_seconds()) == ("fake-2", "alice", 7200)
    assert str(session.pk) in said.out
    assert "sessions get" in said.out, "what to do next"


def test_by_gpu_type_the_cheapest_is_taken(gpu_shopper: GpuShopper) -> None:
    assert gpu_shopper("provision", "-g", "rtx 4090", "-p", "0.5", "-t", "0.5", "-c", "alice").code == 0
    session = only_session()
    assert (session.offer_id, session.max_price, session.auto_retry) == ("fake-1", 500_000, True)


def test_every_other_wish_reaches_the_api(gpu_shopper: GpuShopper, provider: FakeProvider, home: Path) -> None:
    provider.traits = type(provider.traits)(takes_env=True, takes_onstart=True, takes_image=True)
    (home / "start.sh").write_text("echo hello\n")
    said = gpu_shopper(
        "provision", "-i", "fake-1", "--workload-type", "training", "--disk-gb", "80", "--image", "pytorch:2",
        "--onstart", "start.sh", "--env", "A=1", "--env", "B=x=y", "--idle-threshold-minutes", "15",
        "--auto-retry", "--max-retries", "2", "--retry-scope", "same_vram",
    )  # fmt: skip
    assert said.code == 0, said.err
    session = only_session()
    assert (session.workload_type, session.disk_gb, session.image) == ("training", 80, "pytorch:2")
    assert session.onstart == "echo hello\n"
    assert json.loads(session.env) == {"A": "1", "B": "x=y"}
    assert session.idle_threshold and session.idle_threshold.total_seconds() == 900
    assert (session.auto_retry, session.max_retries, session.retry_scope) == (True, 2, "same_vram")


def test_bounds_reach_the_api(gpu_shopper: GpuShopper) -> None:
    bounds = ["--provider", "fake", "--min-vram", "20", "--min-gpu-count", "1", "--min-reliability", "0.9",
              "--min-availability-confidence", "0.1", "--min-cuda", "12.0", "--location", "Quebec",
              "--country", "CA"]  # fmt: skip
    assert gpu_shopper("provision", "-g", "RTX 4090", *bounds, "--no-auto-retry").code == 0
    assert only_session().criteria == {
        "provider": "fake", "gpu_type": ["RTX 4090"], "min_vram": 20, "min_gpu_count": 1, "min_reliability": 0.9,
        "min_availability_confidence": 0.1, "min_cuda": "12.0", "location": "Quebec", "country": "CA",
    }  # fmt: skip
    assert only_session().auto_retry is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "either --offer-id, or --gpu-type"),
        (["-i", "fake-1", "-g", "RTX 4090"], "not both"),
        (["-i", "fake-1", "-s", "nowhere.pub"], "--ssh-key"),
        (["-i", "fake-1", "-k", "key", "-s", "own.pub"], "no private key"),
        (["-i", "fake-1", "-k", "no/such/folder/key"], "no folder"),
        (["-i", "fake-1", "-k", "."], "is a folder"),
        (["-i", "fake-1", "-k", "there"], "is there already"),
        (["-i", "fake-1", "--env", "NOVALUE"], "NAME=VALUE"),
        (["-i", "fake-1", "--hours", "many"], "hours"),
        (["-i", "fake-1", "--no-such-option"], "no-such-option"),
    ],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense_rents_nothing(
    gpu_shopper: GpuShopper, home: Path, arguments: list[str], sentence: str
) -> None:
    (home / "there").write_text("precious")
    (home / "own.pub").write_text(make_key_pair("me")[1])
    said = gpu_shopper("provision", *arguments)
    assert said.code == 2
    assert sentence in said.err
    assert not said.out
    assert not Session.objects.exists()
    assert (home / "there").read_text() == "precious"


def test_the_server_has_the_last_word(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("provision", "-i", "fake-1", "-t", "13")
    assert said.code == 1
    assert "reservation_hours" in said.err
    assert "request id" in said.err


def test_another_consumers_name_is_not_authorised(gpu_shopper: GpuShopper) -> None:
    assert gpu_shopper("provision", "-i", "fake-1", "-c", "bob").code == 4


def test_an_operator_rents_for_somebody(gpu_shopper: GpuShopper) -> None:
    key = new_key("ops", operator=True)
    assert gpu_shopper("provision", "-i", "fake-1", "--api-key", key).code == 1, "it has to say for whom"
    first = gpu_shopper("provision", "-i", "fake-1", "-c", "bob", "--api-key", key)
    assert first.code == 0
    assert only_session().consumer == "bob"
    assert "bob is a new consumer" in first.err and "bob is a new consumer" not in first.out
    again = gpu_shopper("provision", "-i", "fake-2", "-c", "bob", "--api-key", key)
    assert again.code == 0
    assert "new consumer" not in again.err


def test_a_lost_answer_rents_one_machine(gpu_shopper: GpuShopper, service: World, provider: FakeProvider) -> None:
    service.lose_answers = 1
    said = gpu_shopper("provision", "-i", "fake-1", "--wait")
    assert said.code == 0, said.err
    posts = [key for method, path, key in service.requests if (method, path) == ("POST", "/api/v1/sessions")]
    assert len(posts) == 2
    assert posts[0] == posts[1] != ""
    assert Session.objects.count() == 1
    assert provider.count("create") == 1


# --- The private key -------------------------------------------------------------------------------------


def test_the_key_is_saved_for_its_owner_only_and_then_acknowledged(gpu_shopper: GpuShopper, home: Path) -> None:
    said = gpu_shopper("provision", "-i", "fake-1", "--save-key", "key")
    assert said.code == 0, said.err
    file = home / "key"
    assert file.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert private_key(only_session().pk) == "", "the server has erased it"
    assert "PRIVATE KEY" not in said.out + said.err


def test_without_a_path_the_key_goes_to_our_own_folder(gpu_shopper: GpuShopper, home: Path) -> None:
    said = gpu_shopper("provision", "-i", "fake-1")
    place = home / ".local/share/gpu-shopper/keys" / str(only_session().pk)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert str(place) in said.err
    assert "PRIVATE KEY" not in said.out + said.err


def test_a_file_is_replaced_only_if_told(gpu_shopper: GpuShopper, home: Path) -> None:
    (home / "key").write_text("precious")
    assert gpu_shopper("provision", "-i", "fake-1", "-k", "key").code == 2
    assert (home / "key").read_text() == "precious"
    assert gpu_shopper("provision", "-i", "fake-1", "-k", "key", "--overwrite").code == 0
    assert "PRIVATE KEY" in (home / "key").read_text()
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600


def test_a_file_that_appears_while_we_rent_is_not_replaced(
    gpu_shopper: GpuShopper, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "check_free", lambda path, overwrite: (home / "key").write_text("precious"))
    said = gpu_shopper("provision", "-i", "fake-1", "-k", "key")
    assert said.code == 1
    assert (home / "key").read_text() == "precious"
    assert f"sessions key {only_session().pk}" in said.err, "how to get it yet"
    assert private_key(only_session().pk), "not acknowledged"


def test_a_key_that_is_not_safely_on_disk_is_not_acknowledged(
    gpu_shopper: GpuShopper, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = gpu_shopper("provision", "-i", "fake-1", "-k", "key")
    assert said.code == 1
    assert "No space left on device" in said.err
    assert not [entry for entry in home.iterdir() if "key" in entry.name], "no half of a key stays behind"
    monkeypatch.undo()
    assert private_key(only_session().pk)


def test_the_key_can_be_had_later_until_it_was_saved_once(gpu_shopper: GpuShopper, home: Path) -> None:
    gpu_shopper("provision", "-i", "fake-1", "-o", "json")
    session_id = str(only_session().pk)
    assert private_key(session_id), "a program that reads the answer has to acknowledge"
    said = gpu_shopper("sessions", "key", session_id, "-k", "later")
    assert said.code == 0, said.err
    assert "PRIVATE KEY" in (home / "later").read_text()
    again = gpu_shopper("sessions", "key", session_id, "-k", "again")
    assert again.code == 1
    assert str(home / "later") in again.err


def test_with_an_own_public_key_none_is_made(gpu_shopper: GpuShopper, home: Path, provider: FakeProvider) -> None:
    public = make_key_pair("me")[1]
    (home / "own.pub").write_text(public)
    assert gpu_shopper("provision", "-i", "fake-1", "-s", "own.pub", "--wait").code == 0
    spec: Any = next(what for verb, what in provider.asked if verb == "create")
    assert any(key.startswith(public.rsplit(" ", 1)[0]) for key in spec.ssh_public_keys)
    assert not (home / ".local/share/gpu-shopper/keys").exists()


def test_a_private_key_is_never_sent(gpu_shopper: GpuShopper, home: Path, service: World) -> None:
    (home / "id").write_text(make_key_pair("me")[0])
    said = gpu_shopper("provision", "-i", "fake-1", "-s", "id")
    assert said.code == 2
    assert "private key" in said.err
    assert not service.requests


# --- Waiting ---------------------------------------------------------------------------------------------


def test_waiting_ends_when_it_runs(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("provision", "-i", "fake-1", "--wait")
    assert said.code == 0, said.err
    assert "running" in said.out
    assert "ssh -p 22 root@127.0.0.1" in said.out
    assert "sessions ssh" in said.out, "what to do next"
    lines = said.err.splitlines()
    assert any("pending" in line for line in lines), "progress, as plain lines without a terminal"
    assert len(lines) == len(set(lines)), "each is said once"


def test_waiting_with_json_keeps_the_answer_pure(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("provision", "-i", "fake-1", "-w", "-k", "key", "-o", "json")
    answer = json.loads(said.out)
    assert set(answer) == {"session", "ssh_private_key"}
    assert answer["session"]["status"] == "running"
    assert "pending" in said.err


def test_a_session_that_never_runs_is_a_failure(gpu_shopper: GpuShopper, provider: FakeProvider) -> None:
    provider.trouble["create"] = [Refused("no_such_ask", why=Refusal.OFFER_GONE)]
    said = gpu_shopper("provision", "-i", "fake-1", "--wait")
    assert said.code == 1
    assert "refused to rent" in said.err
    assert "Another offer may do better" in said.err


def test_an_interrupted_wait_says_that_the_session_goes_on(
    gpu_shopper: GpuShopper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting.time, "sleep", interrupt)
    said = gpu_shopper("provision", "-i", "fake-1", "--wait", "-k", "key")
    assert said.code == 130
    session = only_session()
    assert session.status in ("pending", "provisioning")
    assert f"gpu-shopper sessions done {session.pk}" in said.err
    assert Path("key").exists(), "the key was saved before the wait"


def test_a_service_that_restarts_does_not_end_the_wait(
    gpu_shopper: GpuShopper, service: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpushopper.cli.api import Api, NoAnswer

    real, failures = Api.get, [NoAnswer("away")] * 3

    def get(self: Api, path: str, **query: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(self, path, **query)

    monkeypatch.setattr(Api, "get", get)
    said = gpu_shopper("provision", "-i", "fake-1", "--wait")
    assert said.code == 0, said.err
    assert "no answer" in said.err


def test_a_service_that_stays_away_ends_the_wait_and_not_the_session(
    gpu_shopper: GpuShopper, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpushopper.cli.api import Api, NoAnswer

    def get(self: Api, path: str, **query: Any) -> Any:
        raise NoAnswer("No GPU Shopper answers")

    monkeypatch.setattr(Api, "get", get)
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    said = gpu_shopper("provision", "-i", "fake-1", "--wait")
    assert said.code == 3
    assert f"sessions done {only_session().pk}" in said.err
