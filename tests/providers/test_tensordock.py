"""TensorDock's adapter against answers as they were seen."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import responses

from providers import clock
from providers.base import (
    LaunchSpec,
    MachineState,
    NotUnderstood,
    Provider,
    Refusal,
    Refused,
    SshTarget,
    Unauthorized,
    Unavailable,
)
from providers.http import NoPacer
from providers.tensordock import TensorDock, create_body, locations_of, quotes_of, shape, state_of, token_of

BASE = "https://dashboard.tensordock.com/api/v2"
PLACE = "5b0c1d7e-3a42-4f0e-9a63-0d8f7c2b9e11"
MODEL = "geforcertx4090-pcie-24gb"
VM = "9e4d2b60-7c1f-4a85-b3e9-2f60c8d17a35"
LIST, ONE = f"{BASE}/instances", f"{BASE}/instances/{VM}"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMGKS1YKq2dYkPTxjSLMbO6dFSAOqHTOcKCc7iv6zVP4"
TOKEN = "s3cret-token"


class FakeClock:
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture(autouse=True)
def _fake_clock() -> Iterator[None]:
    previous = clock.use(FakeClock())
    yield
    clock.use(previous)


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def tensordock() -> TensorDock:
    return TensorDock(TOKEN, pacer=NoPacer())


def spec(**changes: Any) -> LaunchSpec:
    fields: dict[str, Any] = {
        "label": "gs-tag", "quote_id": f"{PLACE}-{MODEL}", "gpu_name": MODEL, "gpu_count": 1, "disk_gb": 110,
        "cpu_cores": 7, "ram_gb": 30, "ssh_public_keys": (KEY,),
    }  # fmt: skip
    return LaunchSpec(**(fields | changes))


def row(**changes: Any) -> dict[str, Any]:
    return {"type": "virtualmachine", "id": VM, "name": "gs-tag", "status": "running"} | changes


def location(**changes: Any) -> dict[str, Any]:
    gpu = {
        "v0Name": MODEL, "displayName": "NVIDIA GeForce RTX 4090 PCIe 24GB", "max_count": 4,
        "price_per_hr": Decimal("0.41"),
        "resources": {"max_vcpus": 48, "max_ram_gb": 256, "max_storage_gb": 6000},
        "pricing": {"per_vcpu_hr": Decimal("0.003"), "per_gb_ram_hr": Decimal("0.002"),
                    "per_gb_storage_hr": Decimal("0.00005")},
        "network_features": {"dedicated_ip_available": True, "port_forwarding_available": True},
    } | changes  # fmt: skip
    return {
        "id": PLACE,
        "city": "Riverton",
        "stateprovince": "Ohio",
        "country": "United States",
        "tier": 3,
        "gpus": [gpu],
    }


def node(**room: Any) -> dict[str, Any]:
    resources = {"gpus": [{"v0Name": MODEL, "availableCount": 2}], "has_public_ip_available": True} | room
    return {"location_id": PLACE, "uptime_percentage": Decimal("90"), "available_resources": resources}


# --- The token ----------------------------------------------------------------------------------------


def test_the_adapter_has_all_verbs(tensordock: TensorDock) -> None:
    assert isinstance(tensordock, Provider)


def test_no_token_is_no_adapter() -> None:
    assert TensorDock.from_env({}) is None


def test_the_api_token_wins_over_the_key() -> None:
    assert token_of({"TENSORDOCK_API_TOKEN": "a", "TENSORDOCK_API_KEY": "b"}) == "a"
    assert token_of({"TENSORDOCK_API_KEY": "b"}) == "b"


def test_an_authorization_id_alone_is_explained() -> None:
    with pytest.raises(ValueError, match=r"TENSORDOCK_API_TOKEN.*API Token, not Authorization ID"):
        TensorDock.from_env({"TENSORDOCK_API_KEY": PLACE})


# --- The menu -----------------------------------------------------------------------------------------


def test_the_whole_machine_costs_what_its_parts_cost() -> None:
    parts = next(quotes_of(location(), [])).rates.parts(100)
    assert parts is not None
    assert parts.total == 503_000


def test_there_is_a_quote_for_each_count_up_to_the_most() -> None:
    quotes = list(quotes_of(location(), []))
    assert [quote.provider_id.removeprefix(f"{PLACE}-{MODEL}") for quote in quotes] == ["", "-x2", "-x4"]
    assert (quotes[0].vram_gb, quotes[0].country, quotes[1].cpu_cores, quotes[1].ram_gb) == (24, "US", 16, 64)


def test_an_unknown_part_leaves_an_offer_without_a_price() -> None:
    assert next(quotes_of(location(pricing={}), [])).rates.parts(100) is None


@pytest.mark.parametrize("key", ["v0Name", "price_per_hr"])
def test_a_renamed_field_is_not_an_empty_menu(key: str) -> None:
    with pytest.raises(NotUnderstood):
        locations_of({"data": {"locations": [location(**{key: None})]}})


def test_a_machine_without_a_free_address_makes_an_offer_unavailable() -> None:
    assert next(quotes_of(location(), [node()])).available
    assert not next(quotes_of(location(), [node(has_public_ip_available=False)])).available
    assert [quote.available for quote in quotes_of(location(), [node()])] == [True, True, False]


def test_failing_hostnodes_do_not_cost_the_menu(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    body = json.dumps({"data": {"locations": [location()]}}, default=float)
    api.get(f"{BASE}/locations", body=body)
    api.get(f"{BASE}/hostnodes", status=503)
    assert len(tensordock.quotes(disk_gb=100)) == 3


def test_a_shape_is_even_listed_and_within_the_caps() -> None:
    assert shape(2, {"max_vcpus": 13, "max_ram_gb": 60}) == (12, 48)
    assert shape(2, {"max_vcpus": 0}) == (16, 64)


# --- Listing ------------------------------------------------------------------------------------------

SHAPES = {
    "L1": {"data": [row()]},
    "L2": {"data": {"instances": [{"type": "VM", "id": VM, "attributes": {"name": "gs-tag", "status": "running"}}]}},
    "L3": {"data": {"type": "list", "id": "instances", "attributes": {"instances": [row()]}}},
    "L4": {"instances": [row()]},
}


@pytest.mark.parametrize("shape_name", SHAPES)
def test_each_list_shape_is_read(shape_name: str, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, json=SHAPES[shape_name])
    [machine] = tensordock.machines()
    assert (machine.id, machine.label, machine.state) == (VM, "gs-tag", MachineState.UP)


@pytest.mark.parametrize(
    "body",
    [{}, [], {"data": {}}, {"data": None}, {"data": ["x"]}, {"data": [row(id=None)]}, {"data": [row(), row()]}],
)
def test_a_list_that_is_not_understood_is_never_empty(
    body: Any, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    api.get(LIST, json=body)
    with pytest.raises(NotUnderstood):
        tensordock.machines()


def test_an_empty_account_is_empty(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, json={"data": []})
    assert list(tensordock.machines()) == []


def test_a_row_without_a_name_is_asked_for_by_id(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, json={"data": [{"id": VM, "status": "running"}]})
    api.get(ONE, json=row())
    assert tensordock.machines()[0].label == "gs-tag"


def test_a_name_that_stays_unknown_keeps_the_machine(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, json={"data": [{"id": VM, "status": "running"}]})
    api.get(ONE, status=404, json={"status": 404, "error": "Instance not found"})
    assert [machine.label for machine in tensordock.machines()] == [None]


PART = {
    "a total": {"data": [row()], "total": 31},
    "a total as text": {"data": {"instances": [row()], "total": "2"}},
    "more": {"data": [row()], "has_more": True},
    "more, in camel case": {"data": {"attributes": {"instances": [row()], "hasMore": True}}},
    "a next page": {"instances": [row()], "next": "/instances?page=2"},
    "a next page among links": {"data": [row()], "links": {"next": {"href": "/instances?page=2"}}},
    "a total beside": {"data": [], "meta": {"total": 1}},
    "all of it": {"data": [row()], "total": 31, "has_more": True, "next": "eyJwIjoyfQ"},
}


@pytest.mark.parametrize("form", PART)
def test_a_list_that_says_that_there_are_more_is_not_complete(
    form: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    api.get(LIST, json=PART[form])
    with pytest.raises(NotUnderstood, match="more"):
        tensordock.machines()


def test_a_list_that_says_that_it_is_whole_is_read(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, json={"data": [row(next="x")], "total": 1, "has_more": False, "next": None, "links": {"next": None}})
    assert [machine.id for machine in tensordock.machines()] == [VM]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failing_list_is_not_empty(status: int, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, status=status)
    with pytest.raises(Unavailable):
        tensordock.machines()


# --- One machine --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [row(), {"data": row()}, {"data": {"id": VM, "attributes": {"status": "running"}}}])
def test_one_machine_is_read_bare_or_wrapped(body: Any, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(ONE, json=body)
    machine = tensordock.machine(VM)
    assert machine is not None
    assert machine.state is MachineState.UP


GONE = {
    "404": (404, {"status": 404, "error": "Instance not found"}),
    "404 without status": (404, {"message": f"Instance {VM} not found"}),
    "nested 404": (404, {"data": {"status": 404, "error": "Instance not found"}}),
    "200 with 404 in other words": (200, {"status": 404, "error": "gone"}),
    "200 with 404": (200, {"status": 404, "error": "Instance not found"}),
    "200 with 404 as text": (200, {"status": "404", "error": "Instance not found"}),
    "deleted": (200, row(status="Deleted")),
    "terminated": (200, row(status="terminated")),
}


@pytest.mark.parametrize("form", GONE)
def test_each_form_of_gone_is_gone(form: str, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    status, body = GONE[form]
    api.get(ONE, status=status, body=body if isinstance(body, str) else json.dumps(body))
    assert tensordock.machine(VM) is None


NOT_GONE = {
    "a proxy's page": (404, "<html>not here</html>", Unavailable),
    "an empty 404": (404, "", Unavailable),
    "a 404 as text": (404, "404 page not found", Unavailable),
    "a 404 that is text about an instance": (404, "Instance not found", Unavailable),
    "a gateway's 404": (404, '{"message": "no Route matched with those values"}', Unavailable),
    "a framework's 404": (404, '{"status": 404, "error": "Not Found", "path": "/api/v2/instances/1"}', Unavailable),
    "a 404 without fields": (404, "{}", Unavailable),
    "a 404 that is a list": (404, '["Instance not found"]', Unavailable),
    "a 404 around another status": (404, '{"status": 500, "error": "Instance not found"}', Unavailable),
    "a 404 without an error": (200, '{"status": 404}', Unavailable),
    "a 500 around a 404": (500, '{"status": 404, "error": "Instance not found"}', Unavailable),
    "a hidden 500": (200, '{"status": 500, "error": "oops"}', Unavailable),
    "an error without status": (200, '{"error": [{"message": "oops"}]}', NotUnderstood),
    "a nested error": (200, '{"data": {"status": 503, "error": "oops"}}', Unavailable),
    "issues": (400, '[{"code": "custom", "message": "no", "path": [1]}]', NotUnderstood),
    "another machine": (200, json.dumps(row(id="4d7f1a03-8e52-4c6b-9b1d-e05a72c3f948")), NotUnderstood),
    "nothing": (200, "", NotUnderstood),
    "an empty object": (200, "{}", NotUnderstood),
    "503": (503, "", Unavailable),
    "401": (401, "Unauthorized", Unauthorized),
    "a hidden 401": (200, '{"status": 401, "error": "Unauthorized"}', Unauthorized),
}


@pytest.mark.parametrize("form", NOT_GONE)
def test_no_other_answer_is_gone(form: str, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    status, body, error = NOT_GONE[form]
    api.get(ONE, status=status, body=body)
    with pytest.raises(error):
        tensordock.machine(VM)


def test_a_deleted_row_is_not_listed(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, json={"data": [row(status="terminated")]})
    assert list(tensordock.machines()) == []


def test_one_401_among_good_answers_is_looked_past(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(LIST, status=401, body="Unauthorized")
    api.get(LIST, json={"data": [row()]})
    assert len(tensordock.machines()) == 1


def test_an_id_that_could_change_the_path_is_not_sent(tensordock: TensorDock) -> None:
    with pytest.raises(NotUnderstood):
        tensordock.destroy("../secrets")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("creating", "starting"), ("Queued", "starting"), ("running", "up"), ("ACTIVE", "up"), ("stopped", "down"),
        ("stopping", "down"), ("StoppedDisassociated", "down"), ("stopped_disassociated", "down"),
        ("failed", "broken"), ("deleting", "leaving"), ("relocating", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_their_states_in_our_words(status: str, state: str) -> None:
    assert state_of(status) == state


def test_the_port_granted_is_read_back_and_user_comes_first(
    api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    forwards = [{"internal_port": 22, "external_port": "20456"}]
    api.get(ONE, json=row(ipAddress="203.0.113.27", portForwards=forwards, rateHourly=0.503))
    machine = tensordock.machine(VM)
    assert machine is not None
    assert machine.ssh_targets == (SshTarget("203.0.113.27", 20456, "user"), SshTarget("203.0.113.27", 20456, "root"))
    assert machine.price is not None
    assert machine.price.total == 503_000


def test_running_without_an_address_is_no_target(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.get(ONE, json=row(ipAddress=""))
    machine = tensordock.machine(VM)
    assert machine is not None
    assert machine.ssh_targets == ()


# --- Create -------------------------------------------------------------------------------------------


def test_the_order_follows_the_rules() -> None:
    sent = create_body(spec(hard_deadline=datetime(2026, 11, 2, tzinfo=UTC)), "an-image")["data"]["attributes"]
    gpus = {MODEL: {"count": 1}}
    assert sent["resources"] == {"vcpu_count": 8, "ram_gb": 32, "storage_gb": 150, "gpus": gpus}
    assert sent["useDedicatedIp"] is True
    assert sent["location_id"] == PLACE
    assert "port_forwards" not in sent
    lines = "\n".join(sent["cloud_init"]["runcmd"])
    assert "/root/.ssh/authorized_keys" in lines
    assert "/home/user/.ssh/authorized_keys" in lines
    assert "PasswordAuthentication no" in lines
    assert "gpu-shopper-dead-man" in lines


def test_a_place_without_addresses_forwards_ssh() -> None:
    [quote, *_] = quotes_of(location(network_features={"dedicated_ip_available": False}), [])
    sent = create_body(spec(quote_id=quote.provider_id), "an-image")["data"]["attributes"]
    assert sent["port_forwards"][0]["internal_port"] == 22
    assert "useDedicatedIp" not in sent


SEEN = {
    "No available nodes found": Refusal.OFFER_GONE,
    "No available public IPs on hostnode": Refusal.OFFER_GONE,
    "unexpected error during deployment": Refusal.OFFER_GONE,
    "SSH port (22) must be forwarded for Ubuntu VMs": Refusal.INVALID,
    "You need at least $1 to deploy": Refusal.NO_MONEY,
}
REFUSALS = {
    "Hostnode unavailable": Refusal.OFFER_GONE,
    "insufficient capacity": Refusal.OFFER_GONE,
    "your balance is too low": Refusal.NO_MONEY,
    "Insufficient funds": Refusal.NO_MONEY,
    "GPU quota exceeded": Refusal.NO_MONEY,
    "vcpu_count must be even": Refusal.INVALID,
}
WRAPPINGS: dict[str, Any] = {
    "E1 400": (200, lambda text: {"status": 400, "error": text}),
    "E2 no status": (200, lambda text: {"error": {"message": text}}),
    "E2 nested": (201, lambda text: {"data": {"error": text}}),
    "E4": (400, lambda text: {"message": text}),
}


FAILING_SERVER: dict[str, Any] = {
    "E1 500": (200, lambda text: {"status": 500, "error": text}),
    "nested 500": (200, lambda text: {"data": {"status": 500, "error": text}}),
    "500": (500, lambda text: {"error": text}),
}


@pytest.mark.parametrize("text", [*SEEN, *REFUSALS])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_refusal_is_known_by_its_text(
    wrapping: str, text: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    status, wrap = WRAPPINGS[wrapping]
    api.post(LIST, status=status, json=wrap(text))
    with pytest.raises(Refused) as refused:
        tensordock.create(spec())
    assert refused.value.why is (SEEN | REFUSALS)[text]


@pytest.mark.parametrize("text", SEEN)
@pytest.mark.parametrize("wrapping", FAILING_SERVER)
def test_what_was_seen_to_mean_no_means_it_from_a_failing_server_too(
    wrapping: str, text: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    status, wrap = FAILING_SERVER[wrapping]
    api.post(LIST, status=status, json=wrap(text))
    with pytest.raises(Refused) as refused:
        tensordock.create(spec())
    assert refused.value.why is SEEN[text]


@pytest.mark.parametrize("text", [*REFUSALS, "load balancer: upstream timed out", "the maximum of retries", "balance"])
@pytest.mark.parametrize("wrapping", FAILING_SERVER)
def test_no_other_word_of_a_failing_server_means_no(
    wrapping: str, text: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    status, wrap = FAILING_SERVER[wrapping]
    api.post(LIST, status=status, json=wrap(text))
    with pytest.raises(Unavailable):
        tensordock.create(spec())


@pytest.mark.parametrize("text", ["bad rebalance", "the balancer said no", "maximums", "it must bend"])
def test_a_part_of_a_word_is_no_refusal(text: str, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.post(LIST, status=400, json={"error": text})
    with pytest.raises(NotUnderstood):
        tensordock.create(spec())


SAID_NO_AND_MADE: dict[str, tuple[int, Any]] = {
    "E1": (200, {"status": 400, "error": "No available nodes found", "id": VM}),
    "E1 with data": (200, {"status": 500, "error": "unexpected error during deployment", "data": {"id": VM}}),
    "nested": (201, {"data": {"error": "No available nodes found", "id": VM}}),
    "beside data": (200, {"id": VM, "data": {"error": "No available nodes found"}}),
    "an image": (400, {"error": "invalid_enum_value", "id": VM}),
    "401": (401, {"error": "Unauthorized", "data": {"id": VM}}),
    "429": (429, {"status": 429, "error": "Too many requests", "id": VM}),
    "500": (500, {"error": "strange", "data": {"id": VM, "attributes": {"status": "error"}}}),
    "503": (503, {"error": "strange", "id": VM}),
}


@pytest.mark.parametrize("form", SAID_NO_AND_MADE)
def test_a_refusal_that_made_a_machine_tells_its_id(
    form: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    status, body = SAID_NO_AND_MADE[form]
    api.post(LIST, status=status, json=body)
    with pytest.raises(Refused) as refused:
        tensordock.create(spec())
    assert (refused.value.machine_id, refused.value.why) == (VM, Refusal.OFFER_GONE)
    assert len(api.calls) == 1


@pytest.mark.parametrize("status", [200, 400, 500])
def test_what_the_consumer_sent_is_in_no_error(
    status: int, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    onstart, hf_token = "curl -u me:0pen-5ecre7 example.org", "hf_Wq3v-5ecre7"

    def echo(request: Any) -> tuple[int, dict[str, str], str]:
        lines = json.loads(request.body)["data"]["attributes"]["cloud_init"]["runcmd"]
        packed = next(line for line in lines if "> /opt/gpu-shopper-onstart" in line)
        text = f"No available nodes found {packed} {onstart} {hf_token} {KEY}"
        return status, {}, json.dumps({"error": text})

    api.add_callback("POST", LIST, echo)
    with pytest.raises(Refused) as refused:
        tensordock.create(spec(onstart=onstart, env={"HF_TOKEN": hf_token}))
    told = str(refused.value)
    assert "No available nodes found" in told
    packed = base64.b64encode(onstart.encode()).decode()
    assert not any(secret in told for secret in ("5ecre7", "hf_Wq3v", "AAAAC3Nz", packed[:8], packed[-8:]))


def test_the_validators_list_is_our_mistake(api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.post(LIST, status=400, json=[{"code": "too_big", "message": "above the maximum", "path": [0]}])
    with pytest.raises(Refused) as refused:
        tensordock.create(spec())
    assert refused.value.why is Refusal.INVALID


UNCLEAR = {
    "an id that is not the machine's": (200, '{"id": "request-1", "data": {"name": "gs-tag"}}', NotUnderstood),
    "no id": (200, '{"data": {"name": "gs-tag"}}', NotUnderstood),
    "empty": (200, "", NotUnderstood),
    "a list": (200, "[]", NotUnderstood),
    "unknown text": (200, '{"status": 500, "error": "strange"}', Unavailable),
    "unknown 400": (400, '{"error": "strange"}', NotUnderstood),
    "429": (429, '{"status": 429, "error": "limit reached"}', Unavailable),
    "503 that says image": (503, '{"error": "invalid_enum_value"}', Unavailable),
    "503 that says stock": (503, '{"error": "resource unavailable"}', Unavailable),
    "502": (502, "<html>", Unavailable),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_an_unclear_create_is_neither_made_nor_refused(
    form: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    status, body, error = UNCLEAR[form]
    api.post(LIST, status=status, body=body)
    with pytest.raises(error):
        tensordock.create(spec())
    assert len(api.calls) == 1


def test_a_denied_create_is_sent_once_and_the_token_is_not_shown(
    api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    api.post(LIST, status=401, body=f"Unauthorized {TOKEN}")
    with pytest.raises(Unauthorized) as denied:
        tensordock.create(spec())
    assert len(api.calls) == 1
    assert TOKEN not in str(denied.value) + repr(tensordock)


def test_after_a_refused_image_the_next_create_takes_another(
    api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    api.post(LIST, status=400, json=[{"code": "invalid_enum_value", "message": "Invalid", "path": ["image"]}])
    api.post(LIST, json={"data": row()})
    with pytest.raises(Refused) as refused:
        tensordock.create(spec())
    assert refused.value.why is Refusal.OFFER_GONE
    assert tensordock.create(spec()) == VM
    images = [json.loads(call.request.body or "")["data"]["attributes"]["image"] for call in api.calls]
    assert images[0] != images[1]


@pytest.mark.parametrize("body", [{"data": row()}, row(), {"data": {"id": VM, "attributes": {"status": "queued"}}}])
def test_a_create_gives_the_id(body: Any, api: responses.RequestsMock, tensordock: TensorDock) -> None:
    api.post(LIST, status=201, json=body)
    assert tensordock.create(spec()) == VM


# --- Destroy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "body"), [(200, "{}"), (202, ""), (204, ""), (404, ""), (200, '{"status": 404}')])
def test_these_answers_to_a_destroy_are_fine(
    status: int, body: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    api.delete(ONE, status=status, body=body)
    tensordock.destroy(VM)


@pytest.mark.parametrize(
    ("status", "body"), [(500, "{}"), (503, ""), (429, ""), (200, '{"status": 500, "error": "x"}')]
)
def test_a_failed_destroy_is_told_and_sent_once(
    status: int, body: str, api: responses.RequestsMock, tensordock: TensorDock
) -> None:
    api.delete(ONE, status=status, body=body)
    with pytest.raises(Unavailable):
        tensordock.destroy(VM)
    assert len(api.calls) == 1
