"""What is particular to Attic, and so not asked by the kit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attic_cloud import Attic
from attic_house import House

from providers.base import LaunchSpec, Machine, MachineState, SshTarget
from providers.sandbox.transport import session_for

KEY = "attic-key-1"
SPEC = LaunchSpec(
    label="gs-test", quote_id="r-1", gpu_name="RTX 4090", gpu_count=1, disk_gb=100, cpu_cores=8, ram_gb=32,
    ssh_public_keys=("ssh-ed25519 AAAA one",), hard_deadline=datetime(2026, 1, 29, 14, tzinfo=UTC),
)  # fmt: skip


@pytest.fixture
def house() -> House:
    return House(KEY)


@pytest.fixture
def attic(house: House) -> Attic:
    made = Attic.from_env({"ATTIC_KEY": KEY, "PROVIDER_PACING": "off"}, session=session_for(house))
    assert made is not None
    return made


def _look(attic: Attic, machine_id: str) -> Machine:
    found = attic.machine(machine_id)
    assert found is not None
    return found


def test_a_word_that_we_do_not_know_is_no_state(attic: Attic, house: House) -> None:
    machine_id = attic.create(SPEC)
    assert _look(attic, machine_id).state is MachineState.UP
    house.machines[machine_id]["state"] = "pondering"
    assert _look(attic, machine_id).state is MachineState.UNKNOWN


def test_a_machine_without_an_address_has_no_ssh_target_yet(attic: Attic, house: House) -> None:
    machine_id = attic.create(SPEC)
    assert _look(attic, machine_id).ssh_targets == (SshTarget("192.0.2.7", 22, "root"),)
    house.machines[machine_id]["ssh"] = None
    assert _look(attic, machine_id).ssh_targets == ()


def test_a_room_that_is_rented_is_not_available(attic: Attic) -> None:
    attic.create(SPEC)
    taken = {quote.provider_id for quote in attic.quotes(disk_gb=100) if not quote.available}
    assert taken == {"r-1"}


def test_the_keys_are_on_the_machine_once_each(attic: Attic, house: House) -> None:
    machine_id = attic.create(SPEC)
    for key in ("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"):
        attic.attach_key(machine_id, key)
    assert house.machines[machine_id]["keys"] == ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"]


def test_the_bill_names_the_machine_and_what_it_cost(attic: Attic, house: House) -> None:
    machine_id = attic.create(SPEC)
    house.machines[machine_id]["since"] -= timedelta(hours=2)
    now = datetime.now(UTC)
    (charge,) = attic.charges(now - timedelta(days=1), now)
    assert charge.machine_id == machine_id
    assert 502_000 <= charge.amount <= 502_100, "two hours at 0.251 USD"
