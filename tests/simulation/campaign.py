"""Campaigns: every kill of every life, and samples of everything else.

A run is lived in a child process, forked from one that has an empty, migrated database in memory; at each boundary
the child itself forks, and the grandchild dies there, is started again, and is lived to rest and judged. So the way
to a boundary is walked once, however many die on it.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any

from tests.simulation.judge import Verdict
from tests.simulation.shrinking import shrink

CORES = os.cpu_count() or 1
# A worker that stops for so long has lost its claim, and somebody else has long gone on.
PAUSE_FOR = timedelta(seconds=75)
# Longer than a claim, too.
FULL_FOR = timedelta(seconds=45)


@dataclass
class Tally:
    """What a campaign covered, and what it found."""

    runs: int = 0
    kills: int = 0
    same: int = 0  # deaths that leave behind what the one before them left, so that their runs are the same
    pauses: int = 0
    boundaries: int = 0
    virtual_hours: float = 0.0
    machines: int = 0
    orphans: int = 0
    false_kills: int = 0
    longest_orphan_seconds: float = 0.0
    orphan_seconds: Counter[str] = field(default_factory=Counter)  # of all machines, in whole seconds
    worst_cost_error_micros: int = 0
    wall_seconds: float = 0.0
    complete: bool = True  # False: there was no time for all of it
    ends: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: dict[str, Any], how: str) -> None:
        self.runs += 1
        self.kills += found["deaths"]
        self.pauses += found["pauses"]
        self.virtual_hours += found["virtual_seconds"] / 3600
        self.machines += found["machines"]
        self.orphans += found["orphans"]
        self.false_kills += found["false_kills"]
        self.longest_orphan_seconds = max(self.longest_orphan_seconds, *found["orphan_seconds"], 0.0)
        self.orphan_seconds.update(str(math.ceil(seconds)) for seconds in found["orphan_seconds"])
        self.worst_cost_error_micros = max(self.worst_cost_error_micros, found["worst_cost_error"])
        self.ends.update(found["ends"])
        self.names.update(found["names"])
        if found["violations"]:
            self.failures.append({"replay": how, "violations": found["violations"][:5]})

    @property
    def orphan_seconds_p99(self) -> int:
        """So long, or less, lived 99 of 100 machines after nobody wanted them."""
        machines = sorted(int(seconds) for seconds in self.orphan_seconds.elements())
        return machines[math.ceil(len(machines) * 0.99) - 1] if machines else 0

    def shown(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "orphan_seconds": dict(self.orphan_seconds),
            "orphan_seconds_p99": self.orphan_seconds_p99,
            "virtual_hours": round(self.virtual_hours, 1),
            "wall_seconds": round(self.wall_seconds, 1),
            "ends": dict(self.ends),
            "names": dict(self.names),
        }


# --- Children ---------------------------------------------------------------------------------------------


class Children:
    """Forked processes that each send back one JSON line; at most so many at once."""

    def __init__(self, most: int = CORES) -> None:
        self.most = most
        self.pipes: dict[int, tuple[int, str]] = {}

    def fork(self, how: str, work: Callable[[], dict[str, Any]], heard: Callable[[dict[str, Any], str], None]) -> None:
        while len(self.pipes) >= self.most:
            self.collect(heard)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _answer(write, work)
        os.close(write)
        self.pipes[child] = (read, how)

    def collect(self, heard: Callable[[dict[str, Any], str], None]) -> None:
        """Hear the child that has waited longest."""
        child, (read, how) = next(iter(self.pipes.items()))
        del self.pipes[child]
        with os.fdopen(read) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        heard(json.loads(text) if text else _lost(), how)

    def end(self) -> None:
        """Nobody waits for them any more."""
        for child, (read, _) in self.pipes.items():
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            os.close(read)
        self.pipes.clear()

    def collect_all(self, heard: Callable[[dict[str, Any], str], None]) -> None:
        while self.pipes:
            self.collect(heard)


def _answer(write: int, work: Callable[[], dict[str, Any]]) -> None:
    try:
        found = work()
    except BaseException:
        found = {**asdict(Verdict()), "violations": [traceback.format_exc()[-1500:]]}
    with os.fdopen(write, "w") as pipe:
        pipe.write(json.dumps(found))
    os._exit(0)


def _lost() -> dict[str, Any]:
    return {**asdict(Verdict()), "violations": ["the run's process was lost"]}


# --- Lives and the deaths in them -------------------------------------------------------------------------


@dataclass
class Plan:
    """What is tried on one life: at each boundary that `at` names a fork, which `how` treats.

    A random life has `hours`; its deaths, pauses and changes of workers come by chance as well, unless it is `calm`.
    Of its steps, `steps` are taken; None: all.
    """

    scenario: str
    hours: float = 0
    fault: str = ""
    how: str = "kill"  # kill, pair, pause, disk
    at: Callable[[int], bool] = lambda number: True
    seed: int = 0
    workers: int = 1
    celery: bool = True
    guardian: bool = False
    steps: tuple[int, ...] | None = None
    calm: bool = False

    def command(self, boundary: int | None = None) -> str:
        if self.hours:
            words = [f"python -m tests.simulation random --seed {self.seed} --number 1 --hours {self.hours:g}"]
            words += ["--calm"] if self.calm else []
            words += [f"--steps {','.join(map(str, self.steps))}"] if self.steps is not None else []
            return " ".join(words)
        words = [f"python -m tests.simulation replay {self.scenario}", f"--how {self.how}"]
        words += [f"--fault '{self.fault}'"] if self.fault else []
        words += [f"--at {boundary}"] if boundary is not None else []
        words += [f"--seed {self.seed}"] if self.seed else []
        words += [f"--workers {self.workers}"] if self.workers != 1 else []
        words += ["--guardian"] if self.guardian else []
        words += ["--no-celery"] if not self.celery else []
        return " ".join(words)


class Life:
    """One run, and the runs that branch off from it."""

    def __init__(self, plan: Plan, tally: Tally) -> None:
        from tests.simulation import random_life
        from tests.simulation.faults import FAULTS
        from tests.simulation.run import Run
        from tests.simulation.scenarios import SCENARIOS

        self.plan, self.tally = plan, tally
        self.chance = random.Random(plan.seed)
        self.run = Run(
            random_life.scenario(plan.seed, plan.hours, plan.steps) if plan.hours else SCENARIOS[plan.scenario],
            FAULTS[plan.fault] if plan.fault else None,
            workers=max(plan.workers, 2 if plan.how == "pause" else 1),
            celery=plan.celery,
            guardian=plan.guardian,
            seed=plan.seed,
            chance=random.Random(plan.seed) if plan.workers > 1 else None,
        )
        self.children = Children()
        self.write_to: int | None = None  # set in a branch: where its verdict goes
        self.remains: tuple[Any, ...] = ()  # of the latest death

    def live(self) -> Tally:
        found = self._lived(self._cross)
        if self.write_to is not None:
            with os.fdopen(self.write_to, "w") as pipe:
                pipe.write(json.dumps(found))
            os._exit(0)
        self.children.collect_all(self.tally.add)
        self.tally.boundaries = found["boundaries"]
        self.tally.add(found, self.plan.command())
        return self.tally

    def _lived(self, on_cross: Callable[[int, str], None]) -> dict[str, Any]:
        try:
            return asdict(self.run.live(on_cross))
        except BaseException:
            return {**asdict(Verdict()), "violations": [traceback.format_exc()[-2500:]]}

    def _cross(self, number: int, name: str) -> None:
        if self.plan.hours:
            if not self.plan.calm:
                self._by_chance(name)
            return
        if _may_leave(name) and self.plan.workers > 1 and self.chance.random() < 0.5:
            self.run.service.leave()
        if not self.plan.at(number) or (self.plan.how == "pause" and not self._may_pause(name)):
            return
        if self.plan.how == "kill" and self._is_the_same_death():
            self.tally.same += 1
            return
        while len(self.children.pipes) >= self.children.most:
            self.children.collect(self.tally.add)
        read, write = os.pipe()
        child = os.fork()
        if child:
            os.close(write)
            self.children.pipes[child] = (read, self.plan.command(number))
            return
        os.close(read)
        self.children.pipes.clear()
        self.write_to = write
        self.treat(number, name)

    def _is_the_same_death(self) -> bool:
        before, self.remains = self.remains, self.run.remains()
        return self.remains == before

    def _may_pause(self, name: str) -> bool:
        """A worker that sleeps with a row in its hands; beat and web hold none."""
        at_work = self.run.service.at_work
        return _may_leave(name) and at_work is not None and at_work.claims

    def _by_chance(self, name: str) -> None:
        from tests.simulation.random_life import CHANGE, DEATH, PAUSE

        dice = self.chance.random()
        if dice < DEATH:
            self.run.stage.boundaries.die(name)
        elif _may_leave(name) and dice < DEATH + PAUSE:
            self._pause(name)
        elif _may_leave(name) and dice < CHANGE:
            self.run.service.leave()

    def _pause(self, name: str) -> None:
        self.run.service.leave(self.run.clock.instant + PAUSE_FOR, calling=name.startswith("call "))

    def treat(self, number: int, name: str) -> None:
        """In a branch: die here, and for pairs once more, later; or stop for a while, or have no room on the disk."""
        boundaries = self.run.stage.boundaries
        boundaries.on_cross = None
        if self.plan.how == "pause":
            self._pause(name)
            return
        if self.plan.how == "disk":
            self.run.service.fill_the_disk(FULL_FOR)
            return
        if self.plan.how == "pair":
            again = number + random.Random(self.plan.seed * 100_003 + number).randrange(1, 60)
            boundaries.on_cross = lambda later, what: boundaries.die(what) if later == again else None
        boundaries.die(name)


def _may_leave(name: str) -> bool:
    """SQLite still holds the row of an INSERT that returns it: one may die there, but not let others go on."""
    return not name.startswith("insert")


def lived(plan: Plan) -> dict[str, Any]:
    return Life(plan, Tally()).live().shown()


def replay(plan: Plan, at: int | None) -> dict[str, Any]:
    """The one run that a failure names, in this process."""
    life = Life(plan, Tally())

    def cross(number: int, name: str) -> None:
        if _may_leave(name) and plan.workers > 1 and life.chance.random() < 0.5:
            life.run.service.leave()
        if number == at:
            life.treat(number, name)

    return life._lived(cross)


# --- Many lives --------------------------------------------------------------------------------------------


def merge(into: Tally, found: dict[str, Any]) -> None:
    into.runs += found["runs"]
    into.kills += found["kills"]
    into.same += found["same"]
    into.pauses += found["pauses"]
    into.boundaries += found["boundaries"]
    into.virtual_hours += found["virtual_hours"]
    into.machines += found["machines"]
    into.orphans += found["orphans"]
    into.false_kills += found["false_kills"]
    into.longest_orphan_seconds = max(into.longest_orphan_seconds, found["longest_orphan_seconds"])
    into.orphan_seconds.update(found["orphan_seconds"])
    into.worst_cost_error_micros = max(into.worst_cost_error_micros, found["worst_cost_error_micros"])
    into.ends.update(found["ends"])
    into.names.update(found["names"])
    into.failures += found["failures"]


def campaign(plans: Iterable[Plan], *, seconds: float | None = None, progress: bool = False, at_once: int = 1) -> Tally:
    """Each plan in a process of its own, which forks others for its branches.

    Ends early after `seconds`, or when it is interrupted: what was found until then counts.
    """
    tally, began = Tally(), time.monotonic()
    children = Children(most=at_once)

    def heard(found: dict[str, Any], how: str) -> None:
        known = len(tally.failures)
        _heard(tally, found, how)
        for failure in tally.failures[known:] if progress else ():
            sys.stderr.write(f"\r{failure['replay']}\n  {failure['violations'][0]:.300}\n")

    try:
        for plan in plans:
            if seconds is not None and time.monotonic() - began > seconds:
                tally.complete = False
                break
            children.fork(plan.command(), lambda plan=plan: lived(plan), heard)  # type: ignore[misc]
            if at_once == 1:
                children.collect_all(heard)
            if progress:
                sys.stderr.write(f"\r{tally.runs} runs, {len(tally.failures)} failures, {plan.scenario:<50.50}")
                sys.stderr.flush()
        children.collect_all(heard)
    except KeyboardInterrupt:
        tally.complete = False
        children.end()
    tally.wall_seconds = time.monotonic() - began
    return tally


def _heard(tally: Tally, found: dict[str, Any], how: str) -> None:
    if "failures" in found:
        merge(tally, found)
    else:
        tally.failures.append({"replay": how, "violations": found["violations"]})


def never(number: int) -> bool:
    return False


def every_life(fault: str = "", names: Sequence[str] = (), *, in_turn: bool = False) -> list[Plan]:
    """Each life once by Celery alone, by the guardian alone, and by three workers interleaved; or by these in turn."""
    from tests.simulation.scenarios import SCENARIOS

    plans = []
    for number, name in enumerate(names or SCENARIOS):
        ways = [
            Plan(name, 0, fault, at=never),
            Plan(name, 0, fault, at=never, celery=False, guardian=True),
            Plan(name, 0, fault, at=never, workers=3, seed=3 * number + 2),
        ]
        plans += [ways[number % 3]] if in_turn else ways
    return plans


# For so long lives are lived again to make a failure small; most are shorter than the one that failed.
SHRINK_SECONDS = 900.0


def smallest(plan: Plan) -> Plan:
    """The random life that failed, with what it does not take to fail left out."""
    from tests.simulation.random_life import numbers

    began = time.monotonic()

    def fails(tried: Plan) -> bool:
        return bool(campaign([tried]).failures)

    if not plan.calm and fails(replace(plan, calm=True)):
        plan = replace(plan, calm=True)
    steps = numbers(plan.seed, plan.hours) if plan.steps is None else plan.steps
    kept = shrink(
        steps, lambda some: fails(replace(plan, steps=tuple(some))), lambda: time.monotonic() - began < SHRINK_SECONDS
    )
    return replace(plan, steps=tuple(kept))


def random_lives(
    seeds: Iterable[int], hours: float, steps: tuple[int, ...] | None = None, calm: bool = False
) -> Iterator[Plan]:
    """Long lives by chance: by Celery, by the guardian, or by both, with one to three workers."""
    engines = ((True, False), (False, True), (True, True))
    for seed in seeds:
        celery, guardian = engines[seed % 3]
        yield Plan("", hours, seed=seed, workers=1 + seed % 3, celery=celery, guardian=guardian, steps=steps, calm=calm)


def every_kill(*, main_only: bool, how: str = "kill", at: Callable[[int], bool] = lambda number: True) -> list[Plan]:
    """A death at each boundary of the main lives, or of all."""
    from tests.simulation.scenarios import SCENARIOS

    names = [name for name, scenario in SCENARIOS.items() if scenario.main or not main_only]
    return [Plan(name, how=how, at=at) for name in names]


def sampled_faults(number: int, seed: int, kills: int) -> list[Plan]:
    """So many lives with a fault each, and in each so many kills; the same for the same seed."""
    from tests.simulation.faults import FAULTS
    from tests.simulation.scenarios import SCENARIOS

    chance = random.Random(seed)
    short = [name for name, scenario in SCENARIOS.items() if not scenario.long]
    plans = []
    for fault in chance.sample(sorted(FAULTS), min(number, len(FAULTS))):
        spots = frozenset(chance.sample(range(1, 120), kills))
        plans.append(Plan(chance.choice(short), 0, fault, at=spots.__contains__))
    return plans


PAIRS, IN_WEATHER = 20, 5


def each(nth: int, first: int = 0) -> Callable[[int], bool]:
    return lambda number: number % nth == first % nth


def everything() -> list[Plan]:
    """A death and a worker's pause at each boundary of each life; by sample, the rest.

    A pair begins, or the disk of the database is full, at each `PAIRS`th boundary of each life. In the weathers, of
    which there are many, one dies at each `IN_WEATHER`th; from where it is counted differs from one to the next, so
    that together they die everywhere.
    """
    from tests.simulation.faults import FAULTS

    plans = every_life() + every_kill(main_only=False)
    for name in ("plain_life", "plain_life_at_tensordock", "expiry", "by_type_with_stale_offers"):
        plans += [Plan(name, 0, fault, at=each(IN_WEATHER, first)) for first, fault in enumerate(FAULTS)]
    plans += every_kill(main_only=False, how="pair", at=each(PAIRS))
    plans += every_kill(main_only=False, how="disk", at=each(PAIRS))
    return plans + every_kill(main_only=False, how="pause")
