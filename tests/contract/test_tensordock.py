"""What is TensorDock's own: failures with HTTP 200, forms of listings, addresses, the start script."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
import requests

from providers.base import MachineState, NotUnderstood, Refusal, Refused, Unauthorized, Unavailable
from providers.http import NoPacer
from providers.sandbox.tensordock import AUTHORIZATION_ID
from providers.sandbox.transport import WorldAdapter, session_for
from providers.sandbox.wire import Request, Response
from providers.sandbox.world import World
from providers.tensordock import DEFAULT_IMAGES, RECHECK, TensorDock
from tests.contract.rows import shows
from tests.contract.scene import LABEL, OTHER_KEY, OUR_KEY, THEIR_KEY, Scene, adapter

URL = "https://dashboard.tensordock.com/api/v2"
KEY = {"Authorization": "Bearer sandbox-tensordock-token"}


# --- Creates ----------------------------------------------------------------------------------------------------


@shows("F1", "F2", "F14")
@pytest.mark.parametrize("form", ["", ".http", ".nested", ".issues"])
@pytest.mark.parametrize("reason", ["capacity", "no_public_ip", "generic"])
def test_a_place_without_room_is_an_offer_that_is_gone_whatever_the_form(
    tensordock: Scene, reason: str, form: str
) -> None:
    spec = tensordock.spec()
    tensordock.set("create.fail", reason + form)
    with pytest.raises(Refused) as refused:
        tensordock.provider.create(spec)
    assert refused.value.why is Refusal.OFFER_GONE
    assert tensordock.made() == []


@shows("F1")
def test_a_place_may_be_full_while_another_is_not(tensordock: Scene) -> None:
    quotes = tensordock.provider.quotes(disk_gb=100)
    full = quotes[0].provider_id[:36]
    tensordock.set("create.fail", "capacity", host=full)
    with pytest.raises(Refused):
        tensordock.create(quote=quotes[0])
    assert tensordock.create(quote=next(quote for quote in quotes if quote.provider_id[:36] != full))


@shows("F2")
def test_a_place_without_dedicated_addresses_is_taken_with_a_forward(tensordock: Scene) -> None:
    before = tensordock.spec()
    tensordock.set("net.no_dedicated_ip")
    with pytest.raises(Refused) as refused:
        tensordock.provider.create(before)
    assert refused.value.why is Refusal.OFFER_GONE
    machine_id = tensordock.rent()
    assert "useDedicatedIp" not in tensordock.books(machine_id).asked
    assert tensordock.door(machine_id) == "open"


@shows("F15")
def test_a_request_that_is_wrong_is_told_as_that(tensordock: Scene) -> None:
    spec = tensordock.spec()
    tensordock.set("create.fail", "validation")
    with pytest.raises(Refused, match="Invalid value") as refused:
        tensordock.provider.create(spec)
    assert refused.value.why is Refusal.INVALID


@shows("F15")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": ""}, "Required"),
        ({"ssh_key": ""}, "ssh_key"),
        ({"useDedicatedIp": False}, "SSH port (22) must be forwarded for Ubuntu VMs"),
        ({"hostnode_id": "c2f7a9d4-6e18-4b53-8f2a-71d0e5b3a604"}, "exactly one of location_id"),
        ({"image": "ubuntu9999"}, "invalid_enum_value"),
        ({"resources.vcpu_count": 7}, "even"),
        ({"resources.ram_gb": 33}, "ram_gb"),
        ({"resources.storage_gb": 50}, "at least 100"),
        ({"resources.gpus": {}}, "GPU"),
    ],
)
def test_the_stand_in_takes_no_order_that_the_provider_would_not_take(
    tensordock: Scene, changed: dict[str, Any], said: str
) -> None:
    body = _sent(tensordock)
    attributes = body["data"]["attributes"]
    for name, value in changed.items():
        group, _, part = name.rpartition(".")
        (attributes[group] if group else attributes)[part] = value
    answer = session_for(tensordock.world).post(f"{URL}/instances", json=body, headers=KEY)
    assert answer.status_code == 400
    assert said in json.dumps(answer.json())


@shows("F16")
def test_an_image_that_a_place_lacks_is_not_asked_for_there_again(tensordock: Scene) -> None:
    quote = tensordock.quote()
    tensordock.set("create.image_refused", DEFAULT_IMAGES[0])
    with pytest.raises(Refused) as refused:
        tensordock.create(quote=quote)
    assert refused.value.why is Refusal.OFFER_GONE
    machine_id = tensordock.create(quote=quote)
    assert tensordock.books(machine_id).asked["image"] == DEFAULT_IMAGES[1]


@shows("F16")
def test_a_place_that_takes_no_image_is_given_up(tensordock: Scene) -> None:
    quote = tensordock.quote()
    tensordock.set("create.image_refused")
    reasons = []
    for _ in DEFAULT_IMAGES:
        with pytest.raises(Refused) as refused:
            tensordock.create(quote=quote)
        reasons.append(refused.value.why)
    assert reasons == [Refusal.OFFER_GONE] * (len(DEFAULT_IMAGES) - 1) + [Refusal.HOST]


@shows("F32")
def test_too_many_calls_do_not_prove_that_nothing_was_made(tensordock: Scene) -> None:
    spec = tensordock.spec()
    tensordock.set("call.rate_limited", operation="create")
    with pytest.raises(Unavailable) as limited:
        tensordock.provider.create(spec)
    assert limited.value.retry_after is not None


def test_a_create_may_be_answered_201(tensordock: Scene) -> None:
    tensordock.set("create.as_201")
    assert tensordock.look(tensordock.rent()).label == LABEL


# --- What a create sends ----------------------------------------------------------------------------------------


@shows("F10")
@pytest.mark.parametrize("user", ["user", "root"])
def test_keys_reach_both_users_even_where_the_key_of_the_order_is_ignored(tensordock: Scene, user: str) -> None:
    tensordock.set("guest.key_ignored")
    machine_id = tensordock.rent()
    assert [tensordock.door(machine_id, user=user, key=key) for key in (OUR_KEY, THEIR_KEY)] == ["open", "open"]


@shows("F10")
@pytest.mark.parametrize(("ignored", "door"), [(False, "open"), (True, "denied")])
def test_the_key_of_the_order_alone_may_not_be_enough(tensordock: Scene, ignored: bool, door: str) -> None:
    body = _sent(tensordock)
    del body["data"]["attributes"]["cloud_init"]
    if ignored:
        tensordock.set("guest.key_ignored")
    made = session_for(tensordock.world).post(f"{URL}/instances", json=body, headers=KEY).json()["data"]["id"]
    tensordock.wait(10)
    assert tensordock.door(made) == door


@shows("F34")
def test_the_key_goes_with_the_order_and_none_of_the_account_is_relied_on(tensordock: Scene) -> None:
    attributes = _sent(tensordock)["data"]["attributes"]
    assert attributes["ssh_key"] == OUR_KEY
    assert "ssh_key_id" not in attributes
    machine_id = tensordock.rent()
    assert tensordock.door(machine_id, key=OTHER_KEY) == "denied"


@shows("F9")
def test_the_start_script_waits_for_the_package_lock_but_not_for_ever_nor_before_the_keys(tensordock: Scene) -> None:
    lines = _sent(tensordock)["data"]["attributes"]["cloud_init"]["runcmd"]
    (waits,) = (number for number, line in enumerate(lines) if "lock-frontend" in line)
    assert "timeout 300" in lines[waits]
    assert lines[waits].endswith("|| true")
    assert all("authorized_keys" not in line and "dead-man" not in line for line in lines[waits:])


@shows("F36")
def test_nothing_is_sent_in_a_way_that_the_provider_does_not_decode(tensordock: Scene) -> None:
    body = _sent(tensordock)
    assert set(body["data"]["attributes"]["cloud_init"]) == {"package_update", "package_upgrade", "runcmd"}
    packed = base64.b64encode(b"hello").decode()
    file = {"path": "/opt/hello", "content": packed, "encoding": "b64"}
    body["data"]["attributes"]["cloud_init"]["write_files"] = [file]
    made = session_for(tensordock.world).post(f"{URL}/instances", json=body, headers=KEY).json()["data"]["id"]
    assert tensordock.books(made).guest.files["/opt/hello"] == packed


@shows("F37")
def test_logins_by_password_are_switched_off_before_the_slow_part(tensordock: Scene) -> None:
    lines = _sent(tensordock)["data"]["attributes"]["cloud_init"]["runcmd"]
    (off,) = (number for number, line in enumerate(lines) if "PasswordAuthentication no" in line)
    assert off < next(number for number, line in enumerate(lines) if "nvidia" in line)


def test_the_consumers_script_goes_along_last(tensordock: Scene) -> None:
    lines = _sent(tensordock, onstart="echo at=1700000000")["data"]["attributes"]["cloud_init"]["runcmd"]
    assert base64.b64encode(b"echo at=1700000000").decode() in lines[-3]
    deadline = tensordock.clock.now() + timedelta(hours=2)
    machine_id = tensordock.rent(onstart="at=1700000000", hard_deadline=deadline)
    assert tensordock.world.dead_man_deadline(tensordock.books(machine_id)) == deadline.timestamp()


# --- Where a machine is -----------------------------------------------------------------------------------------


@shows("F11")
def test_a_machine_runs_before_it_has_an_address(tensordock: Scene) -> None:
    tensordock.set("boot.ip_delay", 30)
    machine_id = tensordock.rent()
    machine = tensordock.look(machine_id)
    assert (machine.state, machine.ssh_targets) == (MachineState.UP, ())
    tensordock.wait(30)
    assert tensordock.door(machine_id) == "open"


@shows("F4")
def test_forwards_that_were_ignored_leave_the_port_shut(tensordock: Scene) -> None:
    tensordock.set("net.no_dedicated_ip")
    tensordock.set("net.ignore_forwards")
    machine_id = tensordock.rent()
    assert tensordock.books(machine_id).asked["port_forwards"]
    assert tensordock.look(machine_id).state is MachineState.UP
    assert tensordock.door(machine_id) == "refused"


@shows("F5")
def test_the_port_is_the_one_that_was_granted(tensordock: Scene) -> None:
    tensordock.set("net.no_dedicated_ip")
    asked = tensordock.rent()
    tensordock.set("net.remap_ports")
    granted = tensordock.rent()
    assert [tensordock.target(each).port == 22 for each in (asked, granted)] == [True, False]
    assert tensordock.door(granted) == "open"


@shows("F29")
def test_a_name_in_place_of_an_address_will_do(tensordock: Scene) -> None:
    tensordock.set("net.hostname")
    machine_id = tensordock.rent()
    assert not tensordock.target(machine_id).host[-1].isdigit()
    assert tensordock.door(machine_id) == "open"


# --- Listings and look-ups --------------------------------------------------------------------------------------


@shows("F12")
@pytest.mark.parametrize("shape", ["L1", "L2", "L3", "L4"])
def test_a_listing_is_read_in_each_form_it_was_seen_in(tensordock: Scene, shape: str) -> None:
    tensordock.set("list.shape", shape)
    assert tensordock.listed() == set()
    machine_id = tensordock.rent()
    assert [(machine.id, machine.label) for machine in tensordock.provider.machines()] == [(machine_id, LABEL)]


@shows("F12", "F39")
@pytest.mark.parametrize("value", ["unknown", "empty", "503"])
def test_a_listing_in_another_form_is_none(tensordock: Scene, value: str) -> None:
    tensordock.set("list.fail", value)
    with pytest.raises((NotUnderstood, Unavailable)):
        tensordock.provider.machines()


@shows("F13")
def test_a_row_without_a_name_is_asked_for_it(tensordock: Scene) -> None:
    machine_id = tensordock.rent()
    tensordock.set("list.sparse")
    assert [(machine.id, machine.label) for machine in tensordock.provider.machines()] == [(machine_id, LABEL)]


@shows("F13")
def test_a_row_whose_name_nobody_tells_is_a_machine_of_an_unknown_name(tensordock: Scene) -> None:
    machine_id = tensordock.rent()
    tensordock.set("list.sparse")
    tensordock.set("call.http_500", operation="get")
    assert [(machine.id, machine.label) for machine in tensordock.provider.machines()] == [(machine_id, None)]


@shows("F20")
@pytest.mark.parametrize("form", ["404", "200err", "status"])
def test_a_machine_that_is_gone_reads_so_in_each_form(tensordock: Scene, form: str) -> None:
    machine_id = tensordock.rent()
    tensordock.provider.destroy(machine_id)
    tensordock.set("get.gone", form)
    assert tensordock.provider.machine(machine_id) is None


@shows("F20", "F39")
def test_a_failure_with_http_200_says_nothing_of_a_machine_unless_it_says_404(tensordock: Scene) -> None:
    machine_id, spec = tensordock.rent(), tensordock.spec()
    tensordock.set("call.http_500", "disguised")
    for ask in (tensordock.provider.machines, lambda: tensordock.provider.machine(machine_id)):
        with pytest.raises(Unavailable):
            ask()
    for change in (lambda: tensordock.provider.destroy(machine_id), lambda: tensordock.provider.create(spec)):
        with pytest.raises(Unavailable):
            change()


@shows("F22")
def test_a_good_token_that_was_rejected_once_is_tried_again_before_anybody_is_alarmed(tensordock: Scene) -> None:
    machine_id = tensordock.rent()
    tensordock.set("call.unauthorized", times=1)
    began = tensordock.clock.now()
    assert tensordock.listed() == {machine_id}
    assert tensordock.clock.now() - began == timedelta(seconds=RECHECK)


@shows("F22")
def test_a_create_that_was_rejected_is_not_sent_again(tensordock: Scene) -> None:
    spec = tensordock.spec()
    tensordock.set("call.unauthorized", times=1)
    with pytest.raises(Unauthorized):
        tensordock.provider.create(spec)
    assert tensordock.calls("create") == 1


# --- What becomes of a machine ----------------------------------------------------------------------------------


@shows("F24")
def test_a_gpu_that_was_taken_back_is_down_and_does_not_start(tensordock: Scene) -> None:
    tensordock.set("host.disassociate_after", 60)
    machine_id = tensordock.rent()
    tensordock.wait(60)
    machine = tensordock.look(machine_id)
    assert (machine.state, machine.status) == (MachineState.DOWN, "stoppeddisassociated")
    assert tensordock.world.ssh_door(machine_id) == "refused"
    started = session_for(tensordock.world).post(f"{URL}/instances/{machine_id}/start", headers=KEY)
    assert started.status_code == 400
    assert tensordock.listed() == {machine_id}


@shows("F25")
def test_a_word_that_flickers_in_the_boot_passes(tensordock: Scene) -> None:
    tensordock.set("boot.flicker", 60)
    machine_id = tensordock.rent()
    assert tensordock.look(machine_id).status == "stoppeddisassociated"
    tensordock.wait(60)
    assert tensordock.look(machine_id).state is MachineState.UP


@shows("F6", "F38")
def test_a_stopped_machine_is_billed_in_full(tensordock: Scene) -> None:
    tensordock.set("host.stop_after", 60)
    machine_id = tensordock.rent()
    tensordock.wait(3600 - 10)
    price = tensordock.look(machine_id).price
    assert price is not None
    assert tensordock.world.bill(machine_id) == price.total


def test_a_stopped_machine_starts_where_the_gpu_is_still_there(tensordock: Scene) -> None:
    machine_id = tensordock.rent()
    session = session_for(tensordock.world)
    for verb, state in (("stop", MachineState.DOWN), ("start", MachineState.UP)):
        assert session.post(f"{URL}/instances/{machine_id}/{verb}", headers=KEY).status_code == 200
        assert tensordock.look(machine_id).state is state


@shows("F31")
def test_an_account_tells_nothing_of_its_money_so_limits_have_to_be_our_own(tensordock: Scene) -> None:
    machine_id = tensordock.rent()
    tensordock.set("account.credit", -1)
    tensordock.wait(7 * 3600)
    assert tensordock.provider.account().balance is None
    assert tensordock.listed() == {machine_id}


@shows("F33")
def test_slow_calls_are_given_the_time_that_they_were_seen_to_take(tensordock: Scene) -> None:
    patient = _Patient(tensordock.world)
    session = requests.Session()
    session.mount("https://", patient)
    provider = adapter(tensordock.world, "tensordock", session=session)
    machine_id = provider.create(tensordock.spec())
    provider.quotes(disk_gb=100)
    provider.machines()
    provider.machine(machine_id)
    provider.destroy(machine_id)
    least = {"POST /instances": 120, "GET /locations": 20, "GET /instances": 20, "DELETE": 60}
    for call, seconds in least.items():
        assert min(timeout for asked, timeout in patient.asked if asked.startswith(call)) >= seconds


# --- The menu ---------------------------------------------------------------------------------------------------


@shows("F26")
def test_a_count_of_none_is_no_offer(tensordock: Scene) -> None:
    tensordock.set("locations.drift")
    assert tensordock.provider.quotes(disk_gb=100) == []


@shows("F26")
def test_a_count_that_was_too_high_is_an_offer_that_turns_out_to_be_gone(tensordock: Scene) -> None:
    honest = {quote.provider_id for quote in tensordock.provider.quotes(disk_gb=100)}
    tensordock.set("locations.drift", "high")
    false = next(q for q in tensordock.provider.quotes(disk_gb=100) if q.provider_id not in honest)
    with pytest.raises(Refused) as refused:
        tensordock.create(quote=false)
    assert refused.value.why is Refusal.OFFER_GONE


@shows("F27")
def test_numbers_that_come_as_text_are_numbers(tensordock: Scene) -> None:
    honest = tensordock.provider.quotes(disk_gb=100)
    machine_id = tensordock.rent()
    machine = tensordock.look(machine_id)
    tensordock.set("json.drift")
    assert tensordock.provider.quotes(disk_gb=100) == honest
    assert tensordock.look(machine_id) == machine
    tensordock.set("net.remap_ports")
    tensordock.set("net.no_dedicated_ip")
    assert tensordock.target(tensordock.rent()).port != 22


@shows("F28")
@pytest.mark.parametrize("value", [True, "top"])
def test_a_menu_whose_members_have_other_names_is_not_an_empty_one(tensordock: Scene, value: Any) -> None:
    tensordock.set("json.rename", value)
    with pytest.raises(NotUnderstood):
        tensordock.provider.quotes(disk_gb=100)


def test_a_menu_without_the_list_of_machines_is_a_menu(tensordock: Scene) -> None:
    honest = {quote.provider_id for quote in tensordock.provider.quotes(disk_gb=100)}
    tensordock.set("hostnodes.fail")
    assert {quote.provider_id for quote in tensordock.provider.quotes(disk_gb=100)} == honest


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/hostnodes"), ("GET", "/instances"), ("POST", "/instances"), ("DELETE", "/instances/x")],
)
def test_without_a_token_only_the_places_are_told(tensordock: Scene, method: str, path: str) -> None:
    session = session_for(tensordock.world)
    denied = session.request(method, URL + path)
    assert (denied.status_code, denied.text) == (401, "Unauthorized")
    assert session.get(f"{URL}/locations").status_code == 200


class _Patient(WorldAdapter):
    """Remembers how long each call would wait for an answer."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.asked: list[tuple[str, float]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        path = str(request.url).partition("/v2")[2]
        self.asked.append((f"{request.method} {path}", kwargs["timeout"][1]))
        return super().send(request, *args, **kwargs)


def _sent(tensordock: Scene, **changed: Any) -> dict[str, Any]:
    """The body of a create."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request, send: Any) -> Response:
        if request.method == "POST":
            bodies.append(request.json)
            raise ConnectionError
        answer: Response = send()
        return answer

    provider = adapter(tensordock.world, "tensordock", session=session_for(tensordock.world, around=note))
    with pytest.raises(Unavailable):
        provider.create(tensordock.spec(**changed))
    return bodies[0]


def test_the_balance_is_told_to_the_pair_with_the_authorization_id_only() -> None:
    world = World(offers=1)
    session = session_for(world)

    def balance(auth_id: str) -> int | None:
        return TensorDock(
            "sandbox-tensordock-token", session=session, auth_id=auth_id, pacer=NoPacer()
        ).account().balance  # fmt: skip

    assert balance(AUTHORIZATION_ID) == 100_000_000
    assert balance("wrong") is None
    assert balance("") is None
    assert all(AUTHORIZATION_ID not in str(call) for call in world.calls)
