"""Which providers there are: the built-in ones, and a plug-in like the one in here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from providers import registry
from providers.base import Account, LaunchSpec, Provider, Traits


class Attic:
    """A complete plug-in: a provider with nothing to rent."""

    name = "attic"
    traits = Traits()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Attic | None:
        return cls() if env.get("ATTIC_KEY") else None

    def quotes(self, *, disk_gb: int) -> tuple[()]:
        return ()

    def machines(self) -> tuple[()]:
        return ()

    def machine(self, machine_id: str) -> None:
        return None

    def create(self, spec: LaunchSpec) -> str:
        return spec.label

    def destroy(self, machine_id: str) -> None: ...

    def attach_key(self, machine_id: str, public_key: str) -> None: ...

    def relabel(self, machine_id: str, label: str) -> None: ...

    def charges(self, since: Any, until: Any) -> tuple[()]:
        return ()

    def account(self) -> Account:
        return Account(id="")


class Impostor(Attic):
    name = "tensordock"


class Point:
    """An installed package's entry point."""

    def __init__(self, name: str, found: Any) -> None:
        self.name, self.found = name, found

    def load(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    points: list[Point] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "gpu_shopper.providers" else [])
    return points


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    before = registry.all()
    yield
    registry.use(before)


def test_only_providers_with_a_key_are_loaded(plug_ins: list[Point]) -> None:
    assert registry.load({}) == registry.Loaded()
    loaded = registry.load({"VASTAI_API_KEY": "a", "TENSORDOCK_API_TOKEN": "b"})
    assert list(loaded.providers) == ["vastai", "tensordock"]
    assert loaded.problems == {}


def test_a_plug_in_is_loaded(plug_ins: list[Point]) -> None:
    plug_ins.append(Point("attic", Attic))
    assert isinstance(registry.load({"ATTIC_KEY": "x"}).providers["attic"], Provider)


def test_a_bad_key_is_a_sentence_and_the_others_work(plug_ins: list[Point]) -> None:
    env = {"TENSORDOCK_API_KEY": "5b0c1d7e-3a42-4f0e-9a63-0d8f7c2b9e11", "VASTAI_API_KEY": "a"}
    loaded = registry.load(env)
    assert "API Token" in loaded.problems["tensordock"]
    assert list(loaded.providers) == ["vastai"]


def test_a_plug_in_that_fails_to_import_is_a_problem(plug_ins: list[Point]) -> None:
    plug_ins.append(Point("broken", ImportError("no module named attic")))
    assert "no module named attic" in registry.load({}).problems["broken"]


def test_a_plug_in_cannot_take_the_name_of_another(plug_ins: list[Point]) -> None:
    plug_ins.append(Point("impostor", Impostor))
    loaded = registry.load({"TENSORDOCK_API_TOKEN": "b", "ATTIC_KEY": "x"})
    assert type(loaded.providers["tensordock"]).__name__ == "TensorDock"
    assert "tensordock" in loaded.problems["impostor"]


def test_what_is_in_use_is_what_was_put_there() -> None:
    registry.use({"attic": Attic()})
    assert list(registry.all()) == ["attic"]
    assert registry.get("attic") is not None
    assert registry.get("vastai") is None
