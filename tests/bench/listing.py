"""The comparison of an account of 5,000 machines with our rows, and how many calls an account at rest costs."""

from __future__ import annotations

import time

from django.conf import settings

from providers import clock, registry
from sessions import reconcile, ssh, wake
from sessions.models import Account, Instance, Session
from tests.bench import crowd
from tests.bench.figure import Figure
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider

MACHINES = 5_000
AN_HOUR = 3600


def run() -> list[Figure]:
    wake.publish = lambda task, argument, queue: None  # no broker here: what is measured is the comparison
    seconds = _reconciled()
    few, many = _calls_at_rest(10), _calls_at_rest(300)
    return [
        Figure("reconcile_5000_instances_seconds", seconds, "s", 10, "of our own time; the slowest of three"),
        Figure("calls_at_rest_growth", many / few, "ratio", 1.0,
               f"calls in a virtual hour: {few} with 10 sessions, {many} with 300 (pages of the listing not counted)"),
    ]  # fmt: skip


def _reconciled() -> float:
    provider = FakeProvider()
    registry.use({"fake": provider})
    now = clock.now()
    machines = crowd.running(MACHINES, now, settings.DEPLOYMENT_ID, settings.TAG_KEYS[0])
    provider.listed = {machine.id: machine for machine in machines}
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        outcome = reconcile.reconcile("fake", even_if_not_due=True)
        taken.append(time.perf_counter() - began)
        assert outcome is not None and outcome.ours == MACHINES, outcome
    return max(taken)


def _calls_at_rest(sessions: int) -> int:
    for model in (Instance, Session, Account):
        model.objects.all().delete()
    told = FakeClock(clock.now())
    before_clock, before_guests = clock.use(told), ssh.use(FakeGuests())
    try:
        provider = FakeProvider()
        registry.use({"fake": provider})
        machines = crowd.running(sessions, told.now(), settings.DEPLOYMENT_ID, settings.TAG_KEYS[0])
        provider.listed = {machine.id: machine for machine in machines}
        engine = Engine(told)
        for _ in range(AN_HOUR // 10):
            engine.settle()
            told.advance(10)
        return len(provider.asked)
    finally:
        clock.use(before_clock)
        ssh.use(before_guests)
