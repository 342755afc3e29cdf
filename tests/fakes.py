"""Small stand-ins for tests that need no sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Min

from providers.base import (
    Account,
    Charge,
    LaunchSpec,
    Machine,
    MachineState,
    Quote,
    Rates,
    SshTarget,
    Traits,
)
from sessions import engine, hardware, ssh
from sessions.models import Account as AccountRow
from sessions.models import Instance, Session

DUE = (AccountRow, Session, Instance)

NOON = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)


class FakeClock:
    """Moves when told, and when somebody sleeps."""

    def __init__(self, start: datetime = NOON) -> None:
        self.instant = start
        self.jumped = timedelta(0)  # by which it was set: the monotonic clock did not notice
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return (self.instant - self.jumped - NOON).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.instant += timedelta(seconds=seconds)

    def advance(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


def quote(provider_id: str = "1", **said: Any) -> Quote:
    plain: dict[str, Any] = {
        "provider_id": provider_id, "gpu_name": "RTX 4090", "gpu_count": 1, "vram_gb": 24, "disk_gb": 500,
        "rates": Rates(gpu=Decimal("0.40"), storage_per_gb=Decimal("0.0002")), "reliability": 0.99,
        "location": "Quebec, CA", "country": "CA", "cuda_version": "12.8", "cpu_cores": 8, "ram_gb": 32,
        "host": f"host-{provider_id}",
    }  # fmt: skip
    return Quote(**{**plain, **said})


class FakeProvider:
    """Says what it is told to say, and remembers what it was asked. A queued exception is raised instead."""

    def __init__(self, name: str = "fake", quotes: Sequence[Quote] = (), **traits: Any) -> None:
        self.name = name
        self.traits = Traits(**traits)
        self.menu: Sequence[Quote] = quotes
        self.listed: dict[str, Machine] = {}
        self.asked: list[tuple[str, Any]] = []
        self.trouble: dict[str, list[Exception]] = {}
        self.next_id = 100

    def _asked(self, verb: str, what: Any = None) -> None:
        self.asked.append((verb, what))
        if self.trouble.get(verb):
            raise self.trouble[verb].pop(0)

    def count(self, verb: str) -> int:
        return sum(1 for asked, _ in self.asked if asked == verb)

    def quotes(self, *, disk_gb: int) -> Sequence[Quote]:
        self._asked("quotes", disk_gb)
        return self.menu

    def machines(self) -> Sequence[Machine]:
        self._asked("machines")
        return list(self.listed.values())

    def machine(self, machine_id: str) -> Machine | None:
        self._asked("machine", machine_id)
        return self.listed.get(machine_id)

    def create(self, spec: LaunchSpec) -> str:
        self._asked("create", spec)
        return self.add(spec.label)

    def add(self, label: str, **said: Any) -> str:
        self.next_id += 1
        machine_id = str(self.next_id)
        plain = {"state": MachineState.UP, "ssh_targets": (SshTarget("127.0.0.1", 22, "root"),)}
        self.listed[machine_id] = Machine(id=machine_id, label=label, **{**plain, **said})
        return machine_id

    def destroy(self, machine_id: str) -> None:
        self._asked("destroy", machine_id)
        self.listed.pop(machine_id, None)

    def attach_key(self, machine_id: str, public_key: str) -> None:
        self._asked("attach_key", machine_id)

    def relabel(self, machine_id: str, label: str) -> None:
        self._asked("relabel", (machine_id, label))

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        self._asked("charges")
        return []

    def account(self) -> Account:
        self._asked("account")
        return Account(id="acc1", balance=50_000_000)


class FakeGuests:
    """Answers SSH for every machine: `nvidia-smi` as the offer promised, unless told otherwise."""

    def __init__(self) -> None:
        self.trouble: list[Exception] = []
        self.gpus = "NVIDIA GeForce RTX 4090, 24564, 570.124.04, 50\n"
        self.first_gpus = ""  # what the first visit finds, if something else
        self.host_key = "ssh-ed25519 AAAAhost"
        self.deadline: int | None = None
        self.visits = 0

    def run(self, target: SshTarget, private_key: str, commands: Sequence[str], host_key: str) -> ssh.Visit:
        self.visits += 1
        if self.trouble:
            raise self.trouble.pop(0)
        if host_key and host_key != self.host_key:
            raise ssh.HostKeyChanged("another host key than the pinned one")
        return ssh.Visit(self.host_key, tuple(self._output(command) for command in commands))

    def _output(self, command: str) -> ssh.Output:
        if command == hardware.QUERY and self.first_gpus:
            found, self.first_gpus = self.first_gpus, ""
            return ssh.Output(0, found)
        if command == hardware.QUERY:
            return ssh.Output(0 if self.gpus else 9, self.gpus)
        if command == hardware.CUDA:
            return ssh.Output(0, "| NVIDIA-SMI 570.124.04   Driver Version: 570.124.04   CUDA Version: 12.8 |")
        if command == hardware.DISK:
            return ssh.Output(0, "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev 52428800 1 2 3% /\n")
        return ssh.Output(1, "")


class Engine:
    """Both engines in one thread: whatever is due is done, then the clock moves on to what is due next.

    At most `TICK` at a time, since periodic work (budgets, alarms) is done in each round.
    """

    TICK = timedelta(seconds=30)

    def __init__(self, told: FakeClock) -> None:
        self.clock = told

    def run(self, seconds: float) -> None:
        end = self.clock.instant + timedelta(seconds=seconds)
        self.settle()
        while self.clock.instant < end:
            self.clock.instant = min(end, self._next())
            self.settle()

    def _next(self) -> datetime:
        now = self.clock.instant
        due = [model.objects.filter(due_at__gt=now).aggregate(Min("due_at"))["due_at__min"] for model in DUE]
        return min([moment for moment in due if moment] + [now + self.TICK])

    def settle(self) -> None:
        for _ in range(20):
            if not engine.work_once():
                return
        raise AssertionError("the engine does not come to rest within one instant")
