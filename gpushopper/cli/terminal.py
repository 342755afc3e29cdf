"""What every command has at hand: the API, standard output for the answer, standard error for the rest.

With `-o json` standard output carries the API's own JSON and nothing else, so that it can be piped.
"""

from __future__ import annotations

import enum
import functools
import inspect
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.measure import Measurement

from gpushopper.cli import config
from gpushopper.cli.api import Api, Body

# Of a pipe or a file: wide enough that no table is broken.
WIDTH_WITHOUT_TERMINAL = 200
WIDEST = 1000


class Output(enum.StrEnum):
    TABLE = "table"
    JSON = "json"


Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", rich_help_panel="Everywhere", show_default=False,
                 help="Where GPU Shopper answers. Else GPU_SHOPPER_URL, the config file, http://localhost:8080."),
]  # fmt: skip
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", rich_help_panel="Everywhere", show_default=False,
                 help="Else GPU_SHOPPER_API_KEY, or the config file: other users can read a command line."),
]  # fmt: skip
Format = Annotated[
    Output | None,
    typer.Option("--output", "-o", rich_help_panel="Everywhere", show_default=False,
                 help="A table to read (the default), or the API's JSON to pipe."),
]  # fmt: skip


class Terminal:
    def __init__(self, server: str | None, api_key: str | None, output: Output | None) -> None:
        self.settings = config.resolve({"server": server, "api-key": api_key})
        self.wants_json = output is Output.JSON
        self.out = console(stderr=False)
        self.err = console(stderr=True)

    @functools.cached_property
    def api(self) -> Api:
        server = config.check("server", self.settings["server"].value)
        key = self.settings["api-key"].value
        return Api(server, config.check("api-key", key) if key else "")

    @property
    def is_interactive(self) -> bool:
        """Whether there is somebody to ask."""
        return sys.stdin.isatty()

    def answer(self, body: Body, *shown: RenderableType) -> None:
        """The command's answer: as the API gave it, or as a person reads it."""
        if self.wants_json:
            sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
            return
        for thing in shown:
            # Wider than the terminal: its own wrapping loses nothing, and ours would cut ids short.
            needed = Measurement.get(self.out, self.out.options.update(max_width=WIDEST), thing).minimum
            self.out.width = max(self.out.width, needed)
            self.out.print(thing)

    def say(self, sentence: str) -> None:
        """Something for the person that is no part of the answer."""
        self.err.print(sentence, markup=False, highlight=False, soft_wrap=True)


def console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def command(app: typer.Typer, name: str | None = None, **options: Any) -> Callable[[Callable[..., None]], None]:
    """Make a function a command of `app`: it is given a `Terminal`, and takes the options of every command.

    The three options may stand before the command's name or after it; the later one counts.
    """

    def register(function: Callable[..., None]) -> None:
        app.command(name or function.__name__, **options)(_with_terminal(function))

    return register


def grouped(app: typer.Typer, function: Callable[..., None]) -> None:
    """Make a function what `app` does when no command below it is named."""
    inner = _with_terminal(function)

    @functools.wraps(inner)
    def run(context: typer.Context, **said: Any) -> None:
        if context.invoked_subcommand is None:
            inner(context, **said)
        else:
            remember(context, **{key: said[key] for key in EVERYWHERE})

    app.callback(invoke_without_command=True)(run)


def _with_terminal(function: Callable[..., None]) -> Callable[..., None]:
    def run(context: typer.Context, **said: Any) -> None:
        everywhere = {key: said.pop(key) or (context.obj or {}).get(key) for key in EVERYWHERE}
        function(Terminal(**everywhere), **said)

    signature = _signature(function)
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return run


EVERYWHERE = {"server": Server, "api_key": ApiKey, "output": Format}


def _signature(function: Callable[..., None]) -> inspect.Signature:
    """The function's own parameters, with the context in the place of its `Terminal`."""
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    general = [inspect.Parameter(name, keyword, annotation=kind, default=None) for name, kind in EVERYWHERE.items()]
    return inspect.Signature([context, *(one.replace(kind=keyword) for one in own), *general])


def remember(context: typer.Context, server: Server = None, api_key: ApiKey = None, output: Format = None) -> None:
    """Keep what stands before a command's name for the command."""
    said = {"server": server, "api_key": api_key, "output": output}
    context.obj = {**(context.obj or {}), **{name: value for name, value in said.items() if value}}
