"""A sandbox that is started again is another world, and its machines are others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers import clock
from providers.sandbox.world import World
from tests.contract.scene import Scene, adapter
from tests.simulation.virtual_clock import VirtualClock


@pytest.fixture
def told() -> Iterator[VirtualClock]:
    told = VirtualClock()
    before = clock.use(told)
    yield told
    clock.use(before)


@pytest.mark.parametrize("name", ["vastai", "tensordock"])
def test_no_machines_id_is_ever_given_twice(told: VirtualClock, name: str) -> None:
    """Our own rows outlive the sandbox, and an id names one machine for ever."""
    seen: set[str] = set()
    for _ in range(3):
        world = World(told, boot="instant")
        scene = Scene(told, world, adapter(world, name))
        made = {scene.rent() for _ in range(3)}
        assert len(made) == 3
        assert not made & seen
        seen |= made
