"""Every route and method with everybody who may come to it. A new route without a line here fails."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.urls import get_resolver

from costs.models import Budget, Endpoint
from sessions.models import Session
from tests.api.conformance import CheckingClient, schema
from tests.fakes import FakeProvider

pytestmark = pytest.mark.django_db

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
STRANGERS = ("nobody", "bad key", "not a bearer", "revoked", "expired", "visitor")
ORDER = {"offer_id": "fake-2", "reservation_hours": 1}
BUDGET = {"period": "daily", "limit_usd": 5}

# (method, path): the body, and what owner, other consumer, operator and the administrator in a browser with
# its CSRF token get. What is not listed is 405 for all of them.
OWN = (200, 404, 200, 200)
ALL = (200, 200, 200, 200)
TABLE: dict[tuple[str, str], tuple[Any, tuple[int, int, int, int]]] = {
    ("GET", "inventory"): (None, ALL),
    ("GET", "inventory/fake-1"): (None, ALL),
    ("GET", "providers"): (None, ALL),
    ("GET", "sessions"): (None, ALL),
    ("POST", "sessions"): (ORDER, (201, 201, 400, 400)),  # an operator has to say for whom
    ("GET", "sessions/{session}"): (None, OWN),
    ("DELETE", "sessions/{session}"): (None, (202, 404, 202, 202)),
    ("POST", "sessions/{session}/done"): ({}, (202, 404, 202, 202)),
    ("POST", "sessions/{session}/extend"): ({"additional_hours": 1}, OWN),
    ("GET", "sessions/{session}/events"): (None, OWN),
    ("GET", "sessions/{session}/diagnostics"): (None, (409, 404, 409, 409)),  # it is pending
    ("GET", "sessions/{session}/ssh-key"): (None, OWN),
    ("DELETE", "sessions/{session}/ssh-key"): (None, (204, 404, 204, 204)),
    ("GET", "costs"): (None, ALL),
    ("GET", "costs/summary"): (None, ALL),
    ("GET", "costs/report"): (None, (403, 403, 200, 200)),
    ("GET", "budgets"): (None, ALL),
    ("POST", "budgets"): (BUDGET, (201, 201, 400, 400)),
    ("GET", "budgets/{budget}"): (None, OWN),
    ("PUT", "budgets/{budget}"): (BUDGET, OWN),
    ("DELETE", "budgets/{budget}"): (None, (204, 404, 204, 204)),
    ("GET", "webhooks"): (None, ALL),
    ("POST", "webhooks"): ({"url": "https://127.0.0.1/"}, (400, 400, 400, 400)),  # not on the public internet
    ("GET", "webhooks/{webhook}"): (None, OWN),
    ("DELETE", "webhooks/{webhook}"): (None, (204, 404, 204, 204)),
    ("POST", "webhooks/{webhook}/rotate"): (None, OWN),
    ("GET", "webhooks/{webhook}/deliveries"): (None, OWN),
}
OPEN = ("schema", "docs")


@pytest.fixture
def things(people: dict[str, CheckingClient], provider: FakeProvider) -> dict[str, str]:
    """One of each, of alice's."""
    owner = people["owner"]
    session = owner.post("/api/v1/sessions", {"offer_id": "fake-1", "reservation_hours": 1}).json()["session"]["id"]
    budget = owner.post("/api/v1/budgets", BUDGET).json()["id"]
    webhook = Endpoint.objects.create(consumer="alice", url="https://example.org/", secret="whsec_x", events=[])
    return {"session": session, "budget": budget, "webhook": str(webhook.pk)}


def routes() -> set[str]:
    """Every path under /api/v1, with the names of its variables."""
    patterns = [str(entry.pattern) for entry in get_resolver().url_patterns]
    found = [pattern.removeprefix("^api/v1/").removesuffix(r"/?\Z") for pattern in patterns if "api/v1/" in pattern]
    return {_named(path) for path in found}


def _named(path: str) -> str:
    for group, kind in (
        ("sessions/(?P<pk>", "session"),
        ("budgets/(?P<pk>", "budget"),
        ("webhooks/(?P<pk>", "webhook"),
    ):
        if path.startswith(group):
            return f"{kind}s/{{{kind}}}" + path.split("{12})", 1)[1]
    return path.replace(r"(?P<offer_id>[^/]+)", "fake-1")


def test_every_route_has_a_line_in_the_table() -> None:
    assert routes() - {path for _, path in TABLE} - set(OPEN) == set()


def test_every_described_operation_has_a_line_in_the_table() -> None:
    described = {
        (method.upper(), path.removeprefix("/api/v1/"))
        for path, methods in schema()["paths"].items() if path.startswith("/api/v1/") for method in methods
    }  # fmt: skip
    ours = {(method, path.replace("fake-1", "{offer_id}")) for method, path in TABLE}
    kinds = ("session", "budget", "webhook")
    ours = {(method, _with_ids(path, kinds)) for method, path in ours}
    assert described - ours == set()


