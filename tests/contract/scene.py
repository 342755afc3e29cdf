"""One world, one adapter on it, and the few things that every test does with them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import requests

from providers.base import LaunchSpec, Machine, Provider, Quote, SshTarget
from providers.http import NoPacer
from providers.sandbox import world as sandbox
from providers.sandbox.shell import Result
from providers.sandbox.transport import session_for
from providers.sandbox.world import World
from providers.tensordock import TensorDock
from providers.vastai import VastAI
from tests.simulation.virtual_clock import VirtualClock

OUR_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfOurs gpu-shopper"
THEIR_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfConsumer alice@laptop"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfNobody"
LABEL = "gs-contract-aaaaaaaaaaaaaaaa-t9abcd-bbbbbbbbbbbb"
TOKENS = {"vastai": "sandbox-vastai-key", "tensordock": "sandbox-tensordock-token"}


def adapter(world: World, name: str, *, key: str = "", session: requests.Session | None = None) -> Provider:
    make: Any = VastAI if name == "vastai" else TensorDock
    found: Provider = make(key or TOKENS[name], session=session or session_for(world), pacer=NoPacer())
    return found


@dataclass
class Scene:
    clock: VirtualClock
    world: World
    provider: Provider

    @property
    def name(self) -> str:
        return self.provider.name

    # --- Weather and time ------------------------------------------------------------------------------------

    def set(self, switch: str, value: Any = True, **narrowed: Any) -> None:
        self.world.weather.set(switch, value, provider=self.name, **narrowed)

    def clear(self) -> None:
        self.world.weather.clear()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # --- The adapter -----------------------------------------------------------------------------------------

    def quote(self) -> Quote:
        return next(quote for quote in self.provider.quotes(disk_gb=100) if quote.gpu_count == 1)

    def spec(self, quote: Quote | None = None, **changed: Any) -> LaunchSpec:
        quote = quote or self.quote()
        spec = LaunchSpec(
            label=LABEL, quote_id=quote.provider_id, gpu_name=quote.gpu_name, gpu_count=quote.gpu_count, disk_gb=100,
            cpu_cores=quote.cpu_cores, ram_gb=quote.ram_gb, ssh_public_keys=(OUR_KEY, THEIR_KEY),
            hard_deadline=self.clock.now() + timedelta(hours=2),
        )  # fmt: skip
        return replace(spec, **changed)

    def create(self, **changed: Any) -> str:
        return self.provider.create(self.spec(**changed))

    def look(self, machine_id: str) -> Machine:
        found = self.provider.machine(machine_id)
        assert found is not None
        return found

    def rent(self, *, settled: bool = True, **changed: Any) -> str:
        """A machine, and by default the time that a boot takes in this world."""
        machine_id = self.create(**changed)
        if settled:
            self.wait(10)
        return machine_id

    def listed(self) -> set[str]:
        return {machine.id for machine in self.provider.machines()}

    # --- The world's side ------------------------------------------------------------------------------------

    def books(self, machine_id: str) -> sandbox.Machine:
        self.world.pass_time()
        return self.world.machines[machine_id]

    def made(self) -> list[sandbox.Machine]:
        self.world.pass_time()
        return list(self.world.machines.values())

    def calls(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.world.calls)

    def target(self, machine_id: str) -> SshTarget:
        return self.look(machine_id).ssh_targets[0]

    def door(self, machine_id: str, *, user: str = "", key: str = OUR_KEY) -> str:
        """What a login meets at the address that the adapter tells."""
        target = self.target(machine_id)
        there = self.world.machine_at(target.host, target.port)
        if there is None:
            return "nobody"
        door = self.world.ssh_door(there.id)
        if door == "open" and not there.guest.accepts(user or target.user, key):
            return "denied"
        return "denied" if door == "no_auth" else door

    def run(self, machine_id: str, command: str) -> Result:
        assert self.door(machine_id) == "open"
        return self.books(machine_id).guest.run("root", command)


def scene(name: str, clock: VirtualClock, *, boot: str = "demo", offers: int = 60) -> Scene:
    world = World(clock, random.Random(7), boot=boot, offers=offers)
    return Scene(clock, world, adapter(world, name))
