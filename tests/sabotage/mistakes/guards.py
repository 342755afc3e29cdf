"""Mistakes about what protects people: their secrets, and the identity of their machines."""

from __future__ import annotations

from typing import Any

from providers import http
from sessions import ssh, visits
from tests.sabotage.catalogue import mistake
from tests.sabotage.patching import around


@mistake("tests/providers/test_http.py::test_what_looks_like_a_secret_is_redacted")
def no_redaction() -> None:
    """Texts go into logs, errors and pages as they came."""
    around(http, "redact", lambda right, text, secrets=(): text)


@mistake("tests/contract/test_over_the_wire.py::test_a_host_key_that_changed_is_not_let_pass")
def any_host_key_is_accepted() -> None:
    """The login does not look at the host key."""

    def run(right: Any, runner: Any, target: Any, private_key: str, commands: Any, host_key: str) -> ssh.Visit:
        return right(runner, target, private_key, commands, "")

    around(ssh.ParamikoRunner, "_run", run)


@mistake("tests/sessions/test_life.py::test_a_changed_host_key_is_told_and_ends_nothing")
def the_pinned_host_key_is_not_compared() -> None:
    """A visit does not say which host key it expects."""

    def visit(right: Any, row: Any, commands: Any) -> Any:
        pinned, row.host_key = row.host_key, ""
        try:
            return right(row, commands)
        finally:
            row.host_key = pinned

    around(visits, "_visit", visit)
