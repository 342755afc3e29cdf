"""Everything in one process: web, worker, beat, guardian, and the sandbox where no provider key is set.

The same code and the same Celery as in production, over a broker in memory. What is lost with the process
is messages only; the next start goes on from the rows.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from celery.beat import EmbeddedService
from celery.worker import WorkController
from django.conf import settings
from django.core.management import call_command
from waitress import wasyncore
from waitress.server import create_server

from gpushopper import refusals, stand_ins
from gpushopper.celery import app
from gpushopper.environment import needed
from gpushopper.wsgi import application
from sessions import engine

log = logging.getLogger(__name__)

WEB_THREADS = 8
# Bytes that waitress reads to the end, so that who sends a little too much can hear our own 413 (over 1 MiB).
LARGEST_BODY = 8 * 1024 * 1024
WORKER_THREADS = 12
# What is on its way when we stop, such as an answer of a provider, has so long to come in. What is cut off
# is in the same place as after a crash: its row comes back by itself.
STOP_WITHIN = 8.0  # seconds, for the worker and for the guardian each
# How soon the web server notices that it is to stop, and how long it goes on sending what is answered already.
WEB_POLL, WEB_FLUSH = 0.5, 2.0  # seconds


class CannotStart(RuntimeError):
    """The sentence says why, and what to do."""


class AlreadyRunning(CannotStart):
    """Another process serves this data folder."""


class PortTaken(CannotStart):
    """Another program has the port, or the address is not one of this computer's."""


@contextmanager
def only_one() -> Iterator[None]:
    """One embedded service for each data folder: a second one would run a second beat on the same rows."""
    with needed(settings.DATA_DIR, "DATA_DIR"):
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        lock = (settings.DATA_DIR / "gpu-shopper.lock").open("w")
    with lock:
        _lock(lock)
        yield


def _lock(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AlreadyRunning(
            f"another GPU Shopper runs on {settings.DATA_DIR}; stop it, or set DATA_DIR to another folder"
        ) from error


# glibc's number for it (malloc.h).
_M_ARENA_MAX = -8


def few_heaps() -> None:
    """Let all threads share two heaps: glibc gives each one of its own, and none ever shrinks (some 80 MB of air)."""
    with suppress(OSError, AttributeError):  # another C library has no such fashion
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


# Python lets a busy thread run on for 5 ms before another that waits gets its turn, and each answer of the database
# makes a thread wait for one. With a dozen threads at the same rows, 200 machines to be destroyed at once were asked
# for within 6.0 s (95 in 100) as it comes, and within 5.0 s so.
HAND_OVER_AFTER = 0.0005  # seconds


def serve(stop: threading.Event, on_serving: Callable[[Web], None] = lambda web: None) -> bool:
    """Run until `stop` is set, then end in order: no new requests, then no new work.

    Returns whether everything has ended; false if something is still out, with a thread that waits for it.

    Raises:
        CannotStart: before anything was begun.
    """
    few_heaps()
    sys.setswitchinterval(HAND_OVER_AFTER)
    at_work = threading.Event()
    with ExitStack() as running:
        running.enter_context(only_one())
        web = listen(application, settings.SERVER_HOST, settings.SERVER_PORT)
        running.callback(web.close)
        call_command("migrate", interactive=False, verbosity=0)
        if settings.SANDBOX:
            running.enter_context(stand_ins.serve())
        running.enter_context(worker(at_work))
        running.enter_context(beat())
        if settings.GUARDIAN:
            running.enter_context(guardian())
        running.enter_context(answering(web))
        on_serving(web)
        stop.wait()
        log.info("stopping; every session goes on, and is taken up again at the next start")
    return not at_work.is_set()


def stop_on_signals(stop: threading.Event) -> None:
    """The first signal ends in order; a second one at once, which loses nothing but messages."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


@contextmanager
def worker(at_work: threading.Event) -> Iterator[None]:
    """`at_work` is set in the end if a task did not come to its end in time."""
    controller = WorkController(
        app=app, pool_cls="threads", concurrency=WORKER_THREADS, hostname="embedded@localhost",
        queues=settings.QUEUES, without_gossip=True, without_mingle=True, without_heartbeat=True,
    )  # fmt: skip
    thread = threading.Thread(target=controller.start, name="worker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending = threading.Thread(target=controller.stop, name="worker-end", daemon=True)  # It waits without end.
        ending.start()
        ending.join(STOP_WITHIN)
        if ending.is_alive():
            at_work.set()


@contextmanager
def beat() -> Iterator[None]:
    # Without `scheduler_cls` the embedded service would keep its schedule in files in the working folder.
    service: Any = EmbeddedService(app, thread=True, scheduler_cls=settings.CELERY_BEAT_SCHEDULER)
    service.daemon = True
    service.start()
    for task, _ in settings.BEAT.values():  # Its own first round comes only after each interval.
        app.send_task(task)
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


# --- The web server --------------------------------------------------------------------------------------


@dataclass
class Web:
    """A server whose port is open; callers wait in the line until it is `answering`."""

    server: Any
    sockets: dict[int, Any]
    host: str
    port: int
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def run(self) -> None:
        """Waitress' own `run` can't be ended from another thread without breaking its sockets."""
        while not self.stop.is_set():
            self._turn(WEB_POLL)
        self.server.task_dispatcher.shutdown()
        end = time.monotonic() + WEB_FLUSH
        while self._unsent() and time.monotonic() < end:
            self._turn(0.1)

    def _turn(self, seconds: float) -> None:
        wasyncore.loop(timeout=seconds, use_poll=True, map=self.sockets, count=1)

    def _unsent(self) -> bool:
        return any(getattr(one, "total_outbufs_len", 0) for one in list(self.sockets.values()))

    def close(self) -> None:
        wasyncore.close_all(self.sockets)


def listen(serves: Any, host: str, port: int, threads: int = WEB_THREADS) -> Web:
    """Open the port for a WSGI application; 0 takes a free one. Raises PortTaken."""
    sockets: dict[int, Any] = {}
    try:
        server = create_server(
            serves, map=sockets, host=host, port=port, threads=threads, ident=None, max_request_body_size=LARGEST_BODY
        )
    except (OSError, ValueError) as error:
        wasyncore.close_all(sockets)
        raise PortTaken(
            f"{host}:{port} can't be had ({getattr(error, 'strerror', None) or error}); "
            f"stop the program that has it, or take another port: SERVER_PORT={port + 1} or --port {port + 1}"
        ) from error
    for one in list(sockets.values()):  # a name may stand for several addresses, with a server each
        if hasattr(one, "channel_class"):
            one.channel_class = refusals.Channel
    listening = getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]
    return Web(server, sockets, host, int(listening[0][1]))


@contextmanager
def answering(web: Web) -> Iterator[None]:
    thread = threading.Thread(target=web.run, name="web", daemon=True)
    thread.start()
    try:
        yield
    finally:
        web.stop.set()
        thread.join(STOP_WITHIN)
