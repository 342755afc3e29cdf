"""Known mistakes, made on purpose, to see that a test or an invariant catches each of them.

`make sabotage` makes one at a time, in a process of its own, and runs what has to notice it. The process that is
to be wrong is told by the environment, so it is wrong from its first import of a test on.
"""

from __future__ import annotations

import os

MISTAKE = "SABOTAGE"  # the mistake's name
REPORT = "SABOTAGE_REPORT"  # the file that takes what happened, one JSON object a line


def apply_from_environment() -> None:
    """Make the mistake that the environment names; nothing without one. Django has to be set up."""
    name = os.environ.get(MISTAKE, "")
    if name:
        from tests.sabotage.mistakes import MISTAKES

        MISTAKES[name].make()
