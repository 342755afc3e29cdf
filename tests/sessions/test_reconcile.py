"""What a listing writes down, when it comes late, fails, or meets rows that were not there when it began."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from providers import clock, tag
from providers.base import Machine, NotUnderstood, Unauthorized, Unavailable
from sessions import reconcile
from sessions.lifecycle import State
from sessions.models import Account, Instance, Stranger
from tests.fakes import FakeClock, FakeProvider

pytestmark = pytest.mark.django_db

KNOWLEDGE = ("looked_at", "seen_at", "denied_at", "misses", "useless_looks", "machine_state", "missed_at", "state")


@pytest.fixture
def label(virtual: FakeClock, settings: Any) -> str:
    return tag.mint(settings.DEPLOYMENT_ID, virtual.now() + timedelta(hours=5), settings.TAG_KEYS[0])


def instance(state: State, **known: Any) -> Instance:
    now = clock.now()
    day = now + timedelta(days=1)
    plain = {"provider": "fake", "launched_at": now, "created_at": now, "deadline": day, "hard_deadline": day}
    return Instance.objects.create(state=state, **{**plain, **known})


def listing() -> reconcile.Outcome:
    outcome = reconcile.reconcile("fake", even_if_not_due=True)
    assert outcome is not None
    return outcome


def while_it_is_listed(provider: FakeProvider, meanwhile: Any, *, shows: str) -> None:
    """`meanwhile` happens when the listing has begun; what it shows is from its "beginning" or its "end"."""
    plain = provider.machines

    def machines() -> Sequence[Machine]:
        before = plain()
        meanwhile()
        return before if shows == "beginning" else plain()

    provider.machines = machines  # type: ignore[method-assign]


def test_a_machine_whose_row_was_written_during_the_listing_is_no_stranger(
    provider: FakeProvider, virtual: FakeClock, label: str
) -> None:
    def rent() -> None:
        virtual.advance(1)
        instance(State.LAUNCHING, tag=label)
        provider.add(label)

    while_it_is_listed(provider, rent, shows="end")
    outcome = listing()
    assert (outcome.ours, outcome.adopted) == (1, [])
    assert not Stranger.objects.exists()
    assert Instance.objects.get().machine_id in provider.listed


def test_a_listing_from_before_the_create_is_no_miss(provider: FakeProvider, virtual: FakeClock, label: str) -> None:
    def rent() -> None:
        virtual.advance(1)
        instance(State.BOOTING, tag=label, machine_id=provider.add(label))

    while_it_is_listed(provider, rent, shows="beginning")
    outcome = listing()
    assert outcome.missed == 0
    assert Instance.objects.get().misses == 0


def test_a_listing_from_before_the_destroy_is_no_miss(provider: FakeProvider, virtual: FakeClock, label: str) -> None:
    row = instance(State.DESTROYING, tag=label, machine_id="7", seen_at=virtual.now())

    def ask() -> None:
        virtual.advance(1)
        Instance.objects.filter(pk=row.pk).update(asked_at=virtual.now())

    virtual.advance(5)
    while_it_is_listed(provider, ask, shows="beginning")
    listing()
    row.refresh_from_db()
    assert row.misses == 0


@pytest.mark.parametrize("verb", ["machines", "account"])
@pytest.mark.parametrize("error", [Unavailable("502"), NotUnderstood("?"), Unauthorized("auth_error")])
def test_an_outage_moves_none_of_the_instants_that_knowledge_is_made_of(
    provider: FakeProvider, virtual: FakeClock, label: str, error: Exception, verb: str
) -> None:
    instance(State.LAUNCHING, tag=label)
    instance(State.BOOTING, tag="b", machine_id=provider.add("b"))
    instance(State.RUNNING, tag="c", machine_id="7")
    instance(State.DESTROYING, tag="d", machine_id="8", asked_at=virtual.now())
    Account.objects.update(identified_at=None)
    before = list(Instance.objects.order_by("tag").values(*KNOWLEDGE))
    provider.trouble = {verb: [error] * 100}
    for _ in range(5):
        virtual.advance(60)
        assert listing().error
    assert list(Instance.objects.order_by("tag").values(*KNOWLEDGE)) == before
    assert not Stranger.objects.exists()


def test_a_listing_that_comes_late_takes_nothing_back(provider: FakeProvider, virtual: FakeClock, label: str) -> None:
    """Begun before the proof, written after it: it shows a machine that is gone since, and is no resurrection."""
    row = instance(State.DESTROYING, tag=label, machine_id=provider.add(label))

    def end() -> None:
        virtual.advance(40)
        Instance.objects.filter(pk=row.pk).update(
            state=State.DESTROYED, ended_at=virtual.now(), looked_at=virtual.now(), misses=2
        )

    while_it_is_listed(provider, end, shows="beginning")
    outcome = listing()
    row.refresh_from_db()
    assert outcome.resurrected == []
    assert row.state == State.DESTROYED
