"""What production asks of its settings, and what it refuses to start on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.production.stack import ROOT, command, deployment_env

WITHIN = 60.0
NOWHERE = "postgres://nobody@127.0.0.1:1/nothing"  # refuses at once: these tests never get as far


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    # No broker is reached either; a name that is never asked for.
    return deployment_env(NOWHERE, "redis://127.0.0.1:1/0", tmp_path / "data")


def run(words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False)


def settings_of(env: dict[str, str], expression: str) -> str:
    program = f"from gpushopper import settings; print({expression})"
    done = run([sys.executable, "-c", program], env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_deployment_check_has_nothing_to_say_about_a_service_behind_tls(env: dict[str, str]) -> None:
    words = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    checked = run(words, {**env, "HTTPS": "true", "ALLOWED_HOSTS": "gpu.example.org", "VASTAI_API_KEY": "abc"})
    assert checked.returncode == 0, checked.stderr
    assert run(words, env).returncode != 0  # without TLS it has


SERVERS = {
    "web": [*command("web"), "--bind", "127.0.0.1:0"],
    "worker": command("worker-ending"),
    "beat": command("beat"),
    "guardian": command("guardian"),
    "migrate": command("migrate"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_no_server_starts_on_made_up_secrets_or_on_a_setting_that_can_not_be_read(
    server: str, env: dict[str, str]
) -> None:
    del env["TAG_KEY"]
    refused = run(SERVERS[server], {**env, "DESTROY_CONFIRM": "soon"})
    assert refused.returncode != 0
    for said in ("TAG_KEY not set", "make_secrets", "DESTROY_CONFIRM: write a duration"):
        assert said in refused.stderr


def test_secrets_can_be_made_before_there_are_any(env: dict[str, str]) -> None:
    bare = {name: value for name, value in env.items() if name not in ("SECRET_KEY", "TAG_KEY", "DEPLOYMENT_ID")}
    made = run([sys.executable, "manage.py", "make_secrets"], bare)
    assert made.returncode == 0, made.stderr
    assert [line.partition("=")[0] for line in made.stdout.split()] == [
        "SECRET_KEY", "FIELD_ENCRYPTION_KEYS", "TAG_KEY", "DEPLOYMENT_ID",
    ]  # fmt: skip


def test_behind_tls_browsers_are_sent_there_and_kept_there(env: dict[str, str]) -> None:
    names = ["SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS"]
    shown = f"[settings.{', settings.'.join(names)}]"
    assert settings_of(env, shown) == "[False, False, False, 0]"
    assert settings_of({**env, "HTTPS": "true"}, shown) == f"[True, True, True, {30 * 86400}]"
    assert settings_of({**env, "HTTPS": "true", "HSTS": "0s"}, shown) == "[True, True, True, 0]"


def test_nothing_waits_for_the_database_for_ever(env: dict[str, str]) -> None:
    options = settings_of(env, "settings.DATABASES['default']['OPTIONS']['options']")
    assert options == (
        "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000"
    )  # fmt: skip
    unlimited = settings_of(
        {**env, "DATABASE_STATEMENT_TIMEOUT": "0s"}, "settings.DATABASES['default']['OPTIONS']['options']"
    )
    assert "statement_timeout=0" in unlimited


def test_options_in_the_database_s_address_are_kept(env: dict[str, str]) -> None:
    env["DATABASE_URL"] = "postgres://u:p@h:5432/n?sslmode=require&connect_timeout=9"
    shown = settings_of(env, "[settings.DATABASES['default']['OPTIONS'][n] for n in ('sslmode', 'connect_timeout')]")
    assert shown in ("['require', 9]", "['require', '9']")


def test_the_embedded_service_needs_none_of_this(tmp_path: Path) -> None:
    plain = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
    assert run([sys.executable, "manage.py", "check", "--fail-level", "WARNING"], plain).returncode == 0
