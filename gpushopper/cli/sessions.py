"""`gpu-shopper sessions …` and `gpu-shopper shutdown`: what runs, how it goes, and its end."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gpushopper.cli import keys, machine, show, waiting
from gpushopper.cli.api import Body, NoAnswer
from gpushopper.cli.failure import Failure, Misused, NotAuthorised, Refused
from gpushopper.cli.provision import ConsumerId, Overwrite, check_usable
from gpushopper.cli.session_id import SessionId, whole
from gpushopper.cli.terminal import Terminal, command

app = typer.Typer(help="What runs, how it goes, and its end.", no_args_is_help=True)


class Status(enum.StrEnum):
    PENDING = "pending"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


LIVE = [Status.PENDING, Status.PROVISIONING, Status.RUNNING]
NOT_OVER = [*LIVE, Status.STOPPING]

KeyPath = Annotated[
    Path | None,
    typer.Option("--key", "-k", metavar="PATH", help="The private key, if it is not the one that was saved."),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Return when it is proven gone.")]


def get_session(terminal: Terminal, session: str) -> Body:
    return terminal.api.get(f"/sessions/{whole(terminal, session)}")


def _show(terminal: Terminal, session: Body) -> None:
    terminal.answer(session, show.session(session, terminal.api.now))


@command(app, "list")
def list_sessions(
    terminal: Terminal,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that are over, too.")] = False,
    status: Annotated[list[Status] | None, typer.Option("--status", help="Only these; repeatable.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", metavar="NAME")] = None,
    consumer_id: ConsumerId = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
    offset: Annotated[int, typer.Option("--offset", min=0)] = 0,
) -> None:
    """One's own sessions that are not over yet, the newest first."""
    statuses = status or ([] if everything else NOT_OVER)
    page = terminal.api.get(
        "/sessions", status=[one.value for one in statuses], provider=provider, consumer_id=consumer_id,
        limit=limit, offset=offset,
    )  # fmt: skip
    if not page["sessions"]:
        nothing = "No session." if everything or status else "No live session. --all shows those that are over."
        terminal.answer(page, show.note(nothing))
        return
    more = "" if page["count"] == page["total"] else f"{page['count']} of {page['total']}; --limit and --offset."
    terminal.answer(page, show.sessions(page["sessions"], terminal.api.now), *([show.note(more)] if more else []))


@command(app)
def get(
    terminal: Terminal,
    session: SessionId,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Return when it runs, or never will.")] = False,
) -> None:
    """Everything about a session."""
    found = get_session(terminal, session)
    if wait:
        found = waiting.until_usable(terminal, found)
    _show(terminal, found)
    if wait:
        check_usable(found)


@command(app)
def events(terminal: Terminal, session: SessionId) -> None:
    """The timeline: everything that was asked and answered, oldest first."""
    path = f"/sessions/{whole(terminal, session)}/events"
    found = list(terminal.api.pages(path, "events"))
    terminal.answer({"events": found, "count": len(found), "total": len(found)}, show.events(found))


@command(app)
def diagnostics(terminal: Terminal, session: SessionId) -> None:
    """How a running session is doing, and which safeguards are armed."""
    found = terminal.api.get(f"/sessions/{whole(terminal, session)}/diagnostics")
    terminal.answer(found, show.diagnostics(found, terminal.api.now))


@command(app)
def done(terminal: Terminal, session: SessionId, wait: Wait = False) -> None:
    """The work is done: destroy the machine, so that it costs nothing more."""
    session_id = whole(terminal, session)
    _end(terminal, terminal.api.post(f"/sessions/{session_id}/done"), wait)


@command(app)
def delete(terminal: Terminal, session: SessionId, wait: Wait = False) -> None:
    """End a session, whatever it is doing. Said twice it is no error."""
    _end(terminal, terminal.api.delete(f"/sessions/{whole(terminal, session)}"), wait)


def _end(terminal: Terminal, answer: Body, wait: bool) -> None:
    if wait:
        answer["session"] = waiting.until_over(terminal, answer["session"])
    session = answer["session"]
    hint = f"It is being destroyed. The proof: gpu-shopper sessions get {session['id']}"
    over = session["status"] in show.OVER
    terminal.answer(answer, show.session(session, terminal.api.now), *([] if over else [show.note(hint)]))


