"""`gpu-shopper config set|show`: where the server is, and the key, for every command from now on."""

from __future__ import annotations

import enum
import sys
from typing import Annotated

import typer

from gpushopper.cli import config, show
from gpushopper.cli.failure import Misused
from gpushopper.cli.terminal import Terminal, command

app = typer.Typer(help="Where the server is, and your key.", no_args_is_help=True)


class Name(enum.StrEnum):
    SERVER = "server"
    API_KEY = "api-key"


@command(app, "set")
def set_value(
    terminal: Terminal,
    name: Annotated[Name, typer.Argument(show_default=False)],
    value: Annotated[
        str | None, typer.Argument(help="Left out: asked for, or read from a pipe; so a key stays out of the history.")
    ] = None,
) -> None:
    """Keep a value in the config file, which only you can read."""
    checked = config.check(name.value, _ask(terminal, name) if value is None else value)
    config.write(name.value, checked)
    terminal.say(f"{name.value} is kept in {config.path()}")


def _ask(terminal: Terminal, name: Name) -> str:
    if not terminal.is_interactive:
        return sys.stdin.readline()
    answer: str = typer.prompt(name.value, hide_input=name is Name.API_KEY, err=True)
    return answer


@command(app, "show")
def show_values(terminal: Terminal) -> None:
    """What holds, and where it comes from: a flag goes before the environment, that before the file."""
    shown = {name: _printable(name, setting.value) for name, setting in terminal.settings.items()}
    body = {
        **{name.replace("-", "_"): value for name, value in shown.items()},
        "sources": {name.replace("-", "_"): setting.source for name, setting in terminal.settings.items()},
        "file": str(config.path()),
    }
    rows = [(name, f"{shown[name] or 'not set'}  ({setting.source})") for name, setting in terminal.settings.items()]
    terminal.answer(body, show.facts([*rows, ("file", str(config.path()))]))


def _printable(name: str, value: str) -> str:
    if name == "api-key":
        return config.masked(value)
    try:
        return config.check(name, value)
    except Misused:
        return "not a usable address"
