"""Run a `manage.py` command as its caller sees it: what it printed, and its exit code."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from django.core.management import CommandError, call_command


@dataclass
class Ran:
    code: int
    out: str
    err: str


def run(name: str, *args: str, **options: Any) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(name, *args, stdout=out, stderr=err, no_color=True, **options)
    except CommandError as error:
        return Ran(error.returncode, out.getvalue(), f"{err.getvalue()}{error}")
    return Ran(0, out.getvalue(), err.getvalue())
