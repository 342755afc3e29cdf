"""The deployment under simulation: its web process, its workers and its ticks, on one virtual clock.

Workers are greenlets that may be left alone at any boundary: for good (a death), for a while (a pause), or for
one turn (several workers interleaved). One connection serves them all, since no boundary lies in a transaction.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import OperationalError, connection
from django.db.models import Model
from django.test import Client
from greenlet import getcurrent, greenlet

from costs import tasks as cost_tasks
from costs.models import Budget
from gpushopper.celery import app
from inventory import refresh
from inventory import tasks as inventory_tasks
from inventory.models import Source
from sessions import engine, rows, tasks
from sessions.models import Account, Instance, Session
from sessions.rows import LEASE
from tests.simulation.boundaries import Killed
from tests.simulation.stage import Stage

# Longer than any step at one instant takes to come to rest.
ROUNDS = 60
# What is in no row's `due_at`: budgets, which are looked at in each round. Without any, only alarms are looked at less
# often, and no step depends on those.
LONGEST_SLEEP = timedelta(minutes=5)
LONGEST_SLEEP_WITH_BUDGETS = timedelta(seconds=60)
COST_TICK = timedelta(seconds=15)
# Whose rows are due at their `due_at`.
QUEUES = (Account, Session, Instance)


class ConnectionLost(Exception):
    """The web process died while it worked on the request; the client knows nothing."""


@dataclass
class Worker:
    """A step under way, left at a boundary."""

    body: greenlet
    claims: bool = False  # a row is in its hands; not so in a tick or a request
    resume_at: datetime | None = None  # None: as soon as it is its turn


@dataclass
class Service:
    stage: Stage
    workers: int = 1
    celery: bool = True
    guardian: bool = False
    chance: random.Random | None = None  # with it, workers change at boundaries
    down_until: datetime | None = None
    deaths: int = 0
    downs: list[tuple[datetime, datetime]] = field(default_factory=list)
    on_the_way: timedelta = timedelta(0)  # by which calls were late
    pauses: int = 0  # each may leave one account unread until its claim has run out
    asleep: list[Worker] = field(default_factory=list)
    graves: list[greenlet] = field(default_factory=list)
    full_until: datetime | None = None  # the disk of the database
    at_work: Worker | None = None
    _costs_at: datetime | None = None

    def __post_init__(self) -> None:
        self.hub = getcurrent()
        self.client = Client(raise_request_exception=False)

    # --- What goes on at one instant ------------------------------------------------------------------------

    def settle(self) -> None:
        """Do all that is due at this instant; afterwards the service is at rest or dead."""
        if self.down_until is not None:
            if self.stage.clock.instant < self.down_until:
                return
            self._start()
        if self.full_until is not None and self.full_until <= self.stage.clock.instant:
            self.full_until, self.stage.boundaries.disk_is_full = None, False
        for _ in range(ROUNDS):
            self._wake_up()
            if self.celery:
                self._work(self._tick)
            if self.guardian:
                self._work(self._guard)
            self._drain()
            at_work = self.down_until is None and self.full_until is None
            if not at_work or not (self._due_now() or self._can_go_on()):
                return
        raise AssertionError(f"the service does not come to rest at {self.stage.clock.instant}")

    def _guard(self) -> None:
        engine.guard(engine.GUARDIAN_AFTER if self.celery else timedelta(0))
        self._read_menus()

    def _read_menus(self) -> None:
        for provider in refresh.due(self.stage.clock.now()):
            inventory_tasks.read(provider)

    def _tick(self) -> None:
        tasks.tick()
        self._read_menus()
        now = self.stage.clock.instant
        if self._costs_at is None or now >= self._costs_at:
            self._costs_at = now + COST_TICK
            cost_tasks.tick()

    def _due_now(self) -> bool:
        return any(rows.is_any_due(model, self.stage.clock.now()) for model in QUEUES)

    def _can_go_on(self) -> bool:
        return bool(self.stage.messages) or any(self._ready(worker) for worker in self.asleep)

    def _ready(self, worker: Worker) -> bool:
        return worker.resume_at is None or worker.resume_at <= self.stage.clock.instant

    def _drain(self) -> None:
        while self.down_until is None:
            ready = [worker for worker in self.asleep if self._ready(worker)]
            free = len(ready) < self.workers
            if self.stage.messages and free and (not ready or self.chance is None or self.chance.random() < 0.5):
                task, argument, _ = self.stage.messages.pop(0)
                self._work(lambda task=task, argument=argument: app.tasks[task](argument), claims=True)  # type: ignore[misc]
            elif ready:
                self._resume(self.chance.choice(ready) if self.chance else ready[0])
            else:
                return

    def _wake_up(self) -> None:
        for worker in list(self.asleep):
            if worker.resume_at is not None and self._ready(worker):
                self._resume(worker)

    # --- Processes that work, are left alone, and die ---------------------------------------------------------

    def _work(self, step: Callable[[], Any], *, claims: bool = False) -> None:
        if self.down_until is None:
            self._resume(Worker(greenlet(step, parent=self.hub), claims))

    def _resume(self, worker: Worker) -> None:
        if worker in self.asleep:
            self.asleep.remove(worker)
        worker.resume_at = None
        self.at_work = worker
        try:
            with self.stage.boundaries.counting():
                left = worker.body.switch()
        except Killed:
            self._die()
            return
        except OperationalError:
            if self.full_until is None:
                raise
            return  # Its worker says so in the log, and takes the next message.
        if not worker.body.dead:
            worker.resume_at = left
            self.asleep.append(worker)

    def leave(self, until: datetime | None = None, *, calling: bool = False) -> None:
        """Called at a boundary: somebody else goes on; this one not before `until`.

        `calling`: it is on its way to a provider, and nobody can know when it arrives.
        """
        self.pauses += until is not None
        if until is not None and calling:
            self.on_the_way += until - self.stage.clock.instant
        self.hub.switch(until)

    def _die(self) -> None:
        """Everything in memory is lost: messages, steps under way, caches."""
        self.stage.boundaries.bury()
        self.deaths += 1
        self.graves += [worker.body for worker in self.asleep]
        self.asleep.clear()
        self.stage.messages.clear()
        connection.run_on_commit = []
        if connection.in_atomic_block:
            raise AssertionError("a kill inside a transaction: its boundary is in the wrong place")
        self._down(timedelta(seconds=2))

    def _down(self, span: timedelta) -> None:
        now = self.stage.clock.instant
        self.down_until = now + span
        self.downs.append((now, now + span + LEASE))  # Until the claims of the dead have run out.

    def stop(self, seconds: float) -> None:
        """Everything is stopped for so long, in order or not: to the rows it is the same."""
        self._die()
        self.deaths -= 1
        self._down(timedelta(seconds=seconds))

    def _start(self) -> None:
        self.down_until = None
        self._costs_at = None
        engine.forget()
        structlog.contextvars.clear_contextvars()
        self.stage.start_process()

    def fill_the_disk(self, span: timedelta) -> None:
        """For so long nothing can be written; then somebody has made room."""
        now = self.stage.clock.instant
        self.full_until, self.stage.boundaries.disk_is_full = now + span, True
        self.downs.append((now, now + span + LEASE))

    # --- The API -----------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        """One request to the web process. Raises ConnectionLost if that is dead, or dies of it."""
        if self.down_until is not None:
            raise ConnectionLost
        made: list[Any] = []

        def answer() -> None:
            sent = _json(body)
            made.append(self.client.generic(method, path, sent, content_type="application/json", headers=headers))

        self._work(answer)
        while not made and self.down_until is None:
            self._drain()
            if not made and self.down_until is None and not self._can_go_on():
                self.stage.clock.instant = self.next_moment()  # The worker of this request is paused.
                self.settle()
        if not made:
            raise ConnectionLost
        return made[0]

    # --- Time -----------------------------------------------------------------------------------------------------

    def next_moment(self) -> datetime:
        """When something is due again, by the true clock; some minutes from now at the latest."""
        if self.down_until is not None:
            return self.down_until
        clock = self.stage.clock
        moments = [clock.true(moment) for moment in _due_after(clock.now(), (*QUEUES, Source))]
        moments += [worker.resume_at for worker in self.asleep if worker.resume_at]
        moments += [self.full_until] if self.full_until else []
        longest = LONGEST_SLEEP_WITH_BUDGETS if Budget.objects.exists() else LONGEST_SLEEP
        return min([*moments, clock.instant + longest])


def _due_after(now: datetime, models: Sequence[type[Model]]) -> list[datetime]:
    """The first `due_at` of each after now.

    Plain SQL: asked at every step of the clock, and built by the ORM it would take a tenth of each run.
    """
    soonest = " UNION ".join(f"SELECT MIN(due_at) FROM {model._meta.db_table} WHERE due_at > %s" for model in models)
    with connection.cursor() as cursor:
        cursor.execute(soonest, [connection.ops.adapt_datetimefield_value(now)] * len(models))
        return [datetime.fromisoformat(text).replace(tzinfo=UTC) for (text,) in cursor.fetchall() if text]


def _json(body: Any) -> str:
    return "{}" if body is None else json.dumps(body)
