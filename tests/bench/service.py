"""The embedded service as a child process over a data folder of its own, and the sandbox as another one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent.parent
READY_WITHIN = 60.0


class Service:
    """`words` run until `stop`; `start_seconds` is how long it took until /ready said yes."""

    def __init__(self, words: list[str], folder: Path, **settings: str) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.env = {
            **kept, "DATA_DIR": str(folder), "SERVER_PORT": str(self.port), "PYTHONPATH": str(ROOT),
            "LOG_LEVEL": "ERROR", **settings,
        }  # fmt: skip
        began = time.perf_counter()
        with (folder / "service.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *words], env=self.env, cwd=ROOT, stdout=log, stderr=log)
        self.log = folder / "service.log"
        self._wait_until_ready()
        self.start_seconds = time.perf_counter() - began

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + READY_WITHIN
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                if requests.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the service does not become ready: {self.log.read_text()[-2000:]}")

    def consumer(self) -> requests.Session:
        """A client with an operator's key of its own."""
        words = [sys.executable, "manage.py", "create_consumer", "bench", "--operator", "--json"]
        made = subprocess.run(words, env=self.env, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {json.loads(made.stdout)['api_key']}"
        return session

    def memory_mb(self, field: str = "VmRSS") -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def sandbox(folder: Path, *options: str) -> Iterator[Any]:
    from tests.chaos.field import SandboxProcess

    process = SandboxProcess(folder, 1, *options)
    try:
        yield process
    finally:
        process.close()
