"""The summary of a month over 100,000 usage intervals, and what a long history before it costs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

from django.conf import settings
from django.db import connection
from rest_framework.test import APIClient

from costs.days import Days, day_of, month_of
from costs.metering import GRAINS, Rates, within
from costs.models import UsageInterval
from gpushopper.models import ApiKey, Consumer, make_key
from providers import clock
from sessions.models import Instance, Session
from tests.bench.figure import Figure, p50
from tests.fakes import FakeClock
from tests.production.servers import NotInstalled, Postgres

INTERVALS = 100_000
CONSUMERS, GPUS = 20, ("RTX 4090", "H100", "A100", "L40S", "RTX 3090")
ROUNDS = 15
TARGETS = {"sqlite": 200.0, "postgresql": 100.0}


def run() -> list[Figure]:
    return [*here(), *_on_postgresql()]


def _on_postgresql() -> list[Figure]:
    """The same over a real server, in a process of its own; nothing where there is no wheel of it."""
    try:
        server = Postgres()
    except NotInstalled:
        return []
    try:
        env = {**os.environ, "DATABASE_URL": server.database("bench")}
        command = [sys.executable, "-m", "tests.bench.costs_on_postgresql"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=True)
    finally:
        server.close()
    return [Figure(**told) for told in json.loads(done.stdout.splitlines()[-1])]


def here() -> list[Figure]:
    """Over the database of this process."""
    settings.ALLOWED_HOSTS = ["*"]
    now = datetime.fromisoformat("2026-01-31T18:00:00+00:00")
    clock.use(FakeClock(now))
    key = make_key(Consumer.objects.create(name="ops"), ApiKey.Role.OPERATOR)[1]
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {key}")
    month = month_of(day_of(now))
    _fill(month, now)
    target = TARGETS[connection.vendor]
    name = f"month_summary_100000_{connection.vendor}"
    alone = _p50(lambda: _get(client, "/api/v1/costs/summary"))
    series = _p50(lambda: _get(client, "/api/v1/costs/summary?period=daily"))
    _fill(month_of(month.first - timedelta(days=1)), now)
    later = _p50(lambda: _get(client, "/api/v1/costs/summary"))
    return [
        Figure(f"{name}_ms", alone, "ms", target, "p50 of the whole request, over all consumers"),
        Figure(f"{name}_daily_ms", series, "ms", None, "p50, with a series of 31 days"),
        Figure(f"{name}_after_another_ms", later, "ms", None, "p50, with as many intervals in the month before"),
    ]


def _get(client: APIClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content


def _p50(ask: Callable[[], None]) -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1000)
    return p50(taken)


def _fill(days: Days, now: datetime) -> None:
    """Two intervals for each machine, one machine for each session, spread over the month; one in 500 still open."""
    chance = random.Random(7)
    sessions, machines, intervals = [], [], []
    span = (min(days.until, now) - days.since).total_seconds()
    for number in range(INTERVALS // 2):
        consumer, gpu, provider = (
            f"c{number % CONSUMERS}",
            GPUS[number % len(GPUS)],
            ("vastai", "tensordock")[number % 2],
        )
        session = Session(
            id=uuid4(), consumer=consumer, provider=provider, offer_id=str(number), gpu_type=gpu, gpu_count=1,
            vram_gb=24, price=400_000, disk_gb=50, reservation=timedelta(hours=4), status="stopped", ssh_public_key="",
        )  # fmt: skip
        machine = Instance(id=uuid4(), session=session, provider=provider, tag=uuid4().hex, gpu_type=gpu,
                           machine_id=uuid4().hex, deadline=now, hard_deadline=now, state="destroyed")  # fmt: skip
        start = days.since + timedelta(seconds=chance.random() * span)
        middle, end = (min(start + timedelta(hours=hours * chance.random()), now) for hours in (2, 4))
        is_open = number % 250 == 0 and days.until > now
        sessions.append(session)
        machines.append(machine)
        rate = Rates(chance.randint(100_000, 4_000_000), chance.randint(1_000, 50_000))
        intervals += [_interval(machine, start, middle, rate), _interval(machine, middle, max(middle, end), rate)]
        if is_open:
            intervals[-1] = _interval(machine, middle, None, rate)
    for model, made in ((Session, sessions), (Instance, machines), (UsageInterval, intervals)):
        model.objects.bulk_create(made, batch_size=2000)  # type: ignore[attr-defined]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def _interval(machine: Instance, start: datetime, end: datetime | None, rate: Rates) -> UsageInterval:
    used = within(start, end or start, rate)
    compute, storage = divmod(used.compute, GRAINS), divmod(used.storage, GRAINS)
    return UsageInterval(
        instance=machine, session=machine.session, consumer=machine.session.consumer, provider=machine.provider,
        gpu_type=machine.gpu_type, started_at=start, ended_at=end, compute=rate.compute, storage=rate.storage,
        compute_micros=compute[0], compute_grains=compute[1], storage_micros=storage[0], storage_grains=storage[1],
        microseconds=used.microseconds,
    )  # fmt: skip
