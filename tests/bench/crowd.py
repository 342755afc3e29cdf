"""Many offers, many machines, many sessions: rows as the service itself would have written them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from providers import tag
from providers.base import Machine, MachineState, PriceParts, Quote, Rates, SshTarget
from sessions.lifecycle import State, Status
from sessions.models import Instance, Session
from tests.fakes import quote

GPUS = (("RTX 4090", 24), ("RTX 3090", 24), ("H100 SXM", 80), ("A100 PCIE", 40), ("L40S", 48), ("RTX A6000", 48))
COUNTRIES = ("CA", "US", "DE", "FR", "SE", "JP", "GB", "NO")
PARTS = PriceParts(gpu=400_000, storage=10_000)


def quotes(count: int) -> list[Quote]:
    return [
        quote(
            str(number), gpu_name=gpu, vram_gb=vram, gpu_count=1 + number % 4, host=f"host-{number // 3}",
            country=COUNTRIES[number % len(COUNTRIES)], reliability=0.9 + number % 100 / 1000,
            rates=Rates(gpu=Decimal(200 + number % 3000) / 1000, storage_per_gb=Decimal("0.0002")),
        )
        for number, (gpu, vram) in zip(range(count), itertools.cycle(GPUS), strict=False)
    ]  # fmt: skip


def running(count: int, now: datetime, deployment: str, tag_key: str, provider: str = "fake") -> list[Machine]:
    """`count` running sessions with their instances, and the machines that a provider lists for them."""
    until = now + timedelta(hours=6)
    sessions = [
        Session(
            consumer=f"consumer-{number % 50}", provider=provider, offer_id=f"{provider}-gone-{number}",
            gpu_type="RTX 4090", gpu_count=1, vram_gb=24, price=PARTS.total, disk_gb=50, reservation=timedelta(hours=6),
            ssh_public_key="ssh-ed25519 AAAA", status=Status.RUNNING, created_at=now, started_at=now, running_at=now,
            expires_at=until, hard_deadline=until, due_at=until,
        )
        for number in range(count)
    ]  # fmt: skip
    instances = list(_instances(sessions, now, until, deployment, tag_key))
    Session.objects.bulk_create(sessions, batch_size=500)
    Instance.objects.bulk_create(instances, batch_size=500)
    return [_machine(row) for row in instances]


def _instances(
    sessions: list[Session], now: datetime, until: datetime, deployment: str, tag_key: str
) -> Iterator[Instance]:
    for number, session in enumerate(sessions):
        yield Instance(
            session=session, provider=session.provider, account="acc1", tag=tag.mint(deployment, until, tag_key),
            offer_id=session.offer_id, gpu_type="RTX 4090", gpu_count=1, vram_gb=24, price=PARTS.total,
            price_parts={"gpu": PARTS.gpu, "storage": PARTS.storage, "cpu": 0, "ram": 0}, state=State.RUNNING,
            state_since=now, created_at=now, deadline=until, hard_deadline=until, machine_id=str(10_000 + number),
            launched_at=now, verified_at=now, inspected_at=now, seen_at=now, looked_at=now, due_at=until,
            our_key="private", our_public_key="public", keyed_at=now, label_seen=None,
            ssh_targets=[{"host": "127.0.0.1", "port": 22, "user": "root"}],
        )  # fmt: skip


def _machine(row: Instance) -> Machine:
    return Machine(
        id=row.machine_id, label=row.tag, state=MachineState.UP, ssh_targets=(SshTarget("127.0.0.1", 22, "root"),),
        price=PARTS, gpu_name="RTX 4090", gpu_count=1, started_at=row.launched_at,
    )  # fmt: skip
