"""A webhook receiver on loopback that does as it is told, and remembers what came."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

from standardwebhooks import Webhook, WebhookVerificationError

from tests.fakes import FakeClock

WITHIN = 10.0


@dataclass(frozen=True)
class Got:
    path: str
    headers: dict[str, str]
    body: bytes

    def verified_at(self, secret: str, told: FakeClock) -> dict[str, Any]:
        """The payload, if a third-party library accepts its signature.

        The library compares the message's time with the real clock, so the test's clock is put in its place.
        """
        with patch("standardwebhooks.webhooks.datetime") as instead:
            instead.now.return_value = told.now()
            instead.fromtimestamp.side_effect = datetime.fromtimestamp
            payload: dict[str, Any] = Webhook(secret).verify(self.body.decode(), self.headers)
        return payload

    def is_signed_by(self, secret: str, told: FakeClock) -> bool:
        try:
            self.verified_at(secret, told)
        except WebhookVerificationError:
            return False
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller who does not like the certificate hangs up; that is no news."""


class Receiver:
    """Answers 204, or what is queued in `answers`; while `hold` is cleared, nobody gets an answer."""

    def __init__(self, *, certificate: Path | None = None) -> None:
        self.got: list[Got] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.always: int | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = threading.Semaphore(0)
        self.server = _Server(("127.0.0.1", 0), self._door())
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def _answer(self) -> tuple[int, dict[str, str]]:
        if self.always is not None:
            return self.always, {}
        return self.answers.pop(0) if self.answers else (204, {})

    def _door(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append(Got(self.path, headers, body))
                receiver.arrived.release()
                receiver.hold.wait(WITHIN)
                status, more = receiver._answer()
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        return Door

    def __enter__(self) -> Receiver:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.hold.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
