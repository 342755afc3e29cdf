"""The field of the battle: PostgreSQL, Redis, the sandbox, and every process of a deployment, with short intervals."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import requests

from tests.production.servers import Postgres, Redis
from tests.production.stack import ROOT, Process, Stack, answers, deployment_env, until

Engine = Literal["celery", "guardian", "both"]

# Minutes become seconds, so that in two minutes everything happens that may happen.
SHORT = {
    "LIFECYCLE_CHECK_INTERVAL": "1s",
    "RECONCILIATION_INTERVAL": "5s",
    "ORPHAN_GRACE_PERIOD": "5s",
    "DESTROY_CONFIRM": "3s",
    "CREATE_SETTLE": "15s",
    "PROVISION_TIMEOUT": "60s",
    "SSH_VERIFY_TIMEOUT": "45s",
    "INVENTORY_CACHE_TTL": "5s",
    "INVENTORY_BACKOFF_TTL": "10s",
    "LOG_LEVEL": "INFO",
}
WEBS = ("web-1", "web-2")
WORKERS = {"ending-1": "worker-ending", "living-1": "worker-living", "living-2": "worker-living"}
BEATS = ("beat-1", "beat-2")
READY_WITHIN = 90.0


class Field:
    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.folder = Path(tempfile.mkdtemp(prefix="gs-chaos-"))
        self._opened: list[Any] = []
        try:
            self._open(seed)
        except BaseException:
            self.close()
            raise

    def _open(self, seed: int) -> None:
        self.postgres = self._kept(Postgres())
        self.redis = self._kept(Redis())
        self.sandbox = self._kept(SandboxProcess(self.folder, seed))
        env = deployment_env(
            self.postgres.database("chaos"), self.redis.url, self.folder / "data", **SHORT, **self.sandbox.environment
        )
        self.deployment = env["DEPLOYMENT_ID"]
        self.stack = self._kept(Stack(env, self.folder))
        migrated = self.stack.manage("migrate", "--noinput")
        assert migrated.returncode == 0, migrated.stderr
        self.urls = [self.stack.web(name)[1] for name in WEBS]
        self._start_engines()
        key = self.stack.consumer("ops", "--operator")["api_key"]
        self.headers = {"Authorization": f"Bearer {key}"}
        until(self._ready, READY_WITHIN, self.what_they_said)

    def _kept(self, thing: Any) -> Any:
        self._opened.append(thing)
        return thing

    def _start_engines(self) -> None:
        if self.engine in ("celery", "both"):
            for name, service in WORKERS.items():
                self.stack.start(service, name)
            for name in BEATS:
                self.stack.start("beat", name)
        if self.engine == "guardian":
            self.stack.start("guardian", "guardian", "--alone")
        if self.engine == "both":
            self.stack.start("guardian", "guardian")

    def _ready(self) -> bool:
        """Both web applications answer, and there is something to rent at each provider."""
        if not all(answers(f"{url}/metrics") for url in self.urls):
            return False
        return len({offer["provider"] for offer in self.menu()}) == 2

    def menu(self) -> list[dict[str, Any]]:
        try:
            answer = requests.get(f"{self.urls[0]}/api/v1/inventory?limit=500", headers=self.headers, timeout=10)
        except requests.RequestException:
            return []
        return list(answer.json().get("offers", ())) if answer.status_code == 200 else []

    @property
    def victims(self) -> list[Process]:
        return list(self.stack.processes.values())

    @property
    def freezable(self) -> list[Process]:
        """What can hold a claim: a frozen web server would only keep its visitors waiting."""
        return [process for process in self.victims if process.name not in (*WEBS, *BEATS)]

    def what_they_said(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.tail(2000)}" for process in self.victims)

    def close(self) -> None:
        for thing in reversed(self._opened):
            thing.close()
        if not os.environ.get("CHAOS_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)


class SandboxProcess:
    """The one process that is never harmed: its books are the judge's evidence."""

    def __init__(self, folder: Path, seed: int, *options: str) -> None:
        with (folder / "sandbox.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.sandbox", "--seed", str(seed), *options],
                stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
            )  # fmt: skip
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, f"the sandbox does not start; see {folder / 'sandbox.log'}"
        line = self.process.stdout.readline()
        assert line, (folder / "sandbox.log").read_text()
        said = json.loads(line)
        self.url: str = said["url"]
        self.environment: dict[str, str] = said["environment"]

    def truth(self) -> dict[str, Any]:
        return dict(requests.get(f"{self.url}/_sandbox/truth", timeout=30).json())

    def weather(self, **wish: Any) -> None:
        answer = requests.post(f"{self.url}/_sandbox/weather", json=wish, timeout=30)
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
