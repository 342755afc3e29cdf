"""The sandbox as a server: both providers' HTTP interfaces, and an SSH server for each machine.

Sockets and threads live here, and one lock: the world is never entered by two threads at once. What is
answered is the world's business; this file carries it over the wire, or lets the wire break.

| Path                   |                                                                   |
|------------------------|-------------------------------------------------------------------|
| `/vastai/...`          | stands in for https://console.vast.ai                             |
| `/tensordock/api/v2/…` | stands in for https://dashboard.tensordock.com/api/v2             |
| `/_sandbox/truth`      | the world's own books, JSON                                       |
| `/_sandbox/weather`    | GET: the failures that can be switched on; POST: switch them      |
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from providers.sandbox.ssh import SshServer

if TYPE_CHECKING:
    from providers.sandbox.world import Machine, World

MAX_BODY = 4 * 1024 * 1024  # bytes; no provider takes more


class SandboxServer:
    """Serves `world` between `start` and `stop`; the port is known from the beginning.

    From the making of this on, the world's machines carry the address of their own SSH server, which is
    started when the address is first asked for, and stopped after the machine is gone.
    """

    def __init__(self, world: World, host: str = "127.0.0.1", port: int = 0) -> None:
        self.world = world
        self.lock = threading.RLock()
        self._ssh: dict[str, SshServer] = {}
        self._http = _HttpServer((host, port), self)
        self._thread = threading.Thread(target=self._http.serve_forever, name="sandbox-http", daemon=True)
        world.addresses = self._address

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self._http.server_address[0]!s}:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close every socket, and wait until the threads behind them have ended."""
        self._http.end()
        self._thread.join()
        for server in self._ssh.values():
            server.stop()

    def forget_the_gone(self) -> None:
        """Stop the SSH servers of machines that are no more. Not under the lock: they may be waiting for it."""
        with self.lock:
            gone = [name for name in self._ssh if self.world.machines[name].destroyed_at is not None]
            servers = [self._ssh.pop(name) for name in gone]
        for server in servers:
            server.stop()

    def _address(self, machine: Machine) -> tuple[str, int]:
        if machine.id not in self._ssh:
            self._ssh[machine.id] = server = SshServer(
                machine.guest, lambda: self.world.ssh_door(machine.id), seed=machine.id, lock=self.lock
            )
            server.start()
        return "127.0.0.1", self._ssh[machine.id].port


class _HttpServer(ThreadingHTTPServer):
    """Remembers its connections, as those that are kept alive would outlive `shutdown`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "gpu-shopper-sandbox"
    server: _HttpServer
    disable_nagle_algorithm = True

    def _any(self) -> None:
        path = urlsplit(self.path).path
        if path == "/" or path.startswith("/_sandbox/"):
            self._control(path)
        else:
            self._forward()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the world keeps a log of calls, and a URL may carry a key."""
