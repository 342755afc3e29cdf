"""The last net under secrets, with lines as the service writes them."""

from __future__ import annotations

import json
import logging
import sys

import pytest
import structlog
from django.conf import settings

from gpushopper.logs import Formatter, redact, secrets_in

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----"
SECRET = "the-provider-key-1234"
LEAKS = ["gs_0123abcd_" + "a" * 43, "whsec_" + "A" * 32, PRIVATE, "Bearer abc.def", "postgres://u:hunter2@h/x", SECRET]
CANARIES = ["a" * 43, "A" * 32, "b3BlbnNzaC1rZXk", "abc.def", "hunter2", SECRET]


def line(formatter: str, message: str, *args: object, **extra: object) -> str:
    made = settings.LOGGING["formatters"][formatter]
    written = Formatter(processors=made["processors"], foreign_pre_chain=made["foreign_pre_chain"], secrets=[SECRET])
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    if isinstance(extra.get("error"), Exception):
        try:
            raise extra.pop("error")  # type: ignore[misc]
        except Exception:
            record.exc_info = sys.exc_info()
    return written.format(record)


@pytest.mark.parametrize("formatter", ["json", "text"])
@pytest.mark.parametrize(("leak", "canary"), list(zip(LEAKS, CANARIES, strict=True)))
def test_no_secret_leaves_by_any_part_of_a_line(formatter: str, leak: str, canary: str) -> None:
    for told in (
        line(formatter, f"said: {leak}"),
        line(formatter, "said: %s", leak),
        line(formatter, "said", extra_field=leak),
        line(formatter, "said", error=ValueError(f"of {leak}")),
    ):
        assert canary not in told
        assert "[redacted]" in told


def test_the_service_uses_this_formatter_with_its_own_secrets() -> None:
    for made in settings.LOGGING["formatters"].values():
        assert made["()"] == "gpushopper.logs.Formatter"
        assert settings.SECRET_KEY in made["secrets"]
        assert settings.FIELD_ENCRYPTION_KEYS[0] in made["secrets"]


def test_a_key_behind_a_comma_and_a_space_is_known_as_the_settings_read_it() -> None:
    assert "second-key-2" in secrets_in([("TAG_KEY", "first-key-1, second-key-2")])


def test_secrets_are_known_by_the_names_of_their_variables() -> None:
    found = secrets_in([("VASTAI_API_KEY", "k" * 20), ("TAG_KEY", "first-key-1,second-key-2"),
                        ("PATH", "/usr/bin/long"),
                        ("METRICS_TOKEN", "short"), ("HEARTBEAT_URL", "https://hc.example/uuid")])  # fmt: skip
    assert found == ["first-key-1,second-key-2", "https://hc.example/uuid", "k" * 20, "second-key-2", "first-key-1"]


def test_a_json_line_has_the_ids_of_request_session_and_instance() -> None:
    with structlog.contextvars.bound_contextvars(request_id="abc-1"):
        told = json.loads(line("json", "hello %s", "you", session_id="s1", instance_id="i1"))
    assert {**told, "timestamp": ""} == {"event": "hello you", "level": "error", "logger": "x", "request_id": "abc-1",
                                         "session_id": "s1", "instance_id": "i1", "timestamp": ""}  # fmt: skip
    assert told["timestamp"].endswith("Z")


def test_ordinary_words_stay() -> None:
    assert (
        redact("a bearer of news at http://host:80/x and gs_short")
        == "a bearer of news at http://host:80/x and gs_short"
    )
