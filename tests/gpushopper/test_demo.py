"""`make demo`: the whole job for real, and its refusals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gpushopper import demo
from tests.processes import heed_ctrl_c

BASE = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds that a test waits at most for an event

pytestmark = pytest.mark.real_time


def surroundings(**more: str) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    ours = ("VASTAI_", "TENSORDOCK_", "GPU_SHOPPER_", "SERVER_", "DJANGO_", "XDG_")
    unset = {"DATA_DIR", "DATABASE_URL", "CELERY_BROKER_URL", "SECRET_KEY", "FIELD_ENCRYPTION_KEYS", "TAG_KEY",
             "DEPLOYMENT_ID", "LOG_FORMAT"}  # fmt: skip
    left = {name: value for name, value in os.environ.items() if not name.startswith(ours) and name not in unset}
    return {**left, **more}


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """A demo that did not end by itself does not outlive its test, nor does the service that it started."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(data_dir: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "gpushopper.demo", "--data-dir", str(data_dir), *arguments], cwd=BASE, text=True,
        env=surroundings(**more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    _started.append(process)
    return process


def left_behind(data_dir: Path) -> list[str]:
    """Command lines of processes that still have this data folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(data_dir).encode() in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # It has just ended, or is somebody else's.
            continue
    return found


@pytest.mark.xdist_group("demo")
def test_the_whole_tour_twice_on_the_same_data(tmp_path: Path) -> None:
    """The first time from nothing; the second time with a past, a taken port, and somebody who interrupts."""
    first = start(tmp_path, "--once", DESTROY_CONFIRM="3s")
    out, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, out + err
    for text in (
        "$ gpu-shopper inventory --gpu-type 'RTX 4090'", "nothing real is rented", "NVIDIA-SMI", "RTX 4090",
        "Proven gone", "session_stopped", "Every step held.", "In all",
    ):  # fmt: skip
        assert text in out, text
    assert "PRIVATE KEY" not in out + err
    assert not left_behind(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        second = start(tmp_path, SERVER_PORT=str(taken.getsockname()[1]), DESTROY_CONFIRM="3s")
        out, err = interrupt_when_up(second)
    assert second.returncode == 0, out + err
    assert "is taken by another program" in out
    assert "Every step held." in out
    assert "admin / " in out
    assert not left_behind(tmp_path)


def interrupt_when_up(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Let the tour end, log in to what it leaves up, then press Ctrl-C."""
    assert process.stdout is not None
    lines: list[str] = []
    end = time.monotonic() + PATIENCE
    for line in process.stdout:
        lines.append(line)
        assert time.monotonic() < end
        if line.startswith("Ctrl-C"):
            break
    said = "".join(lines)
    if "Ctrl-C" in said:
        log_in(said)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    return said + out, err


def log_in(said: str) -> None:
    """With what was printed, as a person would."""
    import requests

    url = said.partition("Front door    ")[2].split("/\n")[0]
    password = said.partition("admin / ")[2].split("\n")[0]
    key = said.partition("GPU_SHOPPER_API_KEY=")[2].split("\n")[0]
    browser = requests.Session()
    browser.trust_env = False
    form: Any = browser.get(f"{url}/admin/login/", timeout=10)
    sent = {"username": "admin", "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    inside = browser.post(f"{url}/admin/login/?next=/admin/", data=sent, headers={"Referer": form.url}, timeout=10)
    assert inside.status_code == 200
    assert "/login" not in inside.url
    sessions = requests.get(f"{url}/api/v1/sessions", headers={"Authorization": f"Bearer {key}"}, timeout=10)
    assert sessions.json()["total"] == 2, "of both tours"


@pytest.mark.parametrize("name", demo.PROVIDER_KEYS)
def test_with_a_providers_key_it_refuses_and_says_how_to_rent_for_real(tmp_path: Path, name: str) -> None:
    process = start(tmp_path, "--once", **{name: "canary-key"})
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert name in err
    assert "make run" in err
    assert "provision" in err
    assert "canary" not in out + err
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_something_real_on_the_menu_is_never_rented(monkeypatch: pytest.MonkeyPatch) -> None:
    tour = demo.Tour(None)  # type: ignore[arg-type]
    ran: list[Any] = []
    monkeypatch.setattr(tour, "ask", lambda *a: {"offers": [{"id": "a", "sandbox": True}, {"id": "b"}]})
    monkeypatch.setattr(tour, "gpu_shopper", lambda *a, **k: ran.append(a))
    with pytest.raises(demo.DidNotHold, match="real"):
        tour.rent()
    assert not ran


def test_who_else_answers_at_the_port_is_not_taken_for_our_own(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with ThreadingHTTPServer(("127.0.0.1", 0), Always200) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,)).start()
        port = other.server_address[1]
        with subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) as ours:
            log.write_text("The port is taken.\n")
            service = demo.Service(ours, tmp_path, port, log)
            assert not service._is_ready()
            log.write_text(f"GPU Shopper is at {service.url}/\n")
            assert service._is_ready()
        other.shutdown()


class Always200(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_service_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    process = start(tmp_path, "--once", RECONCILIATION_INTERVAL="soon")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "This did not hold: the service starts" in err
    assert "RECONCILIATION_INTERVAL" in err
    assert "Traceback" not in err
    assert not left_behind(tmp_path)
