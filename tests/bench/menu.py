"""The menu with 10,000 offers: reading it in, and giving it out over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from waitress.server import create_server

from gpushopper.models import ApiKey, Consumer, make_key
from inventory import refresh
from providers import registry
from tests.bench import crowd
from tests.bench.figure import Figure
from tests.fakes import FakeProvider

OFFERS = 10_000
ASKS = 200
FILTERED = "/api/v1/inventory?gpu_type=rtx4090&min_vram=20&max_price=2.5&country=CA&limit=50"


def run() -> list[Figure]:
    provider = FakeProvider(quotes=crowd.quotes(OFFERS))
    registry.use({"fake": provider})
    first, again = _refresh(), _refresh()
    consumer = Consumer.objects.create(name="bench")
    _, key = make_key(consumer, ApiKey.Role.CONSUMER)
    with served() as port:
        page, unchanged = _asked(port, key)
    return [
        Figure("refresh_10000_offers_seconds", max(first, again), "s", 5, "of our own time; the slower of two"),
        Figure("inventory_page_p50_ms", page, "ms", 15, "10,000 offers, filtered, 50 a page, over HTTP"),
        Figure("inventory_unchanged_p50_ms", unchanged, "ms", 3, "If-None-Match"),
    ]


def _refresh() -> float:
    began = time.perf_counter()
    assert refresh.refresh("fake", even_if_not_due=True)
    return time.perf_counter() - began


def _asked(port: int, key: str) -> list[float]:
    words = [sys.executable, "-m", "tests.bench.asker", "127.0.0.1", str(port), key, str(ASKS), FILTERED]
    return list(json.loads(subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout))


@contextmanager
def served() -> Iterator[int]:
    """The web application as the embedded service serves it."""
    from gpushopper import embedded
    from gpushopper.wsgi import application

    sys.setswitchinterval(embedded.HAND_OVER_AFTER)
    server = create_server(application, host="127.0.0.1", port=0, threads=8)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.close()
        thread.join(10)
