"""SQLite's one write lock, and the queue of this process's threads in front of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.utils import DatabaseError, OperationalError

from gpushopper.sqlite.base import DatabaseWrapper

WITHIN = 5.0
pytestmark = pytest.mark.django_db


@pytest.fixture
def open_it(tmp_path: Path) -> Iterator[Callable[..., DatabaseWrapper]]:
    """A connection to a file of its own, as a thread opens one; `timeout` is its patience in seconds."""
    opened = []

    def connect(timeout: float = WITHIN) -> DatabaseWrapper:
        known: dict[str, Any] = {**connections.settings["default"], "NAME": str(tmp_path / "rows.db")}
        options = {"timeout": timeout, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
        made = DatabaseWrapper({**known, "OPTIONS": options}, "default")
        made.inc_thread_sharing()
        made.connect()
        opened.append(made)
        return made

    with connect().cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (number INTEGER UNIQUE)")
    yield connect
    for each in opened:
        each.close()


def write(connection: DatabaseWrapper, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept (number) VALUES (%s)", [number])


def numbers(connection: DatabaseWrapper) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM kept ORDER BY number")
        return [number for (number,) in cursor.fetchall()]


def begin(connection: DatabaseWrapper) -> None:
    connection._start_transaction_under_autocommit()


def test_a_second_writer_waits_for_the_first_and_goes_on_the_moment_it_is_done(open_it: Any) -> None:
    first, second = open_it(), open_it()
    begin(first)
    write(first, 1)
    written = threading.Event()

    def wait_and_write() -> None:
        write(second, 2)
        written.set()

    waits = threading.Thread(target=wait_and_write, daemon=True)
    waits.start()
    assert not written.wait(0.05)
    assert numbers(open_it()) == [], "who only reads waits for nobody"
    first._commit()
    assert written.wait(WITHIN)
    waits.join(WITHIN)
    assert numbers(first) == [1, 2]


def test_a_transaction_that_fails_or_is_cut_off_gives_its_turn_back(open_it: Any) -> None:
    first, second = open_it(timeout=0.05), open_it(timeout=0.05)
    write(first, 1)
    with pytest.raises(DatabaseError):
        write(first, 1)  # A single statement that fails,
    begin(first)
    with pytest.raises(DatabaseError):
        write(first, 1)
    first._rollback()  # a transaction that is rolled back,
    write(second, 2)
    begin(first)
    write(first, 3)
    first.close()  # and a connection that is closed in the middle of one.
    write(second, 4)
    assert numbers(second) == [1, 2, 4]


def test_patience_ends_and_says_why(open_it: Any) -> None:
    first, hasty = open_it(), open_it(timeout=0.05)
    begin(first)
    with pytest.raises(OperationalError, match=r"database is locked: another thread has been writing for 0\.05 s"):
        write(hasty, 1)
    with pytest.raises(OperationalError, match="database is locked"):
        begin(hasty)
    first._commit()
    write(hasty, 1)
    assert numbers(hasty) == [1]


def test_another_process_that_writes_is_waited_for_as_ever(open_it: Any, tmp_path: Path) -> None:
    """As SQLite's own lock is: here a connection that knows of no queue."""
    import sqlite3

    ours = open_it(timeout=0.05)
    with sqlite3.connect(tmp_path / "rows.db", isolation_level=None) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="database is locked"):
            begin(ours)
        stranger.execute("COMMIT")
    write(ours, 1)
    assert numbers(ours) == [1]


@pytest.mark.django_db(transaction=True)
def test_the_service_uses_it() -> None:
    assert isinstance(connections["default"], DatabaseWrapper)
    with transaction.atomic():
        assert connections["default"]._has_turn
    assert not connections["default"]._has_turn
