"""The stage: the sandbox's world in place of the providers, its guests in place of SSH, a list in place of the broker.

Everything in front of these is the product itself: its adapters, its HTTP client, its tasks, its models.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from email.utils import format_datetime
from typing import Any

import paramiko
from django.db import connection

from providers import clock, http, registry
from providers.base import SshTarget
from providers.http import NoPacer
from providers.sandbox.transport import session_for
from providers.sandbox.wire import Response
from providers.sandbox.world import World
from providers.tensordock import TensorDock
from providers.vastai import VastAI
from sessions import ssh, wake
from tests.simulation.boundaries import Boundaries, instrumented_database, nothing_else
from tests.simulation.virtual_clock import TrueClock, VirtualClock

VASTAI_KEY, TENSORDOCK_KEY = "sandbox-vastai-key", "sandbox-tensordock-token"


class Guests:
    """Logs in to the world's machines as paramiko would: door, key, then the commands."""

    def __init__(self, world: World, boundaries: Boundaries) -> None:
        self.world, self.boundaries = world, boundaries
        self._public: dict[str, str] = {}
        self.visits = 0

    def run(self, target: SshTarget, private_key: str, commands: Sequence[str], host_key: str) -> ssh.Visit:
        if connection.in_atomic_block:
            raise AssertionError("SSH inside a transaction")
        self.boundaries.cross("ssh")
        self.visits += 1
        visit = self._visit(target, private_key, commands, host_key)
        self.boundaries.cross("ssh done")
        return visit

    def _visit(self, target: SshTarget, private_key: str, commands: Sequence[str], host_key: str) -> ssh.Visit:
        machine = self.world.machine_at(target.host, target.port)
        door = self.world.ssh_door(machine.id) if machine else "refused"
        if machine is None or door in ("refused", "closed", "timeout"):
            raise ssh.Unreachable(f"{target.host}:{target.port}: {door}")
        if host_key and host_key != machine.host_key:
            raise ssh.HostKeyChanged(f"{target.host}:{target.port} shows another host key than the pinned one")
        if door != "open" or not machine.guest.accepts(target.user, self._public_of(private_key)):
            raise ssh.Denied(f"{target.host}:{target.port} does not take our key for {target.user}")
        results = [machine.guest.run(target.user, command) for command in commands]
        return ssh.Visit(machine.host_key, tuple(ssh.Output(r.exit_status, r.stdout) for r in results))

    def _public_of(self, private_key: str) -> str:
        if private_key not in self._public:
            key = paramiko.Ed25519Key(file_obj=io.StringIO(private_key))
            self._public[private_key] = f"{key.get_name()} {key.get_base64()}"
        return self._public[private_key]


class Stage:
    """One world, one virtual clock, one deployment's database; made anew for each run."""

    def __init__(self, *, seed: int = 0, boot: str = "demo", offers: int = 24) -> None:
        self.clock = VirtualClock()
        self.boundaries = Boundaries()
        self.world = World(TrueClock(self.clock), random.Random(seed), boot=boot, offers=offers)
        self.guests = Guests(self.world, self.boundaries)
        self.messages: list[tuple[str, str, str]] = []  # (task, argument, queue)

    @contextmanager
    def set(self) -> Iterator[None]:
        with ExitStack() as stack:
            before_clock, before_ssh = clock.use(self.clock), ssh.use(self.guests)
            before_publish, before_observers = wake.publish, list(http.observers)
            stack.callback(clock.use, before_clock)
            stack.callback(ssh.use, before_ssh)
            stack.callback(setattr, wake, "publish", before_publish)
            stack.callback(http.observers.__setitem__, slice(None), before_observers)
            wake.publish = self._publish  # type: ignore[assignment]
            stack.enter_context(instrumented_database(self.boundaries))
            stack.enter_context(nothing_else(self.boundaries))
            self.start_process()
            yield

    def start_process(self) -> None:
        """What a new process has: adapters without a memory."""
        registry.use({"vastai": self._vastai(), "tensordock": self._tensordock()})

    def _vastai(self) -> VastAI:
        return VastAI(VASTAI_KEY, session=session_for(self.world, around=self._around), pacer=NoPacer())

    def _tensordock(self) -> TensorDock:
        return TensorDock(TENSORDOCK_KEY, session=session_for(self.world, around=self._around), pacer=NoPacer())

    def _around(self, request: Any, send: Callable[[], Any]) -> Any:
        if connection.in_atomic_block:
            raise AssertionError(f"{request.method} {request.path} inside a transaction")
        what = f"{request.method} {request.path.split('/')[1]}"
        self.boundaries.cross(f"call {what}")
        try:
            return self._dated(send())
        finally:
            if not self.boundaries.dead:
                self.boundaries.cross(f"answer {what}")

    def _dated(self, response: Response) -> Response:
        """Providers tell the true time with each answer."""
        return replace(response, headers={**response.headers, "Date": format_datetime(self.clock.instant, usegmt=True)})

    def _publish(self, task: str, argument: Any, queue: str) -> None:
        self.boundaries.cross("publish")
        self.messages.append((task, str(argument), queue))
