"""The outside monitor is pinged after each complete listing, and can hold nothing up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gpushopper import heartbeat, wiring
from providers import registry
from providers.base import Unavailable
from sessions import outlets, reconcile
from tests.fakes import NOON, FakeClock, FakeProvider

WITHIN = 10.0


class Monitor(ThreadingHTTPServer):
    """Counts its visitors; while `shut` it keeps them waiting."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.visits: list[str] = []
        self.visited = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/ping/secret-path"


class _Door(BaseHTTPRequestHandler):
    server: Monitor

    def do_GET(self) -> None:
        self.server.visits.append(self.path)
        self.server.visited.release()
        self.server.open.wait(WITHIN)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def monitor(settings: Any) -> Iterator[Monitor]:
    server = Monitor()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    settings.HEARTBEAT_URL = server.url
    heartbeat._failed.clear()
    yield server
    server.open.set()
    server.shutdown()
    thread.join()
    server.server_close()
    assert heartbeat._under_way.acquire(timeout=WITHIN)  # the last ping has ended
    heartbeat._under_way.release()


def wait_for_the_end_of_the_ping() -> None:
    assert heartbeat._under_way.acquire(timeout=WITHIN)
    heartbeat._under_way.release()


@pytest.fixture
def listing(virtual: FakeClock, db: None) -> Callable[..., None]:
    def listed(*trouble: Exception) -> None:
        provider = FakeProvider()
        provider.trouble["machines"] = list(trouble)
        registry.use({"fake": provider})
        reconcile.reconcile("fake", even_if_not_due=True)

    return listed


def test_it_is_wired_to_complete_listings() -> None:
    assert heartbeat.ping in outlets.each_listing
    wiring.connect()
    assert outlets.each_listing.count(heartbeat.ping) == 1


def test_a_complete_listing_is_told_to_the_monitor(monitor: Monitor, listing: Callable[..., None]) -> None:
    listing()
    assert monitor.visited.acquire(timeout=WITHIN)
    assert monitor.visits == ["/ping/secret-path"]


def test_a_listing_that_failed_is_silence(monitor: Monitor, listing: Callable[..., None]) -> None:
    listing(Unavailable("no answer"))
    wait_for_the_end_of_the_ping()
    assert monitor.visits == []


def test_a_monitor_that_does_not_answer_holds_nothing_up(monitor: Monitor, listing: Callable[..., None]) -> None:
    monitor.open.clear()
    listing()  # comes back, although nobody answers
    assert monitor.visited.acquire(timeout=WITHIN)
    listing()
    assert len(monitor.visits) == 1  # one waits for it; no second one joins the queue


def test_without_a_url_nothing_is_started(settings: Any) -> None:
    settings.HEARTBEAT_URL = ""
    heartbeat.ping("fake", NOON)
    assert not heartbeat._under_way.locked()


@pytest.mark.parametrize("status", [404, 500])
def test_trouble_is_said_once_and_without_the_url(
    monitor: Monitor, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    monitor.status = status
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            heartbeat.ping("fake", NOON)
            wait_for_the_end_of_the_ping()
        monitor.status = 200
        heartbeat.ping("fake", NOON)
        wait_for_the_end_of_the_ping()
    said = [record.getMessage() for record in caplog.records if record.name == "gpushopper.heartbeat"]
    assert len(said) == 2
    assert "does not answer" in said[0]
    assert "answers again" in said[1]
    assert "secret-path" not in caplog.text
