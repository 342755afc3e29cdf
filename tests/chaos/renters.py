"""Consumers who rent, extend, end, forget, and repeat whatever was not answered."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.chaos.field import Field

HOUR = 3600.0
RESERVATIONS = (10, 16, 25)  # seconds: deadlines shall fall due too
EXTENSION = 8
PATIENCE = 12.0  # seconds for one answer; a frozen or dying server gives none
TRIES = 12


@dataclass
class Renters:
    """Some threads of renting. After `stop_asking` each ends what it is at, and forgets its session or ends it."""

    field: Field
    seed: int
    count: int = 4
    tally: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.count):
            thread = threading.Thread(target=self._rent, args=(number,), name=f"renter-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop_asking(self) -> None:
        self._stop.set()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        for thread in self._threads:
            thread.join(TRIES * PATIENCE)

    def _rent(self, number: int) -> None:
        chance = random.Random(f"{self.seed}-{number}")
        while not self._stop.wait(chance.uniform(0.2, 2.0)):
            session = self._order(number, chance)
            if session is not None:
                self._live(session, chance)

    def _order(self, number: int, chance: random.Random) -> str | None:
        offers = self.field.menu()
        if not offers:
            return None
        wish: dict[str, Any] = {
            "consumer_id": f"renter-{number}",
            "reservation_hours": chance.choice(RESERVATIONS) / HOUR,
        }
        if chance.random() < 0.5:
            wish["offer_id"] = chance.choice(offers)["id"]
        else:
            wish |= {"gpu_type": chance.choice(offers)["gpu_type"], "retry_scope": "any", "max_retries": 2}
        answer = self._call("POST", "/sessions", chance, json=wish, headers={"Idempotency-Key": str(uuid.uuid4())})
        if answer is None or answer.status_code != 201:
            self.tally[f"refused_{answer.status_code if answer is not None else 'unanswered'}"] += 1
            return None
        self.tally["rented"] += 1
        return str(answer.json()["session"]["id"])

    def _live(self, session: str, chance: random.Random) -> None:
        """Hold it for a while, then: done, delete, extend and forget, or forget."""
        self._stop.wait(chance.uniform(0.0, 12.0))
        way = chance.choice(("done", "delete", "extend", "forget"))
        self.tally[way] += 1
        path = f"/sessions/{session}"
        if way == "done":
            self._call("POST", f"{path}/done", chance)
        elif way == "delete":
            self._call("DELETE", path, chance)
        elif way == "extend":
            self._call("POST", f"{path}/extend", chance, json={"additional_hours": EXTENSION / HOUR})

    def _call(
        self, method: str, path: str, chance: random.Random, headers: dict[str, str] | None = None, **more: Any
    ) -> requests.Response | None:
        """Ask either web server, again and again while none gives an answer or one says that it can't now."""
        for _ in range(TRIES):
            url = chance.choice(self.field.urls)
            try:
                answer = requests.request(
                    method, f"{url}/api/v1{path}", headers={**self.field.headers, **(headers or {})},
                    timeout=PATIENCE, **more,
                )  # fmt: skip
            except requests.RequestException:
                self.tally["unanswered"] += 1
            else:
                if answer.status_code < 500:
                    return answer
                self.tally[f"answered_{answer.status_code}"] += 1
            time.sleep(0.3)
        return None
