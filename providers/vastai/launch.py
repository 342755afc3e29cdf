"""A `LaunchSpec` as the body of Vast.ai's create call, and the script that runs at each start of the container.

Pure. What can't be sent is a `Refused` with INVALID before anything goes out.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Mapping
from shlex import quote
from typing import Any

from providers import deadman
from providers.base import LaunchSpec, Refusal, Refused
from providers.vastai.rows import MIN_DISK_GB

# A CUDA image without a bundled framework starts in seconds where it is cached; Vast.ai installs the SSH server.
# Always with a tag: without one the answer is a bare `server_error`.
DEFAULT_IMAGE = "nvidia/cuda:12.6.3-runtime-ubuntu22.04"
# Direct SSH and the proxy: either was seen blocked. The words are those that Vast.ai's own client sends.
RUNTYPE = "ssh_direc ssh_proxy"

MAX_SCRIPT = 4000  # characters of onstart and args together; more is refused
MAX_LABEL = 60
MAX_ENV_ENTRY = 256
MAX_ENV = 32768

_KEY = re.compile(r"(ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+|sk-[a-z0-9@.-]+)\s+([A-Za-z0-9+/]+={0,3})(?:\s+(.*))?")


def body(spec: LaunchSpec, *, base_url: str) -> dict[str, Any]:
    """Always on-demand: a `price` in the body would make it an interruptible rental."""
    if not spec.label or len(spec.label) > MAX_LABEL:
        raise _invalid(f"a label has 1 to {MAX_LABEL} characters")
    made: dict[str, Any] = {
        "client_id": "me",
        "label": spec.label,
        "disk": max(spec.disk_gb, MIN_DISK_GB),
        "runtype": RUNTYPE,
        "target_state": "running",
        # Otherwise an offer that can't start leaves a stopped instance, and its disk bills.
        "cancel_unavail": True,
        "env": _env(spec.env),
        "onstart": onstart(spec, base_url=base_url),
    }
    if spec.template_hash_id:
        made["template_hash_id"] = spec.template_hash_id
    if spec.image or not spec.template_hash_id:
        made["image"] = _tagged(spec.image or DEFAULT_IMAGE)
    return made


def secrets(spec: LaunchSpec, sent: Mapping[str, Any]) -> tuple[str, ...]:
    """What of `sent` may not be shown where it is echoed.

    The script as sent only if it is packed: unpacked it is the consumer's and words of ours, such as "instances",
    which would be hidden wherever they stand.
    """
    packed = () if spec.onstart in sent["onstart"] else (sent["onstart"],)
    return (*spec.secrets, *packed)


def onstart(spec: LaunchSpec, *, base_url: str) -> str:
    """Ours first, so that a script of the consumer's that never returns delays nothing of it."""
    parts = ["touch ~/.no_auto_tmux\n", *(_install(key) for key in spec.ssh_public_keys)]
    if spec.hard_deadline is not None:
        parts.append(deadman.vastai_script(spec.hard_deadline, base_url=base_url))
    script = "".join(parts) + spec.onstart
    if len(script) <= MAX_SCRIPT:
        return script
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    script = f'eval "$(echo {packed} | base64 -d | gzip -d)"\n'
    if len(script) > MAX_SCRIPT:
        raise _invalid(f"the start script is too long: {len(script)} characters packed, {MAX_SCRIPT} at most")
    return script


def clean_key(public_key: str) -> str:
    """The key with a harmless comment: a backslash in one broke Vast.ai's SSH proxy.

    Raises ValueError if it is no OpenSSH public key; the server itself takes any text.
    """
    found = _KEY.fullmatch(public_key.strip())
    if found is None:
        raise ValueError("that is no SSH public key in OpenSSH's one-line form")
    comment = re.sub(r"[^A-Za-z0-9@-]+", "-", found[3] or "gpu-shopper")
    return f"{found[1]} {found[2]} {comment}"


def _install(public_key: str) -> str:
    """Lines that append the key once. The API's way is the dependable one; this is the second."""
    try:
        key = quote(clean_key(public_key))
    except ValueError as error:
        raise _invalid(str(error)) from error
    return (
        "mkdir -p ~/.ssh; chmod 700 ~/.ssh; touch ~/.ssh/authorized_keys; chmod 600 ~/.ssh/authorized_keys\n"
        f"grep -qxF {key} ~/.ssh/authorized_keys || printf '\\n%s\\n' {key} >> ~/.ssh/authorized_keys\n"
    )


def _env(env: Mapping[str, str]) -> dict[str, str]:
    """An object: a string would be dropped without a word. Ports are entries like `"-p 8000:8000": "1"`."""
    made = {str(name): str(value) for name, value in env.items()}
    if any(len(name) > MAX_ENV_ENTRY or len(value) > MAX_ENV_ENTRY for name, value in made.items()):
        raise _invalid(f"a name or a value in env is longer than {MAX_ENV_ENTRY} characters")
    if sum(len(name) + len(value) for name, value in made.items()) > MAX_ENV:
        raise _invalid(f"env is larger than {MAX_ENV} characters")
    return made


def _tagged(image: str) -> str:
    if len(image) > 1024:
        raise _invalid("the image's name is too long")
    has_tag = ":" in image.rpartition("/")[2]
    return image if has_tag else f"{image}:latest"


def _invalid(message: str) -> Refused:
    return Refused(f"vastai: {message}", why=Refusal.INVALID)
