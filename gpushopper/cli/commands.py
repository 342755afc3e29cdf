"""All commands, put together."""

from __future__ import annotations

import typer

from gpushopper.cli import configure, sessions, transfer
from gpushopper.cli.costs import costs, summary
from gpushopper.cli.inventory import inventory
from gpushopper.cli.provision import provision
from gpushopper.cli.sessions import shutdown
from gpushopper.cli.terminal import command, grouped, remember

EXIT_CODES = """\
Exit codes: 0 done; 1 refused by the server, or the session has failed;
2 the command line makes no sense; 3 no GPU Shopper answers; 4 not authorised;
130 interrupted.
"""


def program() -> typer.Typer:
    app = typer.Typer(
        name="gpu-shopper", no_args_is_help=True, pretty_exceptions_enable=False, epilog=EXIT_CODES,
        help="Rent GPUs from one menu, log in, and make sure that they end.",
        context_settings={"help_option_names": ["--help", "-h"]},
    )  # fmt: skip
    app.callback()(remember)
    command(app)(inventory)
    command(app)(provision)
    app.add_typer(sessions.app, name="sessions")
    command(app)(shutdown)
    app.add_typer(_costs(), name="costs")
    app.add_typer(transfer.app, name="transfer")
    app.add_typer(configure.app, name="config")
    return app


def _costs() -> typer.Typer:
    """`costs` is a command, and has `summary` below it."""
    app = typer.Typer()
    grouped(app, costs)
    command(app)(summary)
    return app
