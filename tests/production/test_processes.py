"""Each command line of docker-compose.yml, run for real against PostgreSQL and Redis."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from tests.production.servers import Postgres, Redis
from tests.production.stack import OWN, Stack, answers, until

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.real_time]

READY_WITHIN = 60.0  # a busy machine takes its time to start six Pythons


def test_all_services_start_become_ready_and_end_when_asked(stack: Stack) -> None:
    _, url = stack.web()
    for service in ("worker-ending", "worker-living", "beat", "guardian"):
        stack.start(service)
    until(lambda: answers(f"{url}/ready"), READY_WITHIN, lambda: _what_they_said(stack))
    assert set(stack.processes) | {"migrate", "auditor"} == set(OWN)
    assert requests.get(f"{url}/health", timeout=10).json()["services"]["broker"] == "ok"
    codes = {name: process.stop() for name, process in stack.processes.items()}
    assert codes == dict.fromkeys(codes, 0)


def _what_they_said(stack: Stack) -> str:
    return "\n".join(f"--- {name}\n{process.tail()}" for name, process in stack.processes.items())


def test_the_figures_of_all_web_processes_are_added_up(stack: Stack) -> None:
    """Each scrape is answered by one of two processes; the count of requests must be that of both."""
    _, url = stack.web()
    until(lambda: answers(f"{url}/metrics"), READY_WITHIN, lambda: _what_they_said(stack))
    before = _requests(url)
    for _ in range(20):
        requests.get(f"{url}/nowhere", timeout=10)
    assert [_requests(url) - before for _ in range(6)] == [21, 22, 23, 24, 25, 26]


def _requests(url: str) -> int:
    text = requests.get(f"{url}/metrics", timeout=10).text
    assert "gpu_sessions_active" in text
    return sum(
        int(float(value))
        for value in re.findall(r"^django_http_requests_before_middlewares_total ([\d.e+]+)", text, re.M)
    )


def test_figures_of_a_process_that_was_killed_are_begun_anew_with_the_service(stack: Stack) -> None:
    process, url = stack.web()
    until(lambda: answers(f"{url}/metrics"), READY_WITHIN, lambda: _what_they_said(stack))
    left = Path(stack.folder / "web-figures" / "now" / "counter_1.db")
    left.write_bytes(b"half a file of somebody who was killed")
    process.kill()
    process.again()
    until(lambda: answers(f"{url}/metrics"), READY_WITHIN, lambda: _what_they_said(stack))
    assert not left.exists()


# Told by Python itself of every file that is opened to be written, or made, in whichever library.
WATCH = """
import os, sys
_out = os.open(os.environ["WRITTEN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_MAKES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"}

def _watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event in _MAKES) and isinstance(args[0], (str, bytes)):
        os.write(_out, os.fsencode(args[0]) + b"\\n")

sys.addaudithook(_watch)
"""


def test_no_process_writes_anywhere_but_to_the_temporary_folder(stack: Stack) -> None:
    """Their file system is read-only in production; pages, static files and the admin work all the same."""
    for name in ("watch", "tmp"):
        (stack.folder / name).mkdir()
    (stack.folder / "watch" / "sitecustomize.py").write_text(WATCH)
    written = stack.folder / "written"
    stack.env = {
        **stack.env, "TMPDIR": str(stack.folder / "tmp"), "WRITTEN": str(written), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{stack.folder / 'watch'}:{stack.env['PYTHONPATH']}",
    }  # fmt: skip
    _, url = stack.web()
    for service in ("worker-living", "worker-ending", "beat", "guardian"):
        stack.start(service)
    until(lambda: answers(f"{url}/ready"), READY_WITHIN, lambda: _what_they_said(stack))
    for path in ("/static/admin/css/base.css", "/static/unfold/css/styles.css", "/admin/login/", "/api/v1/docs"):
        assert requests.get(url + path, timeout=10).status_code == 200, path
    may = (f"{stack.folder}/tmp/", f"{stack.folder}/web-figures/", "/dev/null")
    paths = set(written.read_text().split("\n")) - {""}
    assert any(path.startswith(may[1]) for path in paths)  # the watch does watch
    assert {path for path in paths if not path.startswith(may)} == set()


# --- Servers that go away -------------------------------------------------------------------------------------


def test_the_service_outlives_a_restart_of_its_database_and_the_loss_of_its_broker(
    stack: Stack, postgres: Postgres, redis_server: Redis
) -> None:
    _, url = stack.web()
    for service in ("worker-ending", "beat"):
        stack.start(service)
    until(lambda: answers(f"{url}/ready"), READY_WITHIN, lambda: _what_they_said(stack))
    key = stack.consumer()["api_key"]
    starts = {name: process.process.pid for name, process in stack.processes.items()}

    postgres.stop()
    away = requests.get(f"{url}/api/v1/sessions", headers={"Authorization": f"Bearer {key}"}, timeout=30)
    assert (away.status_code, "error_type" in away.json()) == (503, True)
    assert requests.get(f"{url}/health", timeout=30).status_code == 503
    postgres.start()
    redis_server.stop()
    redis_server.start()
    for name, process in stack.processes.items():
        if not process.alive:  # compose has `restart: unless-stopped`; beat makes use of it
            assert name == "beat", process.tail()
            process.again()
    until(lambda: answers(f"{url}/ready") and answers(f"{url}/health"), READY_WITHIN, lambda: _what_they_said(stack))
    listed = requests.get(f"{url}/api/v1/sessions", headers={"Authorization": f"Bearer {key}"}, timeout=30)
    assert listed.status_code == 200
    alive = {name: process.process.pid for name, process in stack.processes.items()}
    assert {name for name in alive if alive[name] != starts[name]} <= {"beat"}


def test_a_request_does_not_hang_while_the_broker_is_away(stack: Stack, redis_server: Redis) -> None:
    _, url = stack.web()
    until(lambda: answers(f"{url}/metrics"), READY_WITHIN, lambda: _what_they_said(stack))
    redis_server.stop()
    try:
        told = requests.get(f"{url}/health", timeout=15).json()
        assert told["services"]["broker"].startswith("does not answer")
    finally:
        redis_server.start()
