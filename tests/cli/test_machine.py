"""On a rented machine, over real SSH: single commands, files, and never past a host key that changed."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpushopper.cli import machine
from gpushopper.cli.failure import Failure
from sessions.models import Instance
from sessions.ssh import make_key_pair
from tests.cli.conftest import Box, GpuShopper

pytestmark = pytest.mark.usefixtures("alice")


@pytest.fixture
def session_id(gpu_shopper: GpuShopper, box: Box) -> str:
    """A running session on the box, its key saved."""
    said = gpu_shopper("provision", "-i", "fake-1", "-w", "-k", "key", "-o", "json")
    assert said.code == 0, said.err
    found: str = json.loads(said.out)["session"]["id"]
    return found


def no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: PTH123, SIM115


# --- A command -------------------------------------------------------------------------------------------


def test_a_single_command(gpu_shopper: GpuShopper, session_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no_input(monkeypatch)
    said = gpu_shopper("sessions", "ssh", session_id, "--", "nvidia-smi", "-L")
    assert said.code == 0, said.err
    assert "RTX 4090" in said.out
    assert not said.err


def test_its_exit_code_and_its_complaints_are_ours(
    gpu_shopper: GpuShopper, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_input(monkeypatch)
    said = gpu_shopper("sessions", "ssh", session_id, "--", "no-such-command")
    assert said.code == 127
    assert "no-such-command" in said.err
    assert not said.out


def test_what_is_piped_to_us_is_piped_to_it(
    gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "piped").write_text("from here\n")
    monkeypatch.setattr(sys, "stdin", (home / "piped").open())
    assert gpu_shopper("sessions", "ssh", session_id, "--", "cat > there").code == 0
    assert box.guest.files["/root/there"] == "from here\n"


def test_another_host_key_is_refused(gpu_shopper: GpuShopper, session_id: str, box: Box) -> None:
    box.replace()
    said = gpu_shopper("sessions", "ssh", session_id, "--", "cat > there")
    assert said.code == 255
    assert "another host key" in said.err
    assert "/root/there" not in box.guest.files


def test_without_an_input_of_ours_a_command_that_reads_one_ends(
    gpu_shopper: GpuShopper, session_id: str, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert gpu_shopper("sessions", "ssh", session_id, "--", "cat > there").code == 0
    assert box.guest.files["/root/there"] == ""


@pytest.mark.parametrize("host_key", ["", "garbage", "ssh-ed25519"])
def test_without_a_usable_host_key_nothing_is_sent(
    gpu_shopper: GpuShopper, session_id: str, box: Box, host_key: str
) -> None:
    Instance.objects.update(host_key=host_key)
    said = gpu_shopper("sessions", "ssh", session_id, "--", "cat > there")
    assert said.code == 255
    assert "nothing was sent" in said.err
    assert "/root/there" not in box.guest.files


def test_a_server_that_names_another_host_key_than_before_is_not_believed(
    gpu_shopper: GpuShopper, session_id: str, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_input(monkeypatch)
    assert gpu_shopper("sessions", "ssh", session_id, "--", "true").code in (0, 127)
    box.replace()
    Instance.objects.update(host_key=box.server.host_key)
    said = gpu_shopper("sessions", "ssh", session_id, "--", "nvidia-smi")
    assert said.code == 1
    assert "not the one of before" in said.err
    assert gpu_shopper("transfer", "upload", session_id, "key").code == 1


def test_a_session_that_does_not_run_has_nothing_to_log_in_to(gpu_shopper: GpuShopper, session_id: str) -> None:
    gpu_shopper("sessions", "done", session_id)
    for command in (["sessions", "ssh", session_id], ["transfer", "download", session_id, "x"]):
        said = gpu_shopper(*command)
        assert said.code == 1
        assert "while it is running" in said.err


def test_the_wrong_key_is_said_to_be_wrong(
    gpu_shopper: GpuShopper, session_id: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "other").write_text(make_key_pair("x")[0])
    said = gpu_shopper("sessions", "ssh", session_id, "--key", "other", "--", "nvidia-smi")
    assert said.code == 255
    assert "does not take the key" in said.err
    said = gpu_shopper("sessions", "ssh", session_id, "-k", "nowhere", "--", "nvidia-smi")
    assert said.code == 255
    assert "no key at" in said.err


def test_without_a_saved_key_the_servers_copy_is_fetched_once(
    gpu_shopper: GpuShopper, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_input(monkeypatch)
    said = gpu_shopper("provision", "-i", "fake-1", "-w", "-o", "json")
    session_id = json.loads(said.out)["session"]["id"]
    assert gpu_shopper("sessions", "ssh", session_id, "--", "nvidia-smi").code == 0
    place = home / ".local/share/gpu-shopper/keys" / session_id
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert gpu_shopper("sessions", "ssh", session_id, "--", "nvidia-smi").code == 0, "from the disk"


# --- A shell ---------------------------------------------------------------------------------------------


def test_the_systems_ssh_gets_the_saved_key_and_the_pinned_host_key(
    gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ssh tells with what it was called."""
    tools = home / "bin"
    tools.mkdir()
    ssh = tools / "ssh"
    ssh.write_text("#!/bin/sh\n")
    ssh.chmod(0o700)
    monkeypatch.setenv("PATH", str(tools))
    called: list[list[str]] = []

    def become(program: str, argv: list[str]) -> None:
        called.append(argv)
        raise SystemExit(0)

    monkeypatch.setattr(machine.os, "execvp", become)
    assert gpu_shopper("sessions", "ssh", session_id).code == 0
    (argv,) = called
    assert Path(argv[argv.index("-i") + 1]).resolve() == home / "key"
    assert argv[argv.index("-p") + 1] == str(box.server.port)
    assert argv[-4:] == ["-l", "root", "--", "127.0.0.1"]
    assert "StrictHostKeyChecking=yes" in argv
    pinned = next(word for word in argv if word.startswith("UserKnownHostsFile="))
    line = Path(pinned.partition("=")[2].strip('"')).read_text()
    assert line == f"[127.0.0.1]:{box.server.port} {box.server.host_key}\n"


