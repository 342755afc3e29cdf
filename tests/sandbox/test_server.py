"""The sandbox over real sockets: what is carried to the world and back, and how the wire breaks.

The world here is the least that the server needs, so that each way of breaking is at hand.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from providers.base import SshTarget
from providers.sandbox.guest import Guest
from providers.sandbox.server import Request, SandboxServer
from sessions import ssh

PATIENCE = 10.0  # seconds that a test waits at most; none should need them


@dataclass
class Machine:
    id: str
    guest: Guest
    host_seed: str = "a host"
    destroyed_at: str | None = None


class Weather:
    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def set(self, name: str, value: Any = True, **options: Any) -> None:
        if name == "no.such":
            raise ValueError("there is no switch no.such")
        self.chosen[name] = options or value

    def clear(self, name: str | None = None) -> None:
        self.chosen = {} if name is None else {k: v for k, v in self.chosen.items() if k != name}

    def describe(self) -> dict[str, Any]:
        return self.chosen


def answered(request: Request) -> SimpleNamespace:
    return SimpleNamespace(status=200, headers={"Content-Type": "application/json"}, body=b'{"ok": true}')


@dataclass
class World:
    answer: Callable[[Request], SimpleNamespace] = answered
    requests: list[Request] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    weather: Weather = field(default_factory=Weather)
    door: str = "open"
    addresses: Any = None

    def handle(self, request: Request) -> SimpleNamespace:
        self.requests.append(request)
        return self.answer(request)

    def ssh_door(self, machine_id: str) -> str:
        return self.door

    def truth(self) -> dict[str, Any]:
        return {"machines": sorted(self.machines)}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World) -> Iterator[SandboxServer]:
    server = SandboxServer(world)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connection(server: SandboxServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    yield connection
    connection.close()


def call(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    connection.request(method, path, body, {"Authorization": "Bearer k"})
    response = connection.getresponse()
    text = response.read().decode()
    return response.status, json.loads(text) if response.getheader("Content-Type") == "application/json" else text


# --- There and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_request_reaches_the_world_whole(world: World, connection: http.client.HTTPConnection, method: str) -> None:
    assert call(connection, method, "/vastai/api/v0/x/?a=1&a=2&b=", '{"c": 3}') == (200, {"ok": True})
    (request,) = world.requests
    assert (request.method, request.path, request.body) == (method, "/vastai/api/v0/x/", b'{"c": 3}')
    assert request.query == {"a": ["1", "2"], "b": [""]}
    assert request.headers["authorization"] == "Bearer k"


def test_status_and_headers_come_back(world: World, connection: http.client.HTTPConnection) -> None:
    world.answer = lambda request: SimpleNamespace(status=429, headers={"Retry-After": "7"}, body=b"slow down")
    connection.request("GET", "/tensordock/api/v2/locations")
    response = connection.getresponse()
    assert (response.status, response.getheader("Retry-After"), response.read()) == (429, "7", b"slow down")


def test_a_connection_is_kept_for_the_next_request(connection: http.client.HTTPConnection) -> None:
    call(connection, "GET", "/vastai/a")
    kept = connection.sock
    call(connection, "GET", "/vastai/b")
    assert kept is not None
    assert connection.sock is kept


def test_the_world_is_entered_by_one_thread_at_a_time(world: World, server: SandboxServer) -> None:
    inside, most = 0, 0
    gate = threading.Barrier(4)

    def counted(request: Request) -> SimpleNamespace:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.02)  # room for another thread to come in, were there no lock
        inside -= 1
        return answered(request)

    def visit() -> None:
        gate.wait(PATIENCE)
        call(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE), "GET", "/vastai/x")

    world.answer = counted
    threads = [threading.Thread(target=visit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(world.requests), most) == (4, 1)


# --- The wire breaks ----------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[[Request], SimpleNamespace]:
    def answer(request: Request) -> SimpleNamespace:
        raise error

    return answer


def test_a_lost_connection_ends_without_an_answer(world: World, connection: http.client.HTTPConnection) -> None:
    world.answer = raising(ConnectionError())
    with pytest.raises(ConnectionError):
        call(connection, "GET", "/vastai/x")
    world.answer = answered
    assert call(connection, "GET", "/vastai/x")[0] == 200  # http.client connects anew


def test_a_timeout_is_silence_until_the_caller_goes(world: World, server: SandboxServer) -> None:
    world.answer = raising(TimeoutError())
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=0.3)
    with pytest.raises(TimeoutError):
        call(connection, "GET", "/vastai/x")
    connection.close()
    assert len(world.requests) == 1


# --- The sandbox's own pages --------------------------------------------------------------------------


def test_the_front_page_tells_where_to_go(server: SandboxServer, connection: http.client.HTTPConnection) -> None:
    status, text = call(connection, "GET", "/")
    assert status == 200
    assert f"{server.url}/vastai\n" in text
    assert f"{server.url}/tensordock/api/v2\n" in text


def test_the_truth_can_be_read(world: World, connection: http.client.HTTPConnection) -> None:
    world.machines["7"] = Machine("7", Guest("7", "RTX 4090", 1, 24564, "12.8"))
    assert call(connection, "GET", "/_sandbox/truth") == (200, {"machines": ["7"]})
    assert not world.requests


def test_the_weather_is_set_read_and_cleared(connection: http.client.HTTPConnection) -> None:
    body = '{"set": {"a": 1, "b": {"calls": 2}}}'
    assert call(connection, "POST", "/_sandbox/weather", body) == (200, {"a": 1, "b": {"calls": 2}})
    assert call(connection, "GET", "/_sandbox/weather") == (200, {"a": 1, "b": {"calls": 2}})
    assert call(connection, "POST", "/_sandbox/weather", '{"clear": ["a"]}') == (200, {"b": {"calls": 2}})
    assert call(connection, "POST", "/_sandbox/weather", '{"clear": true}') == (200, {})


@pytest.mark.parametrize("body", ["", "nonsense", "[]", '{"set": {"no.such": 1}}'])
def test_a_weather_that_is_none_is_refused_with_a_sentence(connection: http.client.HTTPConnection, body: str) -> None:
    status, answer = call(connection, "POST", "/_sandbox/weather", body)
    assert status == 400
    assert answer["error"]


def test_a_page_that_is_none_is_not_found(connection: http.client.HTTPConnection) -> None:
    assert call(connection, "GET", "/_sandbox/nothing")[0] == 404


# --- Machines -----------------------------------------------------------------------------------------


def new_machine(world: World, server: SandboxServer) -> tuple[Machine, SshTarget, str]:
    private, public = ssh.make_key_pair("test")
    guest = Guest("7", "RTX 4090", 1, 24564, "12.8", authorized_keys=[public])
    machine = world.machines["7"] = Machine("7", guest)
    host, port = world.addresses(machine)
    return machine, SshTarget(host, port, "root"), private


def test_a_machine_can_be_visited_at_the_address_that_the_world_shows(world: World, server: SandboxServer) -> None:
    machine, target, private = new_machine(world, server)
    assert target.host == "127.0.0.1"
    assert world.addresses(machine) == (target.host, target.port)
    (output,) = ssh.run(target, private, ["hostname"]).outputs
    assert output.stdout == "sandbox-7\n"


def test_the_world_decides_whether_the_door_is_open(world: World, server: SandboxServer) -> None:
    _, target, private = new_machine(world, server)
    world.door = "no_auth"
    with pytest.raises(ssh.Denied):
        ssh.run(target, private, ["true"])


def test_a_machine_that_is_gone_closes_its_port_with_the_next_request(
    world: World, server: SandboxServer, connection: http.client.HTTPConnection
) -> None:
    machine, target, _ = new_machine(world, server)
    machine.destroyed_at = "now"
    call(connection, "GET", "/vastai/x")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((target.host, target.port), PATIENCE)


def test_a_machine_that_is_there_keeps_its_port(
    world: World, server: SandboxServer, connection: http.client.HTTPConnection
) -> None:
    _, target, private = new_machine(world, server)
    call(connection, "GET", "/vastai/x")
    assert ssh.run(target, private, ["true"]).outputs[0].exit_status == 0


# --- The end ------------------------------------------------------------------------------------------


def test_stop_closes_every_port_and_kept_connection(world: World) -> None:
    server = SandboxServer(world)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    call(connection, "GET", "/vastai/x")
    _, target, _ = new_machine(world, server)
    server.stop()
    assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()
    for port in (server.port, target.port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE)
