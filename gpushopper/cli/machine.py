"""On the rented machine: a command, files, a shell. The host key must be the pinned one, always.

paramiko takes a fifth of a second to import, so only what needs it imports it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn

from gpushopper.cli import keys
from gpushopper.cli.api import Api, Body
from gpushopper.cli.failure import Failure

if TYPE_CHECKING:
    import paramiko

CONNECT_TIMEOUT = 15.0  # seconds
BLOCK = 32 * 1024

Progress = Callable[[str, int, int], None]  # name, bytes so far, bytes in all


class NoLogin(Failure):
    """There is a machine, and no way in."""


def reachable(session: Body) -> Body:
    """The session, if there is a machine to log in to. Raises Failure."""
    if session["ssh_host"] is None:
        raise Failure(
            f"Session {session['id']} is {session['status']}; there is a machine to log in to while it is running.",
            f"See `gpu-shopper sessions get {session['id']}`.",
        )
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9.:-]*", session["ssh_host"]):
        raise Failure("The session's address is not one that can be used.")
    return session


def ssh_command(session: Body, key: Path | None, known_hosts: Path) -> list[str]:
    """The system's own ssh, with the session's key and no other host key than the pinned one."""
    identity = ["-i", str(key), "-o", "IdentitiesOnly=yes"] if key else []
    return [
        "ssh", *identity, "-o", f'UserKnownHostsFile="{known_hosts}"', "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes", "-p", str(session["ssh_port"]), "-l", session["ssh_user"], "--",
        session["ssh_host"],
    ]  # fmt: skip


def shell(api: Api, session: Body, key: Path | None) -> NoReturn:
    """This process becomes ssh."""
    session = reachable(session)
    if shutil.which("ssh") is None:
        raise Failure(
            "There is no `ssh` on this computer. Install OpenSSH's client, or run single commands: "
            f"gpu-shopper sessions ssh {session['id']} -- nvidia-smi"
        )
    argv = ssh_command(session, key or keys.find(api, session["id"]), keys.pin(session))
    sys.stdout.flush()
    os.execvp("ssh", argv)  # noqa: S606, S607 - no shell; `ssh` is the person's own


@contextlib.contextmanager
def login(api: Api, session: Body, key: Path | None) -> Iterator[paramiko.SSHClient]:
    """Raises Failure."""
    import paramiko

    session = reachable(session)
    key = key or keys.find(api, session["id"])
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(keys.pin(session)))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            client.connect(
                session["ssh_host"], session["ssh_port"], session["ssh_user"],
                key_filename=str(key) if key else None, look_for_keys=key is None, allow_agent=key is None,
                timeout=CONNECT_TIMEOUT, banner_timeout=CONNECT_TIMEOUT, auth_timeout=CONNECT_TIMEOUT,
            )  # fmt: skip
        except (OSError, EOFError, ValueError, paramiko.SSHException) as error:
            raise _no_login(session, error) from error
        try:
            yield client
        except (EOFError, paramiko.SSHException) as error:
            raise Failure(f"The connection to the machine broke: {error or type(error).__name__}") from error


def _no_login(session: Body, error: Exception) -> NoLogin:
    import paramiko

    where = f"{session['ssh_host']}:{session['ssh_port']}"
    if isinstance(error, paramiko.BadHostKeyException):
        return NoLogin(
            f"{where} shows another host key than the one pinned at the first login. "
            "Somebody may be between you and the machine; nothing was sent."
        )
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return NoLogin(f"There is no key at {error.filename}. Name the right one with --key PATH.")
    if isinstance(error, paramiko.AuthenticationException):
        return NoLogin(f"{where} does not take the key. Name the right one with --key PATH.")
    if isinstance(error, paramiko.SSHException) and "not found in known_hosts" in str(error):
        return NoLogin(f"{where} shows a kind of host key that was not pinned; nothing was sent.")
    return NoLogin(f"{where} does not answer SSH ({type(error).__name__}). Try again in a moment.")


# --- A single command ------------------------------------------------------------------------------------


def run(client: paramiko.SSHClient, line: str) -> int:
    """Run `line`, with our standard input, output and error; returns its exit status."""
    transport = client.get_transport()
    if transport is None:
        raise EOFError
    channel = transport.open_session()
    channel.exec_command(line)
    feeder = threading.Thread(target=_feed, args=(channel,), daemon=True)
    feeder.start()
    complaints = threading.Thread(target=_pump, args=(channel.recv_stderr, sys.stderr), daemon=True)
    complaints.start()
    _pump(channel.recv, sys.stdout)
    complaints.join()
    return channel.recv_exit_status()


def _feed(channel: paramiko.Channel) -> None:
    """What is piped to us; a terminal is left alone, since nobody expects a single command to read it."""
    with contextlib.suppress(OSError, EOFError):
        try:
            if sys.stdin and not sys.stdin.isatty():
                while block := os.read(sys.stdin.fileno(), BLOCK):
                    channel.sendall(block)
        finally:  # Whatever became of our input: a command that waits for its end must not wait for ever.
            channel.shutdown_write()


def _pump(receive: Callable[[int], bytes], stream: object) -> None:
    raw = getattr(stream, "buffer", None)
    while block := receive(BLOCK):
        if raw is None:
            stream.write(block.decode(errors="replace"))  # type: ignore[attr-defined]
        else:
            raw.write(block)
            raw.flush()


# --- Files -----------------------------------------------------------------------------------------------


def upload(sftp: paramiko.SFTPClient, local: Path, remote: str, progress: Progress) -> int:
    """A file, or a folder with everything in it; returns how many files."""
    if local.is_dir():
        return _upload_folder(sftp, local, _inside(sftp, remote, local.resolve().name), progress)
    sftp.put(str(local), _inside(sftp, remote, local.name), _telling(progress, local.name))
    return 1


def _upload_folder(sftp: paramiko.SFTPClient, local: Path, remote: str, progress: Progress) -> int:
    _make_folder(sftp, remote)
    count = 0
    for entry in sorted(local.iterdir()):
        there = f"{remote.rstrip('/')}/{entry.name}"
        if entry.is_dir() and not entry.is_symlink():
            count += _upload_folder(sftp, entry, there, progress)
        elif entry.is_file():
            sftp.put(str(entry), there, _telling(progress, entry.name))
            count += 1
    return count


def download(sftp: paramiko.SFTPClient, remote: str, local: Path, progress: Progress) -> int:
    """A file, or a folder with everything in it; returns how many files."""
    name = PurePosixPath(sftp.normalize(remote)).name or "root"
    target = local / name if local.is_dir() else local
    if _is_folder(sftp, remote):
        return _download_folder(sftp, remote, target, progress)
    _fetch(sftp, remote, target, progress)
    return 1


def _download_folder(sftp: paramiko.SFTPClient, remote: str, local: Path, progress: Progress) -> int:
    local.mkdir(parents=True, exist_ok=True)
    count = 0
    for entry in sorted(sftp.listdir_attr(remote), key=lambda one: one.filename):
        # The machine is a stranger's: a name with a path in it would write outside the chosen folder.
        if "/" in entry.filename or "\0" in entry.filename or entry.filename in ("", ".", ".."):
            raise Failure(f"The machine lists a file with an impossible name: {entry.filename!r}")
        here, there = local / entry.filename, f"{remote.rstrip('/')}/{entry.filename}"
        if here.is_symlink():
            raise Failure(f"{here} is a link; nothing is written through it.")
        if stat.S_ISDIR(entry.st_mode or 0):
            count += _download_folder(sftp, there, here, progress)
        elif stat.S_ISREG(entry.st_mode or 0):
            _fetch(sftp, there, here, progress)
            count += 1
    return count


def _fetch(sftp: paramiko.SFTPClient, remote: str, local: Path, progress: Progress) -> None:
    """Whole or not at all: a broken transfer leaves what was there before."""
    part = local.with_name(f".{local.name}.part")
    try:
        sftp.get(remote, str(part), _telling(progress, local.name))
        part.replace(local)
    finally:
        part.unlink(missing_ok=True)


def _telling(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda so_far, in_all: progress(name, so_far, in_all)


def _inside(sftp: paramiko.SFTPClient, remote: str, name: str) -> str:
    """As with cp: into `remote` if it is a folder, else under that name."""
    return f"{remote.rstrip('/')}/{name}" if remote.endswith("/") or _is_folder(sftp, remote) else remote


def _is_folder(sftp: paramiko.SFTPClient, remote: str) -> bool:
    try:
        return stat.S_ISDIR(sftp.stat(remote).st_mode or 0)
    except FileNotFoundError:
        return False


def _make_folder(sftp: paramiko.SFTPClient, remote: str) -> None:
    if not _is_folder(sftp, remote):
        sftp.mkdir(remote)
