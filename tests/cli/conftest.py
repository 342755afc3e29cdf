"""The command line as a person uses it, against the service on a real port.

The world moves on before each request, with everything that is due done: so a command that waits is quick,
and nothing runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from gpushopper import cli, embedded
from gpushopper.cli import api as cli_api
from gpushopper.cli import waiting
from gpushopper.models import ApiKey, Consumer, make_key
from gpushopper.wsgi import application
from inventory import refresh
from providers import registry
from providers.base import SshTarget
from providers.sandbox.guest import Guest
from providers.sandbox.ssh import SshServer, make_host_key
from sessions import ssh, wake
from tests.fakes import Engine, FakeClock, FakeGuests, FakeProvider, quote

PACE = 4  # seconds that pass with each request


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home without any settings; waits that take no time."""
    for name in ("GPU_SHOPPER_URL", "GPU_SHOPPER_API_KEY", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedded, "WEB_POLL", 0.02)
    monkeypatch.setattr(waiting, "POLL", 0.0)
    monkeypatch.setattr(cli_api, "PAUSES", (0.0, 0.0))
    return tmp_path


GpuShopper = Callable[..., Said]


@pytest.fixture
def gpu_shopper(capsys: pytest.CaptureFixture[str]) -> GpuShopper:
    """`gpu_shopper("sessions", "list")`: what a person gets to see, and the exit code."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = cli.main(arguments)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def provider(virtual: FakeClock, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    monkeypatch.setattr(wake, "publish", lambda task, argument, queue: None)
    fake = FakeProvider(quotes=[quote("1"), quote("2"), quote("3", gpu_name="H100 SXM", gpu_count=8)])
    registry.use({"fake": fake})
    refresh.refresh("fake")
    return fake


@pytest.fixture
def guests() -> Iterator[FakeGuests]:
    fake = FakeGuests()
    before = ssh.use(fake)
    yield fake
    ssh.use(before)


class World:
    """The service: `url`, and `paused` to keep the clock and the engine still."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.paused = engine, False
        self.requests: list[tuple[str, str, str]] = []  # method, path, idempotency key
        self.lose_answers = 0  # of so many POSTs: done, and then the connection breaks
        self.url = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        key = environ.get("HTTP_IDEMPOTENCY_KEY", "")
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], key))
        if not self.paused:
            self.engine.settle()
            self.engine.clock.advance(PACE)
        date = format_datetime(self.engine.clock.now(), usegmt=True)
        answer = application(
            environ, lambda status, headers, *more: start_response(status, [*headers, ("Date", date)], *more)
        )
        if environ["REQUEST_METHOD"] == "POST" and self.lose_answers:
            self.lose_answers -= 1
            return self._broken(b"".join(answer))
        return answer

    def _broken(self, body: bytes) -> Iterator[bytes]:
        yield body[:1]
        raise ConnectionError("the connection breaks within the answer")


@pytest.fixture
def service(
    virtual: FakeClock, provider: FakeProvider, guests: FakeGuests, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    world = World(Engine(virtual))
    web = embedded.listen(world, "127.0.0.1", 0, threads=1)
    world.url = web.url
    monkeypatch.setenv("GPU_SHOPPER_URL", world.url)
    with embedded.answering(web):
        yield world
    web.close()


def new_key(name: str, *, operator: bool = False) -> str:
    consumer, _ = Consumer.objects.get_or_create(name=name)
    return make_key(consumer, ApiKey.Role.OPERATOR if operator else ApiKey.Role.CONSUMER)[1]


@pytest.fixture
def alice(service: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """Alice's key, in the environment."""
    text = new_key("alice")
    monkeypatch.setenv("GPU_SHOPPER_API_KEY", text)
    return text


class Box:
    """The machine that the provider hands out: a real SSH server with the keys of the create."""

    def __init__(self) -> None:
        self.guest = Guest("7001", "RTX 4090", 1, 24564, "12.8")
        self.server = SshServer(self.guest, seed="7001")
        self.server.start()

    def replace(self) -> None:
        """Another machine answers at the same address."""
        self.server.key = make_host_key("somebody else")


@pytest.fixture
def box(provider: FakeProvider, guests: FakeGuests) -> Iterator[Box]:
    box = Box()
    guests.host_key = box.server.host_key
    target = SshTarget("127.0.0.1", box.server.port, "root")

    def create(spec: Any) -> str:
        provider.asked.append(("create", spec))
        box.guest.authorized_keys = list(spec.ssh_public_keys)
        return provider.add(spec.label, ssh_targets=(target,))

    provider.create = create  # type: ignore[method-assign]
    yield box
    box.server.stop()
