"""One run: start everything, let it rain, let it rest, judge."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import requests
from psycopg.rows import dict_row

from tests.chaos.field import Engine, Field
from tests.chaos.judge import Evidence, Verdict, instants, judge
from tests.chaos.monkey import Monkey
from tests.chaos.renters import Renters

# Rest is over when nothing has stirred for this long: later than any late row, any lease and any new look.
QUIET_FOR = 10.0
REST_AT_MOST = 240.0

SESSIONS = "SELECT id, status, end_reason, wished_at, expires_at FROM gpu_sessions_session"
INSTANCES = """SELECT id, session_id, provider, machine_id, tag, state, end_reason, deadline, adopted_at, verified_at
               FROM gpu_sessions_instance"""
ENDINGS = """SELECT instance_id AS id, min(at) AS at FROM gpu_sessions_event
             WHERE kind = 'instance_destroying' OR kind = 'orphan_adopted' GROUP BY instance_id"""
UNSETTLED = """SELECT (SELECT count(*) FROM gpu_sessions_session WHERE status NOT IN ('stopped', 'failed'))
                    + (SELECT count(*) FROM gpu_sessions_instance WHERE state <> 'destroyed')"""


def run(engine: Engine, minutes: float, seed: int) -> tuple[dict[str, Any], list[str], str]:
    """The figures, the violations, and what the processes said last."""
    began = time.monotonic()
    field = Field(engine, seed)
    try:
        started = time.monotonic()
        renters, monkey = Renters(field, seed), Monkey(field, seed)
        renters.start()
        monkey.rampage(minutes * 60)
        renters.stop_asking()
        monkey.calm()
        rested = _rest(field, monkey, renters)
        renters.stop()
        verdict = _judged(field, monkey)
        if not rested:
            verdict.violations.append(f"it did not come to rest within {REST_AT_MOST:.0f} s")
        figures = {
            "engine": engine, "seed": seed, "minutes": minutes, **verdict.counts,
            "harm": dict(sorted(monkey.tally.items())), "kills": monkey.kills,
            "requests": dict(sorted(renters.tally.items())),
            "start_seconds": round(started - began, 1), "wall_seconds": round(time.monotonic() - began, 1),
            "violations": verdict.violations,
        }  # fmt: skip
        story = "\n".join(f"{_instant(at):%H:%M:%S} {what}" for at, what in monkey.harm)
        return figures, verdict.violations, f"{story}\n{field.what_they_said()}"
    finally:
        field.close()


def _rest(field: Field, monkey: Monkey, renters: Renters) -> bool:
    give_up = time.monotonic() + REST_AT_MOST
    quiet_since: float | None = None
    while time.monotonic() < give_up:
        monkey.supervise()
        if renters.busy or _stirs(field):
            quiet_since = None
        else:
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since >= QUIET_FOR:
                return True
        time.sleep(0.5)
    return False


def _stirs(field: Field) -> bool:
    with _connected(field) as connection:
        found = connection.execute(UNSETTLED).fetchone()
    prefix = f"gs-{field.deployment}-"
    alive = [m for m in _machines(field) if m["destroyed_at"] is None and (m["label"] or "").startswith(prefix)]
    return bool(found and next(iter(found.values()))) or bool(alive)


def _connected(field: Field) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(host=str(field.postgres.folder), user="postgres", dbname="chaos", row_factory=dict_row)


def _machines(field: Field) -> list[dict[str, Any]]:
    return instants(field.sandbox.truth()["machines"], "created_at", "destroyed_at")


def _judged(field: Field, monkey: Monkey) -> Verdict:
    with _connected(field) as connection:
        sessions = connection.execute(SESSIONS).fetchall()
        instances = connection.execute(INSTANCES).fetchall()
        endings = {row["id"]: row["at"] for row in connection.execute(ENDINGS)}
    return judge(
        Evidence(
            machines=_machines(field), sessions=sessions, instances=instances, endings=endings,
            deployment=field.deployment, creates=field.sandbox.truth()["creates"], costs=_costs(field),
            bad_weather=[(_instant(begin), _instant(end)) for begin, end in monkey.bad_weather],
        )
    )  # fmt: skip


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _costs(field: Field) -> dict[str, int]:
    """By session: what the API says that it has cost, in micro-dollars."""
    answer = requests.get(f"{field.urls[0]}/api/v1/sessions?limit=500", headers=field.headers, timeout=60)
    return {row["id"]: round(row["cost_so_far"] * 1_000_000) for row in answer.json()["sessions"]}
