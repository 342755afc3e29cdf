"""Private keys and host keys on this computer's disk.

A private key is in our own folder, or where `--save-key` said; then our folder has a link to it, so that
`sessions ssh` finds it by the session's id. It is acknowledged to the server, which then erases it, only
after it is safely on disk.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from gpushopper.cli import config
from gpushopper.cli.api import Api, Body
from gpushopper.cli.failure import Failure, Misused, Refused

WHOLE_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def _place(folder_name: str, session_id: str) -> Path:
    if not WHOLE_ID.fullmatch(session_id):  # It becomes a file's name, and a server may say anything.
        raise Failure("The server's answer names no session.")
    folder = config.folder("XDG_DATA_HOME", ".local/share") / folder_name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / session_id


def place_of(session_id: str) -> Path:
    """Where the key of this session is, or would be."""
    return _place("keys", session_id)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Said before anything is rented. Raises Misused."""
    if path.is_dir():
        raise Misused(f"{path} is a folder; --save-key takes a file's name.")
    if not overwrite and os.path.lexists(path):
        raise Misused(f"{path} is there already; take another name, or say --overwrite.")
    if not path.absolute().parent.is_dir():
        raise Misused(f"There is no folder {path.absolute().parent} for the key.")


def keep(api: Api, session_id: str, private_key: str, path: Path | None, *, overwrite: bool = False) -> Path:
    """Save the key, then acknowledge it. Returns where it is."""
    own_place = place_of(session_id)
    target = path or own_place
    try:
        _write(target, private_key, overwrite=overwrite or path is None)
        if path is not None:
            _link(own_place, path.absolute())
    except OSError as error:
        raise Failure(
            f"The private key could not be saved at {target}: {error.strerror}. The session goes on.",
            f"The server keeps the key for 24 h: gpu-shopper sessions key {session_id} --save-key PATH",
        ) from error
    api.delete(f"/sessions/{session_id}/ssh-key")
    return target


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    """The whole file with mode 0600, or nothing; on disk when this returns."""
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=".key-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            Path(temporary).replace(path)
        else:
            os.link(temporary, path)  # Unlike a rename it never takes the place of another file.
        _sync(path.absolute().parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def find(api: Api, session_id: str) -> Path | None:
    """The session's private key on this disk, fetched if the server still has it; None: its owner has their own."""
    place = place_of(session_id)
    if place.exists():
        return place
    private_key = fetch(api, session_id)
    return keep(api, session_id, private_key, None) if private_key else None


def fetch(api: Api, session_id: str) -> str | None:
    """The private key, if the server still keeps it."""
    try:
        return str(api.get(f"/sessions/{session_id}/ssh-key")["ssh_private_key"])
    except Refused as refusal:
        if refusal.status == 410:
            return None
        raise


# --- Host keys -------------------------------------------------------------------------------------------


def pin(session: Body) -> Path:
    """A known_hosts file with the session's host key.

    Raises:
        Failure: another host key than the one that this computer has seen for the session.
    """
    path = _place("known_hosts", session["id"])
    line = str(session["known_hosts"])
    if path.exists() and path.read_text().split()[1:] != line.split()[1:]:
        raise Failure(
            f"The host key of session {session['id']} is not the one of before. "
            "Somebody may be between you and the machine; nothing was sent.",
            f"Ask whoever runs the server. If the change is explained, delete {path} and try again.",
        )
    _write(path, line + "\n", overwrite=True)
    return path
