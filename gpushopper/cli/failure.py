"""What can go wrong for the person at the keyboard: a sentence that says what to do, and an exit code.

| Code | Meaning                                                                         |
|------|---------------------------------------------------------------------------------|
| 0    | it is done                                                                      |
| 1    | refused by the server, or the session has failed                                |
| 2    | the command line makes no sense                                                 |
| 3    | no GPU Shopper answers                                                          |
| 4    | not authorised: no key, a wrong one, or one that may not do this                |
"""

from __future__ import annotations

OK, REFUSED, USAGE, UNREACHABLE, NOT_AUTHORISED, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Failure(Exception):
    """Ends the command. `details` are lines below the sentence."""

    code = REFUSED

    def __init__(self, sentence: str, *details: str, status: int = 0, error_type: str = "") -> None:
        super().__init__(sentence)
        self.details = [detail for detail in details if detail]
        self.status, self.error_type = status, error_type  # of the server's answer, if there was one


class Misused(Failure):
    code = USAGE


class Unreachable(Failure):
    code = UNREACHABLE


class NotAuthorised(Failure):
    code = NOT_AUTHORISED


class Interrupted(Failure):
    """Ctrl-C, at a moment at which something goes on elsewhere."""

    code = INTERRUPTED


class Refused(Failure):
    """The server said no."""
