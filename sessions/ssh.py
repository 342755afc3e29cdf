"""Single short commands on a rented machine, over SSH, with the host key pinned at the first login.

One seam: `run` asks the runner in use, so that the simulation answers for the machine without sockets.
Nothing of the consumer's is read.
"""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from providers.base import SshTarget

CONNECT_TIMEOUT = 5.0
COMMAND_TIMEOUT = 10.0
# All of one visit has to end well before the claim on the row does (`rows.LEASE`).
VISIT_TIMEOUT = 25.0
MAX_OUTPUT = 64 * 1024


class SshError(Exception):
    """No usable answer over SSH. It says nothing about whether the machine exists."""


class Unreachable(SshError):
    """Nothing answers at the address, yet or any more."""


class Denied(SshError):
    """A server answers and does not take our key, yet or any more."""


class HostKeyChanged(SshError):
    """Another host key than the one pinned at the first login. Never accepted silently."""


@dataclass(frozen=True, slots=True)
class Output:
    exit_status: int
    stdout: str


@dataclass(frozen=True, slots=True)
class Visit:
    host_key: str  # "ssh-ed25519 AAAA…"
    outputs: tuple[Output, ...]  # one for each command


class Runner(Protocol):
    def run(self, target: SshTarget, private_key: str, commands: Sequence[str], host_key: str) -> Visit: ...


class ParamikoRunner:
    def run(self, target: SshTarget, private_key: str, commands: Sequence[str], host_key: str) -> Visit:
        try:
            return self._run(target, private_key, commands, host_key)
        except paramiko.AuthenticationException as error:
            raise Denied(f"{target.host}:{target.port} does not take our key for {target.user}") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unreachable(f"{target.host}:{target.port}: {type(error).__name__}") from error

    def _run(self, target: SshTarget, private_key: str, commands: Sequence[str], host_key: str) -> Visit:
        connection = socket.create_connection((target.host, target.port), timeout=CONNECT_TIMEOUT)
        transport = paramiko.Transport(connection)
        # A guest may drip, or never tell how a command ended, and paramiko would wait for ever.
        last_call = threading.Timer(VISIT_TIMEOUT, transport.close)
        last_call.daemon = True
        last_call.start()
        try:
            transport.banner_timeout = transport.handshake_timeout = CONNECT_TIMEOUT
            transport.auth_timeout = CONNECT_TIMEOUT
            transport.start_client(timeout=CONNECT_TIMEOUT)
            shown = _host_key_line(transport.get_remote_server_key())
            if host_key and shown != host_key:
                raise HostKeyChanged(f"{target.host}:{target.port} shows another host key than the pinned one")
            key = paramiko.Ed25519Key(file_obj=io.StringIO(private_key))
            transport.auth_publickey(target.user, key)
            outputs = tuple(_execute(transport, command) for command in commands)
            if not last_call.is_alive():
                raise paramiko.SSHException("the visit took too long")  # What was read until then is no answer.
            return Visit(shown, outputs)
        finally:
            last_call.cancel()
            transport.close()


def _execute(transport: paramiko.Transport, command: str) -> Output:
    channel = transport.open_session(timeout=CONNECT_TIMEOUT)
    channel.settimeout(COMMAND_TIMEOUT)
    channel.exec_command(command)
    chunks: list[bytes] = []
    size = 0
    while size < MAX_OUTPUT and (chunk := channel.recv(8192)):
        chunks.append(chunk)
        size += len(chunk)
    status = channel.recv_exit_status() if size < MAX_OUTPUT else 0
    channel.close()
    return Output(status, b"".join(chunks).decode(errors="replace"))


def _host_key_line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


_runner: Runner = ParamikoRunner()


def use(runner: Runner) -> Runner:
    """Put `runner` in place of the present one, which is returned so that it can be put back."""
    global _runner
    previous, _runner = _runner, runner
    return previous


def run(target: SshTarget, private_key: str, commands: Sequence[str], *, host_key: str = "") -> Visit:
    """Log in, run each command, return what they printed.

    Raises:
        Unreachable, Denied: normal while a machine boots.
        HostKeyChanged: `host_key` is set, and the server shows another.
    """
    return _runner.run(target, private_key, commands, host_key)


# --- Keys -----------------------------------------------------------------------------------------------


def make_key_pair(comment: str) -> tuple[str, str]:
    """A new Ed25519 pair: (private key in OpenSSH's format, public key line)."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment}"


def clean_public_key(text: str) -> str:
    """One public key line with a harmless comment.

    A backslash in a key's comment has broken a provider's SSH proxy, so comments are reduced to letters,
    digits, `-` and `@`.

    Raises:
        ValueError: not a public key of a kind in use.
    """
    words = text.strip().split(None, 2)
    if "\n" in text.strip() or len(words) < 2:
        raise ValueError("give one public key line, such as: ssh-ed25519 AAAA… name")
    kind, blob = words[0], words[1]
    if kind not in PUBLIC_KEY_KINDS:
        raise ValueError(f"keys of the kinds {', '.join(sorted(PUBLIC_KEY_KINDS))} are taken")
    try:
        data = base64.b64decode(blob, validate=True)
    except ValueError as error:
        raise ValueError("the middle part is not base64") from error
    if not data.startswith(len(kind).to_bytes(4, "big") + kind.encode()) or len(data) < 40:
        raise ValueError("the middle part is not a key of the kind that the first word names")
    comment = "".join(c for c in (words[2] if len(words) > 2 else "") if c.isascii() and (c.isalnum() or c in "-@"))
    return " ".join(filter(None, (kind, blob, comment[:60])))


PUBLIC_KEY_KINDS = frozenset(
    {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}
)
