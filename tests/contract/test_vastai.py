"""What is Vast.ai's own: its refusals, its pages, its states in words, its charges."""

from __future__ import annotations

from datetime import timedelta

import pytest

from providers.base import MachineState, NotUnderstood, Refusal, Refused, Unauthorized, Unavailable
from providers.sandbox.transport import session_for
from tests.contract.rows import shows
from tests.contract.scene import LABEL, OTHER_KEY, Scene, adapter, scene
from tests.simulation.virtual_clock import VirtualClock

KEY = {"Authorization": "Bearer sandbox-vastai-key"}


# --- Creates ----------------------------------------------------------------------------------------------------


@shows("V1")
@pytest.mark.parametrize("status", [400, 404, 410])
def test_an_offer_that_is_gone_is_told_by_its_words_whatever_the_status(vastai: Scene, status: int) -> None:
    spec = vastai.spec()
    vastai.set("create.stale", status)
    with pytest.raises(Refused) as refused:
        vastai.provider.create(spec)
    assert refused.value.why is Refusal.OFFER_GONE
    assert vastai.made() == []


@shows("V1")
def test_an_offer_that_was_taken_leaves_the_menu_and_comes_back_under_another_id(vastai: Scene) -> None:
    quote = vastai.quote()
    machine_id = vastai.rent(quote=quote)
    assert quote.provider_id not in _menu(vastai)
    with pytest.raises(Refused) as refused:
        vastai.create(quote=quote)
    assert refused.value.why is Refusal.OFFER_GONE
    before = _menu(vastai)
    vastai.provider.destroy(machine_id)
    assert len(_menu(vastai) - before) == 1
    assert quote.provider_id not in _menu(vastai)


@shows("V3")
def test_a_refusal_that_made_a_machine_names_it(vastai: Scene) -> None:
    vastai.set("create.success_false_with_id")
    with pytest.raises(Refused) as refused:
        vastai.create()
    (machine,) = vastai.made()
    assert refused.value.machine_id == machine.id
    assert vastai.look(machine.id).state is MachineState.DOWN
    vastai.wait(3600)
    assert vastai.world.bill(machine.id) == machine.rate.storage > 0


def test_a_refusal_of_another_kind_is_one_that_no_offer_mends(vastai: Scene) -> None:
    vastai.set("create.refused", "invalid_args")
    with pytest.raises(Refused) as refused:
        vastai.create()
    assert refused.value.why is Refusal.INVALID


@shows("V6")
@pytest.mark.parametrize("body", [1, 2, 3, 4, 5])
def test_a_create_that_comes_too_soon_has_made_nothing_and_may_come_again(vastai: Scene, body: int) -> None:
    spec = vastai.spec()
    vastai.set("call.rate_limited", body, operation="create")
    with pytest.raises(Refused) as refused:
        vastai.provider.create(spec)
    assert refused.value.why is Refusal.BUSY
    assert vastai.made() == []


@shows("V22")
def test_a_contract_of_the_wrong_kind_says_so(vastai: Scene) -> None:
    assert vastai.look(vastai.rent()).interruptible is False
    vastai.set("create.is_bid")
    assert vastai.look(vastai.rent()).interruptible is True


# --- Keys of the account ----------------------------------------------------------------------------------------


@shows("V9")
def test_a_key_that_lacks_a_right_fails_where_it_lacks_it_and_works_elsewhere(vastai: Scene) -> None:
    vastai.set("call.unauthorized", 401, operation="list")
    with pytest.raises(Unauthorized):
        vastai.provider.machines()
    assert vastai.quote()


@shows("V36")
def test_keys_are_attached_to_the_machine_which_works_with_a_teams_key_too(vastai: Scene) -> None:
    vastai.set("auth.team")
    body = {"ssh_key": OTHER_KEY}
    refused = session_for(vastai.world).post("https://console.vast.ai/api/v0/ssh/", json=body, headers=KEY)
    assert (refused.status_code, refused.json()["error"]) == (400, "team_ssh_keys_not_supported")
    machine_id = vastai.rent()
    assert vastai.door(machine_id, key=OTHER_KEY) == "denied"
    vastai.provider.attach_key(machine_id, OTHER_KEY)
    vastai.wait(2)
    assert vastai.door(machine_id, key=OTHER_KEY) == "open"


