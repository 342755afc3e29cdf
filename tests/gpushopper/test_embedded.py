"""The service in one process: it starts soon, once for each data folder, and stops without losing anything."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gpushopper import embedded, stand_ins

BASE = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds that a test waits at most for an event

pytestmark = pytest.mark.real_time


class Running:
    """`manage.py run` on a port of its own, against providers that do not answer."""

    def __init__(self, data_dir: Path, port: int = 0, **more: str) -> None:
        self.port = port or free_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("VASTAI_", "TENSOR"))}
        environ |= {
            "DATA_DIR": str(data_dir), "SERVER_PORT": str(self.port), "DATABASE_URL": "", "DATABASE_PATH": "",
            "CELERY_BROKER_URL": "", "REDIS_URL": "", "DJANGO_SETTINGS_MODULE": "gpushopper.settings",
            "SECRET_KEY": "", "FIELD_ENCRYPTION_KEYS": "", "TAG_KEY": "", "DEPLOYMENT_ID": "",
            "VASTAI_API_KEY": "no-such-key", "VASTAI_BASE_URL": "http://127.0.0.1:1", **more,
        }  # fmt: skip
        self.environ = environ
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "run"], cwd=BASE, env=environ, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another `manage.py` beside it, in the same surroundings."""
        return subprocess.run(
            [sys.executable, "manage.py", *words], cwd=BASE, env=self.environ, text=True, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def get(self, path: str) -> requests.Response | None:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)
        except requests.ConnectionError:
            return None

    def ready(self) -> float:
        """Waits until it is, and returns how many seconds that took."""
        begun = time.monotonic()
        while (answer := self.get("/ready")) is None or answer.status_code != 200:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() - begun < PATIENCE, "it never got ready"
            time.sleep(0.05)
        return time.monotonic() - begun

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def words(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


def free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port: int = attempt.getsockname()[1]
        return port


Run = Callable[..., Running]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started: list[Running] = []

    def start(port: int = 0, **more: str) -> Running:
        started.append(Running(tmp_path, port, **more))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def test_it_gets_ready_says_where_it_is_and_stops_when_told(run: Run) -> None:
    service = run()
    service.ready()
    code, out, err = service.end(signal.SIGTERM)
    assert code == 0, err
    assert f"GPU Shopper is at http://127.0.0.1:{service.port}/" in out
    assert "/admin/" in out
    assert "create_consumer" in out
    assert "Traceback" not in err
    assert "every session goes on" in err


def test_commands_beside_it_see_its_sandbox_and_after_its_end_say_that_it_is_gone(run: Run, tmp_path: Path) -> None:
    service = run(VASTAI_API_KEY="", VASTAI_BASE_URL="")
    service.ready()
    while_it_runs = service.command("cleanup_orphans")
    assert while_it_runs.returncode == 0, while_it_runs.stderr
    assert "vastai: 0 machines listed" in while_it_runs.stdout
    service.end()
    assert not (tmp_path / stand_ins.FILE_NAME).exists()
    afterwards = service.command("cleanup_orphans")
    assert afterwards.returncode == 4
    assert "only while the service runs" in afterwards.stderr
    assert "Traceback" not in afterwards.stderr


def test_a_second_service_on_the_same_data_says_so_and_harms_nothing(run: Run) -> None:
    first = run()
    first.ready()
    code, _, err = run().words()
    assert code == 1
    assert "another GPU Shopper runs on" in err
    assert "DATA_DIR" in err
    assert "Traceback" not in err
    answer = first.get("/ready")
    assert answer is not None and answer.status_code == 200


def test_after_its_end_it_starts_again_on_the_same_data(run: Run, tmp_path: Path) -> None:
    first = run()
    first.ready()
    keys = (tmp_path / "keys.env").read_text()
    assert first.end(signal.SIGINT)[0] == 0
    second = run()
    second.ready()
    assert (tmp_path / "keys.env").read_text() == keys


def test_after_a_kill_it_starts_again_on_the_same_data(run: Run) -> None:
    first = run()
    first.ready()
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    run().ready()


def test_a_port_that_is_taken_is_one_clear_sentence(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = run(port).words()
    assert code == 1
    assert f"127.0.0.1:{port}" in err
    assert f"--port {port + 1}" in err
    assert "Traceback" not in err
    assert not out


def test_a_bad_setting_is_named_before_anything_starts(run: Run, tmp_path: Path) -> None:
    code, _, err = run(RECONCILIATION_INTERVAL="soon").words()
    assert code != 0
    assert "RECONCILIATION_INTERVAL" in err
    assert not list(tmp_path.glob("*.db"))


def test_with_a_broker_it_refuses_and_says_what_to_run(run: Run) -> None:
    secrets = {
        "SECRET_KEY": "x" * 50, "TAG_KEY": "y" * 32, "DEPLOYMENT_ID": "abc",
        "FIELD_ENCRYPTION_KEYS": "dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
    }  # fmt: skip
    code, _, err = run(REDIS_URL="redis://127.0.0.1:1/0", **secrets).words()
    assert code == 1
    assert "docker-compose.yml" in err


def test_it_stops_in_time_while_a_provider_keeps_it_waiting(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        service = run(VASTAI_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        service.ready()
        call, _ = silent.accept()  # and no answer comes
        begun = time.monotonic()
        code, _, err = service.end()
        call.close()
    assert code == 0, err
    assert time.monotonic() - begun < 2 * embedded.STOP_WITHIN + 5
    assert "Traceback" not in err
    assert "taken up at the next start" in err


# --- The web server, without the rest --------------------------------------------------------------------


def test_a_request_in_progress_is_answered_before_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WEB_POLL", 0.01)
    arrived = threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        arrived.set()
        assert web.stop.wait(PATIENCE)
        time.sleep(0.3)  # Time for a server that does not wait to end without us.
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"whole" * 100_000]

    web = embedded.listen(slow, "127.0.0.1", 0, threads=1)
    answers: list[bytes] = []
    with embedded.answering(web):
        asking = threading.Thread(target=lambda: answers.append(requests.get(web.url, timeout=PATIENCE).content))
        asking.start()
        assert arrived.wait(PATIENCE)
    web.close()
    asking.join(PATIENCE)
    assert answers == [b"whole" * 100_000]


def test_the_first_signal_asks_and_the_second_does_not() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = threading.Event()
    try:
        embedded.stop_on_signals(stop)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(PATIENCE)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_every_way_to_name_this_computer_works(host: str) -> None:
    def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]

    web = embedded.listen(hello, host, 0, threads=1)
    with embedded.answering(web):
        assert requests.get(web.url, timeout=PATIENCE).text == "hello"
    web.close()
