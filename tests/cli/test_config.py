"""Where the server is, which key to show it, and that nobody else gets to see the key."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path

import pytest

from gpushopper.cli import config
from gpushopper.cli.failure import Misused
from tests.cli.conftest import GpuShopper

KEY = "gs_abcd1234_canary-canary-canary-canary"


def shown(gpu_shopper: GpuShopper, *flags: str) -> dict[str, object]:
    said = gpu_shopper("config", "show", "-o", "json", *flags)
    assert said.code == 0
    answer: dict[str, object] = json.loads(said.out)
    return answer


def test_a_flag_goes_before_the_environment_and_that_before_the_file(
    gpu_shopper: GpuShopper, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(gpu_shopper)["server"] == "http://localhost:8080"
    gpu_shopper("config", "set", "server", "http://file:1")
    assert shown(gpu_shopper)["server"] == "http://file:1"
    monkeypatch.setenv("GPU_SHOPPER_URL", "http://environment:2")
    assert shown(gpu_shopper)["server"] == "http://environment:2"
    assert shown(gpu_shopper, "--server", "http://flag:3")["server"] == "http://flag:3"
    assert shown(gpu_shopper, "--server", "http://flag:3")["sources"]["server"] == "--server"  # type: ignore[index]


def test_an_option_of_every_command_may_stand_before_its_name(gpu_shopper: GpuShopper) -> None:
    said = gpu_shopper("--server", "http://before:1", "-o", "json", "config", "show")
    assert json.loads(said.out)["server"] == "http://before:1"
    said = gpu_shopper("--server", "http://before:1", "config", "show", "-o", "json", "--server", "http://after:2")
    assert json.loads(said.out)["server"] == "http://after:2"


def test_only_its_owner_can_read_the_file(gpu_shopper: GpuShopper, home: Path) -> None:
    assert gpu_shopper("config", "set", "api-key", KEY).code == 0
    file = home / ".config" / "gpu-shopper" / "config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KEY in file.read_text()


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(gpu_shopper: GpuShopper, home: Path) -> None:
    gpu_shopper("config", "set", "server", "http://one:1")
    file = home / ".config" / "gpu-shopper" / "config.toml"
    file.chmod(0o644)
    gpu_shopper("config", "set", "api-key", KEY)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert 'server = "http://one:1"' in file.read_text(), "the other value stays"


@pytest.mark.parametrize("output", ["table", "json"])
def test_the_key_is_shown_as_its_beginning(gpu_shopper: GpuShopper, output: str) -> None:
    set_ = gpu_shopper("config", "set", "api-key", KEY)
    show = gpu_shopper("config", "show", "-o", output)
    assert "gs_abcd1234_…" in show.out
    assert "canary" not in set_.out + set_.err + show.out + show.err


def test_a_key_of_another_kind_shows_nothing_of_itself() -> None:
    assert config.masked("my own secret") == "…"
    assert config.masked("") == ""


def test_a_key_can_come_through_a_pipe(gpu_shopper: GpuShopper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(KEY + "\n"))
    assert gpu_shopper("config", "set", "api-key").code == 0
    assert config.read()["api-key"] == KEY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server", "localhost:8080"), ("server", "ftp://there"), ("server", "http://"), ("server", "http://x:port"),
        ("server", "http://user:canary@there"), ("api-key", "canary canary"), ("api-key", "canary\n2"), ("api-key", ""),
        ("colour", "blue"),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_and_not_repeated(
    gpu_shopper: GpuShopper, name: str, value: str
) -> None:
    said = gpu_shopper("config", "set", name, value)
    assert said.code == 2
    assert "canary" not in said.out + said.err
    assert config.read() == {}


def test_a_broken_file_is_named_without_its_content(gpu_shopper: GpuShopper, home: Path) -> None:
    file = home / ".config" / "gpu-shopper" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('api_key = "canary')
    said = gpu_shopper("inventory")
    assert said.code == 2
    assert str(file) in said.err
    assert "canary" not in said.err


def test_xdg_folders_are_honoured(gpu_shopper: GpuShopper, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    gpu_shopper("config", "set", "server", "http://one:1")
    assert (home / "elsewhere" / "gpu-shopper" / "config.toml").exists()


def test_the_address_is_kept_without_its_last_slash() -> None:
    assert config.check("server", " https://gpu.example.org/ ") == "https://gpu.example.org"
    with pytest.raises(Misused):
        config.check("server", "")
