"""The kit as a pytest class: subclass it, name your scene, run pytest.

class TestAttic(Conformance):
    scene = AtticScene
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

# Before they are imported, so that a failed claim shows its values.
pytest.register_assert_rewrite("providers.conformance.promises", "providers.conformance.stage")

from providers import clock, http  # noqa: E402
from providers.conformance.promises.creates import Creates  # noqa: E402
from providers.conformance.promises.ends import Ends  # noqa: E402
from providers.conformance.promises.keys import Keys  # noqa: E402
from providers.conformance.promises.listings import Listings  # noqa: E402
from providers.conformance.promises.lookups import Lookups  # noqa: E402
from providers.conformance.promises.manners import Manners  # noqa: E402
from providers.conformance.promises.menu import Menu  # noqa: E402
from providers.conformance.promises.names import Names  # noqa: E402
from providers.conformance.scene import Scene  # noqa: E402
from providers.conformance.stage import Stage, StageClock  # noqa: E402

# The argument of a test to the scene's list of troubles that it is run with, one after the other.
_LISTS = {
    "rejection": "rejections",
    "refusal": "refusals",
    "refusal_that_made": "refusals_that_made",
    "short_listing": "short_listings",
}


class Conformance(Names, Menu, Creates, Listings, Lookups, Keys, Ends, Manners):
    scene: ClassVar[type[Scene]]

    @pytest.fixture
    def stage(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
        monkeypatch.setattr(socket.socket, "connect", _no_network)
        monkeypatch.setattr(http, "observers", [])
        own = StageClock()
        before = clock.use(own)
        yield Stage(self.scene(), own)
        clock.use(before)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for argument, troubles in _LISTS.items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, list(getattr(self.scene, troubles)))


def _no_network(*args: Any, **named: Any) -> None:
    raise AssertionError("the adapter does not speak through the session that it was given")
