"""What holds for every command: its exit codes, its silence about secrets, and pure JSON."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpushopper.cli import failure, provision
from gpushopper.cli.inventory import Sort
from gpushopper.cli.sessions import Status as StatusChoice
from inventory import selection
from sessions.lifecycle import Status
from sessions.models import Session
from tests.cli.conftest import Box, GpuShopper, World, new_key
from tests.processes import heed_ctrl_c

PROGRAM = [sys.executable, "-c", "import sys; from gpushopper.cli import main; sys.exit(main())"]
EVERY_COMMAND = [
    ["inventory"], ["provision"], ["shutdown"], ["costs"], ["costs", "summary"],
    *(["sessions", name] for name in
      ("list", "get", "events", "diagnostics", "done", "delete", "extend", "key", "ssh")),
    ["transfer", "upload"], ["transfer", "download"], ["config", "set"], ["config", "show"],
]  # fmt: skip
ASKING = [["inventory"], ["provision", "-i", "x"], ["sessions", "list"], ["shutdown", "--force"], ["costs"]]


def test_no_command_is_missing_above(gpu_shopper: GpuShopper) -> None:
    from typer.main import get_command

    from gpushopper.cli.commands import program

    def leaves(command: Any, path: list[str]) -> list[list[str]]:
        below = [leaf for name, one in getattr(command, "commands", {}).items() for leaf in leaves(one, [*path, name])]
        own = [path] if not below or getattr(command, "invoke_without_command", False) else []
        return own + below

    found = leaves(get_command(program()), [])
    assert sorted(path for path in found if path) == sorted(EVERY_COMMAND)


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_each_command_explains_itself(gpu_shopper: GpuShopper, command: list[str]) -> None:
    for option in ("--help", "-h"):
        said = gpu_shopper(*command, option)
        assert said.code == 0
        assert "Usage: gpu-shopper" in said.out
        for everywhere in ("--server", "--api-key", "--output", "-o"):
            assert everywhere in said.out


def test_the_help_lists_the_exit_codes(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("--help")
    text = " ".join(said.out.split())
    for code in (failure.OK, failure.REFUSED, failure.USAGE, failure.UNREACHABLE, failure.NOT_AUTHORISED):
        assert f"{code} " in text[text.index("Exit codes") :]


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_no_server_is_exit_3_with_what_to_do(gpu_shopper: GpuShopper, command: list[str]) -> None:
    said = gpu_shopper(*command, "--server", "http://127.0.0.1:1")
    assert said.code == 3
    assert "No GPU Shopper answers at http://127.0.0.1:1" in said.err
    assert "make run" in said.err
    assert not said.out


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize("key", ["", "gs_00000000_wrong-canary"])
def test_no_key_or_a_wrong_one_is_exit_4(gpu_shopper: GpuShopper, service: World, command: list[str], key: str) -> None:
    said = gpu_shopper(*command, *(["--api-key", key] if key else []))
    assert said.code == 4
    assert "create_consumer" in said.err
    assert "canary" not in said.out + said.err


def test_an_unknown_command_is_exit_2(gpu_shopper: GpuShopper) -> None:
    assert gpu_shopper("explode").code == 2
    assert gpu_shopper("inventory", "--explode").code == 2
    assert gpu_shopper("inventory", "-o", "xml").code == 2


def test_a_whole_life_never_shows_a_secret(
    gpu_shopper: GpuShopper, service: World, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key("alice")
    gpu_shopper("config", "set", "api-key", key)
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: PTH123, SIM115
    (home / "a").write_text("a")
    provisioned = gpu_shopper("provision", "-i", "fake-1", "-w", "-k", "key")
    assert provisioned.code == 0, provisioned.err
    session = gpu_shopper("sessions", "list", "-o", "json")
    session_id = json.loads(session.out)["sessions"][0]["id"]
    everything = [
        provisioned,
        session,
        *(gpu_shopper(*command) for command in (
            ["inventory"], ["sessions", "list"], ["sessions", "get", session_id], ["sessions", "events", session_id],
            ["sessions", "diagnostics", session_id], ["sessions", "key", session_id],
            ["sessions", "ssh", session_id, "--", "nvidia-smi"], ["transfer", "upload", session_id, "a"],
            ["sessions", "extend", session_id, "-t", "99"], ["config", "show"], ["config", "show", "-o", "json"],
            ["sessions", "done", session_id, "-w"], ["sessions", "events", session_id, "-o", "json"],
            ["sessions", "done", session_id], ["shutdown"],
        )),
    ]  # fmt: skip
    private_key = (home / "key").read_text().splitlines()[1]
    for said in everything:
        assert key not in said.out + said.err
        assert key.split("_", 2)[2] not in said.out + said.err
        assert private_key not in said.out + said.err


def test_json_is_exactly_what_the_api_says(gpu_shopper: GpuShopper, service: World, alice: str) -> None:
    import requests

    rented = json.loads(gpu_shopper("provision", "-i", "fake-1", "-w", "-o", "json").out)
    service.paused = True
    for command, path in (
        (["inventory", "--limit", "50"], "/inventory"),
        (["sessions", "list"], "/sessions?status=running"),
        (["sessions", "get", rented["session"]["id"]], f"/sessions/{rented['session']['id']}"),
        (["sessions", "events", rented["session"]["id"]], f"/sessions/{rented['session']['id']}/events?limit=500"),
    ):
        said = gpu_shopper(*command, "-o", "json")
        expected = requests.get(
            f"{service.url}/api/v1{path}", headers={"Authorization": f"Bearer {alice}"}, timeout=10
        ).json()
        assert json.loads(said.out) == expected
        assert not said.err


def test_the_choices_offered_are_the_servers_own() -> None:
    """The command line imports nothing of the service, so it has its own lists of words."""

    def words(choices: Any) -> set[str]:
        return {one.value for one in choices}

    assert words(Sort) == set(selection.SORTS)
    assert words(provision.Workload) == set(Session.Workload.values)
    assert words(provision.Scope) == set(Session.RetryScope.values)
    assert words(StatusChoice) == {status.value for status in Status}


# --- As a process of its own -----------------------------------------------------------------------------


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2], **options,
    )  # fmt: skip


@pytest.mark.real_time
def test_it_starts_without_django_and_without_paramiko() -> None:
    """Each would cost a third of a second at every command."""
    script = """
