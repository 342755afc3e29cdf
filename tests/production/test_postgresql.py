"""What depends on the database holds on PostgreSQL too: the tests of it, run again over a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.production.servers import Postgres
from tests.production.stack import ROOT

pytestmark = [pytest.mark.xdist_group("postgresql"), pytest.mark.real_time]

# Claims, guarded writes, unique rows, races, sorting, JSON and text: whole lives and every query of the API.
SUITE = [
    "tests/sessions/test_life.py",
    "tests/inventory",
    "tests/costs/test_budget_races.py",
    "tests/production/test_pacing.py",
]
# Many virtual minutes each, which on PostgreSQL are many real seconds, and nothing in them that others lack.
TOO_LONG = (
    "many_unknown or without_effect or never_answers or removed_our_key or made_nothing or hour_of_trouble "
    "or comes_back or outage"
)
AT_LEAST = 60
WITHIN = 300.0


def test_the_suite_of_what_the_database_decides_passes_on_postgresql(postgres: Postgres) -> None:
    env = {**os.environ, "TEST_DATABASE_URL": postgres.url("suite")}
    # A run of its own: nothing of the workers of this one.
    env = {name: value for name, value in env.items() if not name.startswith(("PYTEST_XDIST", "PYTEST_CURRENT"))}
    suite = [path for path in SUITE if (ROOT / path).exists()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", f"not ({TOO_LONG})", *suite],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    ran = sum(line.count(".") for line in re.findall(r"^([.sx]+)(?: +\[|$)", done.stdout, re.MULTILINE))
    assert ran >= AT_LEAST, done.stdout
