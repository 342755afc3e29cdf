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

import argparse
import contextlib
import json
import random
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from providers import clock
from providers.sandbox.ssh import RESET, SshServer, make_host_key
from providers.sandbox.wire import Request, Response

if TYPE_CHECKING:
    from providers.sandbox.books import Machine
    from providers.sandbox.weather import Weather
    from providers.sandbox.world import World

FRONT_PAGE = """\
The GPU Shopper sandbox. Everything here is made up: no machine runs, and nothing costs money.

{environment}

  {url}/_sandbox/truth    the sandbox's own books
  {url}/_sandbox/weather  what can be made to fail; POST switches it
"""
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

    @property
    def front_page(self) -> str:
        lines = "\n".join(f"  {name}={value}" for name, value in self.environment().items())
        return FRONT_PAGE.format(url=self.url, environment=lines)

    def environment(self) -> dict[str, str]:
        """What makes the adapters talk to this server, on the first account; nothing has to be paced here."""
        return {
            "VASTAI_BASE_URL": f"{self.url}/vastai",
            "VASTAI_API_KEY": "sandbox-vastai-key",
            "TENSORDOCK_BASE_URL": f"{self.url}/tensordock/api/v2",
            "TENSORDOCK_API_TOKEN": "sandbox-tensordock-token",
            "PROVIDER_PACING": "off",
        }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close every socket, and wait until the threads behind them have ended."""
        self._http.end()
        self._thread.join()
        for server in self._ssh.values():
            server.stop()

    def answer(self, request: Request) -> Response:
        """What the world answers; by then the ports of machines that are no more are closed.

        Raises:
            ConnectionError: the connection is to die without an answer.
            TimeoutError: no answer is to come.
        """
        try:
            with self.lock:
                return self.world.handle(request)
        finally:
            self._stop_the_gone()

    def _stop_the_gone(self) -> None:
        with self.lock:
            gone = [name for name in self._ssh if self.world.machines[name].destroyed_at is not None]
            servers = [self._ssh.pop(name) for name in gone]
        for server in servers:  # Not under the lock: their visitors may be waiting for it.
            server.stop()

    def control(self, method: str, path: str, body: bytes) -> object:
        """The pages of the sandbox itself: text, or what becomes JSON.

        Raises:
            LookupError: no such page.
            ValueError: a weather that does not exist; the text says what is wrong.
        """
        match method, path:
            case "GET", "/":
                return self.front_page
            case "GET", "/_sandbox/truth":
                return self.world.truth()
            case "GET", "/_sandbox/weather":
                return self.world.weather.describe()
            case "POST", "/_sandbox/weather":
                change_weather(self.world.weather, body)
                return self.world.weather.describe()
        raise LookupError(f"there is no {method} {path}; see {self.url}/")

    def _address(self, machine: Machine) -> tuple[str, int]:
        if machine.id not in self._ssh:
            server = SshServer(machine.guest, lambda: self._door(machine, server), lock=self.lock)
            self._ssh[machine.id] = server
            server.start()
        return "127.0.0.1", self._ssh[machine.id].port

    def _door(self, machine: Machine, server: SshServer) -> str:
        door = self.world.ssh_door(machine.id)
        server.key = make_host_key(machine.host_seed)  # which the weather may have changed
        return door


def change_weather(weather: Weather, body: bytes) -> None:
    """Apply `{"clear": [name, ...], "set": {name: value, ...}}`; `"clear": true` clears everything.

    A value that is an object goes to the switch as keywords. Raises ValueError with a sentence.
    """
    try:
        wish = json.loads(body)
        cleared, chosen = wish.get("clear", []), dict(wish.get("set", {}))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError('send {"set": {"name": value}, "clear": ["name"]}') from error
    if cleared is True:
        weather.clear()
    else:
        for name in cleared:
            weather.clear(name)
    for name, value in chosen.items():
        weather.set(name, **value) if isinstance(value, dict) else weather.set(name, value)


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

    def _forward(self) -> None:
        url = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=url.path,
            query=parse_qs(url.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._body(),
        )
        try:
            response = self.server.sandbox.answer(request)
        except TimeoutError:
            self._stay_silent()
        except ConnectionError:
            self._break()
        else:
            self._send(response.status, response.headers, response.body)

    def _control(self, path: str) -> None:
        sandbox = self.server.sandbox
        body = self._body()
        try:
            with sandbox.lock:
                answer = sandbox.control(self.command, path, body)
        except LookupError as error:
            self._send_json(404, {"error": str(error.args[0])})
        except ValueError as error:
            self._send_json(400, {"error": str(error)})
        else:
            if isinstance(answer, str):
                self._send(200, {"Content-Type": "text/plain; charset=utf-8"}, answer.encode())
            else:
                self._send_json(200, answer)

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        self.close_connection |= length > MAX_BODY  # What is left unread is not the next request.
        return self.rfile.read(min(length, MAX_BODY))

    def _send_json(self, status: int, value: object) -> None:
        body = json.dumps(value, indent=2, default=str) + "\n"
        self._send(status, {"Content-Type": "application/json"}, body.encode())

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "connection", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        """The connection dies without an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _stay_silent(self) -> None:
        """No answer comes, however long the caller waits."""
        self.close_connection = True
        while self.connection.recv(1024):
            pass

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the world keeps a log of calls, and a URL may carry a key."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted. `argv`: the options without the program's name; None takes the process's own."""
    options = _options().parse_args(argv)
    server = SandboxServer(make_world(options), options.host, options.port)
    server.start()
    sys.stdout.write(server.front_page)
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    server.stop()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sandbox", description="Stand-ins for Vast.ai and TensorDock. Nothing is rented, nothing costs money."
    )
    parser.add_argument("--host", default="127.0.0.1", help="there is no login, so keep it on the loopback")
    parser.add_argument("--port", type=int, default=8099, help="0 takes a free one")
    parser.add_argument("--boot", default="demo", choices=["demo", "true", "instant"], help="how long machines take")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same menu and chances")
    parser.add_argument("--offers", type=int, default=60, help="length of the Vast.ai menu")
    return parser


def make_world(options: argparse.Namespace) -> World:
    from providers.sandbox.world import World

    return World(clock, random.Random(options.seed), boot=options.boot, offers=options.offers)
