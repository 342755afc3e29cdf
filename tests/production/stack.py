"""The processes of docker-compose.yml, started as processes of this machine.

The command lines are read from that file, so what is tested is what is deployed. Only three things differ:
`python`, `celery` and `gunicorn` are those of this virtual environment, the web application gets a socket that
is already listening (so no port is guessed, and a restart keeps it), and nodes get names of their own.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
import yaml

from gpushopper import keyfile

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OWN = {
    name: service
    for name, service in COMPOSE["services"].items()
    if service.get("image") == COMPOSE["x-service"]["image"]
}  # the services that run our own image


def command(service: str) -> list[str]:
    """The service's command line, with this virtual environment's programs."""
    words = list(OWN[service]["command"])
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    if words[0] in ("celery", "gunicorn"):
        return [sys.executable, "-m", *words]
    return words


def deployment_env(database: str, broker: str, data: Path, **more: str) -> dict[str, str]:
    """What compose and .env give to each process; nothing of this shell's own settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    own = {name: make() for name, make in keyfile.MADE.items()}
    return {
        **kept, **own, "DATABASE_URL": database, "CELERY_BROKER_URL": broker, "DATA_DIR": str(data),
        "LOG_FORMAT": "text", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **more,
    }  # fmt: skip


class Process:
    """One supervised process: started, killed, paused and started again by its own id."""

    def __init__(self, name: str, words: list[str], env: Mapping[str, str], folder: Path, **popen: Any) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._words, self._env, self._popen = words, env, popen
        self.process = self._start()
        self.starts = 1

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._words,
                env=dict(self._env),
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                **self._popen,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """To the process and its children, as when its container is killed or frozen."""
        if self.alive:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(20)

    def again(self) -> None:
        self.process = self._start()
        self.starts += 1

    def stop(self, within: float = 60.0) -> int:
        """As `docker stop` does it: SIGTERM to the first process, and the exit code."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {within} s of SIGTERM: {self.tail()}") from None

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:]


class Stack:
    """Processes over one database and one broker. `close` ends whatever is still there."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self.env = env
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self._sockets: list[socket.socket] = []

    def manage(self, *words: str, within: float = 120.0, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *words],
            env={**self.env, **more}, cwd=ROOT, capture_output=True, text=True, timeout=within, check=False,
        )  # fmt: skip

    def start(self, service: str, name: str = "", *more: str) -> Process:
        name = name or service
        words = [word.replace("@%h", f"-{name}@%h") for word in command(service)] + list(more)
        return self._keep(Process(name, words, self.env, self.folder))

    def web(self, name: str = "web", *more: str, user: str | None = None) -> tuple[Process, str]:
        """The web application and its address. The socket outlives it, so a restart answers at the same place."""
        listening = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listening)
        number = listening.fileno()
        figures = self.folder / f"{name}-figures"
        figures.mkdir(exist_ok=True)
        if user:
            figures.chmod(0o777)
        env = {**self.env, "PROMETHEUS_MULTIPROC_DIR": str(figures / "now")}
        words = [*command("web"), "--bind", f"fd://{number}", *more]
        process = self._keep(Process(name, words, env, self.folder, pass_fds=(number,), user=user))
        return process, f"http://127.0.0.1:{listening.getsockname()[1]}"

    def _keep(self, process: Process) -> Process:
        self.processes[process.name] = process
        return process

    def consumer(self, name: str = "", *options: str) -> dict[str, Any]:
        import json

        made = self.manage("create_consumer", name or f"consumer-{secrets.token_hex(3)}", "--json", *options)
        assert made.returncode == 0, made.stderr
        return dict(json.loads(made.stdout))

    def close(self) -> None:
        for process in self.processes.values():
            process.send(signal.SIGCONT)
            process.kill()
        for listening in self._sockets:
            listening.close()


def until(holds: Callable[[], Any], within: float, otherwise: Callable[[], str] | str) -> Any:
    """What `holds` gives as soon as it is true."""
    give_up = time.monotonic() + within
    while not (found := holds()):
        if time.monotonic() > give_up:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.1)
    return found


def answers(url: str, status: int = 200) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == status
    except requests.RequestException:
        return False