@command(app)
def extend(
    terminal: Terminal,
    session: SessionId,
    hours: Annotated[float, typer.Option("--hours", "-t", metavar="HOURS", help="How much longer.")],
    override: Annotated[bool, typer.Option("--override", help="Operators: beyond the hard maximum.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; needed with --override.")] = None,
) -> None:
    """Move the deadline, up to the hard maximum."""
    if override and not reason:
        raise Misused("--override is recorded with its --reason.")
    body: dict[str, Any] = {"additional_hours": hours}
    if override:
        body |= {"override": True, "reason": reason}
    answer = terminal.api.post(f"/sessions/{whole(terminal, session)}/extend", body)
    terminal.answer(answer, show.session(answer["session"], terminal.api.now))


@command(app)
def key(
    terminal: Terminal,
    session: SessionId,
    save_key: Annotated[
        Path | None, typer.Option("--save-key", "-k", metavar="PATH", help="Where to; else to our own folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Save the private key again: possible for 24 h, until it was saved once."""
    session_id = whole(terminal, session)
    if save_key:
        keys.check_free(save_key, overwrite=overwrite)
    private_key = keys.fetch(terminal.api, session_id)
    if private_key is None:
        here = keys.place_of(session_id)
        raise Failure("The server has erased this key.", f"It was saved at {here.resolve()}." if here.exists() else "")
    saved = keys.keep(terminal.api, session_id, private_key, save_key, overwrite=overwrite)
    terminal.answer({"session_id": session_id, "saved_at": str(saved)}, f"The private key is at {saved}.")


@command(app, context_settings={"allow_interspersed_args": True})
def ssh(
    terminal: Terminal,
    session: SessionId,
    line: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Run only this, without a shell of your own.")
    ] = None,
    key: KeyPath = None,
) -> None:
    """Log in, with the saved key and the pinned host key.

    With a command after `--` the exit code is the command's, or 255 if there was no login, as ssh has it.
    """
    found = get_session(terminal, session)
    if not line:
        machine.shell(terminal.api, found, key)
    raise typer.Exit(_run(terminal, found, key, " ".join(line)))


def _run(terminal: Terminal, session: Body, key: Path | None, line: str) -> int:
    machine.reachable(session)
    try:
        with machine.login(terminal.api, session, key) as client:
            return machine.run(client, line)
    except machine.NoLogin as error:
        error.code = 255
        raise


# --- All at once -----------------------------------------------------------------------------------------


def shutdown(
    terminal: Terminal,
    force: Annotated[bool, typer.Option("--force", help="Don't ask.")] = False,
    consumer_id: ConsumerId = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="Operators: the sessions of all consumers.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Return when all are proven gone.")] = False,
) -> None:
    """End all of one's own live sessions."""
    if consumer_id is None and not everybody and _is_operator(terminal):
        raise Misused("An operator's key sees everybody's sessions: say --consumer-id NAME, or --everybody.")
    statuses = [status.value for status in LIVE]
    live = list(terminal.api.pages("/sessions", "sessions", status=statuses, consumer_id=consumer_id))
    if live and not force:
        _ask(terminal, live)
    ended, failures = _end_all(terminal, live)
    if wait:
        ended = [waiting.until_over(terminal, session) for session in ended]
    body = {"sessions": ended, "count": len(ended), "total": len(ended)}
    nothing = show.note("There is no live session.")
    terminal.answer(body, show.sessions(ended, terminal.api.now) if live else nothing)
    if failures:
        raise Failure(f"{len(failures)} of {len(live)} could not be ended; they go on and cost money.", *failures)


def _is_operator(terminal: Terminal) -> bool:
    """A consumer may not ask for anybody else's sessions; no consumer is called `-`."""
    try:
        terminal.api.get("/sessions", consumer_id="-", limit=1)
    except NotAuthorised as error:
        if error.status == 403:
            return False
        raise
    return True


def _ask(terminal: Terminal, live: list[Body]) -> None:
    terminal.err.print(show.sessions(live, terminal.api.now))
    if not terminal.is_interactive:
        raise Misused(f"Nothing was ended. To end these {len(live)} without a question, say --force.")
    if not typer.confirm(f"End {'this session' if len(live) == 1 else f'these {len(live)} sessions'}?", err=True):
        raise Failure("Nothing was ended.")


def _end_all(terminal: Terminal, live: Iterable[Body]) -> tuple[list[Body], list[str]]:
    """One that can't be ended is no reason to leave the others running."""
    ended, failures = [], []
    for session in live:
        try:
            ended.append(terminal.api.delete(f"/sessions/{session['id']}")["session"])
        except (Refused, NoAnswer) as error:
            failures.append(f"{session['id']}: {error}")
    return ended, failures
