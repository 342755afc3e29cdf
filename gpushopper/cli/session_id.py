"""Naming a session: by its whole id, or by the first characters of it, as the tables show them."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from gpushopper.cli.failure import Misused, Refused
from gpushopper.cli.keys import WHOLE_ID
from gpushopper.cli.show import SHORT_ID
from gpushopper.cli.terminal import Terminal

SessionId = Annotated[
    str, typer.Argument(metavar="SESSION", show_default=False, help="The session's id, or its first characters.")
]

SHORTEST = 4


def whole(terminal: Terminal, text: str) -> str:
    """The whole id. Raises Misused: no id, or the beginning of several; Refused: the beginning of none."""
    text = text.strip().lower()
    if WHOLE_ID.fullmatch(text):
        return text
    if not re.fullmatch(rf"[0-9a-f-]{{{SHORTEST},36}}", text):
        raise Misused(f"A session's id looks like 3f2a91c0-…; at least its first {SHORTEST} characters are needed.")
    found = [one["id"] for one in terminal.api.pages("/sessions", "sessions") if one["id"].startswith(text)]
    if not found:
        raise Refused(f"No session of yours begins with {text}. See `gpu-shopper sessions list --all`.", status=404)
    if len(found) > 1:
        listed = ", ".join(one[: SHORT_ID + 5] for one in found[:5])
        raise Misused(f"{len(found)} sessions begin with {text}: {listed}. Say more of it.")
    return str(found[0])
