"""Where the server is and which key to show it: from a flag, else the environment, else the config file.

The file holds the key, so it is made with mode 0600 and replaced as a whole.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gpushopper.cli.failure import Misused

DEFAULT_SERVER = "http://localhost:8080"
VARIABLES = {"server": "GPU_SHOPPER_URL", "api-key": "GPU_SHOPPER_API_KEY"}
OURS = re.compile(r"gs_([0-9a-f]{8})_")


@dataclass(frozen=True, slots=True)
class Setting:
    value: str
    source: str  # as a person would say it: "--server", "GPU_SHOPPER_URL", "the config file", "default"


def folder(variable: str, default: str) -> Path:
    """Our own folder under one of the XDG base directories."""
    base = os.environ.get(variable, "")
    return (Path(base) if base.startswith("/") else Path.home() / default) / "gpu-shopper"


def path() -> Path:
    return folder("XDG_CONFIG_HOME", ".config") / "config.toml"


def read() -> dict[str, str]:
    """What the file says; {} without it."""
    try:
        found = tomllib.loads(path().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # Its text may be the key: it is not repeated here.
        raise Misused(
            f"{path()} can't be read ({type(error).__name__}). Mend it, or delete it and use `config set`."
        ) from None
    return {name: value for name, value in found.items() if name in VARIABLES and isinstance(value, str)}


def write(name: str, value: str) -> None:
    settings = {**read(), name: value}
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".config-")  # made with mode 0600
    with os.fdopen(descriptor, "w") as file:
        # A JSON string is a TOML string too.
        file.writelines(f"{key} = {json.dumps(settings[key])}\n" for key in sorted(settings))
    Path(temporary).replace(target)


def resolve(flags: Mapping[str, str | None]) -> dict[str, Setting]:
    kept = read()
    return {name: _first(name, flags.get(name), kept) for name in VARIABLES}


def _first(name: str, flag: str | None, kept: Mapping[str, str]) -> Setting:
    if flag:
        return Setting(flag, f"--{name}")
    if value := os.environ.get(VARIABLES[name], "").strip():
        return Setting(value, VARIABLES[name])
    if name in kept:
        return Setting(kept[name], "the config file")
    return Setting(DEFAULT_SERVER if name == "server" else "", "default")


def check(name: str, value: str) -> str:
    """The value in its usual form. Raises Misused; a key is never part of the sentence."""
    value = value.strip()
    if name == "api-key":
        if not re.fullmatch(r"[\x21-\x7e]{8,200}", value):
            raise Misused("This can't be an API key: a key has 8 to 200 visible characters, without spaces.")
        return value
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in url.netloc:
        raise Misused("The server's address looks like http://localhost:8080 or https://gpu.example.org.")
    return value.rstrip("/")


def masked(key: str) -> str:
    """Enough of a key to tell it from another one, and nothing to log in with."""
    ours = OURS.match(key)
    return f"gs_{ours[1]}_…" if ours else "…" if key else ""
