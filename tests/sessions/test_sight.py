"""What is concluded from looks that were late, broken off, of another account, or of names that are anybody's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import paramiko
import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from rest_framework.test import APIClient

from providers import registry, tag
from providers.base import Account as Identity
from providers.base import Machine, MachineState, NotSent, SshTarget, Unavailable
from sessions import engine as engines
from sessions import reconcile, rows, ssh
from sessions.lifecycle import State
from sessions.management import proof
from sessions.models import Account, Instance
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db


def only(provider: FakeProvider) -> tuple[str, Machine]:
    [(machine_id, machine)] = provider.listed.items()
    return machine_id, machine


def look(provider: str = "fake") -> reconcile.Outcome:
    outcome = reconcile.reconcile(provider, even_if_not_due=True)
    assert outcome is not None
    return outcome


# --- Whose machine is it? ---------------------------------------------------------------------------------


class OtherAccount(FakeProvider):
    def account(self) -> Identity:
        self._asked("account")
        return Identity(id="another")


def test_a_new_process_asks_whose_account_its_key_opens(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    order(alice, reservation_hours=3)
    engine.run(60)
    registry.use({"fake": OtherAccount(quotes=provider.menu)})
    engines.forget()
    engine.run(900)
    assert Instance.objects.get().state == State.RUNNING, "what another account lists says nothing about it"


@pytest.mark.usefixtures("unhurried")
def test_an_id_in_another_account_is_another_machine(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    order(alice, reservation_hours=0.25)
    engine.run(60)
    machine_id, _ = only(provider)
    other = OtherAccount(quotes=provider.menu)
    other.listed[machine_id] = Machine(id=machine_id, label="somebody's box", state=MachineState.UP)
    registry.use({"fake": other})
    engine.run(3600)
    assert other.listed
    assert other.count("destroy") == 0


def test_a_label_says_more_than_the_name_of_the_account(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice, reservation_hours=0.5)
    engine.run(60)
    provider.account = lambda: Identity(id="user:known by another name")  # type: ignore[method-assign]
    engine.run(1500)
    assert provider.count("destroy") == 0
    assert shown(alice, session)["status"] == "running"
    engine.run(600)
    assert not provider.listed, "and at its deadline it ends, under whatever name"
    assert shown(alice, session)["status"] == "stopped"


def test_an_id_that_is_given_out_again_is_not_ours_any_more(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    engine.run(5)
    machine_id, _ = only(provider)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(90)
    assert shown(alice, session)["status"] == "stopped"
    provider.listed[machine_id] = Machine(id=machine_id, label="somebody's box", state=MachineState.UP)
    engine.run(900)
    assert provider.listed


@pytest.mark.parametrize("label", ["half an emoji \ud83d", "n\0ul", "x" * 400])
@pytest.mark.parametrize("ours", [True, False])
def test_no_name_costs_a_listing(
    alice: APIClient, engine: Engine, provider: FakeProvider, label: str, ours: bool
) -> None:
    order(alice)
    engine.run(5)
    machine_id, machine = only(provider)
    if ours:
        provider.listed[machine_id] = replace(machine, label=label)
    else:
        provider.add(label)
    engine.clock.advance(1)
    assert look().complete


# --- What was late, or broken off -------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [20, 45, 100])
def test_a_new_machine_may_be_late_on_both_channels(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock, lag: int
) -> None:
    session = order(alice)
    began, listing, by_id = virtual.now(), provider.machines, provider.machine

    def is_late() -> bool:
        return virtual.now() - began < timedelta(seconds=lag)

    provider.machines = lambda: [] if is_late() else listing()  # type: ignore[method-assign]
    provider.machine = lambda machine_id: None if is_late() else by_id(machine_id)  # type: ignore[method-assign]
    engine.run(300)
    assert shown(alice, session)["status"] == "running"
    assert provider.count("destroy") == 0


def test_a_machine_that_came_up_while_nobody_looked_is_looked_at_once_more(
    alice: APIClient, engine: Engine, provider: FakeProvider, virtual: FakeClock
) -> None:
    session = order(alice, reservation_hours=3)
    engines.work_once()
    engines.work_once()
    assert provider.count("create") == 1
    virtual.advance(16 * 60)
    engine.run(60)
    assert shown(alice, session)["status"] == "running"


def down_for_a_moment(engine: Engine, provider: FakeProvider) -> None:
    machine_id, up = only(provider)
    provider.listed[machine_id] = replace(up, state=MachineState.DOWN)
    look()
    engine.settle()
    provider.listed[machine_id] = up


def test_two_glimpses_of_a_stopped_machine_are_no_proof(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(60)
    for _ in range(2):
        down_for_a_moment(engine, provider)
        engine.clock.instant = Account.objects.get().due_at - timedelta(seconds=1)  # type: ignore[operator]
    engine.run(5)
    assert shown(alice, session)["status"] == "running"


def test_an_outage_does_not_make_a_stop_last(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    session = order(alice, reservation_hours=3)
    engine.run(60)
    down_for_a_moment(engine, provider)
    provider.trouble["machines"] = [Unavailable("502")] * 1000
    engine.run(1200)
    provider.trouble.clear()
    down_for_a_moment(engine, provider)
    engine.run(10)
    assert shown(alice, session)["status"] == "running"


def test_nobody_is_idle_while_nobody_looks(
    alice: APIClient, engine: Engine, guests: FakeGuests, virtual: FakeClock
) -> None:
    session = order(alice, reservation_hours=3, idle_threshold_minutes=10)
    engine.run(5)
    guests.gpus = "NVIDIA GeForce RTX 4090, 24564, 570.124.04, 1\n"
    engine.run(90)
    virtual.advance(15 * 60)
    engine.run(30)
    assert shown(alice, session)["status"] == "running"


# --- Listings that outlast their claim ----------------------------------------------------------------------


def outlast_the_claim(provider: FakeProvider, virtual: FakeClock) -> None:
    """Its listing takes so long that another worker has taken the row before the answer comes."""
    listing = provider.machines

    def slow() -> Any:
        found = listing()
        virtual.advance(31)
        assert rows.claim(Account, "fake", virtual.now()) is not None
        return found

    provider.machines = slow  # type: ignore[method-assign]


def test_a_slow_listing_counts(engine: Engine, provider: FakeProvider, virtual: FakeClock) -> None:
    engine.run(5)
    before = Account.objects.get().looked_at
    outlast_the_claim(provider, virtual)
    assert look().complete
    assert Account.objects.get().looked_at != before


def test_the_brake_lands_after_a_slow_listing(
    engine: Engine, provider: FakeProvider, virtual: FakeClock, settings: Any
) -> None:
    for _ in range(5):
        provider.add(tag.mint(settings.DEPLOYMENT_ID, virtual.now() + timedelta(hours=5), settings.TAG_KEYS[0]))
    look()
    virtual.advance(150)
    outlast_the_claim(provider, virtual)
    assert len(look().adopted) == 5
    assert Account.objects.get().brake


# --- Ends that have to come all the same ----------------------------------------------------------------------


@pytest.mark.usefixtures("unhurried")
def test_what_is_hidden_on_one_channel_and_silent_on_the_other_is_asked_for_again(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    engine.run(5)
    destroy, asked = provider.destroy, []

    def deaf_at_first(machine_id: str) -> None:
        asked.append(machine_id)
        if len(asked) > 1:
            destroy(machine_id)

    provider.machines = list  # type: ignore[method-assign]
    provider.destroy = deaf_at_first  # type: ignore[method-assign]
    provider.trouble["machine"] = [Unavailable("502")] * 10_000
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(900)
    assert len(asked) > 1
    assert not provider.listed


def test_what_was_held_back_here_was_not_asked(alice: APIClient, engine: Engine, provider: FakeProvider) -> None:
    session = order(alice)
    engine.run(5)
    provider.trouble["destroy"] = [NotSent("the pace", retry_after=16)] * 5
    began = engine.clock.now()
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(600)
    row = Instance.objects.get()
    assert row.ended_at is not None
    assert row.ended_at - began < timedelta(seconds=5 * 17 + 60)


def test_without_the_key_to_what_is_sealed_machines_still_end(
    alice: APIClient, engine: Engine, provider: FakeProvider, settings: Any
) -> None:
    order(alice)
    engine.run(5)
    settings.FIELD_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    engine.run(3700)
    assert not provider.listed
    assert Instance.objects.get().state == State.DESTROYED


def test_an_operators_wish_lands_though_the_service_goes_on(
    engine: Engine, provider: FakeProvider, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        provider.add(tag.mint(settings.DEPLOYMENT_ID, engine.clock.now() + timedelta(hours=9), settings.TAG_KEYS[0]))
    engine.run(300)
    assert Instance.objects.filter(state=State.RUNNING).count() == 4

    def person(question: str) -> str:
        for row in Instance.objects.all():
            Instance.objects.filter(pk=row.pk).update(due_at=engine.clock.now())
            engines.step_instance(str(row.pk))
        return "end them"

    monkeypatch.setattr(proof, "answer", person)
    call_command("teardown", "--all", "--wait", "0")
    engine.run(600)
    assert not provider.listed


def test_a_command_without_the_providers_key_keeps_nothing_from_the_service(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    engine.run(5)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    [row] = Instance.objects.all()
    before = registry.all()
    registry.use({})
    proof._round([row.session_id], [])
    registry.use(before)
    fresh = Instance.objects.get()
    assert (fresh.revision, fresh.due_at) == (row.revision, row.due_at)


# --- A visit has an end -------------------------------------------------------------------------------------


class NeverDone(paramiko.ServerInterface):
    """A shell that says something and then neither goes on nor tells how it ended."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def answer() -> None:
            channel.sendall(b"x")
            channel.shutdown_write()

        threading.Thread(target=answer, daemon=True).start()
        return True


