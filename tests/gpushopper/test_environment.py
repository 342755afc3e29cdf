"""Each documented setting, good and bad, as a person writes it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpushopper.environment import Environment, boolean, dotenv, duration

BASE = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("12h", 43200), ("2d", 172800), ("250ms", 0.25), ("90", 90), ("1.5", 1.5),
     ("1h30m", 5400), (" 5M ", 300), ("0", 0)],
)  # fmt: skip
def test_a_duration_in_all_its_forms(text: str, seconds: float) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "5 fortnights", "1e9", "nan", "inf", "5m garbage", "9" * 14 + "d", "٣s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@given(st.text())
def test_no_text_at_all_breaks_the_reading(text: str) -> None:
    env = Environment({"X": text})
    assert env.duration("X", "5s", most="1h") <= timedelta(hours=1)
    assert timedelta(0) < env.hours("X", 12, most=720) <= timedelta(hours=720)
    assert 0 <= env.integer("X", 8080, most=65535) <= 65535
    assert env.boolean("X", True) in (True, False)
    env.url("X", "https")


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "on"])
def test_yes(text: str) -> None:
    assert boolean(text) is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off"])
def test_no(text: str) -> None:
    assert boolean(text) is False


def test_hours_are_a_number_or_a_duration() -> None:
    env = Environment({"A": "6", "B": "90m", "C": "0.5"})
    assert [env.hours(name, 12, most=720) for name in "ABC"] == [timedelta(hours=h) for h in (6, 1.5, 0.5)]


@pytest.mark.parametrize("text", ["0", "-1", "5x", "90000", "721", "31d", "nan", "1,5"])
def test_bad_hours_are_told_their_unit(text: str) -> None:
    env = Environment({"A": text})
    assert env.hours("A", 12, most=720) == timedelta(hours=12)
    assert env.problems["A"].startswith("write a number of hours such as 12 or 1.5, or a duration with its unit")
    assert "720 hours" in env.problems["A"] and text in env.problems["A"]


def test_a_url_with_a_bad_port_is_named_without_its_password() -> None:
    env = Environment({"DATABASE_URL": "postgres://user:hunter2/x@host/name"})
    assert env.url("DATABASE_URL", "postgres") == ""
    assert "hunter2" not in env.problems["DATABASE_URL"]
    assert "%2F" in env.problems["DATABASE_URL"]


LONG = "k" * 16


@pytest.mark.parametrize(
    ("text", "keys"),
    [(LONG, [LONG]), (f" {LONG} ,old , older", [LONG, "old", "older"]), ("", ["made"]), (" ", ["made"])],
)
def test_the_first_key_signs_and_blanks_around_keys_are_no_part_of_them(text: str, keys: list[str]) -> None:
    env = Environment({"TAG_KEY": text})
    assert (env.signing_keys("TAG_KEY", "made"), env.problems) == (keys, {})


@pytest.mark.parametrize("text", [",", ",,", f"{LONG},", f",{LONG}", f"{LONG}, ,old", "k" * 15, f"short,{LONG}"])
def test_an_empty_key_or_a_short_first_one_is_named_and_not_repeated(text: str) -> None:
    env = Environment({"TAG_KEY": text})
    assert env.signing_keys("TAG_KEY", "") == []
    assert list(env.problems) == ["TAG_KEY"]
    assert LONG not in env.problems["TAG_KEY"] and "short" not in env.problems["TAG_KEY"]


def test_an_empty_part_of_a_key_that_was_made_verifies_nothing() -> None:
    assert Environment({}).signing_keys("TAG_KEY", "new, old,") == ["new", "old"]


def test_a_dotenv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# a comment\nexport A=1\nB = 'two words'\n\nC=\"x=y\"\nnothing\n")
    assert dotenv(tmp_path / ".env") == {"A": "1", "B": "two words", "C": "x=y"}
    assert dotenv(tmp_path / "absent") == {}


def test_what_follows_a_value_in_a_dotenv_file_is_a_comment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=30s  # why\nB=     # nothing\nC=a#b\nD='x # y' # z\nE=\n")
    assert dotenv(tmp_path / ".env") == {"A": "30s", "B": "", "C": "a#b", "D": "x # y", "E": ""}


def test_every_line_of_the_example_may_be_taken_as_it_stands(tmp_path: Path) -> None:
    example = (BASE / ".env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z][A-Z0-9_]*=)", "", example, flags=re.MULTILINE))
    values = dotenv(tmp_path / ".env") | {"DATA_DIR": str(tmp_path)}
    assert checked(**values).returncode == 0


# --- Every setting of the list, through the real settings in a process of its own -----------------------------

# name: (what a person writes, the setting it becomes, the value it has then, something that is refused or None)
TABLE: dict[str, tuple[str, str, Any, str | None]] = {
    "SERVER_HOST": ("0.0.0.0", "SERVER_HOST", "0.0.0.0", None),
    "SERVER_PORT": ("9090", "SERVER_PORT", 9090, "http"),
    "LOG_LEVEL": ("debug", "LOG_LEVEL", "DEBUG", "loud"),
    "LOG_FORMAT": ("JSON", "LOG_FORMAT", "json", "xml"),
    "HARD_MAX_HOURS": ("6", "HARD_MAX", 21600.0, "0"),
    "LIFECYCLE_CHECK_INTERVAL": ("10s", "LIFECYCLE_CHECK_INTERVAL", 10.0, "0s"),
    "RECONCILIATION_INTERVAL": ("90s", "RECONCILIATION_INTERVAL", 90.0, "1d"),
    "ORPHAN_GRACE_PERIOD": ("3m", "ORPHAN_GRACE_PERIOD", 180.0, "-1"),
    "ORPHAN_AUTO_DESTROY": ("false", "ORPHAN_AUTO_DESTROY", False, "perhaps"),
    "DESTROY_CONFIRM": ("45", "DESTROY_CONFIRM", 45.0, "half"),
    "CREATE_SETTLE": ("12m", "CREATE_SETTLE", 720.0, "10d"),
    "GUARDIAN": ("off", "GUARDIAN", False, "2"),
    "INVENTORY_CACHE_TTL": ("30s", "INVENTORY_CACHE_TTL", 30.0, "0"),
    "INVENTORY_BACKOFF_TTL": ("10m", "INVENTORY_BACKOFF_TTL", 600.0, "x"),
    "PROVISION_TIMEOUT": ("20m", "PROVISION_TIMEOUT", 1200.0, "3h"),
    "SSH_VERIFY_TIMEOUT": ("5m", "SSH_VERIFY_TIMEOUT", 300.0, "0s"),
    "SSH_CHECK_INTERVAL": ("3s", "SSH_CHECK_INTERVAL", 3.0, "10m"),
    "METRICS_TOKEN": ("sesame", "METRICS_TOKEN", "sesame", None),
    "WEBHOOK_ALLOW_PRIVATE": ("true", "WEBHOOK_ALLOW_PRIVATE", True, "ja"),
    "HEARTBEAT_URL": ("https://hc.example/x", "HEARTBEAT_URL", "https://hc.example/x", "hc.example"),
    "CELERY_BROKER_URL": ("redis://h:6379/1", "CELERY_BROKER_URL", "redis://h:6379/1", "rabbit://h"),
    "DEPLOYMENT_ID": ("blue1", "DEPLOYMENT_ID", "blue1", "Blue 1"),
    "SECRET_KEY": ("s" * 50, "SECRET_KEY", "s" * 50, None),
    "TAG_KEY": (f"{'n' * 32}, old", "TAG_KEYS", ["n" * 32, "old"], "short,old"),
    "FIELD_ENCRYPTION_KEYS": ("dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=", "FIELD_ENCRYPTION_KEYS",
                              ["dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q="], "short"),
    "VASTAI_BASE_URL": ("http://127.0.0.1:1", "PROVIDER_ENV[VASTAI_BASE_URL]", "http://127.0.0.1:1", "vast"),
    "TENSORDOCK_BASE_URL": ("http://127.0.0.1:2", "PROVIDER_ENV[TENSORDOCK_BASE_URL]", "http://127.0.0.1:2", "td"),
}  # fmt: skip
# Shown elsewhere to work: by the providers' tests, and by the tests below.
ELSEWHERE = {"VASTAI_API_KEY", "TENSORDOCK_API_TOKEN", "TENSORDOCK_AUTH_ID", "TENSORDOCK_DEFAULT_IMAGE",
             "DATABASE_URL", "DATABASE_PATH", "DATA_DIR", "DATABASE_STATEMENT_TIMEOUT", "ALLOWED_HOSTS",
             "CSRF_TRUSTED_ORIGINS", "HTTPS", "HSTS", "POSTGRES_PASSWORD", "AUDIT_VASTAI_API_KEY",
             "AUDIT_TENSORDOCK_API_TOKEN", "AUDIT_DATABASE_URL", "EMAIL_URL", "ALERT_EMAIL", "EMAIL_FROM"}  # fmt: skip

SHOW = """
import json, sys
from datetime import timedelta
import django
django.setup()
from django.conf import settings
def read(name):
    name, _, key = name.partition("[")
    value = getattr(settings, name)
    value = value[key[:-1]] if key else value
    return value.total_seconds() if isinstance(value, timedelta) else value
