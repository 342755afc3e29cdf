"""Several processes on one provider key keep one pace."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, connection

from gpushopper import pacing, wiring
from gpushopper.models import Pace
from gpushopper.pacing import NONSENSE, SharedPacer
from providers.http import LONGEST_WAIT
from tests.fakes import FakeClock

pytestmark = pytest.mark.django_db


def test_a_second_process_waits_for_the_slot_of_the_first(virtual: FakeClock) -> None:
    one, other = SharedPacer(), SharedPacer()
    assert [one.reserve("key", 3.0), other.reserve("key", 3.0), one.reserve("key", 3.0)] == [0.0, 3.0, 6.0]


def test_other_keys_are_not_held_up(virtual: FakeClock) -> None:
    SharedPacer().reserve("key", 10.0)
    assert SharedPacer().reserve("another", 10.0) == 0.0


def test_a_slot_too_far_away_is_told_and_not_booked(virtual: FakeClock) -> None:
    one, other = SharedPacer(), SharedPacer()
    one.reserve("key", LONGEST_WAIT + 5)
    assert [other.reserve("key", 1.0) for _ in range(3)] == [LONGEST_WAIT + 5] * 3


def test_a_penalty_that_one_process_met_holds_for_the_others_also_without_an_interval(virtual: FakeClock) -> None:
    SharedPacer().reserve("key", 12.0)
    assert SharedPacer().reserve("key", 0.0) == 12.0


def test_a_call_without_an_interval_writes_nothing(virtual: FakeClock) -> None:
    assert SharedPacer().reserve("key", 0.0) == 0.0
    assert not Pace.objects.exists()


def test_a_row_of_a_clock_that_was_wrong_holds_nobody_up(virtual: FakeClock) -> None:
    Pace.objects.create(key="key", free_at=virtual.now() + NONSENSE + timedelta(seconds=1))
    assert SharedPacer().reserve("key", 1.0) == 0.0


def test_without_its_table_calls_go_out_at_the_process_own_pace(virtual: FakeClock) -> None:
    pacer = SharedPacer()
    with mock.patch.object(pacing, "_book", side_effect=OperationalError("the database is away")) as book:
        assert [pacer.reserve("key", 3.0), pacer.reserve("key", 3.0)] == [0.0, 3.0]
        assert book.call_count == 1  # the others do not each wait for it again
        virtual.advance(pacing.ALONE_FOR)
        pacer.reserve("key", 3.0)
        assert book.call_count == 2


def test_the_pace_of_the_process_itself_goes_on_when_the_database_goes_away(virtual: FakeClock) -> None:
    pacer = SharedPacer()
    pacer.reserve("key", 8.0)
    with mock.patch.object(pacing, "_book", side_effect=OperationalError("the database is away")):
        assert pacer.reserve("key", 8.0) == 8.0


def test_only_several_processes_need_it(settings: Any) -> None:
    settings.EMBEDDED = True
    assert wiring._pacer() is None
    settings.EMBEDDED, settings.PROVIDER_ENV = False, {}
    assert isinstance(wiring._pacer(), SharedPacer)
    settings.PROVIDER_ENV = {"PROVIDER_PACING": "off"}
    assert wiring._pacer() is None


@pytest.mark.skipif(connection.vendor == "sqlite", reason="needs connections of their own: test_postgresql runs it")
@pytest.mark.django_db(transaction=True)
def test_no_two_of_many_callers_at_once_get_one_slot(virtual: FakeClock) -> None:
    """Real threads with connections of their own; the clock stands still, so every slot must differ."""
    slots: list[float] = []
    together = threading.Barrier(6)

    def caller() -> None:
        pacer = SharedPacer()
        together.wait(10)
        try:
            slots.extend(pacer.reserve("key", 1.0) for _ in range(2))
        finally:
            connection.close()

    threads = [threading.Thread(target=caller) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(slots) == [float(n) for n in range(12)]
