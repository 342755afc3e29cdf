"""API keys: hashed, shown once, revocable, with an end; and what becomes of them in logs and pages."""

from __future__ import annotations

import io
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from gpushopper.models import ApiKey, Consumer, make_key
from providers import clock
from tests.fakes import FakeClock
from tests.sessions.conftest import engine, guests, no_messages, provider

__all__ = ["engine", "guests", "no_messages", "provider"]
pytestmark = pytest.mark.django_db


def ask(text: str, scheme: str = "Bearer") -> int:
    code: int = APIClient().get("/api/v1/sessions", HTTP_AUTHORIZATION=f"{scheme} {text}").status_code
    return code


@pytest.fixture
def key(virtual: FakeClock) -> tuple[ApiKey, str]:
    return make_key(Consumer.objects.create(name="alice"))


def test_only_the_digest_is_kept(key: tuple[ApiKey, str]) -> None:
    _, text = key
    with connection.cursor() as cursor:
        rows = str(cursor.execute("SELECT * FROM gpushopper_apikey").fetchall())
    secret = text.split("_", 2)[2]
    assert len(secret) == 43
    assert secret not in rows


def test_a_key_works_until_it_is_revoked(key: tuple[ApiKey, str]) -> None:
    row, text = key
    assert [ask(text), ask(text, "bearer"), ask(f" {text} ")] == [200, 200, 200]
    ApiKey.objects.filter(pk=row.pk).update(revoked_at=clock.now())
    assert ask(text) == 401


def test_a_key_works_until_its_end(key: tuple[ApiKey, str], virtual: FakeClock) -> None:
    row, text = key
    ApiKey.objects.filter(pk=row.pk).update(expires_at=virtual.now() + timedelta(seconds=10))
    virtual.advance(9)
    assert ask(text) == 200
    virtual.advance(1)
    assert ask(text) == 401


@pytest.mark.parametrize("scheme", ["Basic", "Token", "", "BearerX"])
def test_another_scheme_is_told_how(key: tuple[ApiKey, str], scheme: str) -> None:
    assert ask(key[1], scheme) == 401


def test_no_part_or_variant_of_a_key_works(key: tuple[ApiKey, str]) -> None:
    text = key[1]
    for variant in (
        text[:-1],
        text + "x",
        text.upper(),
        text.split("_", 2)[2],
        key[0].prefix,
        key[0].digest,
        "é",
        "\x80",
    ):
        assert ask(variant) == 401, variant


def test_a_wrong_key_costs_one_look_whatever_it_looks_like(
    key: tuple[ApiKey, str], django_assert_num_queries: Any
) -> None:
    for wrong in (key[1][:-1] + "x", "gs_ffffffff_x", "y" * 500):
        with django_assert_num_queries(1):
            ask(wrong)


def test_its_use_is_noted_at_most_once_a_minute(key: tuple[ApiKey, str], virtual: FakeClock) -> None:
    row, text = key
    seen = []
    for _ in range(4):
        ask(text)
        row.refresh_from_db()
        seen.append(row.last_used_at)
        virtual.advance(31)
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_create_consumer_makes_a_key_that_works() -> None:
    out = io.StringIO()
    call_command("create_consumer", "carol", "--json", stdout=out)
    told = json.loads(out.getvalue())
    assert {**told, "api_key": ""} == {"consumer_id": "carol", "role": "consumer", "api_key": ""}
    assert ask(told["api_key"]) == 200
    second = io.StringIO()
    call_command("create_consumer", "carol", "--operator", stdout=second)
    assert Consumer.objects.count() == 1
    assert "shown only now" in second.getvalue()
    assert list(ApiKey.objects.order_by("pk").values_list("role", flat=True)) == ["consumer", "operator"]


@pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 101, "a\n", "ä", "a/b"])
def test_a_bad_name_makes_nothing(name: str) -> None:
    with pytest.raises(CommandError):
        call_command("create_consumer", "--", name)
    assert Consumer.objects.count() == ApiKey.objects.count() == 0


def test_make_secrets_prints_what_env_takes() -> None:
    out = io.StringIO()
    call_command("make_secrets", stdout=out)
    names = [line.split("=", 1)[0] for line in out.getvalue().splitlines()]
    assert names == ["SECRET_KEY", "FIELD_ENCRYPTION_KEYS", "TAG_KEY", "DEPLOYMENT_ID"]


def test_no_secret_reaches_a_log_an_error_an_event_or_a_page(
    key: tuple[ApiKey, str], provider: Any, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, text = key
    caplog.set_level(logging.DEBUG)
    client = APIClient(HTTP_AUTHORIZATION=f"Bearer {text}")
    wish = {
        "offer_id": "fake-1",
        "reservation_hours": 1,
        "env": {"HF_TOKEN": "canary-env"},
        "onstart": "echo canary-on",
    }
    made = client.post("/api/v1/sessions", wish).json()
    one = f"/api/v1/sessions/{made['session']['id']}"
    engine.run(5)
    told = [
        client.post("/api/v1/sessions", wish).content,  # a duplicate
        client.post("/api/v1/sessions", {**wish, "env": {"B AD": "canary-env"}}).content,
        client.get(f"{one}/events").content, client.get(f"{one}/diagnostics").content, client.get(one).content,
    ]  # fmt: skip
    User.objects.create_superuser("boss", password="pw")
    browser = Client()
    browser.login(username="boss", password="pw")
    told += [browser.get(page).content for page in (
        "/admin/", "/admin/gpu_sessions/session/", f"/admin/gpu_sessions/session/{made['session']['id']}/change/",
        "/admin/gpu_sessions/instance/", "/admin/gpu_sessions/event/", "/admin/gpushopper/apikey/",
    )]  # fmt: skip
    whole = b"\n".join(told).decode() + caplog.text
    private = made["ssh_private_key"].splitlines()[2]
    for canary in (text.split("_", 2)[2], private, "canary-env", "canary-on"):
        assert canary not in whole, canary
    assert len(whole) > 20_000, "something was looked at"
