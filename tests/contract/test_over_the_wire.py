"""The same over real sockets: HTTP as `requests` speaks it, SSH as paramiko does, the adapters as loaded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from providers import clock, deadman, registry
from providers.base import LaunchSpec, MachineState, NotUnderstood, Provider, Refused, Unauthorized, Unavailable
from providers.sandbox.server import SandboxServer
from providers.sandbox.world import World
from sessions import hardware, ssh
from tests.contract.scene import LABEL

PATIENCE = 10.0  # seconds that a test waits at most; none should need them


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    server = SandboxServer(World(clock, random.Random(3), boot="instant"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def world(server: SandboxServer) -> Iterator[World]:
    yield server.world
    with server.lock:
        server.world.weather.clear()


@pytest.fixture(params=["vastai", "tensordock"])
def provider(
    request: pytest.FixtureRequest, server: SandboxServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> Provider:
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)  # before a read is tried again
    loaded = registry.load(server.environment())
    assert (set(loaded.providers), loaded.problems) == ({"vastai", "tensordock"}, {})
    found: Provider = loaded.providers[request.param]
    return found


@pytest.fixture(scope="module")
def pair() -> tuple[str, str]:
    return ssh.make_key_pair("gpu-shopper")


@pytest.fixture
def rent(provider: Provider, pair: tuple[str, str]) -> Iterator[Callable[..., str]]:
    """Makes a machine, which is gone after the test."""
    made: list[str] = []

    def rented(deadline: timedelta = timedelta(hours=1)) -> str:
        quote = next(quote for quote in provider.quotes(disk_gb=100) if quote.gpu_count == 1)
        spec = LaunchSpec(
            label=LABEL, quote_id=quote.provider_id, gpu_name=quote.gpu_name, gpu_count=1, disk_gb=100,
            cpu_cores=quote.cpu_cores, ram_gb=quote.ram_gb, ssh_public_keys=(pair[1],),
            hard_deadline=clock.now() + deadline,
        )  # fmt: skip
        made.append(provider.create(spec))
        return made[-1]

    yield rented
    for machine_id in made:
        provider.destroy(machine_id)


def test_a_whole_life(provider: Provider, world: World, rent: Callable[..., str], pair: tuple[str, str]) -> None:
    machine_id = rent()
    machine = provider.machine(machine_id)
    assert machine is not None
    assert (machine.state, machine.label) == (MachineState.UP, LABEL)
    for target in machine.ssh_targets:
        visit = ssh.run(target, pair[0], [hardware.QUERY, hardware.DISK])
        assert [output.exit_status for output in visit.outputs] == [0, 0]
        assert visit.host_key == world.machines[machine_id].host_key
    provider.destroy(machine_id)
    assert provider.machine(machine_id) is None
    assert machine_id not in {each.id for each in provider.machines()}
    with pytest.raises(ssh.Unreachable):
        ssh.run(machine.ssh_targets[0], pair[0], ["true"])
    assert world.truth()["machines"][-1]["destroyed_by"] == "api"


def test_the_switch_on_a_machine_is_seen_and_armed_anew(
    provider: Provider, rent: Callable[..., str], pair: tuple[str, str]
) -> None:
    machine = provider.machine(rent())
    assert machine is not None
    later = clock.now().replace(microsecond=0) + timedelta(hours=5)
    commands = [deadman.read_back_command(), deadman.rearm_command(later), deadman.read_back_command()]
    before, _, after = ssh.run(machine.ssh_targets[0], pair[0], commands).outputs
    armed = deadman.parse_state(before.stdout)
    assert armed is not None
    assert armed < later
    assert deadman.parse_state(after.stdout) == later


def test_a_machine_ends_by_itself_when_nobody_comes_back(
    provider: Provider, world: World, rent: Callable[..., str]
) -> None:
    machine_id = rent(timedelta(seconds=-deadman.GRACE))
    ended = time.monotonic() + PATIENCE
    found = provider.machine(machine_id)
    while found is not None and found.state is MachineState.UP and time.monotonic() < ended:
        time.sleep(0.05)
        found = provider.machine(machine_id)
    if provider.traits.dead_man == "destroys":
        assert found is None
        assert world.machines[machine_id].destroyed_by == "dead_man"
    else:
        assert found is not None
        assert found.state is MachineState.DOWN


@pytest.mark.parametrize(
    ("switch", "expected"), [("ssh.deny_forever", ssh.Denied), ("ssh.refuse_for", ssh.Unreachable)]
)
def test_a_door_that_is_shut(
    provider: Provider, world: World, rent: Callable[..., str], pair: tuple[str, str], switch: str, expected: Any
) -> None:
    world.weather.set(switch, 60, provider=provider.name)
    machine = provider.machine(rent())
    assert machine is not None
    with pytest.raises(expected):
        ssh.run(machine.ssh_targets[0], pair[0], ["true"])


def test_a_stranger_has_no_key(provider: Provider, rent: Callable[..., str]) -> None:
    machine = provider.machine(rent())
    assert machine is not None
    with pytest.raises(ssh.Denied):
        ssh.run(machine.ssh_targets[0], ssh.make_key_pair("stranger")[0], ["true"])


def test_a_host_key_that_changed_is_not_let_pass(
    provider: Provider, world: World, rent: Callable[..., str], pair: tuple[str, str]
) -> None:
    machine_id = rent()
    machine = provider.machine(machine_id)
    assert machine is not None
    target = machine.ssh_targets[0]
    pinned = ssh.run(target, pair[0], ["true"]).host_key
    world.weather.set("ssh.new_host_key", machine=machine_id)
    with pytest.raises(ssh.HostKeyChanged):
        ssh.run(target, pair[0], ["true"], host_key=pinned)


@pytest.mark.parametrize("switch", ["call.lost_after", "call.garbage", "call.empty", "call.http_500_after"])
def test_a_create_that_is_not_heard_of_is_found_by_its_label(
    provider: Provider, world: World, rent: Callable[..., str], switch: str
) -> None:
    known = set(world.machines)
    world.weather.set(switch, provider=provider.name, operation="create", times=1)
    with pytest.raises((Unavailable, NotUnderstood)):
        rent()
    (machine,) = [each for each in provider.machines() if each.id not in known]
    assert machine.label == LABEL
    provider.destroy(machine.id)


@pytest.mark.parametrize(
    "switch", ["call.lost_before", "call.lost_after", "call.html_502", "call.garbage", "call.redirect"]
)
def test_a_listing_that_did_not_arrive_is_none(provider: Provider, world: World, switch: str) -> None:
    world.weather.set(switch, provider=provider.name, operation="list")
    with pytest.raises((Unavailable, NotUnderstood)):
        provider.machines()


def test_a_rejected_key_is_told(provider: Provider, world: World) -> None:
    world.weather.set("call.unauthorized", 404 if provider.name == "vastai" else 401, provider=provider.name)
    with pytest.raises(Unauthorized):
        provider.account()


def test_a_refusal_is_told(provider: Provider, world: World, rent: Callable[..., str]) -> None:
    world.weather.set("create.no_credit", provider=provider.name)
    with pytest.raises(Refused):
        rent()


def test_a_long_listing_is_read_to_its_end(provider: Provider, server: SandboxServer) -> None:
    before = {machine.id for machine in provider.machines()}
    with server.lock:
        planted = {server.world.plant(provider.name, f"box-{number}", lasts=60) for number in range(30)}
    assert {machine.id for machine in provider.machines()} == before | planted
    for machine_id in planted:
        provider.destroy(machine_id)
