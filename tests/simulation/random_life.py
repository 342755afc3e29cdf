"""Long lives by chance: dozens of sessions, all weathers, deaths, pauses and stops, from one seed."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.judge import LIES
from tests.simulation.scenarios import Scenario
from tests.simulation.story import OVER, Ask, Do, Sleep, Story, Until, end, rent

if TYPE_CHECKING:
    from tests.simulation.run import Run

MODELS = ("RTX 4090", "RTX 3090", "RTX 5090", "A100 PCIe", "H100 SXM")
MOST_AT_ONCE = 6
DEATH, PAUSE, CHANGE = 0.0012, 0.0004, 0.3  # at each boundary


def scenario(seed: int, hours: float) -> Scenario:
    chance = random.Random(seed)
    # Half of the lives have the product's own settings, the others the quick ones.
    slow = {
        "DESTROY_CONFIRM": timedelta(seconds=30),
        "CREATE_SETTLE": timedelta(0),
        "ORPHAN_GRACE_PERIOD": timedelta(minutes=2),
        "RECONCILIATION_INTERVAL": timedelta(minutes=5),
        "PROVISION_TIMEOUT": timedelta(minutes=15),
        "SSH_VERIFY_TIMEOUT": timedelta(minutes=8),
    }
    lies = chance.random() < 0.3
    return Scenario(
        f"random life {seed}",
        lambda: _story(chance, hours, lies),
        settings=slow if seed % 2 else {},
        lies=lies,
    )


def _story(chance: random.Random, hours: float, lies: bool) -> Story:
    live: list[tuple[str, str]] = []
    left = hours * 3600
    number = 0
    while left > 0:
        number += 1
        pause = chance.expovariate(1 / 240)
        left -= pause
        yield Sleep(pause)
        step = chance.random()
        if step < 0.35 and len(live) < MOST_AT_ONCE:
            consumer = chance.choice(("alice", "bob"))
            session = yield from _rent(chance, consumer, number)
            live += [(session, consumer)] if session else []
        elif step < 0.55 and live:
            session, consumer = live.pop(chance.randrange(len(live)))
            yield from end(session, how=chance.choice(("done", "delete")), consumer=consumer, wait=False)
        elif step < 0.65 and live:
            session, consumer = chance.choice(live)
            body = {"additional_hours": chance.choice((0.05, 0.5, 3))}
            yield Ask("POST", f"/api/v1/sessions/{session}/extend", body, consumer, may_be_refused=True)
        elif step < 0.9:
            yield Do(_weather(chance, lies))
        elif step < 0.93:
            yield Do(_stop(chance))
        elif step < 0.95:
            yield Do(lambda run: run.plant_foreign(chance.choice(("training", "", "gs-tests1-", "GS-TESTS1-X"))))
    yield Do(lambda run: run.world.weather.clear())
    for session, consumer in live:
        yield from end(session, consumer=consumer, wait=False)
    for session, consumer in live:
        yield Until(session, OVER, at_most=4 * 3600, consumer=consumer)


def _rent(chance: random.Random, consumer: str, number: int) -> Story:
    wishes = {"gpu_type": chance.choice(MODELS), "provider": chance.choice(("vastai", "vastai", "tensordock"))}
    wishes |= {"auto_retry": chance.random() < 0.7, "retry_scope": chance.choice(("same_gpu", "same_vram", "any"))}
    hours = round(chance.choice((0.02, 0.1, 0.5, 2)) * chance.uniform(0.5, 1.5), 4)
    session = yield from rent(hours=hours, consumer=consumer, wait=False, name=f"{consumer}{number}", **wishes)
    return session


def _weather(chance: random.Random, lies: bool) -> Do | object:
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


def _stop(chance: random.Random) -> object:
    return lambda run: run.service.stop(chance.choice((3, 60, 1200)))
