"""Every malformed request gets a 4xx that names the parameter, and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions.models import Event, Reply, Session
from tests.api.conformance import CheckingClient
from tests.fakes import FakeProvider

pytestmark = pytest.mark.django_db

GOOD = {"offer_id": "fake-1", "reservation_hours": 1}
BY_TYPE = {"gpu_type": "RTX 4090", "reservation_hours": 1}


def send(client: CheckingClient, body: Any, path: str = "/api/v1/sessions", **headers: Any) -> Any:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.generic("POST", path, text, content_type=headers.pop("content_type", "application/json"), **headers)


def counts() -> tuple[int, int, int]:
    return Session.objects.count(), Event.objects.count(), Reply.objects.count()


@pytest.fixture
def owner(client_for: Any, provider: FakeProvider) -> CheckingClient:
    client: CheckingClient = client_for("alice")
    return client


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"reservation_hours": 0}, "reservation_hours"),
        ({"reservation_hours": -1}, "reservation_hours"),
        ({"reservation_hours": 12.01}, "reservation_hours"),
        ({"reservation_hours": 1e300}, "reservation_hours"),
        ({"reservation_hours": "NaN"}, "reservation_hours"),
        ({"reservation_hours": "1_0"}, "reservation_hours"),
        ({"reservation_hours": "٣"}, "reservation_hours"),
        ({"reservation_hours": True}, "reservation_hours"),
        ({"reservation_hours": None}, "reservation_hours"),
        ({"reservation_hours": [1]}, "reservation_hours"),
        ({"offer_id": ""}, "offer_id"),
        ({"offer_id": {"a": 1}}, "offer_id"),
        ({"offer_id": "fake-1\u0000"}, "offer_id"),
        ({"gpu_type": "RTX 4090"}, "gpu_type"),
        ({"max_price": 1}, "max_price"),
        ({"workload_type": "mining"}, "workload_type"),
        ({"storage_policy": "preserve"}, "storage_policy"),
        ({"launch_mode": "entrypoint"}, "launch_mode"),
        ({"ssh_public_key": "not a key"}, "ssh_public_key"),
        ({"ssh_public_key": "ssh-ed25519 AAAA\nssh-rsa BBBB"}, "ssh_public_key"),
        ({"disk_gb": 0}, "disk_gb"),
        ({"disk_gb": 501}, "disk_gb"),
        ({"disk_gb": 1.5}, "disk_gb"),
        ({"image": "ubuntu; rm -rf /"}, "image"),
        ({"image": "; ubuntu"}, "image"),
        ({"template_hash_id": "a b"}, "template_hash_id"),
        ({"env": {"A B": "1"}}, "env"),
        ({"env": {"A": "1\n2"}}, "env"),
        ({"env": "A=1"}, "env"),
        ({"env": {f"V{n}": "" for n in range(65)}}, "env"),
        ({"idle_threshold_minutes": -1}, "idle_threshold_minutes"),
        ({"auto_retry": "perhaps"}, "auto_retry"),
        ({"max_retries": 6}, "max_retries"),
        ({"retry_scope": "world"}, "retry_scope"),
        ({"max_price_per_hour": -0.1}, "max_price_per_hour"),
        ({"max_price_per_hour": 0.01}, "max_price_per_hour"),
        ({"consumer_id": "a b"}, "consumer_id"),
        ({"colour": "red"}, "colour"),
        ({"x" * 5000: 1}, "x" * 100),
    ],
)  # fmt: skip
def test_each_bad_field_is_named(owner: CheckingClient, change: dict[str, Any], names: str) -> None:
    before = counts()
    answer = send(owner, {**GOOD, **change})
    assert answer.status_code == 400, answer.content
    assert names in answer.json()["fields"]
    assert counts() == before


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"offer_id": "fake-1", "reservation_hours": NaN}', "reservation_hours"),
        ('{"offer_id": "fake-1", "reservation_hours": Infinity}', "reservation_hours"),
        ('{"offer_id": "fake-1", "reservation_hours": -Infinity}', "reservation_hours"),
        ('{"offer_id": "fake-1", "reservation_hours": 1e999}', "reservation_hours"),
        ('{"offer_id": "fake-1", "reservation_hours": 1' + "0" * 5000 + "}", "reservation_hours"),
        ('{"offer_id": "fake-1", "reservation_hours": 1, "env": {"A": NaN}}', "A"),
        ('{"gpu_type": ["RTX 4090", NaN], "reservation_hours": 1}', "gpu_type"),
        ('{"gpu_type": [[Infinity]], "reservation_hours": 1}', "gpu_type"),
        ('{"gpu_type": [{"a": [-Infinity]}], "reservation_hours": 1}', "a"),
        ('{"gpu_type": [1e999], "reservation_hours": 1}', "gpu_type"),
        ('{"offer_id": "fake-1", "offer_id": "fake-2", "reservation_hours": 1}', "offer_id"),
    ],
)
def test_numbers_that_json_does_not_have_are_named(owner: CheckingClient, body: str, names: str) -> None:
    answer = send(owner, body)
    assert answer.status_code == 400
    assert list(answer.json()["fields"]) == [names]


@pytest.mark.parametrize(
    "body",
    ["", "{", "nonsense", "NaN", "[]", "null", '"text"', "5", "[NaN]", "[[1e999]]",
     "[" * 50_000, "[" * 990 + "NaN" + "]" * 990, '{"a":' * 50_000,
     b'{"offer_id": "\xff\xfe"}', b"\xff\xfe{\x00}\x00", '{"offer_id": "\\ud800", "reservation_hours": 1}',
     '{"\\ud800": 1}', '{"gpu_type": ["\\udfff"], "reservation_hours": 1}', "{} {}", "\ufeff{}"],
)  # fmt: skip
def test_what_is_no_json_object_is_a_400(owner: CheckingClient, body: Any) -> None:
    before = counts()
    answer = send(owner, body)
    assert answer.status_code == 400, answer.content
    assert answer.json()["error"]
    assert counts() == before


def test_another_content_type_is_415(owner: CheckingClient) -> None:
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
        answer = send(owner, "offer_id=fake-1", content_type=content_type)
        assert answer.status_code == 415
        assert answer.json()["error_type"] == "unsupported_media_type"


def test_a_body_over_one_mebibyte_is_413_and_one_of_that_size_is_read(owner: CheckingClient) -> None:
    most = 1024 * 1024
    for size, code in ((most, 400), (most + 1, 413)):
        frame = '{"colour": ""}'
        assert send(owner, frame[:-2] + "x" * (size - len(frame)) + frame[-2:]).status_code == code


def test_an_unknown_route_is_json(nobody: CheckingClient) -> None:
    for path in (
        "/api/v1/nothing",
        "/api/v2/sessions",
        "/nothing",
        "/api/v1/sessions/not-a-uuid",
        "/api/v1/sessions%0A",
    ):
        answer = nobody.generic("POST", path, "{}", content_type="application/json")
        assert answer.status_code == 404
        assert set(answer.json()) == {"error", "error_type", "fields", "request_id"}


def test_a_format_that_is_not_spoken(owner: CheckingClient) -> None:
    assert list(owner.get("/api/v1/sessions?format=xml").json()["fields"]) == ["format"]
    assert owner.get("/api/v1/sessions", HTTP_ACCEPT="application/xml").status_code == 406
    assert owner.get("/api/v1/sessions?format=json", HTTP_ACCEPT="text/html")["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "names"),
    [("status=dead", "status"), ("limit=0", "limit"), ("limit=501", "limit"), ("limit=ten", "limit"),
     ("offset=-1", "offset"), ("offset=99999999999999999999", "offset"), ("consumer_id=a&consumer_id=b", "consumer_id"),
     ("provider=%00", "provider")],
)  # fmt: skip
def test_each_bad_parameter_of_the_sessions_is_named(owner: CheckingClient, query: str, names: str) -> None:
    answer = owner.get(f"/api/v1/sessions?{query}")
    assert answer.status_code == 400
    assert names in "".join(answer.json()["fields"])


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/api/v1/inventory?limit=0&sort=x&min_vram=-1&colour=red&max_price=NaN&provider=a&provider=b&country=XXX",
         {"limit", "sort", "min_vram", "colour", "max_price", "provider", "country"}),
        ("/api/v1/sessions?limit=0&offset=x&status=dead&colour=red&shape=round&provider=a&provider=b",
         {"limit", "offset", "status", "colour", "shape", "provider"}),
        ("/api/v1/costs?period=x&start_date=y&colour=red&end_date=z&end_date=z",
         {"period", "start_date", "colour", "end_date"}),
    ],
)  # fmt: skip
def test_all_bad_parameters_are_named_at_once(owner: CheckingClient, path: str, names: set[str]) -> None:
    answer = owner.get(path)
    assert answer.status_code == 400
    assert {name.partition("[")[0].partition(".")[0] for name in answer.json()["fields"]} == names
    assert f"(and {len(names) - 1} more)" in answer.json()["error"]


def test_all_bad_fields_of_a_body_are_named_at_once(owner: CheckingClient) -> None:
    answer = owner.post("/api/v1/sessions", {"colour": "red", "reservation_hours": -1, "offer_id": "", "disk_gb": 0})
    assert set(answer.json()["fields"]) == {"colour", "reservation_hours", "offer_id", "disk_gb"}


@pytest.mark.parametrize(
    "given_id, kept",
    [("abc-1.2_3", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("ä", False), ("", False),
     ("a;b", False)],
)  # fmt: skip
def test_a_harmless_request_id_is_kept_and_any_other_replaced(owner: CheckingClient, given_id: str, kept: bool) -> None:
    for path in ("/api/v1/sessions", "/api/v1/nothing", "/health"):
        answer = owner.get(path, HTTP_X_REQUEST_ID=given_id)
        assert (answer["X-Request-ID"] == given_id) is kept
        assert answer["X-Request-ID"]


def test_the_request_id_is_in_the_log_line(owner: CheckingClient, caplog: pytest.LogCaptureFixture) -> None:
    import structlog

    seen = []
    with caplog.at_level("INFO", "rest"):
        from rest import request_id

        before = request_id.log.handle
        request_id.log.handle = lambda record: seen.append(  # type: ignore[method-assign]
            (record.getMessage(), structlog.contextvars.get_contextvars().get("request_id"))
        )
        try:
            send(owner, "{", HTTP_X_REQUEST_ID="mine-1")
        finally:
            request_id.log.handle = before  # type: ignore[method-assign]
    assert [(line[: len("POST /api/v1/sessions: 400")], named) for line, named in seen] == [
        ("POST /api/v1/sessions: 400", "mine-1")
    ]


# --- Chance -----------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = ["offer_id", "gpu_type", "reservation_hours", "env", "disk_gb", "image", "max_price", "min_cuda", "country",
         "location", "provider", "ssh_public_key", "auto_retry", "max_retries", "consumer_id", "onstart",
         "min_reliability", "idle_threshold_minutes", "gpu_count", "max_price_per_hour"]  # fmt: skip
bodies = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=10), values, max_size=6)
CHANCE = settings(
    max_examples=80, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@CHANCE
@given(change=bodies, base=st.sampled_from([{}, GOOD, BY_TYPE]))
def test_no_body_at_all_breaks_an_order(owner: CheckingClient, change: dict[str, Any], base: dict[str, Any]) -> None:
    before = counts()
    answer = send(owner, {**base, **change})
    assert answer.status_code < 500, answer.content
    assert (counts() == before) is (answer.status_code >= 400)


@CHANCE
@given(change=bodies | values)
def test_no_body_at_all_breaks_an_extension(owner: CheckingClient, change: Any) -> None:
    session = Session.objects.first() or Session.objects.get(pk=send(owner, GOOD).json()["session"]["id"])
    before = (session.reservation, counts())
    answer = send(owner, change, f"/api/v1/sessions/{session.pk}/extend")
    session.refresh_from_db()
    assert answer.status_code < 500, answer.content
    assert ((session.reservation, counts()) == before) is (answer.status_code >= 400)


@CHANCE
@given(query=st.dictionaries(st.sampled_from([*NAMES, "limit", "offset", "sort"]), st.text(max_size=12), max_size=4))
def test_no_query_at_all_breaks_the_menu(owner: CheckingClient, query: dict[str, str]) -> None:
    assert owner.get("/api/v1/inventory", query).status_code in (200, 400)


@CHANCE
@given(body=st.binary(max_size=200))
def test_no_bytes_at_all_break_the_reader(owner: CheckingClient, body: bytes) -> None:
    assert send(owner, body).status_code == 400
