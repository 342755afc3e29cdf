"""What holds for both providers: the promises of `providers.base`, over stand-ins that break them in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from providers import deadman
from providers.base import (
    MachineState,
    NotUnderstood,
    ProviderError,
    Refusal,
    Refused,
    Unauthorized,
    Unavailable,
)
from tests.contract.rows import shows
from tests.contract.scene import LABEL, OTHER_KEY, OUR_KEY, THEIR_KEY, TOKENS, Scene, adapter

NO_ANSWER = (Unavailable, NotUnderstood)
# What can happen to any call: nothing is done in the first ones, everything in the others.
NOTHING_DONE = ["call.lost_before", "call.timeout", "call.http_500", "call.html_502", "call.redirect"]
DONE_UNHEARD = ["call.lost_after", "call.http_500_after", "call.garbage", "call.empty"]
READS: dict[str, Callable[[Scene, str], object]] = {
    "list": lambda scene, machine_id: scene.provider.machines(),
    "get": lambda scene, machine_id: scene.provider.machine(machine_id),
    "quotes": lambda scene, machine_id: scene.provider.quotes(disk_gb=100),
}


# --- A life -----------------------------------------------------------------------------------------------------


def test_a_machine_comes_up_takes_the_keys_and_ends_when_it_is_told_to(either: Scene) -> None:
    machine_id = either.create()
    assert either.look(machine_id).state is MachineState.STARTING
    either.wait(10)
    machine = either.look(machine_id)
    assert (machine.state, machine.label) == (MachineState.UP, LABEL)
    assert [either.door(machine_id, key=key) for key in (OUR_KEY, THEIR_KEY, OTHER_KEY)] == ["open", "open", "denied"]
    assert either.listed() == {machine_id}
    either.provider.destroy(machine_id)
    assert either.provider.machine(machine_id) is None
    assert either.listed() == set()
    assert either.books(machine_id).destroyed_by == "api"


def test_the_menu_the_machine_and_the_bill_agree_on_the_price(either: Scene) -> None:
    quote = either.quote()
    machine_id = either.rent(quote=quote)
    promised = quote.rates.parts(100)
    price = either.look(machine_id).price
    assert promised is not None
    assert price is not None
    assert price.total == promised.total
    either.wait(3600 - 10)
    assert either.world.bill(machine_id) == promised.total


def test_a_create_takes_the_switch_that_ends_a_forgotten_machine_along(either: Scene) -> None:
    deadline = either.clock.now() + timedelta(hours=2)
    machine_id = either.rent(hard_deadline=deadline)
    state = either.run(machine_id, deadman.read_back_command()).stdout
    assert deadman.parse_state(state) == deadline


def test_a_machine_without_a_deadline_has_no_switch(either: Scene) -> None:
    machine_id = either.rent(hard_deadline=None)
    assert deadman.parse_state(either.run(machine_id, deadman.read_back_command()).stdout) is None


def test_our_key_for_the_account_is_good_and_another_is_not(either: Scene) -> None:
    either.provider.account()
    with pytest.raises(Unauthorized):
        adapter(either.world, either.name, key="sandbox-no-such-key").account()


def test_each_account_sees_its_own_machines_only(either: Scene) -> None:
    machine_id = either.rent()
    other, same = (adapter(either.world, either.name, key=f"{TOKENS[either.name]}-{number}") for number in (2, 3))
    assert other.machines() == []
    assert other.machine(machine_id) is None
    assert [machine.id for machine in same.machines()] == [machine_id]


# --- Creates whose end is not known -----------------------------------------------------------------------------


@shows("V2", "F3")
@pytest.mark.parametrize("switch", DONE_UNHEARD)
def test_a_create_that_is_not_heard_of_is_no_refusal_and_its_machine_is_found_by_its_label(
    either: Scene, switch: str
) -> None:
    spec = either.spec()
    either.set(switch, operation="create")
    with pytest.raises(NO_ANSWER):
        either.provider.create(spec)
    (machine,) = either.provider.machines()
    assert machine.label == spec.label
    assert not either.books(machine.id).returned


@shows("F3")
@pytest.mark.parametrize("switch", NOTHING_DONE)
def test_a_create_that_did_nothing_can_not_be_told_from_one_that_did(either: Scene, switch: str) -> None:
    spec = either.spec()
    either.set(switch, operation="create")
    with pytest.raises(NO_ANSWER):
        either.provider.create(spec)
    assert either.listed() == set()


@shows("V2", "F3", "V27")
def test_a_machine_whose_create_was_lost_may_be_listed_late(either: Scene) -> None:
    spec = either.spec()
    either.set("call.lost_after", operation="create")
    either.set("list.lag", 90)
    with pytest.raises(Unavailable):
        either.provider.create(spec)
    assert either.listed() == set()
    either.wait(90)
    assert [machine.label for machine in either.provider.machines()] == [spec.label]
    assert timedelta(seconds=90) < either.provider.traits.settle


@shows("V5", "F3")
@pytest.mark.parametrize("switch", [*NOTHING_DONE, *DONE_UNHEARD, "create.duplicate", "call.rate_limited"])
def test_a_create_is_sent_once_whatever_comes_of_it(either: Scene, switch: str) -> None:
    spec = either.spec()
    either.set(switch, operation="create") if switch.startswith("call.") else either.set(switch)
    with contextlib.suppress(ProviderError):
        either.provider.create(spec)
    assert either.calls("create") == 1


@shows("V5")
def test_two_machines_of_one_label_are_both_listed(either: Scene) -> None:
    either.set("create.duplicate", times=1)
    either.create()
    machines = either.provider.machines()
    assert [machine.label for machine in machines] == [LABEL, LABEL]
    assert len({machine.id for machine in machines}) == 2


@shows("V4")
def test_a_machine_that_was_promised_and_never_made_is_not_there(either: Scene) -> None:
    either.set("create.phantom")
    machine_id = either.create()
    either.wait(120)
    assert either.provider.machine(machine_id) is None
    assert either.listed() == set()
    assert either.made() == []


@shows("V3")
def test_a_create_that_was_refused_may_have_made_a_machine_which_the_listing_shows_later(either: Scene) -> None:
    spec = either.spec()
    either.set("create.late_row", 40, times=1)
    with pytest.raises(Refused) as refused:
        either.provider.create(spec)
    assert refused.value.machine_id is None
    assert either.listed() == set()
    either.wait(40)
    assert [machine.label for machine in either.provider.machines()] == [spec.label]


@pytest.mark.parametrize(("switch", "seen"), [("create.drop_label", ""), ("create.truncate_label", LABEL[:20])])
def test_a_label_that_was_changed_is_told_as_it_is(either: Scene, switch: str, seen: str) -> None:
    either.set(switch, 20)
    machine_id = either.rent()
    assert either.look(machine_id).label == seen


# --- Reads that bring nothing -----------------------------------------------------------------------------------


@shows("V39", "F39")
@pytest.mark.parametrize("switch", [*NOTHING_DONE, *DONE_UNHEARD])
@pytest.mark.parametrize("operation", READS)
def test_an_answer_that_is_none_never_reads_as_nothing_there(either: Scene, operation: str, switch: str) -> None:
    machine_id = either.rent()
    either.set(switch, operation=operation)
    with pytest.raises(NO_ANSWER):
        READS[operation](either, machine_id)
    either.clear()
    assert READS[operation](either, machine_id)


@shows("V39", "F39")
@pytest.mark.parametrize("operation", ["list", "get"])
def test_a_page_that_a_gateway_does_not_find_is_no_machine_that_is_gone(either: Scene, operation: str) -> None:
    machine_id = either.rent()
    either.set("call.html_502", 404, operation=operation)
    with pytest.raises(NO_ANSWER):
        READS[operation](either, machine_id)


@shows("V39", "F33")
@pytest.mark.parametrize("switch", ["call.lost_before", "call.http_500", "call.html_502", "call.timeout"])
def test_a_look_at_a_machine_survives_one_bad_moment(either: Scene, switch: str) -> None:
    machine_id = either.rent()
    either.set(switch, operation="get", times=1)
    assert either.look(machine_id).id == machine_id


@shows("V9", "F22")
@pytest.mark.parametrize("value", [404, 403, 401])
def test_a_rejected_key_is_told_and_says_nothing_about_machines(either: Scene, value: int) -> None:
    machine_id, spec = either.rent(), either.spec()
    either.set("call.unauthorized", value)
    asked: list[Callable[[], Any]] = [
        either.provider.machines,
        either.provider.account,
        lambda: either.provider.machine(machine_id),
        lambda: either.provider.destroy(machine_id),
        lambda: either.provider.create(spec),
    ]
    for ask in asked:
        with pytest.raises(Unauthorized):
            ask()
    either.clear()
    assert either.listed() == {machine_id}


@shows("V6", "F32")
@pytest.mark.parametrize("value", [1, 2, 3, 4, 5])
def test_too_many_calls_is_a_reason_to_keep_away_and_no_news_of_machines(either: Scene, value: int) -> None:
    machine_id = either.rent()
    either.set("call.rate_limited", value)
    for ask in (either.provider.machines, lambda: either.provider.machine(machine_id)):
        with pytest.raises(Unavailable) as limited:
            ask()
        assert limited.value.retry_after is not None
        assert limited.value.retry_after >= 2


@shows("V6", "F32")
def test_limits_that_are_kept_for_real_are_told_as_such(either: Scene) -> None:
    either.set("rate.enforce")
    with pytest.raises(Unavailable):
        for _ in range(120):  # without a pace
            either.provider.machines()
    either.clear()
    assert either.listed() == set()


@shows("V29", "F30")
def test_an_account_without_money_is_told_as_that(either: Scene) -> None:
    spec = either.spec()
    either.set("create.no_credit")
    with pytest.raises(Refused) as refused:
        either.provider.create(spec)
    assert refused.value.why is Refusal.NO_MONEY
    assert either.made() == []


@shows("V30", "F31")
def test_running_out_of_money_is_no_news_of_machines(either: Scene) -> None:
    machine_id, spec = either.rent(), either.spec()
    either.set("account.credit", -2_500_000)
    assert either.listed() == {machine_id}
    assert either.provider.account().balance == (-2_500_000 if either.name == "vastai" else None)
    with pytest.raises(Refused) as refused:
        either.provider.create(spec)
    assert refused.value.why is Refusal.NO_MONEY


# --- Ends -------------------------------------------------------------------------------------------------------


@shows("V25", "F19")
def test_a_destroy_that_says_yes_and_does_nothing_is_seen_by_looking(either: Scene) -> None:
    machine_id = either.rent()
    either.set("destroy.swallow", times=2)
    for _ in range(2):
        either.provider.destroy(machine_id)
        assert either.provider.machine(machine_id) is not None
        assert either.listed() == {machine_id}
    either.provider.destroy(machine_id)
    assert either.provider.machine(machine_id) is None
    assert either.books(machine_id).deletes == 3


@shows("V25", "F18")
def test_a_destroy_that_failed_is_told_and_the_machine_lives(either: Scene) -> None:
    machine_id = either.rent()
    either.set("destroy.http_500", times=1)
    with pytest.raises(Unavailable):
        either.provider.destroy(machine_id)
    assert either.listed() == {machine_id}
    either.provider.destroy(machine_id)
    assert either.listed() == set()


@shows("F17")
def test_a_destroy_whose_answer_is_lost_is_done_later_all_the_same(either: Scene) -> None:
    machine_id = either.rent()
    either.set("call.lost_after", operation="destroy")
    either.set("destroy.late", 240)
    with pytest.raises(Unavailable):
        either.provider.destroy(machine_id)
    assert either.calls("destroy") == 1
    assert either.provider.machine(machine_id) is not None
    either.wait(240)
    assert either.provider.machine(machine_id) is None
    assert either.listed() == set()


@shows("V27")
def test_a_row_that_lingers_is_told_as_long_as_it_is_shown(either: Scene) -> None:
    machine_id = either.rent()
    either.set("destroy.linger", 60)
    either.provider.destroy(machine_id)
    assert either.listed() == {machine_id}
    either.wait(60)
    assert either.listed() == set()


@shows("V27")
def test_a_machine_may_be_missing_from_a_listing_and_be_there(either: Scene) -> None:
    machine_id = either.rent()
    either.set("list.hide", times=1)
    assert either.listed() == set()
    assert either.look(machine_id).id == machine_id


@shows("V25")
def test_a_machine_that_comes_back_is_seen(either: Scene) -> None:
    machine_id = either.rent()
    either.set("destroy.resurrect", 30)
    either.provider.destroy(machine_id)
    assert either.provider.machine(machine_id) is None
    either.wait(30)
    assert either.provider.machine(machine_id) is not None
    assert either.listed() == {machine_id}


@shows("F21")
def test_to_destroy_what_is_gone_is_no_error(either: Scene) -> None:
    machine_id = either.rent()
    either.provider.destroy(machine_id)
    either.provider.destroy(machine_id)
    assert either.books(machine_id).deletes == 1


@shows("F23")
def test_a_machine_that_vanished_unasked_is_not_there_by_either_way_of_asking(either: Scene) -> None:
    either.set("host.vanish_after", 30)
    machine_id = either.rent()
    assert either.listed() == {machine_id}
    either.wait(30)
    assert either.provider.machine(machine_id) is None
    assert either.listed() == set()
    assert either.books(machine_id).destroyed_by == "provider"


def test_a_look_up_that_is_wrong_about_a_machine_is_contradicted_by_the_listing(either: Scene) -> None:
    machine_id = either.rent()
    either.set("get.deny")
    assert either.provider.machine(machine_id) is None
    assert either.listed() == {machine_id}


# --- Machines of others -----------------------------------------------------------------------------------------


@shows("V26")
def test_machines_that_nobody_here_knows_are_listed_with_their_labels(either: Scene) -> None:
    labels = [LABEL, "training-7", "", "gs-somebody-else"]
    planted = {either.world.plant(either.name, label): label for label in labels}
    assert {machine.id: machine.label for machine in either.provider.machines()} == planted


# --- In use -----------------------------------------------------------------------------------------------------


@shows("V16", "F7", "F34")
def test_a_machine_that_takes_no_key_ever_is_still_said_to_run(either: Scene) -> None:
    either.set("ssh.deny_forever")
    machine_id = either.rent()
    either.wait(3600)
    assert either.look(machine_id).state is MachineState.UP
    assert either.door(machine_id) == "denied"


@shows("V16", "F10")
def test_a_key_may_need_some_minutes(either: Scene) -> None:
    either.set("ssh.deny_for", 300)
    machine_id = either.rent()
    assert either.door(machine_id) == "denied"
    either.wait(300)
    assert either.door(machine_id) == "open"


@shows("V18", "F7")
def test_a_port_may_refuse_long_after_the_machine_is_said_to_run(either: Scene) -> None:
    either.set("ssh.refuse_for", 90)
    machine_id = either.rent()
    assert either.look(machine_id).state is MachineState.UP
    assert either.door(machine_id) == "refused"
    either.wait(90)
    assert either.door(machine_id) == "open"


@shows("V18", "F7", "F38")
def test_a_machine_that_nobody_reaches_is_said_to_run_and_bills(either: Scene) -> None:
    either.set("ssh.never")
    machine_id = either.rent()
    either.wait(3600)
    assert either.look(machine_id).state is MachineState.UP
    assert either.door(machine_id) == "timeout"
    assert either.world.bill(machine_id) > 0


def test_another_host_key_from_now_on_is_one_that_was_not_pinned(either: Scene) -> None:
    machine_id = either.rent()
    assert either.door(machine_id) == "open"
    pinned = either.books(machine_id).host_key
    either.set("ssh.new_host_key", machine=machine_id)
    assert either.door(machine_id) == "open"
    assert either.books(machine_id).host_key != pinned


@shows("F8", "V11", "F35")
@pytest.mark.parametrize(
    ("switch", "exit_status", "said"),
    [
        ("guest.driver_broken", 9, "couldn't communicate with the NVIDIA driver"),
        ("guest.gpu_absent", 127, ""),
        ("guest.gpu_fewer", 6, "No devices were found"),
        ("guest.cuda_old", 0, "CUDA Version: 11.4"),
    ],
)
def test_a_machine_whose_gpu_is_not_what_was_promised_shows_it_over_ssh(
    either: Scene, switch: str, exit_status: int, said: str
) -> None:
    either.set(switch)
    machine_id = either.rent()
    assert either.look(machine_id).state is MachineState.UP
    answer = either.run(machine_id, "nvidia-smi")
    assert answer.exit_status == exit_status
    assert said in answer.stdout


@shows("F9")
def test_a_driver_may_work_some_minutes_after_the_login(either: Scene) -> None:
    either.set("guest.driver_late", 180)
    machine_id = either.rent()
    assert either.run(machine_id, "nvidia-smi").exit_status == 9
    either.wait(180)
    assert either.run(machine_id, "nvidia-smi").exit_status == 0


@shows("V37")
def test_less_disk_than_was_asked_for_shows_over_ssh(either: Scene) -> None:
    whole = either.rent()
    either.set("host.small_disk")
    small = either.rent()
    sizes = [int(either.run(each, "df -Pk /").stdout.splitlines()[1].split()[1]) for each in (whole, small)]
    assert sizes == [100 * 10**9 // 1024, 20 * 10**9 // 1024]


@shows("V21", "F6")
def test_a_machine_that_stopped_by_itself_exists_and_is_down(either: Scene) -> None:
    either.set("host.stop_after", 165)
    machine_id = either.rent()
    assert either.look(machine_id).state is MachineState.UP
    either.wait(165)
    assert either.look(machine_id).state is MachineState.DOWN
    assert either.listed() == {machine_id}


@shows("V10")
def test_a_machine_that_never_comes_up_stays_starting_and_bills(either: Scene) -> None:
    either.set("host.stuck_loading")
    machine_id = either.rent()
    either.wait(3600)
    machine = either.look(machine_id)
    assert (machine.state, machine.ssh_targets) == (MachineState.STARTING, ())
    assert either.world.bill(machine_id) > 0


@shows("V10")
def test_a_slow_start_is_a_start(either: Scene) -> None:
    either.set("boot.slow", 1800)
    machine_id = either.rent()
    assert either.look(machine_id).state is MachineState.STARTING
    either.wait(1800)
    assert either.look(machine_id).state is MachineState.UP
    assert either.door(machine_id) == "open"
