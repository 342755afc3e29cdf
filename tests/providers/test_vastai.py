"""Vast.ai's answers, as they were seen on the wire, and what the adapter makes of them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import responses

from providers import clock
from providers.base import (
    Charge,
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
from providers.vastai import VastAI, launch
from tests.providers.test_http import _cut_off, _drip, _hang_up, _service_unavailable, _silent, server
from tests.providers.vast import (
    ASK,
    AUTH_ERRORS,
    BUNDLES,
    CHARGES,
    INSTANCES,
    KEYS,
    ONE,
    PUBLIC_KEY,
    RATE_LIMITS,
    USER,
    instance,
    listing,
    offer,
)
from tests.simulation.virtual_clock import VirtualClock

ID = "38120457"
DEADLINE = datetime(2026, 10, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def virtual(request: pytest.FixtureRequest) -> Iterator[VirtualClock | None]:
    if "real_time" in request.keywords:
        yield None
        return
    ours = VirtualClock()
    previous = clock.use(ours)
    yield ours
    clock.use(previous)


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def vast() -> VastAI:
    return VastAI("key-5ecre7")


def spec(**changes) -> LaunchSpec:
    return LaunchSpec(
        **{
            "label": "gs-tag",
            "quote_id": "41873205",
            "gpu_name": "RTX 4090",
            "gpu_count": 1,
            "disk_gb": 40,
            "cpu_cores": 8,
            "ram_gb": 32,
            "ssh_public_keys": (PUBLIC_KEY,),
        }
        | changes
    )


VERBS = {
    "quotes": (lambda vast: vast.quotes(disk_gb=40), "POST", BUNDLES),
    "machines": (lambda vast: vast.machines(), "GET", INSTANCES),
    "machine": (lambda vast: vast.machine(ID), "GET", ONE),
    "create": (lambda vast: vast.create(spec()), "PUT", ASK),
    "destroy": (lambda vast: vast.destroy(ID), "DELETE", ONE),
    "attach_key": (lambda vast: vast.attach_key(ID, PUBLIC_KEY), "POST", KEYS),
    "relabel": (lambda vast: vast.relabel(ID, "other"), "PUT", ONE),
    "charges": (lambda vast: vast.charges(DEADLINE, DEADLINE), "GET", CHARGES),
    "account": (lambda vast: vast.account(), "GET", USER),
}
CHANGES = ("create", "destroy", "attach_key", "relabel")


# --- Every verb ---------------------------------------------------------------------------------------


def test_it_is_a_provider(vast):
    assert isinstance(vast, Provider)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("form", AUTH_ERRORS)
def test_a_rejected_key_is_unauthorized_and_never_an_absence(web, vast, verb, form):
    call, method, url = VERBS[verb]
    status, body = AUTH_ERRORS[form]
    web.add(method, url, status=status, body=body if isinstance(body, str) else json.dumps(body))
    with pytest.raises(Unauthorized):
        call(vast)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "create"])
@pytest.mark.parametrize("form", RATE_LIMITS)
def test_too_many_requests_is_unavailable_with_the_time_to_wait(web, vast, verb, form):
    call, method, url = VERBS[verb]
    body, headers, seconds = RATE_LIMITS[form]
    web.add(method, url, status=429, body=body, headers=headers)
    with pytest.raises(Unavailable) as limited:
        call(vast)
    assert limited.value.retry_after >= seconds


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("status", "body"),
    [(500, '{"success":false,"error":"server_error","msg":"Something went wrong"}'), (502, "<html>"), (504, "")],
)
def test_a_server_error_is_unavailable(web, vast, verb, status, body):
    call, method, url = VERBS[verb]
    web.add(method, url, status=status, body=body)
    with pytest.raises(Unavailable):
        call(vast)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("error", [requests.ReadTimeout("t"), requests.ConnectionError("c")], ids=["slow", "cut"])
def test_no_answer_is_unavailable(web, vast, verb, error):
    call, method, url = VERBS[verb]
    web.add(method, url, body=error)
    with pytest.raises(Unavailable):
        call(vast)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", ["<html>ok</html>", "", '{"instances": [{"id"', "null"])
def test_a_200_that_is_no_json_is_unavailable(web, vast, verb, body):
    call, method, url = VERBS[verb]
    web.add(method, url, status=200, body=body)
    with pytest.raises(Unavailable):
        call(vast)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "create"])
@pytest.mark.parametrize("body", ["[]", "{}", "7", '{"success":false,"msg":"x"}', '{"detail":"x"}'])
def test_a_200_of_another_shape_is_never_a_success(web, vast, verb, body):
    call, method, url = VERBS[verb]
    web.add(method, url, status=200, body=body)
    with pytest.raises((NotUnderstood, Unavailable)):
        call(vast)


@pytest.mark.parametrize("verb", CHANGES)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_change_is_asked_for_once(web, vast, verb, status):
    call, method, url = VERBS[verb]
    web.add(method, url, status=status, json={"success": False}, headers={"Retry-After": "1"})
    with pytest.raises((Unavailable, Refused)):
        call(vast)
    assert len(web.calls) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_each_path_ends_with_a_slash_and_no_url_has_the_key(web, vast, verb):
    call, method, url = VERBS[verb]
    web.add(method, url, status=400, json={"success": False, "error": "invalid_args", "msg": "x"})
    with pytest.raises((NotUnderstood, Refused)):
        call(vast)
    sent = web.calls[0].request.url
    assert urlsplit(sent).path.endswith("/")
    assert "5ecre7" not in sent


def test_an_error_shows_no_secret(web, vast):
    web.put(ASK, status=400, json={"error": "x", "msg": "key-5ecre7", "instance_api_key": "f3c1-5ecre7"})
    with pytest.raises(Refused) as refused:
        vast.create(spec())
    assert "5ecre7" not in str(refused.value)


HF_TOKEN = "hf_Wq3v-5ecre7"
ONSTART = "curl -u me:0pen-5ecre7 https://example.org | sh\n"
ECHOES = {
    "a value": f"env is wrong: {HF_TOKEN}",
    "a value under a name that tells nothing": f"bad entry MY_THING {HF_TOKEN[:9]}",
    "as Python shows it": f"1 validation error input_value={{'HF_TOKEN': '{HF_TOKEN}'}}, input_type=dict",
    "the script": f"onstart failed: {ONSTART}",
    "a piece of the script": "line 1: me:0pen-5ecre7: bad",
    "a key": f"bad key {PUBLIC_KEY}",
}


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("echo", ECHOES)
def test_what_the_consumer_sent_is_in_no_error(web, vast, echo, status):
    web.put(ASK, status=status, json={"success": False, "error": "invalid_args", "msg": ECHOES[echo]})
    with pytest.raises((Refused, Unavailable)) as failed:
        vast.create(spec(env={"HF_TOKEN": HF_TOKEN, "MY_THING": HF_TOKEN, "DEBUG": "1"}, onstart=ONSTART))
    assert not any(secret in str(failed.value) for secret in ("5ecre7", "hf_Wq3v", "AAAAC3Nz"))
    assert "invalid_args" in str(failed.value)


def test_a_start_script_that_was_packed_is_in_no_error_either(web, vast):
    def echo(request):
        body = {"success": False, "error": "invalid_args", "msg": f"bad: {packed(request)}"}
        return 400, {}, json.dumps(body)

    def packed(request):
        return json.loads(request.body)["onstart"][60:90]

    web.add_callback("PUT", ASK, echo)
    with pytest.raises(Refused, match="invalid_args") as refused:
        vast.create(spec(onstart="".join(f"echo {number * 7919}\n" for number in range(400))))
    assert packed(web.calls[0].request)[:8] not in str(refused.value)


# --- Create -------------------------------------------------------------------------------------------


def test_a_create_gives_the_id_of_the_instance_not_of_the_offer(web, vast):
    web.put(ASK, json={"success": True, "new_contract": 38120457, "instance_api_key": "f3c1"})
    assert vast.create(spec()) == ID


STALE = "error 404/3603: no_such_ask  Instance type by id 41873205 is not available."
GONE = "error 410/3907: no_such_ask Instance type 41873205 is no longer available."

REFUSALS = {
    "stale, as seen": (400, "invalid_args", STALE, Refusal.OFFER_GONE),
    "stale, as documented": (404, "invalid_args", STALE, Refusal.OFFER_GONE),
    "no resources": (410, "no_such_ask", GONE, Refusal.OFFER_GONE),
    "bad offer id": (400, "invalid_args", "error 400/3467: Invalid args: 'id' is required", Refusal.INVALID),
    "price moved": (400, "invalid_price", "price too low", Refusal.PRICE),
    "bad runtype": (400, "invalid_args", "runtype and use_ssh cannot both be set", Refusal.INVALID),
    "bad image": (400, "invalid_args", "image must be a str, not NoneType", Refusal.INVALID),
    "image without a tag": (400, "server_error", "Something went wrong", Refusal.INVALID),
    "too large": (400, "invalid_args", "error 400/3471: Invalid args: len(image) > 1024", Refusal.INVALID),
    "no credit": (400, "insufficient_credit", "Your account lacks credit; see the billing page.", Refusal.NO_MONEY),
    "no credit, in words": (400, "invalid_args", "You lack credit.", Refusal.NO_MONEY),
    "no billing": (400, "missing_billing", "You lack credit, see the billing page.", Refusal.NO_MONEY),
    "spending ceiling": (400, "spend_rate_limit", "x", Refusal.NO_MONEY),
    "barred": (400, "invalid_args", "this is a blacklisted host", Refusal.HOST),
    "no key for a VM": (400, "no_ssh_key_for_vm", "x", Refusal.INVALID),
    "host account": (403, "invalid_args", "error 403/3586: Offer 41873205 is not your own.", Refusal.INVALID),
    "unknown": (418, "teapot", "x", Refusal.INVALID),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_why(web, vast, case):
    status, error, words, why = REFUSALS[case]
    web.put(ASK, status=status, json={"success": False, "error": error, "msg": words, "ask_id": 41873205})
    with pytest.raises(Refused) as refused:
        vast.create(spec())
    assert refused.value.why is why
    assert refused.value.machine_id is None


@pytest.mark.parametrize("status", [200, 201, 400, 404, 410, 429, 500, 503])
def test_a_refusal_that_made_an_instance_tells_its_id(web, vast, status):
    web.put(ASK, status=status, json={"success": False, "error": "no_such_ask", "new_contract": 38120457})
    with pytest.raises(Refused) as refused:
        vast.create(spec())
    assert refused.value.machine_id == ID


@pytest.mark.parametrize("form", RATE_LIMITS)
def test_a_create_that_was_too_quick_made_nothing(web, vast, form):
    body, headers, _ = RATE_LIMITS[form]
    web.put(ASK, status=429, body=body, headers=headers)
    with pytest.raises(Refused) as refused:
        vast.create(spec())
    assert refused.value.why is Refusal.BUSY


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"success": True}),
        (200, {"success": True, "new_contract": None}),
        (200, {"success": False, "error": "no_such_ask"}),
        (200, {}),
        (408, {"error": "x"}),
        (409, {"error": "x"}),
        (425, {"error": "x"}),
        (500, {"error": "x"}),
    ],
)
def test_a_create_without_an_id_may_have_happened(web, vast, status, body):
    web.put(ASK, status=status, json=body)
    with pytest.raises(Unavailable):
        vast.create(spec())


@pytest.mark.parametrize("body", ["<html>blocked</html>", "", "[]", '{"unheard": "of"}'])
def test_a_4xx_of_no_known_shape_is_no_definite_no(web, vast, body):
    web.put(ASK, status=403, body=body)
    with pytest.raises(NotUnderstood):
        vast.create(spec())


def test_a_quote_id_that_is_none_is_not_sent(web, vast):
    with pytest.raises(Refused):
        vast.create(spec(quote_id="../instances/1"))
    assert len(web.calls) == 0


@pytest.mark.real_time
@pytest.mark.parametrize("answer", [_service_unavailable, _silent, _hang_up, _cut_off, _drip])
def test_on_the_wire_a_create_is_sent_once(monkeypatch, answer):
    monkeypatch.setattr("providers.http.CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr("providers.vastai.adapter.CREATE_TIMEOUT", 0.3)
    with server(answer) as (url, seen), pytest.raises(Unavailable):
        VastAI("key-5ecre7", base_url=url).create(spec())
    assert [request.split(b" ", 2)[0] for request in seen] == [b"PUT"]


# --- The body of a create -----------------------------------------------------------------------------


def sent_body(web, vast, **changes):
    web.put(ASK, json={"success": True, "new_contract": 1})
    vast.create(spec(**changes))
    return json.loads(web.calls[-1].request.body)


def test_a_create_sends_what_keeps_it_safe(web, vast):
    sent = sent_body(web, vast, env={"MODEL": "qwen", "-p 8000:8000": "1"})
    assert sent["label"] == "gs-tag"
    assert sent["cancel_unavail"] is True
    assert sent["client_id"] == "me"
    assert sent["runtype"] == "ssh_direc ssh_proxy"
    assert sent["env"] == {"MODEL": "qwen", "-p 8000:8000": "1"}
    assert sent["disk"] == 40
    assert "price" not in sent


def test_the_disk_is_never_below_the_least(web, vast):
    assert sent_body(web, vast, disk_gb=1)["disk"] == 8


@pytest.mark.parametrize(
    ("asked", "image"),
    [
        ("", launch.DEFAULT_IMAGE),
        ("pytorch/pytorch", "pytorch/pytorch:latest"),
        ("ghcr.io:443/a/b", "ghcr.io:443/a/b:latest"),
        ("a/b:1", "a/b:1"),
        ("a/b@sha256:00", "a/b@sha256:00"),
    ],
)
def test_an_image_always_has_a_tag(web, vast, asked, image):
    assert sent_body(web, vast, image=asked)["image"] == image
    assert ":" in launch.DEFAULT_IMAGE


def test_a_template_brings_its_own_image_and_ours_wins_over_its_runtype(web, vast):
    sent = sent_body(web, vast, template_hash_id="9b1d")
    assert sent["template_hash_id"] == "9b1d"
    assert "image" not in sent
    assert sent["runtype"] == "ssh_direc ssh_proxy"


def test_the_start_script_has_no_account_key_and_the_consumers_part_last(web, vast):
    script = sent_body(web, vast, hard_deadline=DEADLINE, onstart="echo consumer")["onstart"]
    assert script.startswith("touch ~/.no_auto_tmux\n")
    assert script.endswith("echo consumer")
    assert "CONTAINER_API_KEY" in script
    assert "5ecre7" not in script
    assert str(int(DEADLINE.timestamp())) in script


def test_the_start_script_appends_keys_and_only_once(tmp_path):
    home = tmp_path
    (home / ".ssh").mkdir()
    (home / ".ssh/authorized_keys").write_text("ssh-ed25519 AAAAold someone")
    script = launch.onstart(spec(onstart="echo done > ~/done\n"), base_url="https://x.test")
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", script], env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, check=True)
    lines = (home / ".ssh/authorized_keys").read_text().split("\n")
    assert [line for line in lines if line] == ["ssh-ed25519 AAAAold someone", f"{PUBLIC_KEY} gpu-shopper"]
    assert (home / "done").exists()
    assert (home / ".no_auto_tmux").exists()


def test_a_long_start_script_is_packed_and_does_the_same(tmp_path):
    long = "echo hi > ~/hi\n" + "# a comment that makes it long\n" * 300
    script = launch.onstart(spec(onstart=long), base_url="https://x.test")
    assert len(script) <= launch.MAX_SCRIPT
    packed = re.search(r"echo (\S+) \|", script)
    assert packed
    assert gzip.decompress(base64.b64decode(packed[1])).decode().endswith(long)
    subprocess.run(["/bin/sh", "-c", script], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
    assert (tmp_path / "hi").read_text() == "hi\n"


@pytest.mark.parametrize(
    "change",
    [
        {"onstart": "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(200))},
        {"env": {"A": "x" * 257}},
        {"env": {f"A{number}": "x" * 250 for number in range(200)}},
        {"label": "x" * 61},
        {"label": ""},
        {"ssh_public_keys": ("/root/.ssh/id_ed25519.pub",)},
        {"ssh_public_keys": (f"{PUBLIC_KEY} a\nssh-ed25519 AAAAother b",)},
        {"image": "x" * 1025},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_can_not_be_sent_is_refused_before_it_is(web, vast, change):
    with pytest.raises(Refused) as refused:
        vast.create(spec(**change))
    assert refused.value.why is Refusal.INVALID
    assert len(web.calls) == 0


# --- The menu -----------------------------------------------------------------------------------------


def searching(web, offers, *, cap=64, sample=False):
    """A search that knows `offers` and gives at most `cap` of those that match."""

    def answer(request):
        asked = json.loads(request.body)["ask_contract_id"]
        found = [row for row in offers if asked["gte"] <= row["id"] < asked["lt"]]
        if len(found) > cap and sample:
            found = found[:: len(found) // cap + 1]
            found += [row for row in offers if asked["gte"] <= row["id"] < asked["lt"] and row not in found]
        return 200, {}, json.dumps({"offers": found[:cap]})

    web.add_callback("POST", BUNDLES, callback=answer)


def test_a_small_menu_is_one_search(web, vast):
    searching(web, [offer(number) for number in range(1, 6)])
    assert len(vast.quotes(disk_gb=40)) == 5
    assert len(web.calls) == 1


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("cap", [64, 20])
@pytest.mark.parametrize("count", [63, 64, 65, 500])
def test_the_whole_menu_comes_however_it_is_cut_off(web, vast, count, cap, sample):
    searching(web, [offer(40_000_000 + number * 37) for number in range(count)], cap=cap, sample=sample)
    assert len(vast.quotes(disk_gb=40)) == count


def test_a_menu_that_never_ends_is_no_menu(web, vast):
    web.add_callback("POST", BUNDLES, callback=lambda request: (200, {}, json.dumps(_full(request))))
    with pytest.raises(Unavailable):
        vast.quotes(disk_gb=40)
    assert len(web.calls) <= 100


def _full(request):
    asked = json.loads(request.body)["ask_contract_id"]
    return {"offers": [offer(asked["gte"] + 1 + number) for number in range(64)]}


def test_the_search_says_what_it_wants_and_prices_the_disk(web, vast):
    searching(web, [])
    assert vast.quotes(disk_gb=120) == []
    sent = json.loads(web.calls[0].request.body)
    assert sent["allocated_storage"] == 120
    assert sent["verified"] == sent["rentable"] == {"eq": True}
    assert sent["rented"] == {"eq": False}
    assert sent["type"] == "ondemand"


def test_an_offer_that_does_not_fit_is_left_out(web, vast):
    searching(web, [offer(1), offer(2, verification="unverified"), offer(3, disk_space=10)])
    assert [quote.provider_id for quote in vast.quotes(disk_gb=40)] == ["1"]


@pytest.mark.parametrize("body", [{"offers": {"id": 1}}, {"offers": [7]}, {"offers": None}])
def test_offers_that_are_no_list_are_not_an_empty_menu(web, vast, body):
    web.post(BUNDLES, json=body)
    with pytest.raises(NotUnderstood):
        vast.quotes(disk_gb=40)


# --- The listing --------------------------------------------------------------------------------------


def test_an_empty_account_is_an_empty_listing(web, vast):
    web.get(INSTANCES, json=listing())
    assert vast.machines() == []


def test_all_pages_are_one_listing(web, vast):
    web.get(INSTANCES, json=listing(instance(id=1), total_instances=3, next_token="b"))
    web.get(INSTANCES, json=listing(instance(id=2), instance(id=3), total_instances=3))
    assert [machine.id for machine in vast.machines()] == ["1", "2", "3"]
    asked = [parse_qs(urlsplit(call.request.url).query) for call in web.calls]
    assert [one.get("after_token") for one in asked] == [None, ["b"]]
    assert all(one["limit"] == ["25"] and "order_by" in one for one in asked)


def test_foreign_machines_are_listed_too(web, vast):
    web.get(INSTANCES, json=listing(instance(label=None), instance(id=2, label="somebody's")))
    assert [machine.label for machine in vast.machines()] == ["", "somebody's"]


TWO = {"total_instances": 2}
INCOMPLETE = {
    "the older listing": (410, {"success": False, "error": "deprecated_endpoint", "msg": "Use v1"}),
    "no success": (200, listing(instance(), success=False)),
    "success not told": (200, {"instances": [], "total_instances": 0, "next_token": None}),
    "no rows": (200, listing(instances=None)),
    "rows as an object": (200, listing(instances={"id": 1})),
    "a row that is none": (200, listing(instances=[None])),
    "a row without an id": (200, listing(instance(id=None))),
    "fewer than announced": (200, listing(instance(), **TWO)),
    "the same one twice": (200, listing(instance(), instance(), **TWO)),
    "nothing announced": (200, listing(total_instances=None)),
    "announced in words": (200, listing(total_instances="0")),
    "the token lost": (200, listing(instance(), total_instances=31)),
    "a token that is none": (200, listing(instance(), next_token=7)),
    "a bad filter": (400, {"success": False, "error": "invalid_request", "msg": "not a valid search key"}),
    "a bad token": (400, {"error": "invalid_token", "msg": "Invalid pagination token"}),
    "error 404": (404, {"success": False, "error": "not_found"}),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_less_than_a_complete_listing_is_none(web, vast, case):
    status, body = INCOMPLETE[case]
    web.get(INSTANCES, status=status, json=body)
    with pytest.raises(NotUnderstood):
        vast.machines()


def test_a_second_page_that_fails_fails_the_listing(web, vast):
    web.get(INSTANCES, json=listing(instance(id=1), total_instances=2, next_token="b"))
    web.get(INSTANCES, status=500, json={"success": False})
    with pytest.raises(Unavailable):
        vast.machines()
    assert len(web.calls) == 2


def test_a_token_that_comes_again_ends_the_walk(web, vast):
    web.get(INSTANCES, json=listing(instance(), next_token="b"))
    with pytest.raises(NotUnderstood):
        vast.machines()
    assert len(web.calls) == 2


# --- One instance -------------------------------------------------------------------------------------


def test_one_instance_is_a_machine(web, vast):
    web.get(ONE, json={"instances": instance()})
    machine = vast.machine(ID)
    assert machine is not None
    assert (machine.id, machine.state, machine.label) == (ID, MachineState.UP, "gs-tag")


ABSENT = {
    "null": (200, {"instances": None}),
    "404": (404, {"success": False, "error": "no_such_instance", "msg": "Instance 38120457 not found."}),
    "404, as documented": (404, {"success": False, "error": "not_found", "msg": "Instance not found"}),
    "not in the array": (200, {"instances": [instance(id=1)]}),
}
NOT_ABSENT = {
    "empty object": (200, {}),
    "no success": (200, {"success": False, "instances": None}),
    "no success, in words": (200, {"success": False, "error": "no_such_instance"}),
    "array": (200, []),
    "another instance": (200, {"instances": instance(id=1)}),
    "text": (200, {"instances": "gone"}),
    "bad id": (400, {"success": False, "error": "invalid_args"}),
    "410": (410, {"success": False, "error": "deprecated_endpoint"}),
    "404 of a gateway": (404, {"message": "no route"}),
    "404 for another reason": (404, {"success": False, "error": "invalid_args"}),
}


@pytest.mark.parametrize("case", ABSENT)
def test_absence_is_read_from_the_body(web, vast, case):
    status, body = ABSENT[case]
    web.get(ONE, status=status, json=body)
    assert vast.machine(ID) is None


@pytest.mark.parametrize("case", NOT_ABSENT)
def test_nothing_else_is_absence(web, vast, case):
    status, body = NOT_ABSENT[case]
    web.get(ONE, status=status, json=body)
    with pytest.raises(NotUnderstood):
        vast.machine(ID)


@pytest.mark.parametrize("body", ["<html>", "", "404 page not found", "no_such_instance"])
def test_a_404_page_of_a_gateway_is_no_absence(web, vast, body):
    web.get(ONE, status=404, body=body)
    with pytest.raises(Unavailable):
        vast.machine(ID)


@pytest.mark.parametrize("ports", [None, [41022]])
def test_ports_that_are_no_map_are_read_from_the_listing(web, vast, ports):
    web.get(ONE, json={"instances": instance(ports=ports)})
    web.get(INSTANCES, json=listing(instance()))
    machine = vast.machine(ID)
    assert machine is not None
    assert machine.ssh_targets[0] == SshTarget("198.51.100.23", 41022, "root")


def test_without_the_listing_the_proxy_is_left(web, vast):
    web.get(ONE, json={"instances": instance(ports=None)})
    web.get(INSTANCES, status=502)
    machine = vast.machine(ID)
    assert machine is not None
    assert machine.ssh_targets == (SshTarget("ssh7.vast.ai", 20456, "root"),)


# --- Destroy, keys, label -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"success": True}),
        (200, {"success": True, "msg": "Instance destroyed successfully"}),
        (200, {"success": False, "error": "no_such_instance"}),
        (404, {"success": False, "error": "no_such_instance", "msg": "Instance 38120457 not found."}),
        (404, {"success": False, "error": "not_found", "msg": "Instance not found"}),
    ],
)
def test_a_destroy_that_was_taken_or_found_nothing_returns(web, vast, status, body):
    web.delete(ONE, status=status, json=body)
    vast.destroy(ID)
    assert len(web.calls) == 1


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"success": False, "msg": "busy"}, Unavailable),
        (200, {"success": False, "error": "auth_error"}, Unauthorized),
        (200, {}, NotUnderstood),
        (400, {"error": "invalid_args", "msg": "invalid instance_id"}, NotUnderstood),
        (404, {"success": False, "error": "auth_error", "msg": "Invalid user key"}, Unauthorized),
        (404, {"message": "no route"}, NotUnderstood),
    ],
)
def test_a_destroy_that_was_not_taken_says_so(web, vast, status, body, error):
    web.delete(ONE, status=status, json=body)
    with pytest.raises(error):
        vast.destroy(ID)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"success": True, "msg": "SSH key added to instance.", "key": '{"id": 91822}'}),
        (200, {"success": False, "msg": "SSH key already associated with instance."}),
        (409, {"success": False}),
    ],
)
def test_a_key_that_is_there_is_attached(web, vast, status, body):
    web.post(KEYS, status=status, json=body)
    vast.attach_key(ID, PUBLIC_KEY)
    assert json.loads(web.calls[0].request.body) == {"ssh_key": f"{PUBLIC_KEY} gpu-shopper"}


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "no_ssh_key"), (404, "no_such_instance"), (200, "no_such_instance"), (400, "team_ssh_keys_not_supported")],
)
def test_a_key_that_was_not_attached_is_not_understood(web, vast, status, error):
    web.post(KEYS, status=status, json={"success": False, "error": error, "msg": "x"})
    with pytest.raises(NotUnderstood):
        vast.attach_key(ID, PUBLIC_KEY)


@pytest.mark.parametrize(("comment", "clean"), [(r"me\home", "me-home"), ("a b c", "a-b-c"), ("me@x-1", "me@x-1")])
def test_a_keys_comment_is_made_harmless(comment, clean):
    assert launch.clean_key(f"{PUBLIC_KEY} {comment}\n") == f"{PUBLIC_KEY} {clean}"


def test_what_is_no_key_is_not_sent(web, vast):
    with pytest.raises(NotUnderstood):
        vast.attach_key(ID, "/root/.ssh/id_ed25519.pub")
    assert len(web.calls) == 0


def test_a_label_is_all_that_a_relabel_sends(web, vast):
    web.put(ONE, json={"success": True})
    vast.relabel(ID, "other")
    assert json.loads(web.calls[0].request.body) == {"label": "other"}


@pytest.mark.parametrize("status", [200, 400, 404])
def test_a_relabel_that_failed_says_so(web, vast, status):
    web.put(ONE, status=status, json={"success": False, "error": "no_such_instance"})
    with pytest.raises(NotUnderstood):
        vast.relabel(ID, "other")


@pytest.mark.parametrize("verb", ["machine", "destroy"])
def test_an_id_that_is_none_never_becomes_a_path(web, vast, verb):
    with pytest.raises(NotUnderstood):
        getattr(vast, verb)("1/../2")
    assert len(web.calls) == 0


# --- Money --------------------------------------------------------------------------------------------

BILL = {
    "start": 1790851382,
    "end": 1790863262,
    "type": "instance",
    "source": "instance-38120457",
    "amount": 1.235,
    "metadata": {"label": "gs-tag"},
    "items": [{"start": 1790851562, "end": 1790863262, "type": "gpu", "amount": 1.235}],
}


def bill(*results, **changes):
    return (
        {"success": True, "count": len(results), "total": len(results), "next_token": None}
        | {"results": list(results)}
        | changes
    )


def test_charges_are_asked_for_whole_days(web, vast):
    web.get(CHARGES, json=bill(BILL))
    found = vast.charges(datetime(2026, 10, 1, 9, tzinfo=UTC), datetime(2026, 10, 2, 0, tzinfo=UTC))
    assert found == [
        Charge(
            machine_id=ID,
            label="gs-tag",
            kind="gpu",
            started_at=datetime.fromtimestamp(1790851562, UTC),
            ended_at=datetime.fromtimestamp(1790863262, UTC),
            amount=1_235_000,
        )
    ]
    asked = json.loads(parse_qs(urlsplit(web.calls[0].request.url).query)["select_filters"][0])
    first = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp())
    assert asked == {"day": {"gte": first, "lte": first + 86399}, "type": {"in": ["instance"]}}


def test_charges_of_all_pages_are_one_bill(web, vast):
    web.get(CHARGES, json=bill(BILL, total=2, next_token="b"))
    web.get(CHARGES, json=bill(BILL | {"source": "instance-2"}, total=2))
    assert {charge.machine_id for charge in vast.charges(DEADLINE, DEADLINE + timedelta(days=1))} == {ID, "2"}


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "msg": "Host users do not have instance charges", "count": 0},
        bill(BILL, total=2),
        bill(results=None),
        bill(7),
    ],
)
def test_a_bill_that_is_not_whole_is_none(web, vast, body):
    web.get(CHARGES, json=body)
    with pytest.raises(NotUnderstood):
        vast.charges(DEADLINE, DEADLINE)


@pytest.mark.parametrize(("credit", "micros"), [(41.273, 41_273_000), (-0.5, -500_000), (None, None), ("x", None)])
def test_the_balance_is_the_credit(web, vast, credit, micros):
    web.get(USER, json={"id": 60713, "balance": 0, "credit": credit})
    account = vast.account()
    assert (account.id, account.balance) == ("60713", micros)


# --- From the environment -----------------------------------------------------------------------------


def test_without_a_key_there_is_no_adapter():
    assert VastAI.from_env({}) is None
    assert VastAI.from_env({"VASTAI_API_KEY": " "}) is None


def test_the_base_url_comes_from_the_environment(web):
    vast = VastAI.from_env({"VASTAI_API_KEY": "k", "VASTAI_BASE_URL": "http://127.0.0.1:9/"})
    assert vast is not None
    web.get("http://127.0.0.1:9/api/v0/users/current/", json={"id": 1})
    assert vast.account().id == "1"


def test_a_stand_in_is_not_paced(web):
    vast = VastAI.from_env({"VASTAI_API_KEY": "k", "PROVIDER_PACING": "off"})
    paced = VastAI.from_env({"VASTAI_API_KEY": "k"})
    assert isinstance(vast.client._pacer, NoPacer)
    assert not isinstance(paced.client._pacer, NoPacer)


def test_a_key_that_can_not_be_right_is_a_sentence():
    with pytest.raises(ValueError, match="the API key of vastai"):
        VastAI.from_env({"VASTAI_API_KEY": "a b"})
