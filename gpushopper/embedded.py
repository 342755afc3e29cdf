"""Everything in one process: web, worker, beat, guardian, and the sandbox where no provider key is set.

The same code and the same Celery as in production, over a broker in memory. What is lost with the process
is messages only; the next start goes on from the rows.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import IO

from celery.beat import EmbeddedService
from celery.worker import WorkController
from django.conf import settings
from django.core.management import call_command
from waitress.server import create_server

from gpushopper import wiring
from gpushopper.celery import app
from gpushopper.wsgi import application
from sessions import engine

log = logging.getLogger(__name__)

WEB_THREADS = 8
WORKER_THREADS = 12
STOP_WITHIN = 20.0


class AlreadyRunning(RuntimeError):
    """Another process serves this data folder."""


@contextmanager
def only_one() -> Iterator[None]:
    """One embedded service for each data folder: a second one would run a second beat on the same rows."""
    settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    with (settings.DATA_DIR / "gpu-shopper.lock").open("w") as lock:
        _lock(lock)
        yield


def _lock(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AlreadyRunning(
            f"another GPU Shopper runs on {settings.DATA_DIR}; stop it, or set DATA_DIR to another folder"
        ) from error


def serve(stop: threading.Event) -> None:
    """Run until `stop` is set, then end in order: no new requests, then no new work."""
    with ExitStack() as running:
        running.enter_context(only_one())
        call_command("migrate", interactive=False, verbosity=0)
        if settings.SANDBOX:
            running.enter_context(wiring.sandbox())
        running.enter_context(worker())
        running.enter_context(beat())
        if settings.GUARDIAN:
            running.enter_context(guardian())
        running.enter_context(web())
        log.info("serving on http://%s:%d/", settings.SERVER_HOST, settings.SERVER_PORT)
        stop.wait()
        log.info("stopping; every session goes on, and is taken up again at the next start")


def stop_on_signals(stop: threading.Event) -> None:
    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


@contextmanager
def worker() -> Iterator[None]:
    controller = WorkController(
        app=app, pool_cls="threads", concurrency=WORKER_THREADS, hostname="embedded@localhost",
        queues=settings.QUEUES, without_gossip=True, without_mingle=True, without_heartbeat=True,
    )  # fmt: skip
    thread = threading.Thread(target=controller.start, name="worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        controller.stop()
        thread.join(STOP_WITHIN)


@contextmanager
def beat() -> Iterator[None]:
    # Without `scheduler_cls` the embedded service would keep its schedule in files in the working folder.
    service = EmbeddedService(app, thread=True, scheduler_cls=settings.CELERY_BEAT_SCHEDULER)
    service.daemon = True
    service.start()
    try:
        yield
    finally:
        service.stop()


@contextmanager
def guardian() -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=engine.guardian_loop, args=(stop,), name="guardian", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_WITHIN)


@contextmanager
def web() -> Iterator[None]:
    server = create_server(
        application, host=settings.SERVER_HOST, port=settings.SERVER_PORT, threads=WEB_THREADS, ident=None,
    )  # fmt: skip
    thread = threading.Thread(target=server.run, name="web", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.close()
        thread.join(STOP_WITHIN)
