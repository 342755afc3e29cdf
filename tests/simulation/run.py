"""One run: a stage, a service, a scenario with its weather; lived to rest, then judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.db import connection
from django.test.utils import override_settings

from gpushopper.models import ApiKey, Consumer, make_key
from providers import tag
from sessions import engine, reconcile
from sessions.lifecycle import OVER, State
from sessions.models import Instance, Session
from tests.simulation.faults import Fault
from tests.simulation.judge import Verdict, judge
from tests.simulation.scenarios import Scenario
from tests.simulation.service import ConnectionLost, Service
from tests.simulation.stage import Stage
from tests.simulation.story import Ask, Do, Promise, Sleep, Step, Story, Until

# Shorter than the defaults where a life would only wait; the rules are the same. Long random lives use the defaults.
QUICK = {
    "DESTROY_CONFIRM": timedelta(seconds=5),
    "CREATE_SETTLE": timedelta(seconds=90),
    "ORPHAN_GRACE_PERIOD": timedelta(seconds=20),
    "RECONCILIATION_INTERVAL": timedelta(seconds=60),
    "PROVISION_TIMEOUT": timedelta(minutes=4),
    "SSH_VERIFY_TIMEOUT": timedelta(minutes=2),
    "INVENTORY_CACHE_TTL": timedelta(minutes=10),
    "EMBEDDED": True,
}
# And so often is listed what a patient life waits for. The product's two seconds would make hundreds of boundaries
# that are all the same; the judge counts with two looks in ten seconds (`judge.LOOKS`).
PATIENT = timedelta(seconds=5)
# Alarms and the like are looked at each minute, instead of four times: they decide nothing that is judged.
PERIODIC = timedelta(minutes=1)
# The world's machines boot within seconds ("demo"), so nearly all of a short life is spent on what matters.
BOOT = "demo"

# After the last client has what it wanted, the service gets this long to come to rest.
REST_WITHIN = timedelta(hours=3)
# And then, where something may still turn up: a machine that comes back within this gets a listing to be found by,
# and one more until its end is proven.
COMES_BACK = timedelta(minutes=1)


@dataclass
class Run:
    scenario: Scenario
    fault: Fault | None = None
    workers: int = 1
    celery: bool = True
    guardian: bool = False
    seed: int = 0
    chance: Any = None
    stage: Stage = field(init=False)
    service: Service = field(init=False)
    promises: dict[str, Promise] = field(default_factory=dict)
    planted: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    outages: list[tuple[datetime, datetime]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    unrested: str = ""
    restored: bool = False
    repriced: bool = False
    _saved: bytes = b""
    _steps: int = 0  # of the story; each request is one

    def __post_init__(self) -> None:
        self.stage = Stage(seed=self.seed, boot=BOOT)
        self.service = Service(
            self.stage, workers=self.workers, celery=self.celery, guardian=self.guardian, chance=self.chance
        )

    @property
    def world(self) -> Any:
        return self.stage.world

    @property
    def clock(self) -> Any:
        return self.stage.clock

    # --- Living -------------------------------------------------------------------------------------------

    def live(self, on_cross: Callable[[int, str], None] | None = None) -> Verdict:
        """The whole run, from nothing to the verdict."""
        with self._set():
            self.stage.boundaries.on_cross = on_cross
            self._tell(self.scenario.story())
            self._come_to_rest()
            if self._may_turn_up(within := COMES_BACK + 2 * settings.RECONCILIATION_INTERVAL):
                self.advance(within)
            return judge(self)

    @contextmanager
    def _set(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(override_settings(**{**QUICK, **self.scenario.settings}))
            stack.enter_context(patch.object(engine, "PERIODIC", PERIODIC))
            if self.scenario.patient:
                stack.enter_context(patch.object(reconcile, "FAST", PATIENT))
            stack.enter_context(self.stage.set())
            for name in ("alice", "bob"):
                consumer = Consumer.objects.create(name=name)
                self.keys[name] = make_key(consumer, ApiKey.Role.CONSUMER)[1]
            self.advance(timedelta(seconds=5))  # The menu is read, the accounts are listed.
            if self.scenario.before:
                self.scenario.before(self)
            if self.fault:
                self.fault.begin(self)
            yield

    def _tell(self, story: Story) -> None:
        answer: Any = None
        while True:
            try:
                step = story.send(answer)
            except StopIteration:
                return
            answer = self._take(step)

    def remains(self) -> tuple[Any, ...]:
        """What outlives a death: as long as it is the same, so is all that follows from one.

        The database's count of changes, the calls and visits that the world has seen, the time, and how far the
        clients are. What a process knows dies with it.
        """
        changes = connection.connection.total_changes
        return changes, len(self.world.calls), self.stage.guests.visits, self.clock.instant, self._steps

    def _take(self, step: Step) -> Any:
        self._steps += 1
        if isinstance(step, Ask):
            return self._ask(step)
        if isinstance(step, Sleep):
            return self.advance(timedelta(seconds=step.seconds))
        if isinstance(step, Do):
            return step.what(self)
        return self._until(step)

    def _ask(self, step: Ask, tries: int = 600) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.keys[step.consumer]}"}
        if step.key:
            headers["Idempotency-Key"] = step.key
        self._wished(step)
        for _ in range(tries):
            self._steps += 1
            try:
                response = self.service.request(step.method, step.path, step.body, headers)
            except ConnectionLost:
                self.advance(timedelta(seconds=3))
                continue
            if response.status_code in (429, 503) or (response.status_code == 500 and self.service.full_until):
                self.advance(timedelta(seconds=5))
                continue
            return self._heard(step, response)
        raise AssertionError(f"{step.method} {step.path} was never answered")

    def _wished(self, step: Ask) -> None:
        """From here on an end is what the client wants, whenever it is answered."""
        if step.method == "DELETE" or step.path.endswith("/done"):
            promise = self.promises[step.path.split("/")[4]]
            promise.ended_at = promise.ended_at or self.clock.instant

    def _heard(self, step: Ask, response: Any) -> tuple[int, Any]:
        if response.status_code >= 500 or (response.status_code in (400, 401, 403, 422) and not step.may_be_refused):
            raise AssertionError(f"{step.method} {step.path} was answered {response.status_code}: {response.content!r}")
        answer = response.json() if response.content else {}
        if step.method == "POST" and step.path.endswith("/sessions") and response.status_code == 201:
            session = answer["session"]
            self.promises.setdefault(session["id"], Promise(session["id"], session["reservation_hours"]))
        elif step.path.endswith("/extend") and response.status_code == 200:
            self.promises[answer["session"]["id"]].hours = answer["session"]["reservation_hours"]
        return response.status_code, answer

    def _until(self, step: Until) -> str:
        if not step.session:
            return ""
        end = self.clock.instant + timedelta(seconds=step.at_most)
        while True:
            self.service.settle()
            status = Session.objects.filter(pk=step.session).values_list("status", flat=True).first() or "lost"
            if status in step.statuses or status == "lost" or self.clock.instant >= end:
                return status
            self.clock.instant = min(end, self.service.next_moment())

    def advance(self, span: timedelta) -> None:
        end = self.clock.instant + span
        while True:
            self.service.settle()
            if self.clock.instant >= end:
                return
            self.clock.instant = min(end, self.service.next_moment())

    def _come_to_rest(self) -> None:
        end = self.clock.instant + REST_WITHIN
        while not self._at_rest():
            if self.clock.instant >= end:
                self.unrested = self._restless()
                return
            self.clock.instant = self.service.next_moment()
            self.service.settle()

    def _at_rest(self) -> bool:
        if self.service.down_until is not None or self.service.asleep:
            return False
        alive = Instance.objects.exclude(state=State.DESTROYED).exists()
        return not alive and not Session.objects.exclude(status__in=OVER).exists()

    def _may_turn_up(self, within: timedelta) -> bool:
        """Whether the providers have anything left that a look within this time could find.

        At rest nothing but the world can begin anything: a machine that lives there, ours or a stranger's, is still
        to be found, or left alone; a late create or a machine that comes back is planned there. Without any of these
        a longer wait shows nothing, so the verdict is as strict as after one.
        """
        alive = any(machine.exists for machine in self.world.machines.values())
        return alive or bool(self.world.has_plans_until(self.clock.instant + within))

    def _restless(self) -> str:
        rows = [str(row) for row in Instance.objects.exclude(state=State.DESTROYED)]
        rows += [str(session) for session in Session.objects.exclude(status__in=OVER)]
        return f"after {REST_WITHIN} there is no rest: {rows or self.service.asleep or 'the service is down'}"

    # --- What scenarios do to the world and to the database --------------------------------------------------

    def tag(self, lasts: timedelta) -> str:
        return tag.mint(settings.DEPLOYMENT_ID, self.clock.instant + lasts, settings.TAG_KEYS[0])

    def plant(self, label: str) -> None:
        """A machine at Vast.ai that bears our label and that this database has never heard of."""
        self.planted.append(self.world.plant("vastai", label))

    def plant_foreign(self, label: str) -> None:
        self.foreign.append(self.world.plant("vastai", label))

    def backup(self) -> None:
        self._saved = connection.connection.serialize()

    def restore(self) -> None:
        """The database is as it was when the backup was made; the providers are as they are."""
        self.service.stop(5)
        connection.connection.deserialize(self._saved)
        self.restored = True


def silence_logs() -> None:
    logging.disable(logging.CRITICAL)
