"""Whole lives over real HTTP and SSH: the embedded service against the sandbox, whose machines boot at once.

What is measured is what the service adds: the sandbox's own books say when a machine was there and when it was gone.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sessions import lifecycle
from tests.bench import service
from tests.bench.figure import Figure, p50, p95

LIVES = 30
CROWD = 200
WITHIN = 420.0
HOUR = 3600.0


def run() -> list[Figure]:
    folder = Path(os.environ["DATA_DIR"]) / "lives"
    folder.mkdir()
    with service.sandbox(folder, "--boot", "instant", "--offers", "700") as world:
        running = service.Service(["manage.py", "run"], folder, INVENTORY_CACHE_TTL="10m", **world.environment)
        try:
            bench = Bench(running, world, folder)
            return [*bench.single_lives(), *bench.two_hundred_at_once()]
        finally:
            running.stop()


class Bench:
    def __init__(self, running: service.Service, world: Any, folder: Path) -> None:
        self.world = world
        self.url = f"{running.url}/api/v1"
        self.client = running.consumer()
        self.database = folder / "gpu-shopper.db"
        until(lambda: self._offers("vastai", 1), "there is nothing to rent")
        self.offers = iter(self._offers("vastai", 500))
        self.answered: list[float] = []

    def _offers(self, provider: str, count: int) -> list[str]:
        page = self.client.get(f"{self.url}/inventory?provider={provider}&limit={count}", timeout=60).json()
        return [offer["id"] for offer in page["offers"]]

    # --- One after the other -----------------------------------------------------------------------------

    def single_lives(self) -> list[Figure]:
        ready, sent = [], []
        for _ in range(LIVES):
            session = self._rent(1.0)
            self._wait_for([session], "running")
            ready.append((self._running_at(session) - self._machine_of(session)["created_at"]).total_seconds())
            asked = datetime.now(UTC)
            self.client.post(f"{self.url}/sessions/{session}/done", timeout=60).raise_for_status()
            until(lambda s=session: self._machine_of(s)["destroyed_at"], "the machine is not destroyed")
            sent.append((self._machine_of(session)["destroyed_at"] - asked).total_seconds())
        return [
            Figure("post_session_p50_ms", p50(self.answered) * 1000, "ms", 30, "POST /sessions, over HTTP"),
            Figure("usable_to_running_p95_s", p95(ready), "s", 3,
                   "from the create, since these machines take the key at once, to `running`"),
            Figure("done_to_destroy_call_p95_s", p95(sent), "s", 1, "until the call has arrived at the provider"),
        ]  # fmt: skip

    def _rent(self, hours: float) -> str:
        began = time.perf_counter()
        answer = self.client.post(
            f"{self.url}/sessions", timeout=60, headers={"Idempotency-Key": str(uuid.uuid4())},
            json={"offer_id": next(self.offers), "consumer_id": "bench", "reservation_hours": hours},
        )  # fmt: skip
        self.answered.append(time.perf_counter() - began)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session"]["id"])

    def _wait_for(self, sessions: list[str], status: str) -> list[dict[str, Any]]:
        def all_there() -> list[dict[str, Any]]:
            found = self.client.get(f"{self.url}/sessions?limit=500", timeout=60).json()["sessions"]
            there = [row for row in found if row["id"] in sessions and row["status"] == status]
            return there if len(there) == len(sessions) else []

        return until(all_there, f"{len(sessions)} sessions are not {status}")

    def _running_at(self, session: str) -> datetime:
        """To the microsecond; the API tells whole seconds."""
        with sqlite3.connect(self.database, timeout=20) as rows:
            query = "SELECT running_at FROM gpu_sessions_session WHERE id = ?"
            (text,) = rows.execute(query, [uuid.UUID(session).hex]).fetchone()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    def _machine_of(self, session: str) -> dict[str, Any]:
        with sqlite3.connect(self.database, timeout=20) as rows:
            found = rows.execute(
                "SELECT machine_id FROM gpu_sessions_instance WHERE session_id = ? AND machine_id <> ''",
                [uuid.UUID(session).hex],
            ).fetchone()
        return self._machines()[found[0]]

    def _machines(self) -> dict[str, dict[str, Any]]:
        machines = self.world.truth()["machines"]
        return {machine["id"]: {**machine, **_instants(machine)} for machine in machines}

    # --- All at once -------------------------------------------------------------------------------------

    def two_hundred_at_once(self) -> list[Figure]:
        """200 sessions whose deadlines are moved to one instant, while TensorDock does not answer at all."""
        sessions = [self._rent(6.0) for _ in range(CROWD)]
        self._wait_for(sessions, "running")
        self.world.weather(set={"call.timeout": {"provider": "tensordock"}})
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
        machines = self._expire(sessions, due)
        until(lambda: self._are_gone(machines), "not all are destroyed", look_each=1.0)
        books = self._machines()
        late = [(books[machine]["destroyed_at"] - due).total_seconds() for machine in machines]
        return [
            Figure("expiry_to_destroy_call_p95_s", p95(late), "s", 6, f"{CROWD} sessions at once, one provider dead"),
            Figure("expiry_to_destroy_call_max_s", max(late), "s"),
        ]

    def _are_gone(self, machines: list[str]) -> bool:
        books = self._machines()  # One look: the sandbox that is asked is the one that has to answer the destroys.
        return all(books[machine]["destroyed_at"] for machine in machines)

    def _expire(self, sessions: list[str], due: datetime) -> list[str]:
        """As if they had been rented so: deadlines are rows, so the rows are written."""
        at = due.strftime("%Y-%m-%d %H:%M:%S")
        names = [uuid.UUID(session).hex for session in sessions]
        these = f"({','.join('?' * len(names))})"
        told = "due_at = ?, revision = revision + 1"
        own = (due + lifecycle.SESSION_AFTER).strftime("%Y-%m-%d %H:%M:%S")
        with sqlite3.connect(self.database, timeout=20) as rows:
            rows.execute(
                f"UPDATE gpu_sessions_session SET expires_at = ?, {told} WHERE id IN {these}", [at, own, *names]
            )
            rows.execute(
                f"UPDATE gpu_sessions_instance SET deadline = ?, {told} WHERE session_id IN {these}", [at, at, *names]
            )
            found = rows.execute(f"SELECT machine_id FROM gpu_sessions_instance WHERE session_id IN {these}", names)
            return [machine for (machine,) in found.fetchall()]


def _instants(machine: dict[str, Any]) -> dict[str, datetime | None]:
    names = ("created_at", "destroyed_at")
    return {name: datetime.fromisoformat(machine[name]) if machine[name] else None for name in names}


def until(holds: Callable[[], Any], otherwise: str, look_each: float = 0.2) -> Any:
    give_up = time.monotonic() + WITHIN
    while not (found := holds()):
        if time.monotonic() > give_up:
            raise AssertionError(otherwise)
        time.sleep(look_each)
    return found
