"""`gpu-shopper costs` and `gpu-shopper costs summary`: what it has cost."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from gpushopper.cli import show
from gpushopper.cli.api import Body
from gpushopper.cli.provision import ConsumerId
from gpushopper.cli.session_id import whole
from gpushopper.cli.terminal import Terminal


class Period(enum.StrEnum):
    DAILY = "daily"
    MONTHLY = "monthly"


Day = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="UTC, included.")]
Provider = Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Only at this one.")]


def costs(
    terminal: Terminal,
    consumer_id: ConsumerId = None,
    session_id: Annotated[str | None, typer.Option("--session-id", metavar="SESSION", help="Of this one.")] = None,
    provider: Provider = None,
    period: Annotated[Period | None, typer.Option("--period", help="A line for each day or month, too.")] = None,
    start_date: Day = None,
    end_date: Day = None,
) -> None:
    """What it has cost, counted to the microsecond, exact to the micro-dollar."""
    found = terminal.api.get(
        "/costs", consumer_id=consumer_id, session_id=whole(terminal, session_id) if session_id else None,
        provider=provider, period=period.value if period else None, start_date=start_date, end_date=end_date,
    )  # fmt: skip
    _answer(terminal, found)


def summary(terminal: Terminal, consumer_id: ConsumerId = None, provider: Provider = None) -> None:
    """The current month."""
    _answer(terminal, terminal.api.get("/costs/summary", consumer_id=consumer_id, provider=provider))


def _answer(terminal: Terminal, found: Body) -> None:
    terminal.answer(found, show.cost_of_session(found) if "session_id" in found else show.costs(found))
