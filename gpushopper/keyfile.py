"""The deployment's own secrets, made once and kept in a file outside the database.

With them a lost database can be rebuilt from the providers' listings: the tag key recognises our
machines, the deployment id names them. Anybody who can read the file can act for the deployment.
"""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

FILE_NAME = "keys.env"

MADE: dict[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(50),
    "FIELD_ENCRYPTION_KEYS": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "TAG_KEY": lambda: secrets.token_hex(32),
    # Six letters and digits: short enough for a tag, rare enough that two deployments never meet.
    "DEPLOYMENT_ID": lambda: "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(6)),
}


def load_or_make(data_dir: Path) -> dict[str, str]:
    """The secrets in `data_dir`, made on first use. Safe when several processes start at once."""
    path = data_dir / FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _publish(path, "".join(f"{name}={make()}\n" for name, make in MADE.items()))
    return _read(path)


def _publish(path: Path, text: str) -> None:
    """Write the whole file or nothing; whoever comes first wins."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".keys-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass  # Another process has just made it: its keys are ours.
    finally:
        Path(temporary).unlink()


class DamagedKeyFile(ImproperlyConfigured):
    """The file is there and lacks secrets. It is not mended by new ones: with other keys our machines would be
    strangers. Put it back from a backup, or set what is missing in the environment."""


def _read(path: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    found = {name: value for name, _, value in lines}
    if missing := [name for name in MADE if not found.get(name)]:
        raise DamagedKeyFile(f"{path} lacks {', '.join(missing)}. {DamagedKeyFile.__doc__}")
    return found


def is_private(path: Path) -> bool:
    """Nobody but its owner may read it."""
    return path.stat().st_mode & 0o077 == 0