@pytest.fixture
def never_done() -> Iterator[SshTarget]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(paramiko.ECDSAKey.generate())
            transport.start_server(server=NeverDone())
            served.append(transport)

        served: list[paramiko.Transport] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield SshTarget("127.0.0.1", listener.getsockname()[1], "root")
        thread.join(5)
        for transport in served:
            transport.close()


@pytest.mark.real_time
def test_a_visit_to_a_guest_that_never_ends_is_ended(never_done: SshTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows.LEASE.total_seconds() > ssh.VISIT_TIMEOUT
    monkeypatch.setattr(ssh, "VISIT_TIMEOUT", 0.5)
    private, _ = ssh.make_key_pair("a test")
    with pytest.raises(ssh.SshError):
        ssh.ParamikoRunner().run(never_done, private, ["nvidia-smi"], "")


def test_a_session_is_not_over_while_a_second_machine_under_its_label_lives(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    session = order(alice)
    engine.run(5)
    second = provider.add(Instance.objects.get().tag)
    destroy = provider.destroy

    def deaf_to_the_second(machine_id: str) -> None:
        if machine_id != second:
            destroy(machine_id)

    provider.destroy = deaf_to_the_second  # type: ignore[method-assign]
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(180)
    assert list(provider.listed) == [second]
    assert shown(alice, session)["status"] == "stopping"
    provider.destroy = destroy  # type: ignore[method-assign]
    engine.run(600)
    assert provider.listed == {}
    assert shown(alice, session)["status"] == "stopped"
