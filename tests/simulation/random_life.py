"""Long lives by chance: dozens of sessions, all weathers, deaths, pauses and stops, from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.judge import LIES
from tests.simulation.scenarios import Scenario
from tests.simulation.story import OVER, Ask, Do, Sleep, Step, Story, Until, end, rent

if TYPE_CHECKING:
    from tests.simulation.run import Run

MODELS = ("RTX 4090", "RTX 3090", "RTX 5090", "A100 PCIe", "H100 SXM")
MOST_AT_ONCE = 6
# Seconds from one step to the next, on average: in some lives so few that they are crowded, in others so many that they
# are quiet for hours. All between are as likely, by order of magnitude.
PAUSE_BETWEEN = (240.0, 3600.0)
DEATH, PAUSE, CHANGE = 0.0012, 0.0004, 0.3  # at each boundary


def scenario(seed: int, hours: float, keep: Container[int] | None = None) -> Scenario:
    """The life of this seed; with `keep`, only those of its steps, and nothing after the last of them."""
    # Three of four lives have the product's own settings, the others the quick ones; quiet hours are as quiet in all.
    quiet = {"RECONCILIATION_INTERVAL": timedelta(minutes=5), "INVENTORY_CACHE_TTL": timedelta(minutes=30)}
    slow = {
        "DESTROY_CONFIRM": timedelta(seconds=30),
        "CREATE_SETTLE": timedelta(0),
        "ORPHAN_GRACE_PERIOD": timedelta(minutes=2),
        "PROVISION_TIMEOUT": timedelta(minutes=15),
        "SSH_VERIFY_TIMEOUT": timedelta(minutes=8),
    }
    chance, lies, pause = _beginning(seed)
    steps = [step for step in _steps(chance, hours, pause) if keep is None or step.number in keep]
    # With the product's settings a lost create is waited for for up to 15 minutes: hence listed less often.
    own = seed % 4 != 0
    settings = quiet | slow if own else quiet
    return Scenario(f"random life {seed}", lambda: _story(steps, lies), settings=settings, lies=lies, patient=own)


@dataclass(frozen=True, slots=True)
class _Step:
    """What happens at one moment. Its choices are its own: they stay what they are when others are left out."""

    number: int
    at: float  # seconds from the beginning
    seed: float


def numbers(seed: int, hours: float) -> list[int]:
    """Of the steps of this life."""
    chance, _, pause = _beginning(seed)
    return [step.number for step in _steps(chance, hours, pause)]


def _beginning(seed: int) -> tuple[random.Random, bool, float]:
    """The dice of a life, whether its providers lie, and how many seconds it has between two steps."""
    chance = random.Random(seed)
    shortest, longest = PAUSE_BETWEEN
    return chance, chance.random() < 0.3, shortest * (longest / shortest) ** chance.random()


def _steps(chance: random.Random, hours: float, pause: float) -> list[_Step]:
    steps: list[_Step] = []
    at = chance.expovariate(1 / pause)
    while at < hours * 3600:
        steps.append(_Step(len(steps) + 1, at, chance.random()))
        at += chance.expovariate(1 / pause)
    return steps


def _story(steps: Sequence[_Step], lies: bool) -> Story:
    live: list[tuple[str, str]] = []
    now = 0.0
    for step in steps:
        yield Sleep(step.at - now)
        now = step.at
        yield from _do(step, live, lies)
    yield Do(lambda run: run.world.weather.clear())
    for session, consumer in live:
        yield from end(session, consumer=consumer, wait=False)
    for session, consumer in live:
        yield Until(session, OVER, at_most=4 * 3600, consumer=consumer)


def _do(step: _Step, live: list[tuple[str, str]], lies: bool) -> Story:
    chance = random.Random(step.seed)
    dice = chance.random()
    if dice < 0.35 and len(live) < MOST_AT_ONCE:
        consumer = chance.choice(("alice", "bob"))
        session = yield from _rent(chance, consumer, step.number)
        live += [(session, consumer)] if session else []
    elif dice < 0.55 and live:
        session, consumer = live.pop(chance.randrange(len(live)))
        yield from end(session, how=chance.choice(("done", "delete")), consumer=consumer, wait=False)
    elif dice < 0.65 and live:
        session, consumer = chance.choice(live)
        body = {"additional_hours": chance.choice((0.05, 0.5, 3))}
        yield Ask("POST", f"/api/v1/sessions/{session}/extend", body, consumer, may_be_refused=True)
    elif dice < 0.9:
        yield Do(_weather(chance, lies))
    elif dice < 0.93:
        yield Do(_stop(chance))
    elif dice < 0.95:
        label = chance.choice(("training", "", "gs-tests1-", "GS-TESTS1-X"))
        yield Do(lambda run: run.plant_foreign(label))


def _rent(chance: random.Random, consumer: str, number: int) -> Generator[Step, Any, str]:
    wishes: dict[str, Any] = {
        "gpu_type": chance.choice(MODELS),
        "provider": chance.choice(("vastai", "vastai", "tensordock")),
    }
    wishes |= {"auto_retry": chance.random() < 0.7, "retry_scope": chance.choice(("same_gpu", "same_vram", "any"))}
    hours = round(chance.choice((0.02, 0.1, 0.5, 2)) * chance.uniform(0.5, 1.5), 4)
    session = yield from rent(hours=hours, consumer=consumer, wait=False, name=f"{consumer}{number}", **wishes)
    return session


def _weather(chance: random.Random, lies: bool) -> Callable[[Run], None]:
    name = chance.choice([name for name, fault in FAULTS.items() if lies or fault.switch not in LIES])
    fault, clear = FAULTS[name], chance.random() < 0.4

    def change(run: Run) -> None:
        if clear:
            run.world.weather.clear()
        _begin(fault, run, chance)

    return change


def _begin(fault: Fault, run: Run, chance: random.Random) -> None:
    """Lasting weather ends by itself after a while."""
    lasting = fault.times is None and fault.seconds is None
    spell = Fault(**{**vars(fault), "seconds": chance.uniform(60, 900)}) if lasting else fault
    spell.begin(run)


def _stop(chance: random.Random) -> Callable[[Run], None]:
    seconds = chance.choice((3, 60, 1200))
    return lambda run: run.service.stop(seconds)