import sys
from gpushopper.cli import commands, main
assert main(["--help"]) == 0
heavy = {"django", "rest_framework", "celery", "paramiko", "cryptography"} & set(sys.modules)
assert not heavy, heavy
ours = {name for name in sys.modules if name.startswith("gpushopper")}
assert all(name == "gpushopper" or name.startswith("gpushopper.cli") for name in ours), ours
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr


def interrupted(process: subprocess.Popen[str]) -> str:
    """What it said after Ctrl-C, pressed again, as a person would, where the first one met a deaf moment."""
    for _ in range(30):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=2)[1]
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError("it does not end")


@pytest.mark.real_time
def test_ctrl_c_while_waiting_says_that_the_session_goes_on(service: World, alice: str, home: Path) -> None:
    service.paused = True  # so it never runs
    environment = {**os.environ, "GPU_SHOPPER_URL": service.url, "GPU_SHOPPER_API_KEY": alice, "HOME": str(home)}
    process = subprocess.Popen(
        [*PROGRAM, "provision", "-i", "fake-1", "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, cwd=Path(__file__).parents[2], preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    end = time.monotonic() + 30
    looks = ("GET", "/api/v1/sessions/")
    while not any(method == looks[0] and path.startswith(looks[1]) for method, path, _ in service.requests):
        assert time.monotonic() < end, "it never began to wait"
        time.sleep(0.02)
    err = interrupted(process)
    assert process.returncode == 130
    assert "gpu-shopper sessions done" in err
    assert "Traceback" not in err


@pytest.mark.real_time
def test_a_reader_that_has_seen_enough_is_no_error(service: World, alice: str) -> None:
    environment = {**os.environ, "GPU_SHOPPER_URL": service.url, "GPU_SHOPPER_API_KEY": alice}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "inventory"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, env=environment,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.real_time
def test_without_a_terminal_there_is_no_colour(service: World, alice: str) -> None:
    environment = {**os.environ, "GPU_SHOPPER_URL": service.url, "GPU_SHOPPER_API_KEY": alice}
    done = run("inventory", env=environment)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.real_time
def test_on_a_terminal_the_wait_is_one_live_line(service: World, alice: str, home: Path) -> None:
    environment = {**os.environ, "GPU_SHOPPER_URL": service.url, "GPU_SHOPPER_API_KEY": alice, "HOME": str(home),
                   "TERM": "xterm-256color", "COLUMNS": "120"}  # fmt: skip
    environment.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "provision", "-i", "fake-1", "--wait"], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # The end of a terminal is an error.
        while block := os.read(ours, 65536):
            shown += block
    os.close(ours)
    assert process.wait(30) == 0, shown.decode()
    text = shown.decode()
    assert "pending" in text
    assert "\r\x1b[2K" in text or "\x1b[1A" in text, "the line is written over"
    assert "\x1b[1;32mrunning" in text, "in green"
