"""The hunt itself: what it takes for a catch, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.base import Unavailable
from sessions import lifecycle
from tests import sabotage
from tests.sabotage import catalogue, hunt, patching
from tests.sabotage.__main__ import control
from tests.sabotage.hunt import Found, Hunt
from tests.sabotage.witness import is_a_claim

TEST = "tests/some/test_file.py::test_it"
LIFE = "lives plain_life"


def failed(**known: Any) -> dict[str, Any]:
    return {"test": TEST, "claimed": True, "text": "AssertionError: assert 1 == 2", **known}


def simulated(*violations: str) -> str:
    return json.dumps({"failures": [{"replay": "python -m …", "violations": list(violations)}]})


def test_a_failed_claim_and_a_violation_are_catches() -> None:
    assert hunt.judge(TEST, 1, "", [failed()]).caught_by == TEST
    assert "I1" in hunt.judge(LIFE, 1, simulated("I1, no orphan: 7 lives on"), []).caught_by
    story = "Traceback (most recent call last):\n  …\nAssertionError: it lived for an hour"
    assert "an hour" in hunt.judge(LIFE, 1, simulated(story), []).caught_by


@pytest.mark.parametrize(
    ("hunter", "code", "output", "told"),
    [
        (TEST, 1, "", [failed(claimed=False, text="ImportError: no such name")]),
        (TEST, 4, "ImportError while loading conftest", []),
        (TEST, 5, "no tests ran", []),
        (TEST, 1, "", [failed(), {"broken": "TypeError: takes 2 arguments"}]),
        (TEST, -1, "it took more than 240 s", []),
        (LIFE, 1, simulated("Traceback (most recent call last):\n  …\nTypeError: takes 2 arguments"), []),
        (LIFE, 1, "Traceback (most recent call last):\nImportError: no such name", []),
    ],
    ids=["in a test", "at import", "no test", "in the mistake", "no end", "in a run", "before any run"],
)
def test_what_fell_over_has_caught_nothing(hunter: str, code: int, output: str, told: list[dict[str, Any]]) -> None:
    found = hunt.judge(hunter, code, output, told)
    assert found.broken and not found.caught_by
    assert not Hunt("a-mistake", {hunter: found}, 1.0).is_good
    assert not Hunt("", {hunter: found}, 1.0).is_good


def test_a_mistake_has_to_be_caught_by_each_of_its_hunters_and_the_control_by_none() -> None:
    caught, green = Found(caught_by=TEST), Found()
    assert Hunt("a-mistake", {TEST: caught, LIFE: caught}, 1.0).is_good
    assert not Hunt("a-mistake", {TEST: caught, LIFE: green}, 1.0).is_good
    assert Hunt("", {TEST: green}, 1.0).is_good
    assert not Hunt("", {TEST: caught}, 1.0).is_good


@pytest.mark.parametrize(
    ("error", "claim"),
    [
        (AssertionError(), True),
        (Unavailable("it was to be another"), True),
        (KeyError("error_type"), True),
        (TypeError(), False),
        (ImportError(), False),
        (ExceptionGroup("two", [AssertionError(), AssertionError()]), True),
        (ExceptionGroup("two", [AssertionError(), TypeError()]), False),
    ],
    ids=repr,
)
def test_what_is_the_failure_of_a_claim(error: Exception, claim: bool) -> None:
    assert is_a_claim(error, in_the_test=True) is claim


def test_an_answer_that_lacks_something_is_a_claim_only_where_the_test_reads_it() -> None:
    assert not is_a_claim(KeyError("x"), in_the_test=False)


@pytest.fixture
def undone() -> Any:
    """The one place that is patched here, put back everywhere afterwards."""
    right = lifecycle.ask_again_after
    yield right
    patching._everywhere(lifecycle.ask_again_after, right)


def test_a_mistake_is_made_wherever_the_right_one_was_imported_to(undone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "imported", undone)
    monkeypatch.setitem(globals(), "table", {"a": undone})
    patching.around(lifecycle, "ask_again_after", lambda right, asks: (right(asks), asks))
    for put in (globals()["imported"], globals()["table"]["a"], lifecycle.ask_again_after):
        assert put(7) == (undone(7), 7)


def test_a_mistake_that_stumbles_over_itself_says_so(
    undone: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sabotage.REPORT, str(tmp_path / "report"))
    patching.around(lifecycle, "ask_again_after", lambda right, asks: right(asks, "one too many"))
    with pytest.raises(TypeError):
        lifecycle.ask_again_after(7)
    assert "broken" in json.loads((tmp_path / "report").read_text())


def test_each_mistake_has_a_sentence_and_somebody_who_hunts_it() -> None:
    from tests.sabotage.mistakes import MISTAKES

    assert catalogue.MISTAKES is MISTAKES
    for mistake in MISTAKES.values():
        assert mistake.sentence.endswith(".") and mistake.hunters, mistake.name


def test_the_control_asks_everybody_who_hunts() -> None:
    assert control([TEST, LIFE, TEST]) == [(TEST,), (LIFE,)]


def test_a_known_mistake_is_caught_and_the_right_way_is_green() -> None:
    """For real, in processes of their own."""
    hunter = "tests/providers/test_tag.py::test_what_is_not_signed_by_us_is_never_ours"
    assert hunt.run("ownership-by-prefix", hunter).caught_by.startswith(hunter)
    assert hunt.run("", hunter).is_green
    assert hunt.run("no-redaction", hunter).is_green, "a mistake that this test does not see survives"
    assert "KeyError" in hunt.run("no-such-mistake", hunter).broken
