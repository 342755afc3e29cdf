"""Kill everything, at random, for two minutes: no machine outlives its session, none is killed while it is wanted.

Real processes, real servers. The seeds are fixed here, though what happens when is up to the machine;
`make chaos` takes another one each time, for as long as one likes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.chaos.campaign import REST_AT_MOST
from tests.chaos.field import READY_WITHIN, Engine
from tests.production.servers import NotInstalled, Redis
from tests.production.stack import ROOT

pytestmark = [pytest.mark.xdist_group("chaos"), pytest.mark.real_time]


def ran(engine: Engine, minutes: float, seed: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--engine", engine, "--minutes", str(minutes), "--seed", str(seed)],
        cwd=ROOT, capture_output=True, text=True, timeout=READY_WITHIN + minutes * 60 + 2 * REST_AT_MOST, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
    return dict(json.loads(done.stdout))


@pytest.fixture(autouse=True, scope="module")
def servers_can_be_had() -> None:
    try:
        Redis().close()
    except NotInstalled as missing:
        pytest.skip(str(missing))


# Either engine without the other, for less long: `make test ARGS='-m long'`, and `make chaos ENGINE=…`.
ALONE = [pytest.param(engine, 0.4, 1, marks=pytest.mark.long) for engine in ("celery", "guardian")]


@pytest.mark.parametrize(("engine", "minutes", "kills"), [("both", 2.0, 10), *ALONE])
def test_whatever_is_killed_nothing_is_left_behind_and_nothing_is_ended_too_soon(
    engine: Engine, minutes: float, kills: int
) -> None:
    figures = ran(engine, minutes, seed=7)
    assert figures["violations"] == []
    assert (figures["orphans"], figures["false_kills"], figures["strangers_touched"]) == (0, 0, 0)
    # It was no quiet day: something was rented at all, and something was killed.
    assert figures["kills"] >= kills
    assert figures["machines"] >= 3
    assert figures["strangers"] > 0
    # Until a listing lacks a machine it is counted; with every eye frozen or killed that may be half a minute more.
    assert figures["worst_cost_difference_usd"] <= 0.05