def test_without_an_ssh_it_says_what_works(
    gpu_shopper: GpuShopper, session_id: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("PATH", str(home))
    said = gpu_shopper("sessions", "ssh", session_id)
    assert said.code == 1
    assert "-- nvidia-smi" in said.err


@pytest.mark.parametrize("host", ["-oProxyCommand=evil", "a b", "$(evil)", ""])
def test_an_address_that_is_an_option_is_refused(host: str) -> None:
    with pytest.raises(Failure):
        machine.reachable({"id": "x", "status": "running", "ssh_host": host})


# --- Files -----------------------------------------------------------------------------------------------


def test_a_file_there_and_back(gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path) -> None:
    data = bytes(range(256)) * 300
    (home / "data.bin").write_bytes(data)
    up = gpu_shopper("transfer", "upload", session_id, "data.bin", "/workspace/")
    assert up.code == 0, up.err
    assert "1 file copied" in up.out
    assert "/workspace/data.bin" in box.guest.files
    down = gpu_shopper("transfer", "download", session_id, "/workspace/data.bin", "back.bin")
    assert down.code == 0, down.err
    assert (home / "back.bin").read_bytes() == data
    assert not list(home.glob(".*.part"))


def test_the_defaults_are_the_home_there_and_the_folder_here(
    gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path
) -> None:
    (home / "a.txt").write_text("a")
    gpu_shopper("transfer", "upload", session_id, "a.txt")
    assert box.guest.files["/root/a.txt"] == "a"
    (home / "a.txt").unlink()
    gpu_shopper("transfer", "download", session_id, "a.txt")
    assert (home / "a.txt").read_text() == "a"


def test_a_folder_there_and_back(gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path) -> None:
    (home / "run" / "deep").mkdir(parents=True)
    (home / "run" / "one").write_text("1")
    (home / "run" / "deep" / "two").write_text("2")
    said = gpu_shopper("transfer", "upload", session_id, "run", "-o", "json")
    assert json.loads(said.out) == {"files": 2}
    assert box.guest.files["/root/run/deep/two"] == "2"
    (home / "back").mkdir()
    assert gpu_shopper("transfer", "download", session_id, "run", "back").code == 0
    assert (home / "back" / "run" / "deep" / "two").read_text() == "2"


def test_another_host_key_gets_no_file(gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path) -> None:
    (home / "secret").write_text("mine")
    box.replace()
    said = gpu_shopper("transfer", "upload", session_id, "secret", "/root/secret")
    assert said.code == 1
    assert "another host key" in said.err
    assert "/root/secret" not in box.guest.files
    assert gpu_shopper("transfer", "download", session_id, "/etc", "there").code == 1


def test_files_that_are_not_there(gpu_shopper: GpuShopper, session_id: str, home: Path) -> None:
    assert gpu_shopper("transfer", "upload", session_id, "nowhere").code == 2
    said = gpu_shopper("transfer", "download", session_id, "/nowhere", "back")
    assert said.code == 1
    assert "/nowhere" in said.err
    assert not (home / "back").exists()
    assert gpu_shopper("transfer", "download", session_id, "x", "no/such/folder/x").code == 2


def test_a_full_disk_there_is_said(gpu_shopper: GpuShopper, session_id: str, box: Box, home: Path) -> None:
    (home / "a.txt").write_text("a")
    box.guest.faults.add("disk.full")
    said = gpu_shopper("transfer", "upload", session_id, "a.txt")
    assert said.code == 1
    assert "The copy failed" in said.err


class Hostile:
    """An SFTP server that lists a name with a path in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def listdir_attr(self, path: str) -> list[Any]:
        return [SimpleNamespace(filename=self.name, st_mode=stat.S_IFREG | 0o644)]

    def normalize(self, path: str) -> str:
        return "/there"

    def stat(self, path: str) -> Any:
        return SimpleNamespace(st_mode=stat.S_IFDIR | 0o755)

    def get(self, remote: str, local: str, callback: object) -> None:
        Path(local).write_text("evil")


@pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "..", "."])
def test_a_machine_cannot_write_outside_the_chosen_folder(home: Path, name: str) -> None:
    (home / "in").mkdir()
    with pytest.raises(Failure, match="impossible name"):
        machine.download(Hostile(name), "there", home / "in", lambda *_: None)  # type: ignore[arg-type]
    assert not list(home.rglob("escaped"))


def test_nothing_is_written_through_a_link(home: Path) -> None:
    (home / "in" / "there").mkdir(parents=True)
    (home / "precious").write_text("mine")
    (home / "in" / "there" / "x").symlink_to(home / "precious")
    with pytest.raises(Failure, match="link"):
        machine.download(Hostile("x"), "there", home / "in", lambda *_: None)  # type: ignore[arg-type]
    assert (home / "precious").read_text() == "mine"


def test_a_broken_download_leaves_what_was_there(home: Path) -> None:
    class Breaks(Hostile):
        def get(self, remote: str, local: str, callback: object) -> None:
            Path(local).write_text("half")
            raise EOFError

        def stat(self, path: str) -> Any:
            return SimpleNamespace(st_mode=stat.S_IFREG)

    (home / "x").write_text("whole")
    with pytest.raises(EOFError):
        machine.download(Breaks("x"), "there", home / "x", lambda *_: None)  # type: ignore[arg-type]
    assert (home / "x").read_text() == "whole"
    assert [entry.name for entry in home.iterdir()] == ["x"]
