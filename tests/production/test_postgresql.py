"""What depends on the database holds on PostgreSQL too: the tests of it, run again over a real server."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys

import psycopg
import pytest

from gpushopper.auditor import WELL, WRONG
from providers import clock
from providers.sandbox.server import SandboxServer
from providers.sandbox.world import World
from tests.production.servers import Postgres
from tests.production.stack import ROOT, Stack

pytestmark = [pytest.mark.xdist_group("postgresql"), pytest.mark.real_time]

# Claims, guarded writes, unique rows, races, sorting, JSON and text: whole lives and every query of the API.
SUITE = [
    "tests/sessions/test_life.py",
    "tests/sessions/test_locks.py",
    "tests/inventory",
    "tests/costs/test_budget_races.py",
    "tests/costs/test_spending_page.py",
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


def test_the_auditor_needs_no_more_than_to_read(stack: Stack, postgres: Postgres) -> None:
    reader = postgres.reader("stack")
    with psycopg.connect(reader.replace("postgres://", "postgresql://"), autocommit=True) as connection:
        before = connection.execute("SELECT count(*) FROM gpushopper_pace").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM gpushopper_pace")
        server = SandboxServer(World(clock, random.Random(1), boot="demo", offers=4))
        server.start()
        keys = {name: value for name, value in server.environment().items() if name != "PROVIDER_PACING"}
        try:
            done = stack.manage("audit", "--json", DATABASE_URL=reader, **keys)
        finally:
            server.stop()
        told = {(finding["subject"], finding["verdict"]) for finding in json.loads(done.stdout)["findings"]}
        assert {("vastai", WELL), ("tensordock", WELL), ("promises", WELL)} <= told, "it has seen everything"
        assert ("engines", WRONG) in told, "nobody is at work here"
        assert connection.execute("SELECT count(*) FROM gpushopper_pace").fetchone() == before
