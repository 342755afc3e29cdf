"""The HTTP client: what it repeats, what it doesn't, and how each failure reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
import responses

from gpushopper.cli import api as cli_api
from gpushopper.cli.api import Api, NoAnswer
from gpushopper.cli.failure import Failure, NotAuthorised, Refused, Unreachable

SERVER = "http://gpu.example.org"
SESSIONS = f"{SERVER}/api/v1/sessions"
KEY = "gs_abcd1234_canary"


@pytest.fixture
def wire() -> responses.RequestsMock:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def api() -> Api:
    return Api(SERVER, KEY)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(cli_api.time, "sleep", pauses.append)
    return pauses


def problem(error: str, **more: object) -> dict[str, object]:
    return {"error": error, "error_type": "x", "fields": {}, "request_id": "r-1", **more}


def test_a_read_is_repeated_until_it_is_answered(wire: responses.RequestsMock, api: Api, slept: list[float]) -> None:
    wire.get(SESSIONS, body=requests.ConnectionError())
    wire.get(SESSIONS, body=requests.ReadTimeout())
    wire.get(SESSIONS, json={"sessions": []})
    assert api.get("/sessions") == {"sessions": []}
    assert len(wire.calls) == 3


@pytest.mark.parametrize("method", ["post", "delete"])
def test_a_write_is_sent_once(wire: responses.RequestsMock, api: Api, slept: list[float], method: str) -> None:
    wire.add(method.upper(), SESSIONS, body=requests.ConnectionError())
    with pytest.raises(NoAnswer):
        getattr(api, method)("/sessions")
    assert len(wire.calls) == 1
    assert not slept


def test_renting_is_repeated_under_one_key(wire: responses.RequestsMock, api: Api, slept: list[float]) -> None:
    wire.post(SESSIONS, body=requests.ConnectionError())
    wire.post(SESSIONS, json=problem("busy"), status=503)
    wire.post(SESSIONS, json={"session": {}}, status=201)
    api.rent({"offer_id": "x"})
    keys = {call.request.headers["Idempotency-Key"] for call in wire.calls}
    assert len(wire.calls) == 3
    assert len(keys) == 1


def test_two_wishes_have_two_keys(wire: responses.RequestsMock, api: Api) -> None:
    wire.post(SESSIONS, json={"session": {}}, status=201)
    api.rent({})
    api.rent({})
    assert len({call.request.headers["Idempotency-Key"] for call in wire.calls}) == 2


def test_a_refusal_is_not_repeated(wire: responses.RequestsMock, api: Api, slept: list[float]) -> None:
    wire.post(SESSIONS, json=problem("no"), status=409)
    with pytest.raises(Refused):
        api.rent({})
    assert len(wire.calls) == 1


def test_a_server_that_asks_for_a_moment_gets_it(wire: responses.RequestsMock, api: Api, slept: list[float]) -> None:
    wire.get(SESSIONS, json=problem("wait"), status=429, headers={"Retry-After": "7"})
    wire.get(SESSIONS, json={})
    api.get("/sessions")
    assert slept == [7]


def test_a_server_that_asks_for_a_minute_has_its_sentence_shown(
    wire: responses.RequestsMock, api: Api, slept: list[float]
) -> None:
    wire.get(SESSIONS, json=problem("come back later"), status=429, headers={"Retry-After": "60"})
    with pytest.raises(Refused, match="come back later"):
        api.get("/sessions")
    assert not slept


def failure_of(wire: responses.RequestsMock, api: Api, **answer: object) -> Failure:
    wire.get(SESSIONS, **answer)  # type: ignore[arg-type]
    with pytest.raises(Failure) as caught:
        api.get("/sessions")
    return caught.value


def test_an_error_shows_its_fields_and_its_request_id(wire: responses.RequestsMock, api: Api) -> None:
    fields = {"hours": ["Too many."], "image": ["Can't.", "Won't."]}
    failure = failure_of(wire, api, json=problem("hours: Too many. (and 1 more)", fields=fields), status=400)
    assert failure.code == 1
    assert failure.details == ["image: Can't. Won't.", "request id r-1"], "what the sentence has is not said twice"


@pytest.mark.parametrize("status", [401, 403])
def test_not_authorised_has_an_exit_code_of_its_own(wire: responses.RequestsMock, api: Api, status: int) -> None:
    failure = failure_of(wire, api, json=problem("no"), status=status)
    assert isinstance(failure, NotAuthorised)
    assert failure.code == 4


def test_without_a_key_it_says_how_to_get_one(wire: responses.RequestsMock, api: Api) -> None:
    failure = failure_of(wire, api, json=problem("Who are you?"), status=401)
    assert "create_consumer" in " ".join(failure.details)


def test_something_else_on_the_port_is_not_taken_for_us(wire: responses.RequestsMock, api: Api) -> None:
    failure = failure_of(wire, api, body="<html>It works!</html>", status=200)
    assert isinstance(failure, Unreachable)
    assert "no GPU Shopper" in str(failure)


def test_a_key_is_never_sent_on_to_where_a_redirect_points(wire: responses.RequestsMock, api: Api) -> None:
    failure = failure_of(wire, api, status=302, headers={"Location": "https://elsewhere.example.org/"})
    assert isinstance(failure, Unreachable)
    assert "https://elsewhere.example.org/" in str(failure)
    assert len(wire.calls) == 1


def test_a_proxy_that_finds_nobody_behind_it_is_asked_again(
    wire: responses.RequestsMock, api: Api, slept: list[float]
) -> None:
    wire.get(SESSIONS, body="bad gateway", status=502)
    wire.get(SESSIONS, json={"sessions": []})
    assert api.get("/sessions") == {"sessions": []}


def test_a_password_in_netrc_does_not_take_the_keys_place(wire: responses.RequestsMock, api: Api, home: Path) -> None:
    netrc = home / ".netrc"
    netrc.write_text("machine gpu.example.org login me password canary\n")
    netrc.chmod(0o600)
    wire.get(SESSIONS, json={})
    api.get("/sessions")
    assert wire.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


def test_a_proxy_is_not_asked_for_what_is_on_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for server, uses_proxy in [("http://localhost:8080", False), ("http://127.0.0.1:1", False), (SERVER, True)]:
        http = Api(server, "")._http
        settings = http.merge_environment_settings(server, {}, None, None, None)
        assert ("http" in settings["proxies"]) is uses_proxy, server


def test_what_was_not_said_is_not_sent(wire: responses.RequestsMock, api: Api) -> None:
    wire.get(SESSIONS, json={})
    api.get("/sessions", provider=None, status=[], limit=0, location="", gpu_type=["a", "b"])
    assert wire.calls[0].request.url == f"{SESSIONS}?limit=0&location=&gpu_type=a&gpu_type=b"


def test_a_long_list_is_read_to_its_end(wire: responses.RequestsMock, api: Api) -> None:
    for offset in (0, 500, 1000):
        wire.get(
            SESSIONS, json={"sessions": [{"id": offset}], "total": 1001},
            match=[responses.matchers.query_param_matcher({"limit": 500, "offset": offset})],
        )  # fmt: skip
    assert [one["id"] for one in api.pages("/sessions", "sessions")] == [0, 500, 1000]


def test_the_servers_clock_counts(wire: responses.RequestsMock, api: Api) -> None:
    wire.get(SESSIONS, json={}, headers={"Date": "Thu, 29 Jan 2026 12:00:00 GMT"})
    api.get("/sessions")
    assert api.now.isoformat() == "2026-01-29T12:00:00+00:00"


def test_no_failure_repeats_the_key(wire: responses.RequestsMock, api: Api, slept: list[float]) -> None:
    wire.get(SESSIONS, body=requests.ConnectionError(f"Bearer {KEY}"))
    with pytest.raises(Unreachable) as caught:
        api.get("/sessions")
    assert "canary" not in f"{caught.value} {caught.value.details}"
    assert "make run" in str(caught.value)
