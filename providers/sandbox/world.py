"""The world of the sandbox: accounts, machines from create to end, what each of them costs, and a log of calls.

One core for the HTTP server, the tests and the simulation. It is lazy: whatever has been due since the last look
(a boot that went on, a late delete, a dead man's switch) is done when somebody looks, each at its own instant, so
ends and bills are exact under any clock. How a provider speaks of all this is in `vastai` and `tensordock`.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from providers import clock as product_clock
from providers import deadman
from providers.clock import Clock
from providers.sandbox import catalogue, tensordock, vastai
from providers.sandbox.books import BOOTS, MICROS, NOTHING, Account, Call, Machine, Rate
from providers.sandbox.guest import Guest
from providers.sandbox.weather import Weather
from providers.sandbox.wire import Door, Request, Response, html, plain

# Weather that a machine takes over when it is made.
TAKEN_OVER = tuple(
    name for name in (
        "host.stuck_loading", "host.stuck_stopped", "host.oci_fail", "host.gpu_error", "host.registry_fail",
        "host.retry_then_ok", "host.manifest_unknown", "host.offline_after", "host.stop_after", "host.resume_after",
        "host.end_date_after", "host.status_lag", "host.stale_status_msg", "host.small_disk", "host.vanish_after",
        "host.disassociate_after", "boot.flicker", "boot.ip_delay", "boot.slow", "ssh.deny_forever", "ssh.deny_for",
        "ssh.lose_key_after", "ssh.refuse_for", "ssh.never", "ssh.no_port_map", "net.ignore_forwards",
        "net.remap_ports", "net.hostname", "guest.cuda_old", "guest.driver_broken", "guest.driver_late",
        "guest.gpu_absent", "guest.gpu_other", "guest.gpu_fewer", "guest.key_ignored", "deadman.broken",
        "create.is_bid",
    )
)  # fmt: skip
NEVER_COMES_UP = ("host.stuck_loading", "host.oci_fail", "host.gpu_error", "host.registry_fail",
                  "host.manifest_unknown")  # fmt: skip
_GUEST_FAULTS = {
    "guest.cuda_old": "cuda.old", "guest.driver_broken": "gpu.driver", "guest.driver_late": "gpu.driver",
    "guest.gpu_absent": "gpu.absent", "guest.gpu_other": "gpu.other", "guest.gpu_fewer": "gpu.fewer",
    "host.small_disk": "disk.small",
}  # fmt: skip


class World:
    def __init__(
        self,
        clock: Clock = product_clock,
        chance: random.Random | None = None,
        *,
        boot: str = "demo",
        offers: int = 60,
    ) -> None:
        self.clock = clock
        self.chance = chance or random.Random(0)
        self.boot = BOOTS[boot]
        self.weather = Weather(clock.now, self.chance)
        self.began = clock.now()
        self.asks = catalogue.asks(self.chance, offers)
        self.places = catalogue.places(self.chance)
        self.accounts = _accounts()
        self.machines: dict[str, Machine] = {}
        self.calls: list[Call] = []
        self.addresses: Callable[[Machine], tuple[str, int]] = self._made_up_address
        self._by_address: dict[tuple[str, int], str] = {}
        self._numbers = itertools.count(1)
        self._later: list[tuple[datetime, int, Callable[[datetime], object]]] = []
        self._last_call: dict[str, datetime] = {}
        self._visited: dict[str, datetime] = {}  # machines whose files may have been changed, and since when
        self._doors: dict[str, Door] = {"vastai": vastai.VastAI(self), "tensordock": tensordock.TensorDock(self)}

    # --- Time ---------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.clock.now()

    def at(self, moment: datetime, what: Callable[[datetime], object]) -> None:
        """Do it at that instant; it is called with it."""
        heapq.heappush(self._later, (moment, next(self._numbers), what))

    def after(self, seconds: float, what: Callable[[datetime], object], since: datetime | None = None) -> None:
        self.at((since or self.now()) + timedelta(seconds=seconds), what)

    def has_plans_until(self, moment: datetime) -> bool:
        """Whether anything is to happen by itself until then."""
        return bool(self._later) and self._later[0][0] <= moment

    def pass_time(self) -> None:
        """Do whatever has become due since the last look, in order, each at its own instant."""
        now = self.now()
        if self._visited:
            self._reread_deadlines()
        while self._later and self._later[0][0] <= now:
            moment, _, what = heapq.heappop(self._later)
            what(moment)

    # --- Calls ----------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        """What the provider that the path names answers.

        Raises:
            ConnectionError: the connection dies without an answer.
            TimeoutError: no answer comes.
        """
        self.pass_time()
        name, path = _split(request.path)
        door = self._doors.get(name)
        if door is None:
            return plain(404, "not found")
        request = Request(request.method, path, request.query, request.headers, request.body)
        call = self._log(door, request)
        try:
            answer = self._weathered(door, request, call.operation)
        except TimeoutError:
            call.outcome = "silence"
            raise
        except ConnectionError:
            call.outcome = "lost"
            raise
        call.outcome = str(answer.status)
        return answer

    def _weathered(self, door: Door, request: Request, operation: str) -> Response:
        if self.weather.calm:
            return door.answer(request)
        context: dict[str, str | None] = {"provider": door.name, "operation": operation}
        early = self._before(door, request, context)
        if early is not None:
            return early
        return self._answered(door, request, context)

    def _answered(self, door: Door, request: Request, context: dict[str, str | None]) -> Response:
        """The answer, unless it gets lost on its way; then the caller was told no id."""
        known = len(self.machines)
        answer, seen = door.answer(request), None
        try:
            seen = self._after(answer, context)
            return seen
        finally:
            if seen is not answer:
                for machine in itertools.islice(self.machines.values(), known, None):
                    machine.returned = False

    def _log(self, door: Door, request: Request) -> Call:
        operation, machine = door.operation(request), door.machine_of(request)
        label = door.label_of(request) if operation == "create" else ""
        route = f"{request.method} {door.route(request)}"
        call = Call(self.now(), door.name, operation, request.method, route, machine, label)
        self.calls.append(call)
        return call

    def _before(self, door: Door, request: Request, context: dict[str, str | None]) -> Response | None:
        hit = self.weather.hit
        if hit("call.lost_before", **context):
            raise ConnectionError
        if hit("call.timeout", **context):
            raise TimeoutError
        if value := hit("call.http_500", **context):
            return door.server_error(value)
        if value := hit("call.html_502", **context):
            return html(502 if value is True else int(value), "<html><body><h1>Bad Gateway</h1></body></html>")
        if hit("call.redirect", **context):
            return Response(302, {"Location": "http://127.0.0.1:9/elsewhere"})
        if value := hit("call.unauthorized", **context):
            return door.unauthorized(value)
        if value := hit("call.rate_limited", **context):
            return door.limited(value)
        return door.limited(True) if self._too_soon(door, request) else None

    def _too_soon(self, door: Door, request: Request) -> bool:
        if not self.weather.hit("rate.enforce", provider=door.name):
            return False
        route = f"{door.name} {request.method} {door.route(request)}"
        last, now = self._last_call.get(route), self.now()
        self._last_call[route] = now
        return last is not None and now - last < timedelta(seconds=door.least_seconds(request))

    def _after(self, response: Response, context: dict[str, str | None]) -> Response:
        hit = self.weather.hit
        if hit("call.lost_after", **context):
            raise ConnectionError
        if value := hit("call.http_500_after", **context):
            return self._doors[str(context["provider"])].server_error(value)
        if hit("call.garbage", **context):
            return Response(response.status, response.headers, response.body[: len(response.body) // 2])
        if hit("call.empty", **context):
            return Response(200)
        return response

    def account_of(self, key: str) -> Account | None:
        return self.accounts.get(key)

    # --- Making -----------------------------------------------------------------------------------------------

    def make(
        self, provider: str, account: str, *, id: str, label: str, offer: Any, model: int, count: int, disk_gb: int,
        rate: Rate, users: tuple[str, ...], cuda: str, keys: list[str], deadline: int | None, asked: dict[str, Any],
        host: str,
    ) -> Machine:  # fmt: skip
        """A machine exists from now on, and bills."""
        now = self.now()
        machine = Machine(
            id=id, provider=provider, account=account, label=self._kept(provider, label), sent_label=label, offer=offer,
            offer_id=str(offer.id), model=model, count=count, disk_gb=disk_gb, rate=rate, created_at=now, asked=asked,
            boot=self.boot,
            guest=self._guest(provider, id, model, count, disk_gb, users, cuda), host_seed=id,
            number=len(self.machines), faults=self._taken_over(provider, host),
        )  # fmt: skip
        self.machines[id] = machine
        self._meter(machine, now, rate)
        self._plan_boot(machine, keys, deadline)
        self._plan_faults(machine)
        return machine

    def _kept(self, provider: str, label: str) -> str | None:
        if self.weather.calm:
            return label
        length = self.weather.hit("create.truncate_label", provider=provider)
        if length is not None:
            return label[: int(length)]
        return "" if self.weather.hit("create.drop_label", provider=provider) else label

    def _taken_over(self, provider: str, host: str) -> dict[str, Any]:
        if self.weather.calm:
            return {}
        hits = {name: self.weather.hit(name, provider=provider, host=host) for name in TAKEN_OVER}
        return {name: value for name, value in hits.items() if value is not None}

    def _guest(
        self, provider: str, id: str, model: int, count: int, disk_gb: int, users: tuple[str, ...], cuda: str
    ) -> Guest:
        name, _, vram_mb, _, _ = catalogue.MODELS[model]
        return Guest(
            machine_id=id, gpu_name=name, gpu_count=count, vram_mb=vram_mb, cuda=cuda, users=users, disk_gb=disk_gb,
            gpu_utilisation=lambda: self._busy(provider, id),
        )  # fmt: skip

    def _busy(self, provider: str, machine: str) -> int:
        value = None if self.weather.calm else self.weather.hit("guest.busy", provider=provider, machine=machine)
        return 50 if value is None else int(value)

    def _plan_boot(self, machine: Machine, keys: list[str], deadline: int | None) -> None:
        boot, faults, made = machine.boot, machine.faults, machine.created_at
        slow = float(faults.get("boot.slow", 0))
        lag = self.weather.hit("list.lag", provider=machine.provider) if not self.weather.calm else None
        machine.listed_at = made + timedelta(seconds=max(boot.listed, float(lag or 0)))
        machine.keys_from = made + timedelta(seconds=slow + boot.keys + float(faults.get("ssh.deny_for", 0)))
        if "host.stuck_stopped" in faults:
            self.at(made, lambda at: self.stop(machine, at))
        if machine.asked.get("stopped"):
            self.at(made, lambda at: self.stop(machine, at))
            return
        if any(name in faults for name in (*NEVER_COMES_UP, "host.stuck_stopped")):
            return
        up = slow + boot.up
        self.after(up, lambda at: self._come_up(machine, keys, deadline, at), made)
        address = slow + boot.address + float(faults.get("boot.ip_delay", 0))
        self.after(max(up, address), lambda at: setattr(machine, "has_address", True), made)
        door = slow + boot.door + float(faults.get("ssh.refuse_for", 0))
        self.after(max(address, door), lambda at: setattr(machine, "has_door", True), made)

    def _come_up(self, machine: Machine, keys: list[str], deadline: int | None, at: datetime) -> None:
        if not machine.exists or machine.state != "booting":
            return
        machine.state = "up"
        machine.guest.authorized_keys.extend(keys)
        if deadline is not None and "deadman.broken" not in machine.faults:
            machine.guest.start_dead_man(deadline)
            self._await_dead_man(machine, deadline, at)

    def _plan_faults(self, machine: Machine) -> None:
        made = machine.created_at
        plans: dict[str, Callable[[datetime], None]] = {
            "host.stop_after": lambda at: self.stop(machine, at),
            "host.end_date_after": lambda at: self.stop(machine, at),
            "host.disassociate_after": lambda at: self._set_state(machine, "disassociated"),
            "host.offline_after": lambda at: self._set_state(machine, "offline"),
            "host.resume_after": lambda at: self.resume(machine, at),
            "host.vanish_after": lambda at: self.end(machine, at, "provider"),
            "ssh.lose_key_after": lambda at: self._wipe_keys(machine),
            "guest.driver_late": lambda at: machine.guest.faults.discard("gpu.driver"),
        }
        for name, value in machine.faults.items():
            if name in plans:
                self.after(float(value), plans[name], made)
            if name in _GUEST_FAULTS:
                machine.guest.faults.add(_GUEST_FAULTS[name])

    def _set_state(self, machine: Machine, state: str) -> None:
        if machine.exists:
            machine.state = state

    def _wipe_keys(self, machine: Machine) -> None:
        machine.guest.authorized_keys.clear()

    # --- Changing -----------------------------------------------------------------------------------------------

    def attach(self, machine: Machine, key: str) -> None:
        machine.touched = True
        self.after(machine.boot.attach, lambda at: machine.guest.authorized_keys.append(key))

    def relabel(self, machine: Machine, label: str) -> None:
        machine.touched = True
        machine.label = label

    def stop(self, machine: Machine, at: datetime) -> None:
        """It no longer runs, and bills on: what, is the provider's rule."""
        if not machine.exists:
            return
        machine.state, machine.wanted = "stopped", "stopped"
        self._meter(machine, at, self._doors[machine.provider].rate_stopped(machine.rate))

    def resume(self, machine: Machine, at: datetime) -> None:
        if machine.exists and machine.state == "stopped":
            machine.state, machine.wanted = "up", "running"
            self._meter(machine, at, machine.rate)
            self._restart_dead_man(machine, at)

    def ask_to_destroy(self, machine: Machine) -> None:
        """A delete was accepted; what comes of it is the weather's."""
        machine.touched = True
        machine.deletes += 1
        now = self.now()
        context = {"provider": machine.provider, "machine": machine.id}
        if self.weather.calm or not self.weather.on("destroy."):
            self.end(machine, now, "api")
        elif self.weather.hit("destroy.swallow", **context):
            return
        elif (late := self.weather.hit("destroy.late", **context)) is not None:
            self.after(float(late), lambda at: self.end(machine, at, "api"))
        else:
            self._end_oddly(machine, now, context)

    def _end_oddly(self, machine: Machine, now: datetime, context: dict[str, str]) -> None:
        self.end(machine, now, "api")
        if (linger := self.weather.hit("destroy.linger", **context)) is not None:
            machine.shown_until = now + timedelta(seconds=float(linger))
        if (back := self.weather.hit("destroy.resurrect", **context)) is not None:
            self.after(float(back), lambda at: self._come_back(machine, at))

    def end(self, machine: Machine, at: datetime, by: str) -> None:
        if not machine.exists:
            return
        machine.destroyed_at, machine.destroyed_by = at, by
        self._meter(machine, at, NOTHING)
        self._doors[machine.provider].freed(machine)

    def _come_back(self, machine: Machine, at: datetime) -> None:
        """It had only seemed to be gone: it was there, and billed, all the time."""
        if machine.exists:
            return
        machine.destroyed_at, machine.destroyed_by = None, ""
        machine.rates.pop()
        self._restart_dead_man(machine, at)

    # --- The dead man's switch --------------------------------------------------------------------------------

    def _await_dead_man(self, machine: Machine, deadline: int, since: datetime) -> None:
        """It acts at the deadline and the grace; one that began, or was told, later than that acts then."""
        machine.switch_at = deadline
        acts = datetime.fromtimestamp(deadline + deadman.GRACE, self.began.tzinfo)
        self.at(max(acts, since), lambda at: self._dead_man(machine, at))

    def _dead_man(self, machine: Machine, at: datetime) -> None:
        """It reads its file, which may have been written anew, and acts or goes on waiting."""
        if not machine.exists or machine.state != "up" or not machine.guest.has_dead_man:
            return
        deadline = self.dead_man_deadline(machine) or machine.switch_at  # damaged: the last one stays in force
        assert deadline is not None
        if at.timestamp() < deadline + deadman.GRACE:
            self._await_dead_man(machine, deadline, at)
        elif machine.provider == "vastai":
            self.end(machine, at, "dead_man")
        else:
            self.stop(machine, at)

    def _reread_deadlines(self) -> None:
        """A deadline that became earlier; one that became later is read when the old one is due."""
        for machine_id, since in list(self._visited.items()):
            machine = self.machines[machine_id]
            if not machine.exists:
                del self._visited[machine_id]
                continue
            deadline = self.dead_man_deadline(machine)
            if deadline is not None and machine.switch_at is not None and deadline < machine.switch_at:
                self._await_dead_man(machine, deadline, since)

    def _restart_dead_man(self, machine: Machine, at: datetime) -> None:
        """It starts with the machine, and keeps the deadline that is in its file."""
        if machine.switch_at is not None:
            self._await_dead_man(machine, self.dead_man_deadline(machine) or machine.switch_at, at)

    def dead_man_deadline(self, machine: Machine) -> int | None:
        """Unix seconds, as its file says; None: there is no switch."""
        text = machine.guest.files.get(deadman.DEADLINE_FILE, "").strip()
        return int(text) if machine.guest.has_dead_man and text.isdigit() else None

    # --- SSH ----------------------------------------------------------------------------------------------------

    def ssh_door(self, machine_id: str) -> str:
        """What a visitor meets: open, no_auth, refused, closed or timeout."""
        self.pass_time()
        machine = self.machines[machine_id]
        if not machine.exists or machine.state != "up" or not machine.has_door:
            return "refused"
        if self.fault(machine, "ssh.never") or self.fault(machine, "ssh.no_port_map"):
            return "timeout"
        if self.fault(machine, "net.ignore_forwards"):
            return "refused"
        if self.fault(machine, "ssh.new_host_key"):
            machine.host_seed = f"{machine.id}-anew"
        denied = self.fault(machine, "ssh.deny_forever") or (machine.keys_from and self.now() < machine.keys_from)
        if denied:
            return "no_auth"
        self._visited[machine.id] = self.now()
        return "open"

    def fault(self, machine: Machine, name: str) -> Any:
        """What it took over when it was made, or what was set on it since."""
        found = machine.faults.get(name)
        return (
            found
            if found is not None or self.weather.calm
            else self.weather.of_machine(name, machine.id, machine.provider)
        )

    def machine_at(self, host: str, port: int) -> Machine | None:
        found = self._by_address.get((host, port))
        return self.machines[found] if found else None

    def address_of(self, machine: Machine) -> tuple[str, int]:
        if not machine.address[1]:
            host, port = self.addresses(machine)
            machine.address = (_named(host), port) if "net.hostname" in machine.faults else (host, port)
            self._by_address[machine.address] = machine.id
        return machine.address

    def _made_up_address(self, machine: Machine) -> tuple[str, int]:
        """TensorDock gives a machine an address of its own, or forwards the port that was asked for."""
        number = machine.number  # below 2**17, or two machines share an address
        host = f"198.{18 + (number >> 16)}.{(number >> 8) & 255}.{number & 255}"
        own = machine.provider == "tensordock" and "net.remap_ports" not in machine.faults
        return host, 22 if own else 40_000 + number % 20_000

    # --- Money --------------------------------------------------------------------------------------------------

    def _meter(self, machine: Machine, at: datetime, rate: Rate) -> None:
        machine.rates.append((at, rate))

    def reprice(self, machine: Machine, rate: Rate) -> None:
        """From now on it costs that."""
        machine.rate = rate
        self._meter(machine, self.now(), rate)

    def bill(self, machine_id: str, until: datetime | None = None) -> int:
        """Micro-dollars so far: each rate times its microseconds, summed, divided and rounded half-even once."""
        return _rounded(sum(rate.total * span for rate, span in self._spans(machine_id, until)))

    def bill_parts(self, machine_id: str) -> dict[str, int]:
        """`gpu` (with CPU and RAM) and `storage`, in micro-dollars."""
        spans = list(self._spans(machine_id, None))
        storage = _rounded(sum(rate.storage * span for rate, span in spans))
        return {"gpu": self.bill(machine_id) - storage, "storage": storage}

    def _spans(self, machine_id: str, until: datetime | None) -> Iterator[tuple[Rate, int]]:
        machine, end = self.machines[machine_id], until or self.now()
        ends = [at for at, _ in machine.rates[1:]] + [end]
        for (start, rate), stop in zip(machine.rates, ends, strict=True):
            span = min(stop, end) - start
            if span > timedelta(0):
                yield rate, span // timedelta(microseconds=1)

    def spent(self, account: str) -> int:
        return sum(self.bill(m.id) for m in self.machines.values() if m.account == account)

    # --- For people and tests -----------------------------------------------------------------------------------

    def plant(self, provider: str, label: str, *, account: str = "", lasts: float | None = None) -> str:
        """Somebody else's machine, or one from another life, that simply is there; its id."""
        self.pass_time()
        machine = self._doors[provider].plant(label, account)
        machine.returned = True
        if lasts is not None:
            self.after(lasts, lambda at: self.end(machine, at, "provider"))
        return machine.id

    def user_boxes(self, how_many: int) -> list[str]:
        """Machines of other people in the first account of each provider, some with names much like ours."""
        doors = itertools.cycle(self._doors)
        labels = itertools.cycle(_STRANGERS)
        return [self.plant(next(doors), f"{next(labels)}{number}") for number in range(how_many)]

    def truth(self) -> dict[str, Any]:
        """The books, as JSON takes them."""
        self.pass_time()
        return {
            "now": self.now().isoformat(),
            "machines": [self._told(machine) for machine in self.machines.values()],
            "accounts": {
                account.id: {"credit_micros": account.credit, "spent_micros": self.spent(account.id)}
                for account in self.accounts.values()
            },
            "calls": len(self.calls),
            "calls_by_route": self._calls_by_route(),
        }

    def _told(self, machine: Machine) -> dict[str, Any]:
        deadline = self.dead_man_deadline(machine)
        return {
            "id": machine.id,
            "provider": machine.provider,
            "account": machine.account,
            "offer": machine.offer_id,
            "label": machine.label,
            "sent_label": machine.sent_label,
            "state": machine.state if machine.exists else "gone",
            "created_at": machine.created_at.isoformat(),
            "destroyed_at": machine.destroyed_at.isoformat() if machine.destroyed_at else None,
            "destroyed_by": machine.destroyed_by,
            "deletes": machine.deletes,
            "returned": machine.returned,
            "touched": machine.touched,
            "dead_man_deadline": deadline,
            "cost_micros": self.bill(machine.id),
        }

    def _calls_by_route(self) -> dict[str, int]:
        counted: dict[str, int] = {}
        for call in self.calls:
            counted[f"{call.provider} {call.route}"] = counted.get(f"{call.provider} {call.route}", 0) + 1
        return counted

    def secret(self, text: str) -> str:
        """A secret of the world's own, the same each time."""
        return hashlib.sha256(f"sandbox {text}".encode()).hexdigest()


_STRANGERS = ("training-", "gs-", "", "gs-somebody-aaaaaaaaaaaaaaaa-abcdef-aaaaaaaaaaa", "GPU shopper ")


def _named(host: str) -> str:
    return "localhost" if host == "127.0.0.1" else f"host-{host.replace('.', '-')}.example.net"


def _accounts() -> dict[str, Account]:
    """By API key. The third key of each provider belongs to the first one's account."""
    found: dict[str, Account] = {}
    for key, provider in (("sandbox-vastai-key", "vastai"), ("sandbox-tensordock-token", "tensordock")):
        found[key] = found[f"{key}-3"] = Account(f"{provider}-60713")
        found[f"{key}-2"] = Account(f"{provider}-60714")
    return found


def _split(path: str) -> tuple[str, str]:
    """`/vastai/api/v0/…` into the provider's name and the rest."""
    name, _, rest = path.lstrip("/").partition("/")
    return name, f"/{rest}"


def _rounded(micro_microseconds: int) -> int:
    return round(Fraction(micro_microseconds, 3600 * MICROS))
