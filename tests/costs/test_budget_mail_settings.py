"""The mail server's address in the environment: read as a whole, and never repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 60.0

SHOW = """
import json
from gpushopper import settings as s
print(json.dumps([s.EMAIL_HOST, s.EMAIL_PORT, s.EMAIL_HOST_USER, s.EMAIL_HOST_PASSWORD, s.EMAIL_USE_TLS,
                  s.DEFAULT_FROM_EMAIL, s.ALERT_EMAILS]))
"""


def run(words: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**clean, "DATA_DIR": str(folder), **env}, capture_output=True,
        text=True, timeout=WITHIN, check=False,
    )  # fmt: skip


def test_a_mail_servers_url_is_all_that_mail_needs(tmp_path: Path) -> None:
    shown = run(["-c", SHOW], tmp_path, EMAIL_URL="smtp+tls://gpu%40x.org:p%2Fw@mail.example.org:587",
                ALERT_EMAIL="ops@example.org, boss@example.org", EMAIL_FROM="gpu@example.org")  # fmt: skip
    assert json.loads(shown.stdout) == [
        "mail.example.org", 587, "gpu@x.org", "p/w", True, "gpu@example.org", ["ops@example.org", "boss@example.org"],
    ]  # fmt: skip


def test_without_a_mail_server_nobody_is_written_to(tmp_path: Path) -> None:
    shown = run(["-c", "from gpushopper import settings as s; print(s.ALERT_EMAILS)"], tmp_path,
                ALERT_EMAIL="ops@example.org")  # fmt: skip
    assert shown.stdout.strip() == "[]"


def test_a_bad_one_is_named_without_its_password(tmp_path: Path) -> None:
    checked = run(["manage.py", "check"], tmp_path, EMAIL_URL="pigeon://me:hunter2@mail.example.org")
    assert checked.returncode != 0
    assert "EMAIL_URL: write a mail server's URL" in checked.stderr
    assert "hunter2" not in checked.stdout + checked.stderr
