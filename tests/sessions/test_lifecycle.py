"""The pure core: what is proof, what is due, what comes next. Every rule by example and by property."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import MachineState
from sessions import lifecycle
from sessions.lifecycle import (
    AskDestroy,
    Attempt,
    Boot,
    Close,
    Conclude,
    End,
    EndInstances,
    EndSession,
    Facts,
    HandOver,
    Inspect,
    Launch,
    Limits,
    LookUp,
    OpenAttempt,
    Probe,
    Reason,
    Relabel,
    State,
    Status,
    Wait,
    Wish,
    decide,
    decide_session,
)

T0 = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
LIMITS = Limits(
    confirm=timedelta(seconds=30),
    settle=timedelta(minutes=10),
    boot_timeout=timedelta(minutes=15),
    ssh_timeout=timedelta(minutes=8),
)
DAY = timedelta(days=1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def facts(state: State, **known: object) -> Facts:
    """An instance launched at T0 whose deadline is far away."""
    base = Facts(state=state, deadline=T0 + DAY, hard_deadline=T0 + DAY, launched_at=T0)
    return replace(base, **known)  # type: ignore[arg-type]


# --- Proof of absence -------------------------------------------------------------------------------------


def test_an_outage_is_not_silence() -> None:
    quiet = facts(State.DESTROYING, machine_id="7", seen_at=at(60), looked_at=at(60), asked_at=at(50), misses=0)
    assert lifecycle.silence(quiet) == timedelta(0)
    assert decide(quiet, LIMITS, at(3 * 3600)) == AskDestroy()


@pytest.mark.parametrize(
    "missing",
    [
        {"misses": 1},
        {"looked_at": at(60 + 29)},
        {"denied_at": None},
        {"denied_at": at(60 + 29)},
        {"seen_at": at(61)},
        {"asked_at": at(95)},
    ],
    ids=["one listing", "too soon", "no denial", "an early denial", "seen since", "touched since"],
)
def test_each_half_of_the_proof_is_needed(missing: dict[str, object]) -> None:
    gone = facts(
        State.DESTROYING, machine_id="7", seen_at=at(10), asked_at=at(60), looked_at=at(90), misses=2, denied_at=at(91)
    )
    assert lifecycle.proven_absent(gone, LIMITS)
    assert not lifecycle.proven_absent(replace(gone, **missing), LIMITS)  # type: ignore[arg-type]


def test_without_an_id_only_a_long_silence_is_proof() -> None:
    lost = facts(State.LAUNCHING, looked_at=at(599), misses=200)
    assert not lifecycle.proven_absent(lost, LIMITS)
    assert lifecycle.proven_absent(replace(lost, looked_at=at(600)), LIMITS)


instants = st.none() | st.integers(0, 7200).map(at)


@given(
    machine_id=st.sampled_from(["", "7"]), launched_at=instants, looked_at=instants, seen_at=instants,
    asked_at=instants, denied_at=instants, misses=st.integers(0, 5),
)  # fmt: skip
def test_proof_never_comes_from_one_witness(
    machine_id: str, launched_at: datetime | None, looked_at: datetime | None, seen_at: datetime | None,
    asked_at: datetime | None, denied_at: datetime | None, misses: int,
) -> None:  # fmt: skip
    known = facts(
        State.DESTROYING, machine_id=machine_id, launched_at=launched_at, looked_at=looked_at, seen_at=seen_at,
        asked_at=asked_at, denied_at=denied_at, misses=misses,
    )  # fmt: skip
    if not lifecycle.proven_absent(known, LIMITS) or (launched_at is None and not machine_id):
        return
    assert misses >= 2
    assert looked_at is not None
    touched = max(moment for moment in (launched_at, seen_at, asked_at) if moment)
    assert looked_at >= touched + LIMITS.confirm
    if machine_id:
        assert denied_at is not None and denied_at >= touched + LIMITS.confirm
    else:
        assert looked_at >= touched + LIMITS.settle


@given(
    state=st.sampled_from(State), machine_id=st.sampled_from(["", "7"]), looked_at=instants, seen_at=instants,
    asked_at=instants, denied_at=instants, refused_at=instants, misses=st.integers(0, 5),
    now=st.integers(0, 90_000).map(at), machine_state=st.sampled_from([None, *MachineState]),
    useless=st.integers(0, 3), useless_since=instants, up_since=instants, target=st.booleans(),
)  # fmt: skip
def test_no_facts_lead_to_a_conclusion_without_proof(
    state: State, machine_id: str, looked_at: datetime | None, seen_at: datetime | None,
    asked_at: datetime | None, denied_at: datetime | None, refused_at: datetime | None, misses: int,
    now: datetime, machine_state: MachineState | None, useless: int, useless_since: datetime | None,
    up_since: datetime | None, target: bool,
) -> None:  # fmt: skip
    known = facts(
        state, machine_id=machine_id, looked_at=looked_at, seen_at=seen_at, asked_at=asked_at,
        denied_at=denied_at, refused_at=refused_at, misses=misses, machine_state=machine_state,
        useless_looks=useless, useless_since=useless_since, up_since=up_since, has_target=target,
    )  # fmt: skip
    action = decide(known, LIMITS, now)
    if isinstance(action, Conclude):
        assert lifecycle.proven_absent(known, LIMITS) or (
            refused_at and not machine_id and lifecycle.unlisted(known, LIMITS)
        )
    if isinstance(action, Launch):
        assert known.launched_at is None
    if isinstance(action, AskDestroy):
        assert state is State.DESTROYING and machine_id


# --- One state after another ----------------------------------------------------------------------------------


def test_a_fresh_row_is_launched_once() -> None:
    assert decide(facts(State.LAUNCHING, launched_at=None), LIMITS, T0) == Launch()
    assert isinstance(decide(facts(State.LAUNCHING), LIMITS, at(5)), Wait)


def test_an_id_found_by_its_tag_goes_on_to_boot() -> None:
    assert decide(facts(State.LAUNCHING, machine_id="7"), LIMITS, at(5)) == Boot()


def test_a_refusal_that_made_a_machine_is_ended() -> None:
    assert decide(facts(State.LAUNCHING, machine_id="7", refused_at=at(1)), LIMITS, at(5)) == End(Reason.REFUSED)


def test_a_refusal_counts_after_two_silent_listings() -> None:
    refused = facts(State.LAUNCHING, refused_at=at(1), looked_at=at(31), misses=2)
    assert decide(refused, LIMITS, at(31)) == Conclude(Reason.REFUSED)
    assert isinstance(decide(replace(refused, misses=1), LIMITS, at(31)), Wait)


@pytest.mark.parametrize("state", [State.LAUNCHING, State.BOOTING, State.RUNNING])
def test_deadlines_hold_in_every_state(state: State) -> None:
    early = facts(state, machine_id="7", deadline=at(100), hard_deadline=at(200), has_target=True)
    assert decide(early, LIMITS, at(100)) == End(Reason.EXPIRED)
    assert decide(early, LIMITS, at(200)) == End(Reason.HARD_MAX)
    assert not isinstance(decide(early, LIMITS, at(99)), End)


def test_after_a_jump_of_the_clock_deadlines_wait() -> None:
    late = facts(State.RUNNING, machine_id="7", deadline=at(100))
    held = replace(LIMITS, hold_deadlines_until=at(700))
    assert not isinstance(decide(late, held, at(600)), End)
    assert decide(late, held, at(700)) == End(Reason.EXPIRED)


def test_booting_waits_for_an_address_then_probes() -> None:
    assert isinstance(decide(facts(State.BOOTING, machine_id="7"), LIMITS, at(5)), Wait)
    assert decide(facts(State.BOOTING, machine_id="7", has_target=True), LIMITS, at(5)) == Probe()


def test_probes_come_each_second_at_first_and_then_less_often() -> None:
    up = facts(State.BOOTING, machine_id="7", has_target=True, up_since=at(10), probed_at=at(20))
    assert decide(up, LIMITS, at(20.5)) == Wait(at(21))
    later = replace(up, probed_at=at(10 + 400))
    assert isinstance(decide(later, LIMITS, at(10 + 410)), Wait)
    assert decide(later, LIMITS, at(10 + 426)) == Probe()


def test_a_machine_that_never_comes_up_is_given_up() -> None:
    assert decide(facts(State.BOOTING, machine_id="7"), LIMITS, at(900)) == End(Reason.BOOT_TIMEOUT)
    up = facts(State.BOOTING, machine_id="7", up_since=at(60), has_target=True, probed_at=at(60 + 470))
    assert decide(up, LIMITS, at(60 + 480)) == Probe(), "whoever was away while it came up looks once more"
    assert decide(replace(up, probed_at=at(60 + 480)), LIMITS, at(60 + 482)) == End(Reason.SSH_TIMEOUT)


def test_a_lost_label_is_put_back_or_ends_the_machine() -> None:
    lost = facts(State.BOOTING, machine_id="7", mislabelled=True)
    assert decide(replace(lost, can_relabel=True), LIMITS, at(5)) == Relabel()
    assert decide(lost, LIMITS, at(5)) == End(Reason.LABEL_LOST)


def test_one_look_at_a_stopped_machine_ends_nothing() -> None:
    down = facts(
        State.RUNNING, machine_id="7", machine_state=MachineState.DOWN, seen_at=at(60), useless_since=at(60),
        useless_looks=1,
    )  # fmt: skip
    assert not isinstance(decide(down, LIMITS, at(61)), End)
    lasting = replace(down, useless_looks=5, seen_at=at(60 + 120))
    assert decide(lasting, LIMITS, at(181)) == End(Reason.DIED)


def test_a_flicker_during_boot_ends_nothing_for_three_minutes() -> None:
    flicker = facts(
        State.BOOTING, machine_id="7", machine_state=MachineState.DOWN, useless_since=at(60), useless_looks=9,
        seen_at=at(60 + 179),
    )  # fmt: skip
    assert not isinstance(decide(flicker, LIMITS, at(240)), End)
    assert decide(replace(flicker, seen_at=at(60 + 180)), LIMITS, at(241)) == End(Reason.DIED)


def test_an_outage_does_not_make_a_flicker_last() -> None:
    down = facts(
        State.RUNNING, machine_id="7", machine_state=MachineState.DOWN, useless_since=at(60), useless_looks=2,
        seen_at=at(62), looked_at=at(62),
    )  # fmt: skip
    assert not isinstance(decide(down, LIMITS, at(7200)), End)


def test_a_running_machine_that_listings_lack_is_looked_up_before_it_counts_as_vanished() -> None:
    missing = facts(State.RUNNING, machine_id="7", seen_at=at(0), looked_at=at(30), misses=2)
    assert decide(missing, LIMITS, at(31)) == LookUp()
    assert decide(replace(missing, denied_at=at(31)), LIMITS, at(32)) == End(Reason.VANISHED)


def test_idleness_is_measured_between_inspections() -> None:
    idle = facts(
        State.RUNNING, machine_id="7", has_target=True, idle_threshold=timedelta(minutes=10), idle_since=at(0),
        inspected_at=at(599),
    )  # fmt: skip
    assert not isinstance(decide(idle, LIMITS, at(5000)), End), "not looked at since: not known to be idle"
    assert decide(replace(idle, inspected_at=at(600)), LIMITS, at(601)) == End(Reason.IDLE)


def test_a_running_machine_is_inspected_now_and_then() -> None:
    running = facts(State.RUNNING, machine_id="7", has_target=True, inspected_at=at(0))
    assert decide(running, LIMITS, at(300)) == Inspect()
    assert decide(running, LIMITS, at(100)) == Wait(at(300))
    assert decide(replace(running, dead_man_due=True), LIMITS, at(100)) == Inspect()


def test_destroys_are_asked_for_again_for_ever_and_slower() -> None:
    asked = facts(State.DESTROYING, machine_id="7", asked_at=at(0), asks=1, seen_at=at(2), looked_at=at(2))
    assert decide(asked, LIMITS, at(9)) == Wait(at(10))
    assert decide(asked, LIMITS, at(10)) == AskDestroy()
    often = replace(asked, asks=1000)
    assert decide(often, LIMITS, at(299)) == Wait(at(300))
    assert decide(often, LIMITS, at(300)) == AskDestroy()


def test_while_listings_lack_it_nothing_is_asked_but_the_proof() -> None:
    missing = facts(State.DESTROYING, machine_id="7", asked_at=at(0), asks=1, looked_at=at(4), misses=1)
    assert decide(missing, LIMITS, at(15)) == Wait(None)
    assert decide(replace(missing, looked_at=at(31), misses=2), LIMITS, at(31)) == LookUp()


def test_a_destroyed_machine_stays_destroyed_until_it_is_seen() -> None:
    assert decide(facts(State.DESTROYED, machine_id="7"), LIMITS, at(90_000)) == Wait(None)


# --- Sessions -------------------------------------------------------------------------------------------------

ALIVE = Attempt(state=State.BOOTING, has_machine_id=True)
RUNS = Attempt(state=State.RUNNING, has_machine_id=True)
GONE = Attempt(state=State.DESTROYED, reason=Reason.BOOT_TIMEOUT, has_machine_id=True)


def wish(**known: object) -> Wish:
    base = Wish(status=Status.PROVISIONING, created_at=T0, expires_at=at(3600), hard_deadline=T0 + DAY, retries_left=0)
    return replace(base, **known)  # type: ignore[arg-type]


def test_a_wish_opens_its_first_attempt() -> None:
    assert decide_session(wish(status=Status.PENDING, expires_at=None), [], T0) == OpenAttempt()


def test_a_wish_that_nothing_could_be_asked_for_is_given_up() -> None:
    waiting = wish(status=Status.PENDING, expires_at=None, launch_by=at(900))
    assert decide_session(waiting, [], at(900)) == EndSession(Reason.NOT_LAUNCHED)


def test_a_running_machine_is_handed_over_once() -> None:
    assert decide_session(wish(), [RUNS], at(60)) == HandOver()
    assert decide_session(wish(status=Status.RUNNING), [RUNS], at(60)) == Wait(at(3605)), "the machine's row goes first"


def test_a_failed_attempt_is_followed_by_the_next_offer_while_retries_are_left() -> None:
    assert decide_session(wish(retries_left=1), [GONE], at(60)) == OpenAttempt()
    assert decide_session(wish(retries_left=0), [GONE], at(60)) == EndSession(Reason.BOOT_TIMEOUT)


def test_the_next_attempt_waits_until_the_last_one_has_an_id_or_is_gone() -> None:
    unresolved = Attempt(state=State.DESTROYING, reason=Reason.BOOT_TIMEOUT)
    assert isinstance(decide_session(wish(retries_left=1), [unresolved], at(60)), Wait)
    known = replace(unresolved, has_machine_id=True)
    assert decide_session(wish(retries_left=1), [known], at(60)) == OpenAttempt()


def test_a_session_that_ran_does_not_start_over() -> None:
    died = Attempt(state=State.DESTROYING, reason=Reason.DIED, has_machine_id=True)
    assert decide_session(wish(status=Status.RUNNING, retries_left=3), [died], at(60)) == EndSession(Reason.DIED)


def test_what_no_other_offer_mends_is_not_tried_again() -> None:
    broke = Attempt(state=State.DESTROYED, reason=Reason.NO_MONEY)
    assert decide_session(wish(retries_left=3), [broke], at(60)) == EndSession(Reason.NO_MONEY)


def test_expiry_and_hard_maximum_end_a_session_in_every_state() -> None:
    assert decide_session(wish(), [ALIVE], at(3600)) == EndSession(Reason.EXPIRED)
    hard = wish(hard_deadline=at(3600))
    assert decide_session(hard, [ALIVE], at(3600)) == EndSession(Reason.HARD_MAX)


@pytest.mark.parametrize(("reason", "status"), [(Reason.RELEASED, Status.STOPPED), (Reason.DIED, Status.FAILED)])
def test_a_session_is_over_when_all_that_it_made_is_proven_gone(reason: Reason, status: Status) -> None:
    ending = wish(status=Status.STOPPING, end_reason=reason)
    leaving = Attempt(state=State.DESTROYING, reason=reason, has_machine_id=True)
    assert decide_session(ending, [GONE, ALIVE], at(60)) == EndInstances()
    assert decide_session(ending, [GONE, leaving], at(60)) == Wait(None)
    assert decide_session(ending, [GONE, GONE], at(60)) == Close(status)


def test_nothing_is_decided_about_what_is_over() -> None:
    over = wish(status=Status.STOPPED, end_reason=Reason.RELEASED)
    assert decide_session(over, [GONE], at(999_999)) == Wait(None)


def test_every_state_can_reach_its_proven_end() -> None:
    reachable = {State.DESTROYED}
    while True:
        more = {before for before, after in lifecycle.MOVES if after in reachable} | reachable
        if more == reachable:
            break
        reachable = more
    assert reachable == set(State)


def test_a_running_machine_without_a_way_in_waits_for_its_deadline_and_not_for_the_past() -> None:
    adopted = facts(State.RUNNING, inspected_at=at(0), seen_at=at(3600), looked_at=at(3600), has_target=False)
    assert decide(adopted, LIMITS, at(3601)) == Wait(T0 + DAY)
