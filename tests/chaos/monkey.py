"""What goes wrong, when, by seed; and the supervisor that starts again whatever was killed."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.chaos.field import Field
from tests.production.stack import Process

# Longer than a lease (30 s): whoever wakes up finds that somebody else went on.
FROZEN_FOR = (33.0, 40.0)
RESTART_AFTER = 1.0  # seconds, as a container manager does it

# Weather of the providers: switch, its value. Each lasts some seconds and hits by chance, so that some calls
# go through. None of it makes a healthy machine useless, so no session has a reason to be ended by it.
WEATHER: list[tuple[str, dict[str, Any]]] = [
    ("call.lost_after", {"chance": 0.3}),
    ("call.lost_before", {"chance": 0.3}),
    ("call.http_500", {"chance": 0.5}),
    ("call.http_500_after", {"chance": 0.3}),
    ("call.html_502", {"chance": 0.5}),
    ("call.garbage", {"chance": 0.3}),
    ("call.empty", {"chance": 0.3}),
    ("call.unauthorized", {}),
    ("call.rate_limited", {"chance": 0.4}),
    ("create.stale", {"chance": 0.5}),
    ("create.success_false_with_id", {"chance": 0.5}),
    ("create.late_row", {"value": 8, "chance": 0.5}),
    ("create.phantom", {"chance": 0.5}),
    ("create.duplicate", {"chance": 0.5}),
    ("list.lag", {"value": 6}),
    ("list.hide", {"chance": 0.3}),
    ("list.page_500", {}),
    ("destroy.swallow", {"chance": 0.7}),
    ("destroy.http_500", {"chance": 0.7}),
    ("destroy.late", {"value": 5}),
    ("destroy.linger", {"value": 5}),
]
OUTAGES = ("call.http_500", "call.unauthorized")  # at times whole: nothing at one provider answers


class Monkey:
    def __init__(self, field: Field, seed: int) -> None:
        self.field = field
        self.chance = random.Random(f"monkey-{seed}")
        self.tally: Counter[str] = Counter()
        self.harm: list[tuple[float, str]] = []  # when (wall clock), what: for whoever reads a failure
        self.bad_weather: list[tuple[float, float]] = []  # from, until (wall clock)
        self._start_at: dict[str, float] = {}
        self._wake_at: dict[str, float] = {}

    @property
    def kills(self) -> int:
        return sum(times for what, times in self.tally.items() if what.startswith("killed_"))

    def rampage(self, seconds: float, pause: tuple[float, float] = (1.0, 4.0)) -> None:
        until = time.monotonic() + seconds
        next_at = time.monotonic() + self.chance.uniform(*pause)
        while (now := time.monotonic()) < until:
            self.supervise()
            if now >= next_at:
                self._do_harm()
                next_at = now + self.chance.uniform(*pause)
            time.sleep(0.1)

    def calm(self) -> None:
        """No more harm: the sky clears, whoever is frozen wakes up, whoever is dead comes back."""
        self.field.sandbox.weather(clear=True)
        self._wake_at = dict.fromkeys(self._wake_at, 0.0)
        self._start_at = dict.fromkeys(self._start_at, 0.0)
        self.supervise()

    def supervise(self) -> None:
        now = time.monotonic()
        for process in self.field.victims:
            if self._wake_at.get(process.name, now) < now:
                process.send(signal.SIGCONT)
                del self._wake_at[process.name]
            if not process.alive:
                self._wake_at.pop(process.name, None)
                if now >= self._start_at.setdefault(process.name, now + RESTART_AFTER):
                    del self._start_at[process.name]
                    process.again()
                    self.tally["restarts"] += 1

    def _do_harm(self) -> None:
        ways: list[tuple[float, Callable[[], str | None]]] = [
            (9, self._kill), (2, self._freeze), (2, self._flush), (1.5, self._restart_postgres),
            (1, self._restart_redis), (6, self._change_weather), (0.5, self._kill_everything),
        ]  # fmt: skip
        way = self.chance.choices([way for _, way in ways], [weight for weight, _ in ways])[0]
        if (what := way()) is not None:
            self.harm.append((time.time(), what))

    def _kill(self) -> str | None:
        alive = [process for process in self.field.victims if process.alive]
        if not alive:
            return None
        victim = self.chance.choice(alive)
        victim.kill()
        self.tally[f"killed_{victim.name.split('-')[0]}"] += 1
        return f"kill -9 {victim.name}"

    def _kill_everything(self) -> str:
        for process in self.field.victims:
            process.kill()
        self.tally["killed_everything"] += 1
        return "kill -9 of everything"

    def _freeze(self) -> str | None:
        awake = [process for process in self.field.freezable if process.alive and process.name not in self._wake_at]
        if not awake:
            return None
        victim: Process = self.chance.choice(awake)
        victim.send(signal.SIGSTOP)
        self._wake_at[victim.name] = time.monotonic() + self.chance.uniform(*FROZEN_FOR)
        self.tally["frozen"] += 1
        return f"SIGSTOP {victim.name}"

    def _flush(self) -> str:
        self.field.redis.flush()
        self.tally["redis_flushed"] += 1
        return "FLUSHALL"

    def _restart_redis(self) -> str:
        self.field.redis.stop()
        self.field.redis.start()
        self.tally["redis_restarted"] += 1
        return "Redis restarted"

    def _restart_postgres(self) -> str:
        self.field.postgres.restart()
        self.tally["postgres_restarted"] += 1
        return "PostgreSQL restarted, immediate"

    def _change_weather(self) -> str:
        seconds = self.chance.uniform(3, 12)
        if self.chance.random() < 0.2:
            switch, more = self.chance.choice(OUTAGES), {"provider": self.chance.choice(("vastai", "tensordock"))}
        else:
            switch, more = self.chance.choice(WEATHER)
        self.field.sandbox.weather(set={switch: {**more, "seconds": seconds}})
        self.bad_weather.append((time.time(), time.time() + seconds))
        self.tally["weather"] += 1
        return f"{switch} {more} for {seconds:.0f} s"
