"""Real servers, one of each for a run. They are skipped only where no wheel of them can be installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.production.servers import NotInstalled, Postgres, Redis
from tests.production.stack import Stack, deployment_env


def _started(server: Callable[[], Any]) -> Any:
    try:
        return server()
    except NotInstalled as missing:
        warnings.warn(str(missing), stacklevel=1)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = _started(Postgres)
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    server = _started(Redis)
    yield server
    server.close()


@pytest.fixture
def stack(postgres: Postgres, redis_server: Redis, tmp_path: Path) -> Iterator[Stack]:
    """A deployment with a fresh, migrated database; none of its processes runs yet."""
    redis_server.flush()
    env = deployment_env(postgres.database("stack"), redis_server.url, tmp_path / "data")
    made = Stack(env, tmp_path)
    migrated = made.manage("migrate", "--noinput")
    assert migrated.returncode == 0, migrated.stderr
    yield made
    made.close()
