from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers import clock as product_clock
from providers import http
from tests.contract.scene import Scene, scene
from tests.simulation.virtual_clock import VirtualClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualClock]:
    """Nothing waits: whoever sleeps moves the time."""
    monkeypatch.setattr(http, "observers", [])  # the service's counts are rows, and here is no database
    virtual = VirtualClock()
    before = product_clock.use(virtual)
    yield virtual
    product_clock.use(before)


@pytest.fixture(params=["vastai", "tensordock"])
def either(request: pytest.FixtureRequest, clock: VirtualClock) -> Scene:
    return scene(request.param, clock)


@pytest.fixture
def vastai(clock: VirtualClock) -> Scene:
    return scene("vastai", clock)


@pytest.fixture
def tensordock(clock: VirtualClock) -> Scene:
    return scene("tensordock", clock)
