"""The judge of the chaos runs sees what it is there to see."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.chaos.judge import BOUND, Evidence, judge
from tests.fakes import NOON

TAG = "gs-us-aaaaaaaaaaaaaaaa-xxxxxx-bbbbbbbbbbbb"


def at(seconds: float) -> Any:
    return NOON + timedelta(seconds=seconds)


def evidence(**changed: Any) -> Evidence:
    """A session of 30 s that its consumer ended after 20 s, and whose machine was gone 2 s later."""
    machine = {
        "id": "7", "provider": "vastai", "label": TAG, "created_at": at(1), "destroyed_at": at(22),
        "destroyed_by": "api", "cost_micros": 100, "deletes": 1,
    }  # fmt: skip
    session = {"id": "s", "status": "stopped", "end_reason": "released", "wished_at": at(20)}
    row = {
        "id": "i", "session_id": "s", "provider": "vastai", "machine_id": "7", "tag": TAG, "state": "destroyed",
        "end_reason": "released", "deadline": at(30), "adopted_at": None, "verified_at": at(6),
    }  # fmt: skip
    plain: dict[str, Any] = {"machine": machine, "session": session, "row": row, "decided": at(20)}
    for name, value in changed.items():
        whose, _, what = name.partition("__")
        if what:
            plain[whose] = {**plain[whose], what: value}
        else:
            plain[whose] = value
    stranger = {**machine, "id": "1", "label": "somebody-else", "destroyed_at": None, "destroyed_by": "",
                "deletes": 0, **changed.get("stranger", {})}  # fmt: skip
    return Evidence(
        machines=[plain["machine"], stranger],
        sessions=[plain["session"]], instances=[plain["row"]],
        endings={"i": plain["decided"]} if plain["decided"] else {}, deployment="us", costs={"s": 90},
        bad_weather=changed.get("weather", ()), creates=changed.get("creates", {TAG: 1}),
    )  # fmt: skip


def test_a_plain_life_is_no_crime() -> None:
    verdict = judge(evidence())
    assert verdict.violations == []
    assert verdict.counts["orphans"] == verdict.counts["false_kills"] == 0
    assert verdict.counts["longest_unwanted_seconds"] == 2
    assert verdict.counts["worst_cost_difference_usd"] == 0.00001


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ("still lives", {"machine__destroyed_at": None, "machine__destroyed_by": ""}),
        ("longer than anybody wanted", {"machine__destroyed_at": at(20 + BOUND.total_seconds() + 1)}),
        ("no row of ours knows it", {"row__machine_id": "8"}),
        ("before its end was decided", {"decided": None}),
        ("before its end was decided", {"decided": at(23)}),
        ("nobody had wished it", {"session__wished_at": None}),
        ("before its deadline", {"row__end_reason": "expired"}),
        ("was well", {"row__end_reason": "boot_timeout"}),
        ("was well", {"row__end_reason": "vanished", "row__verified_at": None}),
        ("belongs to somebody else", {"stranger": {"destroyed_at": at(9)}}),
        ("belongs to somebody else", {"stranger": {"deletes": 1}}),
        ("is still stopping", {"session__status": "stopping"}),
        ("is still destroying", {"row__state": "destroying"}),
        ("2 creates were sent for 1 rows", {"creates": {TAG: 2}}),
        ("1 creates were sent for 0 rows", {"creates": {"gs-us-another": 1}}),
    ],
)
def test_it_names_each_crime(said: str, changed: dict[str, Any]) -> None:
    violations = judge(evidence(**changed)).violations
    assert any(said in violation for violation in violations), violations


def test_a_machine_that_nobody_asked_for_counts_from_its_first_moment() -> None:
    found = evidence(row__session_id=None, row__end_reason="surplus", row__adopted_at=at(15))
    assert judge(found).counts["longest_unwanted_seconds"] == 21


def test_bad_weather_of_the_provider_is_not_held_against_us() -> None:
    late = at(20 + BOUND.total_seconds() + 10)
    weather = [(at(15), at(25)), (at(24), at(40))]
    assert judge(evidence(machine__destroyed_at=late, weather=weather)).violations == []
    assert judge(evidence(machine__destroyed_at=late, weather=[(at(0), at(20))])).violations


def test_given_up_before_it_ever_came_up_is_no_false_kill() -> None:
    given_up = evidence(row__end_reason="ssh_timeout", row__verified_at=None, session__wished_at=None)
    assert judge(given_up).violations == []
