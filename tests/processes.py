"""What tests that start programs have in common."""

from __future__ import annotations

import signal


def heed_ctrl_c() -> None:
    """For `preexec_fn`: what is started in the background of a shell inherits that it ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
