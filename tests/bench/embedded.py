"""How large the embedded service is when much is going on in it, and how long it takes to start."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.bench import service
from tests.bench.crowded import OFFERS, SESSIONS
from tests.bench.figure import Figure, p50

STARTS = 3
PAGES = 200
SETTLE = 20.0  # seconds in which menu and listing are read several times


def run() -> list[Figure]:
    starts = [_start_seconds(number) for number in range(STARTS)]
    resident, peak = _memory()
    return [
        Figure("start_to_ready_s", p50(starts), "s", 5, f"`manage.py run` on an empty folder, median of {STARTS}"),
        Figure("embedded_resident_mb", resident, "MB", 250, f"{OFFERS} offers, {SESSIONS} running sessions"),
        Figure("embedded_peak_mb", peak, "MB", None, "the most at any time, the reading of the menu included"),
    ]


def _folder(name: str) -> Path:
    folder = Path(os.environ["DATA_DIR"]) / name
    folder.mkdir()
    return folder


def _start_seconds(number: int) -> float:
    running = service.Service(["manage.py", "run"], _folder(f"start-{number}"))
    running.stop()
    return running.start_seconds


def _memory() -> tuple[float, float]:
    running = service.Service(["-m", "tests.bench.crowded"], _folder("crowded"), INVENTORY_CACHE_TTL="5s")
    try:
        client = running.consumer()
        _until_the_menu_is_there(running, client)
        for number in range(PAGES):
            path = "inventory?limit=200" if number % 2 else "sessions?limit=200"
            assert client.get(f"{running.url}/api/v1/{path}", timeout=60).status_code == 200
        time.sleep(SETTLE)
        return running.memory_mb(), running.memory_mb("VmHWM")
    finally:
        running.stop()


def _until_the_menu_is_there(running: service.Service, client: object) -> None:
    from tests.bench.lives import until

    def there() -> bool:
        page = client.get(f"{running.url}/api/v1/inventory?limit=1", timeout=60).json()  # type: ignore[attr-defined]
        return bool(page["total"] == OFFERS)

    until(there, "the menu does not fill")