@shows("V17")
def test_keys_that_were_lost_come_back_when_they_are_attached_again(vastai: Scene) -> None:
    vastai.set("ssh.lose_key_after", 9 * 3600)
    machine_id = vastai.rent(hard_deadline=None)
    assert vastai.door(machine_id, key=OTHER_KEY) == "denied"
    vastai.provider.attach_key(machine_id, OTHER_KEY)
    vastai.wait(2)
    assert vastai.door(machine_id, key=OTHER_KEY) == "open"
    vastai.wait(9 * 3600)
    assert vastai.door(machine_id, key=OTHER_KEY) == "denied"
    vastai.provider.attach_key(machine_id, OTHER_KEY)
    vastai.wait(2)
    assert vastai.door(machine_id, key=OTHER_KEY) == "open"


# --- Listings and look-ups --------------------------------------------------------------------------------------


@shows("V7")
def test_the_old_listing_is_closed_and_never_asked(vastai: Scene) -> None:
    url = "https://console.vast.ai/api/v0/instances/"
    closed = session_for(vastai.world).get(url, headers=KEY)
    assert (closed.status_code, closed.json()["error"]) == (410, "deprecated_endpoint")
    asked = len(vastai.world.calls)
    vastai.set("list.v0_alive")
    assert session_for(vastai.world).get(url, headers=KEY).status_code == 200
    machine_id = vastai.rent()
    assert vastai.listed() == {machine_id}
    assert not [call for call in vastai.world.calls[asked + 1 :] if call.route == "GET /api/v0/instances/"]


@shows("V8")
@pytest.mark.parametrize("rows_of_a_page", [None, 7])
def test_a_listing_is_read_to_its_end(vastai: Scene, rows_of_a_page: int | None) -> None:
    planted = {vastai.world.plant("vastai", f"box-{number}") for number in range(31)}
    if rows_of_a_page:
        vastai.set("list.page_size", rows_of_a_page)
    assert vastai.listed() == planted


@shows("V8")
@pytest.mark.parametrize("switch", ["list.drop_token", "list.page_500"])
def test_a_listing_that_breaks_off_is_none(vastai: Scene, switch: str) -> None:
    for number in range(31):
        vastai.world.plant("vastai", f"box-{number}")
    vastai.set(switch)
    with pytest.raises((Unavailable, NotUnderstood)):
        vastai.provider.machines()


@shows("V28")
@pytest.mark.parametrize("form", ["null", "404"])
def test_a_machine_that_is_gone_reads_so_in_either_form(vastai: Scene, form: str) -> None:
    machine_id = vastai.rent()
    vastai.provider.destroy(machine_id)
    vastai.set("get.gone", form)
    assert vastai.provider.machine(machine_id) is None


@shows("V28")
def test_an_answer_without_a_word_on_the_machine_is_not_its_end(vastai: Scene) -> None:
    machine_id = vastai.rent()
    vastai.provider.destroy(machine_id)
    vastai.set("get.gone", "empty")
    with pytest.raises(NotUnderstood):
        vastai.provider.machine(machine_id)


@shows("V25")
def test_a_destroy_with_success_false_is_no_success(vastai: Scene) -> None:
    machine_id = vastai.rent()
    vastai.set("destroy.success_false", times=1)
    with pytest.raises(Unavailable):
        vastai.provider.destroy(machine_id)
    assert vastai.listed() == {machine_id}


# --- What becomes of a machine ----------------------------------------------------------------------------------


