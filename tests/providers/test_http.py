"""The transport: what is sent once, what twice, how long it may take, and what never gets out."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import responses

from providers import clock, http
from providers.base import NotUnderstood, Unavailable
from providers.http import Call, Client, LocalPacer, limited_for
from tests.simulation.virtual_clock import VirtualClock

BASE = "https://provider.test"
KEY = "key-5ecre7"
READ = Call(operation="get", method="GET", path="/thing/")
WRITE = Call(operation="create", method="PUT", path="/make/", body={"price": Decimal("0.5")})


@pytest.fixture
def virtual() -> Iterator[VirtualClock]:
    ours = VirtualClock()
    previous = clock.use(ours)
    yield ours
    clock.use(previous)


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def client() -> Client:
    return Client("testing", BASE, KEY)


# --- Answers ------------------------------------------------------------------------------------------


def test_fractions_come_as_decimals(virtual, web, client):
    web.get(f"{BASE}/thing/", body='{"price": 0.1}')
    assert client.read(READ).body == {"price": Decimal("0.1")}


def test_the_key_goes_into_the_header_and_nowhere_else(virtual, web, client):
    web.put(f"{BASE}/make/", json={})
    client.send_once(WRITE)
    sent = web.calls[0].request
    assert sent.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in sent.url
    assert KEY not in repr(client)


@pytest.mark.parametrize("body", ["<html>", "", '{"a": NaN}', '{"a":', "[" * 100_000])
def test_what_is_no_json_has_no_body(virtual, web, client, body):
    web.get(f"{BASE}/thing/", body=body)
    assert client.read(READ).body is None


def test_a_redirect_is_not_followed(virtual, web, client):
    web.get(f"{BASE}/thing/", status=308, headers={"Location": "https://elsewhere.test/"})
    with pytest.raises(NotUnderstood):
        client.read(READ)
    assert len(web.calls) == 1


def test_a_cookie_is_not_sent_back(virtual, web, client):
    web.get(f"{BASE}/thing/", json={}, headers={"Set-Cookie": "sid=1"})
    client.read(READ)
    client.read(READ)
    assert "Cookie" not in web.calls[1].request.headers


def test_a_body_beyond_the_limit_is_no_answer(virtual, web, client, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 1000)
    web.put(f"{BASE}/make/", body="x" * 1001)
    with pytest.raises(Unavailable, match="more than"):
        client.send_once(WRITE)


# --- Once or again ------------------------------------------------------------------------------------


def test_a_read_is_asked_again_after_a_502(virtual, web, client):
    web.get(f"{BASE}/thing/", status=502, body="<html>")
    web.get(f"{BASE}/thing/", json={"ok": True})
    assert client.read(READ).body == {"ok": True}


def test_a_read_gives_up_after_three(virtual, web, client):
    web.get(f"{BASE}/thing/", status=502)
    with pytest.raises(Unavailable):
        client.read(READ)
    assert len(web.calls) == http.READ_ATTEMPTS


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_change_is_sent_exactly_once(virtual, web, client, status):
    web.put(f"{BASE}/make/", status=status, json={"error": "x"}, headers={"Retry-After": "1"})
    assert client.send_once(WRITE).status == status
    assert len(web.calls) == 1


def test_a_failed_change_whose_body_is_json_can_still_be_read(virtual, web, client):
    web.put(f"{BASE}/make/", status=500, json={"new_contract": 5})
    assert client.send_once(WRITE).fields["new_contract"] == 5


def test_a_failed_change_without_json_is_unavailable(virtual, web, client):
    web.put(f"{BASE}/make/", status=502, body="<html>bad gateway</html>")
    with pytest.raises(Unavailable):
        client.send_once(WRITE)


# --- Pace ---------------------------------------------------------------------------------------------


def test_two_calls_of_one_route_keep_their_distance(virtual, web, client):
    web.get(f"{BASE}/thing/", json={})
    call = Call(operation="get", method="GET", path="/thing/", interval=2.0)
    client.read(call)
    client.read(call)
    assert virtual.monotonic() == pytest.approx(2.0)


def test_another_route_does_not_wait(virtual, web, client):
    web.get(f"{BASE}/thing/", json={})
    web.put(f"{BASE}/make/", json={})
    client.read(Call(operation="get", method="GET", path="/thing/", interval=9.0))
    client.send_once(WRITE)
    assert virtual.monotonic() == 0


def test_two_ids_of_one_route_share_its_pace(virtual, web, client):
    web.get(f"{BASE}/a/1", json={})
    web.get(f"{BASE}/a/2", json={})
    for number in (1, 2):
        client.read(Call(operation="get", method="GET", path=f"/a/{number}", route="/a/", interval=3.0))
    assert virtual.monotonic() == pytest.approx(3.0)


def test_a_long_wait_goes_back_to_the_caller_and_nothing_is_sent(virtual, web, client):
    web.put(f"{BASE}/make/", json={})
    call = Call(operation="create", method="PUT", path="/make/", interval=60.0)
    client.send_once(call)
    with pytest.raises(Unavailable) as refused:
        client.send_once(call)
    assert refused.value.retry_after == pytest.approx(60.0)
    assert len(web.calls) == 1
    assert virtual.monotonic() == 0


def test_slots_that_nobody_waits_for_are_not_booked(virtual):
    pacer = LocalPacer()
    pacer.reserve("a", 20.0)
    assert [pacer.reserve("a", 20.0) for _ in range(3)] == [20.0, 20.0, 20.0]


def test_a_penalty_keeps_the_next_call_away_too(virtual, web, client):
    web.put(f"{BASE}/make/", status=429, body="API requests too frequent: endpoint threshold=4.5*2.0")
    client.send_once(WRITE)
    client.send_once(WRITE)
    assert virtual.monotonic() == pytest.approx(9.0)


RATE_BODIES = {
    "message": (
        '{"message":"The action could not be performed because there were too many requests by the client.'
        '\\n\\nAPI requests too frequent: endpoint threshold=4.5*1.0\\n\\n","code":"429 Too Many Requests"}',
        4.5,
    ),
    "detail": ('{"detail":"API requests too frequent endpoint threshold=2.5"}', 2.5),
    "error": ('{"success":false,"error":"rate_limit_exceeded","msg":"… endpoint threshold=3.0"}', 3.0),
    "text": ("API requests too frequent", 2.0),
    "field": ('{"error":"HTTPTooManyRequests","msg":"API requests too frequent","retry_after":7}', 7.0),
}


@pytest.mark.parametrize("form", RATE_BODIES)
def test_each_form_of_a_429_tells_how_long_to_wait(virtual, web, client, form):
    body, seconds = RATE_BODIES[form]
    web.put(f"{BASE}/make/", status=429, body=body)
    assert limited_for(client.send_once(WRITE)) == seconds


def test_a_retry_after_header_counts_in_both_of_its_forms(virtual, web, client):
    web.put(f"{BASE}/make/", status=429, headers={"Retry-After": "12"})
    assert limited_for(client.send_once(WRITE)) == 12
    web.put(f"{BASE}/other/", status=429, headers={"Retry-After": "Thu, 29 Jan 2026 12:00:30 GMT"})
    answer = client.send_once(Call(operation="create", method="PUT", path="/other/"))
    assert limited_for(answer) == pytest.approx(30)


def test_a_read_that_is_told_to_wait_for_long_does_not(virtual, web, client):
    web.get(f"{BASE}/thing/", status=429, headers={"Retry-After": "120"})
    with pytest.raises(Unavailable) as refused:
        client.read(READ)
    assert refused.value.retry_after == 120
    assert virtual.monotonic() == 0


# --- Secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"instance_api_key": "f3c1", "a": 1}',
        "Authorization: Bearer f3c1",
        '{"jupyter_token":"f3c1"}',
        '{"extra_env":[["HF_TOKEN","f3c1"]]}',
        '{"onstart":"export X=\\"f3c1\\""}',
        "api_key=f3c1&x=1",
        "f3c1" * 16,
        "1 validation error: input_value={'HF_TOKEN': 'f3c1', 'A': 1}",
        "{'DB_PASSWORD': 'it\\'s f3c1'}",
        r'{"msg":"{\"HF_TOKEN\": \"a \\\"b\\\" f3c1\"}"}',
        r'{"msg":"{\"AWS_SECRET_ACCESS_KEY\":\"f3c1"}',
        '{"env":{"ANY":"f3c1"}}',
    ],
)
def test_what_looks_like_a_secret_is_redacted(text):
    assert "f3c1" not in http.redact(text)


def test_an_error_carries_neither_the_key_nor_control_characters(virtual, web, client):
    web.put(f"{BASE}/make/", status=502, body=f"bad {KEY}\n\x1b[31m")
    with pytest.raises(Unavailable) as failed:
        client.send_once(WRITE)
    assert KEY not in str(failed.value)
    assert str(failed.value).isprintable()


def test_a_key_goes_however_short_it_is(virtual, web):
    web.put(f"{BASE}/make/", status=400, body="bad k7y")
    assert Client("testing", BASE, "k7y").send_once(WRITE).text == "bad [redacted]"


def test_a_key_at_the_cut_leaves_no_half_of_itself(virtual, web, client):
    web.put(f"{BASE}/make/", status=400, body="x " * 148 + KEY)
    assert KEY[:4] not in client.send_once(WRITE).text


SENT = 'line one\'s\n"p4ss\\wörd" 7'


@pytest.mark.parametrize(
    "echo",
    [
        SENT,
        json.dumps({"msg": SENT}),
        json.dumps({"msg": SENT}, ensure_ascii=False),
        json.dumps({"msg": json.dumps({"x": SENT})}),
        json.dumps({"msg": f"input_value={[SENT]!r}"}),
        f"cut in the middle: {SENT[:12]}...{SENT[-12:]}",
    ],
)
@pytest.mark.parametrize("status", [400, 502])
def test_what_a_call_names_as_secret_is_shown_in_no_form(virtual, web, client, echo, status):
    web.put(f"{BASE}/make/", status=status, body=echo.encode())
    call = Call(operation="create", method="PUT", path="/make/", body={}, secrets=(SENT,))
    try:
        told = client.send_once(call).text
    except Unavailable as error:
        told = str(error)
    assert "[redacted]" in told
    assert not any(part in told for part in ("line one", "p4ss", "rd", '" 7'))
    assert "p4ss" not in repr(Call(operation="create", method="PUT", path="/make/", secrets=(SENT,)))


def test_a_short_value_of_a_callers_does_not_blacken_the_text():
    assert http.redact('{"success": true}', ("true", "", "1")) == '{"success": true}'


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "é"])
def test_a_key_that_can_not_be_right_is_a_sentence_that_does_not_show_it(key):
    with pytest.raises(ValueError, match="the API key of testing"):
        Client("testing", BASE, key)


@pytest.mark.parametrize("url", ["", "provider.test", "ftp://provider.test", "https://user:pw@provider.test"])
def test_a_base_url_that_can_not_be_right_is_a_sentence(url):
    with pytest.raises(ValueError, match="the base URL of testing"):
        Client("testing", url, KEY)


# --- Observers ----------------------------------------------------------------------------------------


def test_each_request_is_observed(virtual, web, client, monkeypatch):
    seen: list[tuple[str, str, str]] = []
    monkeypatch.setattr(http, "observers", [lambda *what: seen.append(what[:3])])
    web.get(f"{BASE}/thing/", status=503)
    web.get(f"{BASE}/thing/", json={})
    client.read(READ)
    assert seen == [("testing", "get", "error"), ("testing", "get", "ok")]


# --- Real sockets -------------------------------------------------------------------------------------

Answering = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(answer: Answering) -> Iterator[tuple[str, list[bytes]]]:
    """Answers each connection with `answer`; gives its URL and the requests that came."""
    requests: list[bytes] = []
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(5)
                requests.append(connection.recv(65536))
                try:
                    answer(connection, stop)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        stop.set()
        thread.join(timeout=10)
        listener.close()


def _service_unavailable(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")


def _silent(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait(5)


def _hang_up(connection: socket.socket, stop: threading.Event) -> None:
    pass


def _cut_off(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{"ok":')


def _drip(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(100):
        connection.sendall(b"x")
        if stop.wait(0.05):
            return


@pytest.mark.parametrize("answer", [_service_unavailable, _silent, _hang_up, _cut_off, _drip])
def test_on_the_wire_a_change_is_sent_once_whatever_comes_back(answer):
    call = Call(operation="create", method="PUT", path="/make/", body={}, read_timeout=0.3, total_timeout=0.5)
    with server(answer) as (url, requests), pytest.raises(Unavailable):
        Client("testing", url, KEY).send_once(call)
    assert len(requests) == 1


def test_a_body_that_drips_ends_by_the_total_time():
    with server(_drip) as (url, _):
        began = clock.monotonic()
        with pytest.raises(Unavailable, match="too long"):
            Client("testing", url, KEY).send_once(
                Call(operation="create", method="PUT", path="/", read_timeout=4.0, total_timeout=0.3)
            )
        assert clock.monotonic() - began < 2


def test_nobody_at_the_address_is_unavailable(virtual):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable):
        Client("testing", f"http://127.0.0.1:{port}", KEY).read(READ)


@pytest.mark.parametrize(("headers", "told"), [
    ({"Date": "Thu, 29 Jan 2026 11:58:45 GMT"}, datetime(2026, 1, 29, 11, 58, 45, tzinfo=UTC)),
    ({"Date": "Thu, 29 Jan 2026 11:58:45 GMT", "Age": "75"}, datetime(2026, 1, 29, 12, 0, tzinfo=UTC)),
    ({"Date": "Thu, 29 Jan 2026 11:58:45 GMT", "Age": "-1"}, datetime(2026, 1, 29, 11, 58, 45, tzinfo=UTC)),
    ({"Date": "Thu, 29 Jan 2026 11:58:45 GMT", "Age": "9" * 400}, datetime(2057, 10, 7, 13, 45, 24, tzinfo=UTC)),
    ({"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
    ({"Date": "yesterday"}, None),
    ({}, None),
])  # fmt: skip
def test_the_time_is_told_by_the_answer(headers: dict[str, str], told: datetime | None) -> None:
    """A cache in between adds its age; nonsense is no time."""
    assert http._time_told(headers) == told