print(json.dumps({name: read(name) for name in sys.argv[1:]}, default=str))
"""


def clean(**values: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "DJANGO_SETTINGS_MODULE": "gpushopper.settings", "PYTHONDONTWRITEBYTECODE": "1", **values}


def shown(names: list[str], **values: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *names], env=clean(**values), cwd=BASE, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def checked(*arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(arguments or ("manage.py", "check"))]
    return subprocess.run(command, env=clean(**values), cwd=BASE, capture_output=True, text=True, timeout=60)


def test_every_documented_setting_is_in_the_table() -> None:
    documented = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (BASE / ".env.example").read_text(), re.MULTILINE))
    assert documented - set(TABLE) - ELSEWHERE == set()
    assert set(TABLE) - documented == set(), "a setting that nobody can know of"


def test_each_setting_works(tmp_path: Path) -> None:
    values = {name: row[0] for name, row in TABLE.items()}
    found = shown([row[1] for row in TABLE.values()], DATA_DIR=str(tmp_path), **values)
    assert found == {row[1]: row[2] for row in TABLE.values()}


def test_each_bad_value_is_named_and_servers_refuse_it(tmp_path: Path) -> None:
    bad = {name: row[3] for name, row in TABLE.items() if row[3] is not None}
    told = checked(DATA_DIR=str(tmp_path), **bad)
    assert told.returncode != 0
    assert [name for name in bad if f"{name}:" not in told.stderr] == []
    served = checked("-c", "import gpushopper.wsgi", DATA_DIR=str(tmp_path), SERVER_PORT="http")
    assert served.returncode != 0
    assert "SERVER_PORT" in served.stderr


@pytest.mark.parametrize("command", ["check", "run", "doctor"])
@pytest.mark.parametrize("name", ["DATA_DIR", "DATABASE_PATH", "LOG_LEVEL"])
def test_where_there_is_no_going_on_a_command_says_one_sentence(tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "file").write_text("")
    values = {"DATA_DIR": str(tmp_path), name: "loud" if name == "LOG_LEVEL" else str(tmp_path / "file" / "x" / "y")}
    told = checked("manage.py", command, **values)
    assert told.returncode == 1
    assert f"{name}:" in told.stderr
    assert "Traceback" not in told.stderr
    if name != "LOG_LEVEL":
        assert "can't be used (Not a directory)" in told.stderr
        assert len(told.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("text", [",", "new-and-long-enough,", "short"])
def test_a_bad_tag_key_is_named_and_is_no_key(tmp_path: Path, text: str) -> None:
    told = checked(DATA_DIR=str(tmp_path), TAG_KEY=text)
    assert told.returncode != 0
    assert "TAG_KEY:" in told.stderr
    assert not {"", text} & set(shown(["TAG_KEYS"], DATA_DIR=str(tmp_path), TAG_KEY=text)["TAG_KEYS"])


def test_bad_database_urls_are_named(tmp_path: Path) -> None:
    for url in ("nonsense", "mongo://x", "postgres://u:hunter2/@h:p/x"):
        told = checked(DATA_DIR=str(tmp_path), DATABASE_URL=url)
        assert "DATABASE_URL:" in told.stderr, url
        assert "hunter2" not in told.stderr


def test_the_older_names_are_taken_too(tmp_path: Path) -> None:
    found = shown(["DATABASES", "CELERY_BROKER_URL", "SANDBOX"], DATA_DIR=str(tmp_path),
                  DATABASE_PATH=str(tmp_path / "x" / "other.db"), REDIS_URL="redis://h:6379/2")  # fmt: skip
    assert found["DATABASES"]["default"]["NAME"] == str(tmp_path / "x" / "other.db")
    assert found["CELERY_BROKER_URL"] == "redis://h:6379/2"


def test_a_provider_key_ends_the_sandbox_and_a_non_uuid_key_is_a_token(tmp_path: Path) -> None:
    show = ["-c", "import django; django.setup()\nfrom providers import registry\nfrom django.conf import settings\n"
            "print(sorted(registry.all()), settings.SANDBOX)"]  # fmt: skip
    assert "[] True" in checked(*show, DATA_DIR=str(tmp_path)).stdout
    assert (
        "['tensordock'] False" in checked(*show, DATA_DIR=str(tmp_path), TENSORDOCK_API_KEY="a-token-of-theirs").stdout
    )
    uuid = "0b6f3c1e-0000-4000-8000-000000000000"
    assert "tensordock" not in checked(*show, DATA_DIR=str(tmp_path), TENSORDOCK_API_KEY=uuid).stdout


def test_the_stand_ins_have_a_database_of_their_own(tmp_path: Path) -> None:
    """They bear the providers' names and deny every real machine: a start without keys tells nothing about those."""
    without = shown(["DATABASES"], DATA_DIR=str(tmp_path))["DATABASES"]["default"]["NAME"]
    rented = shown(["DATABASES"], DATA_DIR=str(tmp_path), VASTAI_API_KEY="a-key")["DATABASES"]["default"]["NAME"]
    assert Path(without).name == "sandbox.db"
    assert Path(rented).name == "gpu-shopper.db"


def test_production_refuses_made_up_secrets(tmp_path: Path) -> None:
    told = checked("-c", "import gpushopper.wsgi", DATA_DIR=str(tmp_path), REDIS_URL="redis://127.0.0.1:1/0")
    assert told.returncode != 0
    for name in ("SECRET_KEY", "FIELD_ENCRYPTION_KEYS", "TAG_KEY", "DEPLOYMENT_ID"):
        assert name in told.stderr


def test_the_data_folder_has_the_database_and_the_keys(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    found = shown(["DATABASES"], DATA_DIR=str(folder))
    assert found["DATABASES"]["default"]["NAME"].startswith(str(folder))
    assert (folder / "keys.env").stat().st_mode & 0o777 == 0o600
