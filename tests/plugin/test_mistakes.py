"""Whether the kit would notice: each of its promises is broken on purpose by an adapter that is otherwise sound."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from providers.conformance.kit import Conformance
from tests.plugin.mistakes import MISTAKES
from tests.plugin.stranger import pytest_there

HERE = Path(__file__).parent
# How a promise says no. Anything else is a mistake that broke the play rather than the promise.
NO = ("AssertionError", "assert", "Failed:", "providers.base.")

PROMISES = {name for name in dir(Conformance) if name.startswith("test_")}


@pytest.fixture(scope="module")
def broken(attic: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    """What each promise said of each mistake that it is to notice; empty if it kept still."""
    place = tmp_path_factory.mktemp("mistaken") / "attic"
    shutil.copytree(attic, place)
    shutil.copy(HERE / "mistakes.py", place / "mistakes.py")
    shutil.copy(HERE / "mistaken.py", place / "test_mistaken.py")
    asked = [(each.name, promise) for each in MISTAKES for promise in each.breaks]
    nodes = [f"test_mistaken.py::Test_{name}::{promise}" for name, promise in asked]
    run = pytest_there("--junitxml=told.xml", *nodes, at=place)
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[tuple[str, str], list[str]] = {each: [] for each in asked}
    for case in ElementTree.parse(place / "told.xml").iter("testcase"):
        name, promise = case.attrib["classname"].split("Test_")[1], case.attrib["name"].split("[")[0]
        found[name, promise] += [failure.attrib["message"] for failure in case.findall("failure")]
    return found


def test_each_mistake_is_noticed_by_the_promise_that_it_breaks(broken: dict[tuple[str, str], list[str]]) -> None:
    assert [each for each, said in broken.items() if not any(no.startswith(NO) for no in said)] == []


def test_no_promise_is_without_a_mistake_that_breaks_it() -> None:
    assert PROMISES - {promise for each in MISTAKES for promise in each.breaks} == set()


def test_a_mistake_that_the_adapter_no_longer_can_make_is_told(attic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.plugin import mistakes

    monkeypatch.syspath_prepend(str(attic))
    with pytest.raises(AssertionError, match="the adapter has no 'a line that is not there'"):
        mistakes.mistaken(mistakes.mistake("outdated", ("a line that is not there", ""), breaks=""))
