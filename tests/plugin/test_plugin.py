"""The example plug-in: it installs, is found by its entry point, keeps the contract, and a session lives on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from inventory import refresh
from inventory.models import Offer
from providers import registry
from providers.sandbox.transport import session_for
from sessions import ssh, wake
from sessions.models import Instance
from tests.fakes import Engine, FakeClock, FakeGuests
from tests.plugin.stranger import pytest_there, run

KEY = "attic-key-1"


@pytest.fixture(scope="module")
def installed(attic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip puts it there."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    done = run(*pip, "--no-index", "--no-deps", "--no-build-isolation", "--target", target, attic, at=attic)
    assert done.returncode == 0, done.stderr
    return target


def _says(program: str, installed: Path, **env: str) -> Any:
    done = run(sys.executable, "-c", program, at=installed, PYTHONPATH=str(installed), **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


_LOADED = """
import json, os
from providers import registry
loaded = registry.load(os.environ)
print(json.dumps([{name: type(each).__module__ for name, each in loaded.providers.items()}, loaded.problems]))
"""


def test_it_is_found_by_its_entry_point_where_its_key_is_set(installed: Path) -> None:
    assert _says(_LOADED, installed, ATTIC_KEY=KEY) == [{"attic": "attic_cloud"}, {}]
    assert _says(_LOADED, installed) == [{}, {}]


def test_a_plug_in_that_can_not_be_loaded_is_a_sentence_and_keeps_nobody_from_starting(installed: Path) -> None:
    told = _says(
        "import sys; sys.modules['attic_cloud'] = None" + _LOADED, installed, ATTIC_KEY=KEY, VASTAI_API_KEY="v"
    )
    providers, problems = told
    assert set(providers) == {"vastai"}
    assert problems["attic"].startswith("it can't be loaded: ")


def test_its_own_tests_and_the_whole_kit_pass(attic: Path) -> None:
    done = pytest_there("-rs", at=attic)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, "Attic can do all that the kit asks for"


# --- A session on it ----------------------------------------------------------------------------------------


@pytest.fixture
def house(attic: Path, monkeypatch: pytest.MonkeyPatch, virtual: FakeClock, db: None) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(attic))
    from attic_cloud import Attic  # type: ignore[import-not-found]
    from attic_house import House  # type: ignore[import-not-found]

    built = House(KEY)
    adapter = Attic.from_env({"ATTIC_KEY": KEY, "PROVIDER_PACING": "off"}, session=session_for(built))
    registry.use({"attic": adapter})
    monkeypatch.setattr(wake, "publish", lambda task, argument, queue: None)
    before = ssh.use(FakeGuests())
    refresh.refresh("attic")
    yield built
    ssh.use(before)


def test_a_session_lives_its_whole_life_on_it(house: Any, alice: APIClient, virtual: FakeClock) -> None:
    engine = Engine(virtual)
    engine.run(1)
    offer = Offer.objects.filter(provider="attic", gpu_count=1).order_by("price").first()
    assert offer is not None
    answer = alice.post("/api/v1/sessions", {"offer_id": offer.pk, "reservation_hours": 1})
    assert answer.status_code == 201, answer.content
    page = f"/api/v1/sessions/{answer.json()['session']['id']}"
    engine.run(30)
    assert alice.get(page).json()["status"] == "running"
    (machine,) = house.machines.values()
    assert machine["label"] == Instance.objects.get().tag
    engine.run(3600 - 60)
    assert len(house.machines) == 1, "not before its time"
    engine.run(120)
    stopped = alice.get(page).json()
    assert (stopped["status"], stopped["status_reason"]) == ("stopped", "expired")
    assert stopped["verified_gone_at"]
    assert not house.machines