@shows("V12", "V13", "V14", "V15")
@pytest.mark.parametrize(
    ("switch", "words"),
    [
        ("host.oci_fail", "OCI runtime create failed"),
        ("host.gpu_error", "GPU error"),
        ("host.registry_fail", "download failed"),
        ("host.manifest_unknown", "manifest unknown"),
    ],
)
def test_a_start_that_failed_is_told_from_the_text_and_the_reason_is_kept(
    vastai: Scene, switch: str, words: str
) -> None:
    vastai.set(switch)
    machine = vastai.look(vastai.rent())
    assert machine.state is MachineState.BROKEN
    assert words in machine.status
    assert machine.host


@shows("V14")
def test_a_pull_that_is_tried_again_is_no_failure(vastai: Scene) -> None:
    vastai.set("host.retry_then_ok")
    machine_id = vastai.create()
    vastai.wait(1)
    machine = vastai.look(machine_id)
    assert (machine.state, "Retrying in" in machine.status) == (MachineState.STARTING, True)
    vastai.wait(10)
    assert vastai.look(machine_id).state is MachineState.UP


@shows("V11")
def test_the_cuda_that_was_promised_can_be_held_against_what_the_driver_says(vastai: Scene) -> None:
    quote = vastai.quote()
    machine_id = vastai.rent(quote=quote)
    assert f"CUDA Version: {quote.cuda_version}" in vastai.run(machine_id, "nvidia-smi").stdout


@shows("V19")
def test_a_port_that_is_not_mapped_leaves_a_running_machine_without_an_address(vastai: Scene) -> None:
    vastai.set("ssh.no_port_map")
    machine = vastai.look(vastai.rent())
    assert (machine.state, machine.ssh_targets) == (MachineState.UP, ())


@shows("V20")
def test_a_host_that_is_offline_is_down_and_not_gone(vastai: Scene) -> None:
    vastai.set("host.offline_after", 60)
    machine_id = vastai.rent()
    vastai.wait(60)
    assert vastai.look(machine_id).state is MachineState.DOWN
    assert vastai.listed() == {machine_id}
    assert vastai.world.ssh_door(machine_id) == "refused"


@shows("V23")
def test_a_stopped_machine_may_start_again_and_says_so(vastai: Scene) -> None:
    vastai.set("host.stop_after", 60)
    vastai.set("host.resume_after", 600)
    machine_id = vastai.rent()
    vastai.wait(60)
    machine = vastai.look(machine_id)
    assert (machine.state, machine.ssh_targets) == (MachineState.DOWN, ())
    vastai.wait(540)
    assert vastai.look(machine_id).state is MachineState.UP
    assert vastai.door(machine_id) == "open"


@shows("V24")
def test_a_rental_that_is_stopped_from_the_start_is_down(vastai: Scene) -> None:
    vastai.set("host.stuck_stopped")
    machine_id = vastai.rent()
    assert vastai.look(machine_id).state is MachineState.DOWN
    vastai.wait(3600)
    assert vastai.look(machine_id).state is MachineState.DOWN
    assert vastai.world.bill(machine_id) > 0


@shows("V30")
def test_stopped_for_want_of_money_is_down_and_its_disk_bills_on(vastai: Scene) -> None:
    vastai.set("host.stop_after", 1800)
    machine_id = vastai.rent()
    vastai.wait(3600 - 10)
    rate = vastai.books(machine_id).rate
    assert vastai.look(machine_id).state is MachineState.DOWN
    assert vastai.world.bill(machine_id) == rate.gpu / 2 + rate.storage


@shows("V35")
def test_words_that_trail_behind_do_not_keep_the_door_shut(vastai: Scene) -> None:
    vastai.set("host.status_lag", 120)
    machine_id = vastai.rent()
    assert vastai.look(machine_id).state is MachineState.DOWN
    assert vastai.world.ssh_door(machine_id) == "open"
    vastai.wait(120)
    assert vastai.look(machine_id).state is MachineState.UP


@shows("V35")
def test_success_in_the_text_does_not_make_a_stopped_machine_run(vastai: Scene) -> None:
    vastai.set("host.stale_status_msg")
    vastai.set("host.stop_after", 60)
    machine_id = vastai.rent()
    vastai.wait(60)
    machine = vastai.look(machine_id)
    assert (machine.state, "success, running" in machine.status) == (MachineState.DOWN, True)


