"""`gpu-shopper transfer upload|download`: files over SFTP, straight between here and the machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpushopper.cli import machine
from gpushopper.cli.api import Body
from gpushopper.cli.failure import Failure, Misused
from gpushopper.cli.machine import Progress
from gpushopper.cli.session_id import SessionId
from gpushopper.cli.sessions import KeyPath, get_session
from gpushopper.cli.terminal import Terminal, command

if TYPE_CHECKING:
    import paramiko

app = typer.Typer(help="Files to and from a machine, over SFTP.", no_args_is_help=True)

Local = Annotated[Path, typer.Argument(show_default=False, help="A file or folder here.")]
Remote = Annotated[str, typer.Argument(show_default=False, help="A file or folder on the machine.")]


@command(app)
def upload(terminal: Terminal, session: SessionId, local: Local, remote: Remote = ".", key: KeyPath = None) -> None:
    """Copy a file or folder to the machine; into REMOTE if that is a folder there."""
    if not local.exists():
        raise Misused(f"There is no {local} here.")
    found = get_session(terminal, session)
    with _sftp(terminal, found, key, remote) as sftp, _progress(terminal) as progress:
        count = machine.upload(sftp, local, remote, progress)
    _tell(terminal, count, f"{local} to {found['id']}:{remote}")


@command(app)
def download(
    terminal: Terminal, session: SessionId, remote: Remote, local: Local = Path(), key: KeyPath = None
) -> None:
    """Copy a file or folder from the machine; into LOCAL if that is a folder here."""
    if not local.absolute().parent.is_dir():
        raise Misused(f"There is no folder {local.absolute().parent} here.")
    found = get_session(terminal, session)
    with _sftp(terminal, found, key, remote) as sftp, _progress(terminal) as progress:
        count = machine.download(sftp, remote, local, progress)
    _tell(terminal, count, f"{found['id']}:{remote} to {local}")


def _tell(terminal: Terminal, count: int, what: str) -> None:
    terminal.answer({"files": count}, f"{count} file{'s' if count != 1 else ''} copied, {what}.")


@contextlib.contextmanager
def _sftp(terminal: Terminal, session: Body, key: Path | None, remote: str) -> Iterator[paramiko.SFTPClient]:
    """Files of a machine; what goes wrong with them as a sentence."""
    try:
        with machine.login(terminal.api, session, key) as client, client.open_sftp() as sftp:
            yield sftp
    except FileNotFoundError as error:
        raise Failure(f"No such file or folder: {error.filename or f'{remote} on the machine'}.") from error
    except OSError as error:
        raise Failure(f"The copy failed: {error.strerror or error}.") from error


@contextlib.contextmanager
def _progress(terminal: Terminal) -> Iterator[Progress]:
    if not terminal.err.is_terminal:
        yield lambda name, so_far, in_all: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=terminal.err, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda name, so_far, in_all: bars.update(task, description=name, completed=so_far, total=in_all)
