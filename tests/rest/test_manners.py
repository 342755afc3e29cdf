"""The API's manners where the framework itself matters: real servers' bodies, weak tags, pages for a browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from gpushopper import embedded
from gpushopper.wsgi import application
from inventory.api import is_known
from rest import errors, request_id, size_limit

# --- Bodies in chunks -------------------------------------------------------------------------------------------


def chunked(body: bytes, *, end_is_marked: bool) -> HttpRequest:
    request = RequestFactory().generic("POST", "/", content_type="application/json")
    request.META.pop("CONTENT_LENGTH", None)
    request.META["wsgi.input"] = io.BytesIO(body)
    request.META["wsgi.input_terminated"] = end_is_marked
    return request


def test_a_body_in_chunks_is_read_where_the_server_marks_its_end() -> None:
    seen: list[Any] = []
    serve = size_limit.middleware(lambda request: seen.append(request.read()) or HttpResponse())  # type: ignore[func-returns-value]
    assert serve(chunked(b'{"a": 1}', end_is_marked=True)).status_code == 200
    assert seen == [b'{"a": 1}']


def test_a_body_in_chunks_has_the_same_limit() -> None:
    serve = size_limit.middleware(lambda request: HttpResponse())
    assert serve(chunked(b"x" * (1024 * 1024 + 1), end_is_marked=True)).status_code == 413


def test_what_has_no_marked_end_is_not_waited_for() -> None:
    serve = size_limit.middleware(lambda request: HttpResponse())
    request = chunked(b"x", end_is_marked=False)
    assert serve(request).status_code == 200
    assert request.META["wsgi.input"].read() == b"x"


@pytest.fixture
def port(transactional_db: None) -> Iterator[int]:
    web = embedded.listen(application, "127.0.0.1", 0, threads=2)
    with embedded.answering(web):
        yield int(web.url.rpartition(":")[2])
    web.close()


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    line.request(method, path, body, headers, encode_chunked="Transfer-Encoding" in headers)
    return line.getresponse()


@pytest.mark.real_time
def test_bodies_over_a_real_socket(port: int) -> None:
    chunks = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    pieces = iter([b"x" * 600_000, b"x" * 600_000])
    assert ask(port, "POST", "/api/v1/sessions", pieces, **chunks).status == 413
    assert ask(port, "POST", "/api/v1/sessions/", iter([b"{", b"}"]), **chunks).status == 401
    answer = ask(port, "GET", "/api/v1/inventory", **{"X-Request-ID": "mine-7"})
    assert answer.headers["X-Request-ID"] == "mine-7"
    assert json.load(answer)["request_id"] == "mine-7"


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("sent", "code", "error_type"),
    [
        (b"POST /api/v1/sessions HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n", 413, "request_too_large"),
        (b"nonsense\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nContent-Length: canary\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 431, "invalid_request"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: canary\r\n\r\n", 501, "invalid_request"),
    ],
    ids=["a body of 9 MB", "no start line", "no length", "long headers", "another encoding"],
)
def test_what_the_server_itself_refuses_has_the_shape_of_every_error(
    port: int, sent: bytes, code: int, error_type: str
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(sent)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        told = json.load(answer)
    assert (answer.status, answer.headers["Content-Type"]) == (code, "application/json")
    assert list(told) == ["error", "error_type", "fields", "request_id"]
    assert told["error_type"] == error_type
    assert told["request_id"] == answer.headers["X-Request-ID"] != ""
    assert "canary" not in str(told)


@pytest.mark.real_time
@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/docs", "/health"])
def test_head_has_the_length_of_get_and_no_body(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        told = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = told.partition(b"\r\n\r\n")
    assert body == b""
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length and int(length[1]) > 50


# --- Weak tags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "known"),
    [('W/"a"', True), ('"a"', True), ('"b", W/"a"', True), ("*", True), ('W/"ab"', False), ('"b"', False), ("", False),
     ("a", False), ('W/"A"', False)],
)  # fmt: skip
def test_tags_are_compared_weakly(header: str, known: bool) -> None:
    assert is_known('W/"a"', header) is known


# --- Pages for a browser --------------------------------------------------------------------------------------------


@pytest.fixture
def boss(db: None) -> Client:
    User.objects.create_superuser("boss", password="pw")
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.login(username="boss", password="pw")
    return client


def test_the_docs_ask_nobody_outside(client: Client) -> None:
    page = client.get("/api/v1/docs").content.decode()
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", page) == []
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert b"".join(answer)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["inventory", "sessions", "providers"])
def test_the_browsable_pages_bring_what_they_need(boss: Client, path: str) -> None:
    answer = boss.get(f"/api/v1/{path}", HTTP_ACCEPT="text/html")
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "GPU Shopper" in page
    assert "administrator boss" in page
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        assert boss.get(address).status_code == 200, address


def test_a_form_of_a_browsable_page_works_with_its_token(boss: Client) -> None:
    page = boss.get("/api/v1/sessions", HTTP_ACCEPT="text/html").content.decode()
    found = re.search(r'csrfToken":\s*"(\w+)"|csrfToken: "(\w+)"', page)
    assert found, "the page hands its script the token"
    token = found[1] or found[2]
    post = {"data": "{}", "content_type": "application/json", "HTTP_ACCEPT": "text/html"}
    assert boss.post("/api/v1/sessions", **post).status_code == 403  # type: ignore[arg-type]
    refused = boss.post("/api/v1/sessions", HTTP_X_CSRFTOKEN=token, **post)  # type: ignore[arg-type]
    assert refused.status_code == 400, "read, and found wanting"
    assert "reservation_hours" in refused.content.decode()


def test_a_stale_form_of_the_admin_is_told_so(boss: Client) -> None:
    answer = boss.post("/admin/gpushopper/consumer/add/", {"name": "x"}, HTTP_ACCEPT="text/html")
    assert answer.status_code == 403
    assert "Load the page again" in answer.content.decode()
    assert boss.post("/admin/gpushopper/consumer/add/", {"name": "x"}).json()["error_type"] == "csrf_failed"


# --- Bugs of ours -----------------------------------------------------------------------------------------------------


def test_a_bug_of_ours_tells_nothing_but_the_request_id(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("canary: secret in a trace")

    monkeypatch.setattr("gpushopper.signals._services", broken)
    client.raise_request_exception = False
    answer = client.get("/health", HTTP_X_REQUEST_ID="mine-9")
    assert answer.status_code == 500
    assert answer.json()["request_id"] == "mine-9"
    assert b"canary" not in answer.content


def test_outside_of_a_request_there_is_no_request_id() -> None:
    request_id.middleware(lambda request: HttpResponse())(RequestFactory().get("/"))
    assert request_id.current() == ""


def test_a_database_that_lacks_a_table_is_not_ready_but_a_bad_query_is_a_bug() -> None:
    from django.db import ProgrammingError

    lacking, wrong = ProgrammingError("x"), ProgrammingError("y")
    lacking.__cause__ = type("UndefinedTable", (Exception,), {"sqlstate": "42P01"})()
    wrong.__cause__ = type("SyntaxError", (Exception,), {"sqlstate": "42601"})()
    assert errors.is_away(lacking) and not errors.is_away(wrong)
