"""The short campaigns. `make simulate FULL=1` runs all of it; a failure names the one command that repeats it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Much longer than any of them takes alone on one core.
PATIENCE = 540.0


def simulated(*words: str) -> dict[str, Any]:
    """What a campaign found. It needs a process of its own, since it forks at each boundary."""
    command = [sys.executable, "-m", "tests.simulation", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_clean(found: dict[str, Any]) -> None:
    assert found["failures"] == []
    assert found["orphans"] == 0
    assert found["false_kills"] == 0
    # 99 in 100 are gone within five minutes; that none takes more than fifteen is judged in each run.
    assert found["orphan_seconds_p99"] <= 300


def test_a_death_at_any_boundary_leaves_no_orphan_and_kills_nothing_healthy() -> None:
    found = simulated("kill")
    assert_clean(found)
    assert found["kills"] >= 1000


def test_every_life_is_lived_well_whoever_does_the_work() -> None:
    found = simulated("lives", "--in-turn")
    assert_clean(found)
    assert found["runs"] > 35


def test_a_worker_that_wakes_up_too_late_decides_nothing() -> None:
    found = simulated("kill", "plain_life", "extension", "--how", "pause", "--every", "4")
    assert_clean(found)
    assert found["pauses"] > 50


def test_a_full_disk_costs_time_and_no_machine() -> None:
    found = simulated("kill", "plain_life", "a_lost_create_answer", "--how", "disk", "--every", "9")
    assert_clean(found)
    assert found["runs"] > 25


def test_all_weathers_with_deaths_in_them() -> None:
    found = simulated("sample", "--seed", "7", "--number", "16", "--kills", "2")
    assert_clean(found)


def test_long_lives_by_chance() -> None:
    found = simulated("random", "--seed", "2", "--number", "2", "--hours", "6")
    assert_clean(found)
    assert found["kills"] > 0