@shows("V38")
def test_a_rental_window_is_told_beforehand_and_its_end_is_down(vastai: Scene) -> None:
    vastai.set("host.end_date_after", 4 * 3600)
    machine_id = vastai.rent(hard_deadline=None)
    machine = vastai.look(machine_id)
    made = vastai.books(machine_id).created_at
    assert (machine.state, machine.ends_at) == (MachineState.UP, made + timedelta(hours=4))
    vastai.wait(4 * 3600)
    machine = vastai.look(machine_id)
    assert (machine.state, machine.interruptible) == (MachineState.DOWN, False)


def test_a_machine_is_renamed_where_it_can_be(vastai: Scene) -> None:
    machine_id = vastai.rent()
    vastai.provider.relabel(machine_id, "gs-other")
    assert vastai.look(machine_id).label == "gs-other"
    assert vastai.books(machine_id).sent_label == LABEL


# --- The menu ---------------------------------------------------------------------------------------------------


@shows("V34")
@pytest.mark.parametrize("cap", [None, 20])
def test_a_menu_longer_than_a_search_shows_is_read_whole(clock: VirtualClock, cap: int | None) -> None:
    vastai = scene("vastai", clock, offers=200)
    if cap:
        vastai.set("search.cap", cap)
    fit = {str(ask.id) for ask in vastai.world.asks.values() if ask.disk_space >= 300}
    assert {quote.provider_id for quote in vastai.provider.quotes(disk_gb=300)} == fit


@shows("V34")
def test_filters_that_the_search_ignored_are_held_to_here(vastai: Scene) -> None:
    vastai.rent()
    honest = {ask.id for ask in vastai.world.asks.values() if not ask.rented}
    vastai.set("search.ignore_filters")
    shown = {int(quote.provider_id) for quote in vastai.provider.quotes(disk_gb=100)}
    assert shown
    assert shown < honest


@shows("V33")
def test_a_host_under_a_new_machine_id_is_the_same_host(vastai: Scene) -> None:
    before = {quote.provider_id: quote.host for quote in vastai.provider.quotes(disk_gb=100)}
    vastai.set("search.reissue_machine")
    assert {quote.provider_id: quote.host for quote in vastai.provider.quotes(disk_gb=100)} == before


# --- Charges ----------------------------------------------------------------------------------------------------


@shows("V31")
def test_charges_come_late_and_then_agree_with_the_bill(vastai: Scene) -> None:
    vastai.set("bill.lag", 3600)
    machine_id = vastai.rent()
    vastai.wait(1790)
    began, ended = vastai.clock.began, vastai.clock.began + timedelta(days=1)
    assert vastai.provider.charges(began, ended) == []
    vastai.provider.destroy(machine_id)
    vastai.wait(3600)
    charges = vastai.provider.charges(began, ended)
    assert {charge.kind for charge in charges} == {"gpu", "storage"}
    assert {(charge.machine_id, charge.label) for charge in charges} == {(machine_id, LABEL)}
    assert abs(sum(charge.amount for charge in charges) - vastai.world.bill(machine_id)) <= 1  # rounded by parts


@shows("V32")
def test_an_account_without_charges_is_not_one_that_owes_nothing(vastai: Scene) -> None:
    vastai.set("bill.host_account")
    with pytest.raises(NotUnderstood):
        vastai.provider.charges(vastai.clock.began, vastai.clock.now() + timedelta(days=1))


def test_two_keys_of_one_account_are_told_to_be_of_one(vastai: Scene) -> None:
    ids = [adapter(vastai.world, "vastai", key=f"sandbox-vastai-key{end}").account().id for end in ("", "-2", "-3")]
    assert ids[0] == ids[2] != ids[1]


def _menu(vastai: Scene) -> set[str]:
    return {quote.provider_id for quote in vastai.provider.quotes(disk_gb=100)}
