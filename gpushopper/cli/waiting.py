"""Waiting for a session, and saying how it goes: one live line on a terminal, plain lines elsewhere.

It reads the session again and again. An interrupted wait changes nothing: the session goes on, and what is
said then names the command that ends it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.text import Text

from gpushopper.cli.api import Body
from gpushopper.cli.failure import Interrupted, Unreachable
from gpushopper.cli.show import OVER, plain, span
from gpushopper.cli.terminal import Terminal

POLL = 1.0  # seconds between two looks
# Without a terminal: how often to say that it still goes on.
REMIND = 30.0
# A service that is restarted is back within this; a session does not end because nobody watches it.
PATIENCE = 120.0

Tell = Callable[[str, float], None]  # how it stands, and since how many seconds we wait


def until_usable(terminal: Terminal, session: Body) -> Body:
    """Until it runs, or will never run."""
    end_it = f"gpu-shopper sessions done {session['id']}"
    return _until(terminal, session, ("running", "stopping", *OVER), f"It goes on, and costs money. End it: {end_it}")


def until_over(terminal: Terminal, session: Body) -> Body:
    """Until it is proven gone."""
    look = f"gpu-shopper sessions get {session['id']}"
    return _until(terminal, session, OVER, f"Its end goes on without us. See how: {look}")


def _until(terminal: Terminal, session: Body, wanted: tuple[str, ...], interrupted: str) -> Body:
    try:
        with _telling(terminal) as tell:
            return _look_until(terminal, session, wanted, tell)
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped waiting; session {session['id']} is not ended by that.", interrupted) from None
    except Unreachable as error:
        raise type(error)(f"{error}", *error.details, interrupted) from None


def _look_until(terminal: Terminal, session: Body, wanted: tuple[str, ...], tell: Tell) -> Body:
    begun = seen = time.monotonic()
    while session["status"] not in wanted:
        tell(_standing(session), time.monotonic() - begun)
        time.sleep(POLL)
        try:
            session = terminal.api.get(f"/sessions/{session['id']}")
            seen = time.monotonic()
        except Unreachable:
            if time.monotonic() - seen > PATIENCE:
                raise
            tell(f"no answer from {terminal.api.server}; trying on", time.monotonic() - begun)
    return session


def _standing(session: Body) -> str:
    reason = f": {plain(session['status_reason'])}" if session["status_reason"] else ""
    attempts = len(session["attempts"])
    attempt = f", attempt {attempts}" if attempts > 1 else ""
    return f"{session['status']}{attempt}{reason}"


@contextlib.contextmanager
def _telling(terminal: Terminal) -> Iterator[Tell]:
    if terminal.err.is_terminal:
        with terminal.err.status("", spinner="dots") as line:
            yield lambda news, seconds: line.update(Text(f"{news}  {_elapsed(seconds)}"))
    else:
        yield _Lines(terminal)


def _elapsed(seconds: float) -> str:
    return span(timedelta(seconds=seconds))


class _Lines:
    """A line when something has changed, and now and then when nothing has."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.last, self.said_at = "", 0.0

    def __call__(self, news: str, seconds: float) -> None:
        if news != self.last or seconds - self.said_at >= REMIND:
            self.terminal.say(f"{_elapsed(seconds):>10}  {news}")
            self.last, self.said_at = news, seconds