def _with_ids(path: str, kinds: tuple[str, ...]) -> str:
    for kind in kinds:
        path = path.replace(f"{{{kind}}}", "{id}")
    return path


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("path", sorted({path for _, path in TABLE}))
def test_strangers_get_401_everywhere(
    path: str, who: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    before = rows()
    for method in METHODS:
        answer = people[who].generic(method, f"/api/v1/{path.format(**things)}")
        assert answer.status_code == 401, (method, answer.content)
        assert answer["WWW-Authenticate"].startswith("Bearer")
    assert rows() == before


CALLERS = ("owner", "other", "operator", "boss with csrf")


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("path", sorted({path for _, path in TABLE}))
def test_each_method_for_each_role(
    path: str, who: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    for method in METHODS:
        if method in ("HEAD", "OPTIONS"):
            continue
        body, expected = TABLE.get((method, path), (None, (405,) * 4))
        answer = people[who].generic(
            method, f"/api/v1/{path.format(**things)}", *([dumped(body)] if body is not None else []),
            content_type="application/json",
        )  # fmt: skip
        assert answer.status_code == expected[CALLERS.index(who)], (method, answer.content)
        if answer.status_code == 405:
            assert method not in answer["Allow"]
            assert answer.json()["error_type"] == "method_not_allowed"


@pytest.mark.parametrize("path", sorted({path for _, path in TABLE} | set(OPEN)))
def test_a_wrong_method_is_405_whatever_comes_with_it(
    path: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    wrong = [method for method in ("POST", "PUT", "PATCH", "DELETE") if (method, path) not in TABLE]
    for method in wrong:
        for body, content_type in (('{"a": 1}', "application/json"), ("{", "application/json"),
                                   ("a=1", "application/x-www-form-urlencoded")):  # fmt: skip
            url = f"/api/v1/{path.format(**things)}?colour=red"
            answer = people["owner"].generic(method, url, body, content_type=content_type)
            assert answer.status_code == 405, (method, answer.content)
            assert method not in answer["Allow"]
            assert answer.json()["error_type"] == "method_not_allowed"
            if path not in OPEN:
                assert people["nobody"].generic(method, url, body, content_type=content_type).status_code == 401


@pytest.mark.parametrize(("method", "path"), [key for key in TABLE if key[0] in ("POST", "PUT", "DELETE")])
def test_a_browser_without_the_csrf_token_changes_nothing(
    method: str, path: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    before = rows()
    answer = people["boss"].generic(
        method,
        f"/api/v1/{path.format(**things)}",
        dumped(TABLE[method, path][0] or {}),
        content_type="application/json",
    )
    assert answer.status_code == 403
    assert "CSRF" in answer.json()["error"]
    assert rows() == before


@pytest.mark.parametrize(("method", "path"), [key for key in TABLE if "{" in key[1]])
def test_somebody_elses_is_the_same_404_as_what_never_was(
    method: str, path: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    body = dumped(TABLE[method, path][0] or {})
    never = {name: str(uuid4()) for name in things}
    told = [
        people["other"].generic(method, f"/api/v1/{path.format(**which)}", body, content_type="application/json",
                                HTTP_X_REQUEST_ID="same")
        for which in (things, never)
    ]  # fmt: skip
    assert [answer.status_code for answer in told] == [404, 404]
    assert told[0].content == told[1].content


@pytest.mark.parametrize("path", sorted({path for _, path in TABLE} | set(OPEN)))
def test_head_options_and_the_slash(path: str, people: dict[str, CheckingClient], things: dict[str, str]) -> None:
    owner, url = people["owner"], f"/api/v1/{path.format(**things)}"
    if ("GET", path) in TABLE or path in OPEN:
        got, head = owner.get(url), owner.head(url)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert owner.get(f"{url}/").status_code == got.status_code
    options = owner.options(url)
    assert options.status_code == 200
    assert "OPTIONS" in options["Allow"]


@pytest.mark.parametrize(("method", "path"), [*TABLE, *[("GET", path) for path in OPEN]])
def test_an_unknown_query_parameter_is_named_and_nothing_changes(
    method: str, path: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    before = rows()
    body = TABLE.get((method, path), (None, None))[0]
    answer = people["operator"].generic(
        method, f"/api/v1/{path.format(**things)}?colour=red", dumped(body or {}), content_type="application/json"
    )
    assert answer.status_code == 400, answer.content
    assert list(answer.json()["fields"]) == ["colour"]
    assert rows() == before


@pytest.mark.parametrize(("method", "path"), [key for key in TABLE if key[0] in ("POST", "PUT", "DELETE")])
def test_an_unknown_body_field_is_named_and_nothing_changes(
    method: str, path: str, people: dict[str, CheckingClient], things: dict[str, str]
) -> None:
    before = rows()
    body = {**(TABLE[method, path][0] or {}), "colour": "red"}
    answer = people["owner"].generic(
        method, f"/api/v1/{path.format(**things)}", dumped(body), content_type="application/json"
    )
    assert answer.status_code == 400, answer.content
    assert list(answer.json()["fields"]) == ["colour"]
    assert rows() == before


@pytest.mark.parametrize("path", ["health", "ready", "metrics"])
def test_monitors_need_no_key(path: str, nobody: CheckingClient) -> None:
    assert nobody.get(f"/{path}").status_code in (200, 503)
    assert nobody.get(f"/{path}/", HTTP_ACCEPT="application/openmetrics-text").status_code in (200, 503)
    assert nobody.post(f"/{path}").status_code == 405
    assert nobody.get(f"/{path}?colour=red").status_code == 400


def dumped(body: Any) -> str:
    import json

    return json.dumps(body)


def rows() -> Any:
    return (
        list(Session.objects.values_list("pk", "status", "reservation", "ssh_private_key")),
        list(Budget.objects.values_list("pk", "limit")), list(Endpoint.objects.values_list("pk", "url", "secret")),
    )  # fmt: skip
