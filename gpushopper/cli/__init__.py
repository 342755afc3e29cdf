"""`gpu-shopper`: the command line. It speaks HTTP and SSH, and imports nothing of the service."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from gpushopper.cli.failure import INTERRUPTED, OK, REFUSED, Failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (`gpushopper.cli.failure` has the table)."""
    from gpushopper.cli import commands

    try:
        commands.program()(args=None if arguments is None else list(arguments), prog_name="gpu-shopper")
        return OK
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK
    except Failure as failure:
        _complain(failure)
        return failure.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `gpu-shopper … | head` has seen enough.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED


def _complain(failure: Failure) -> None:
    from rich.text import Text

    from gpushopper.cli.show import plain
    from gpushopper.cli.terminal import console

    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    err = console(stderr=True)
    err.print(Text.assemble(("Error: ", "bold red"), plain(failure)), soft_wrap=True)
    for detail in failure.details:
        err.print(Text(f"  {plain(detail)}", "dim"), soft_wrap=True)
