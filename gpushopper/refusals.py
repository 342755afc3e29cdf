"""What waitress refuses before the service hears of it, in the shape of every other error."""

from __future__ import annotations

import json
import uuid

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from rest.errors import envelope
from rest.size_limit import TOO_LARGE

_SAID = {
    413: TOO_LARGE,
    431: ("invalid_request", "The request's headers are too long."),
    500: ("internal_error", "Something went wrong on our side; nothing you rented is lost by it."),
}
_UNREADABLE = ("invalid_request", "The request could not be read.")


class Refusal(ErrorTask):  # type: ignore[misc] # waitress is untyped
    """Waitress' own answer repeats what was sent, as plain text."""

    def execute(self) -> None:
        error = self.request.error
        request_id = uuid.uuid4().hex  # the one that was sent may be what could not be read
        body = json.dumps({**envelope(*_SAID.get(error.code, _UNREADABLE)), "request_id": request_id}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", "application/json"), ("X-Request-ID", request_id)]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc] # waitress is untyped
    error_task_class = Refusal
