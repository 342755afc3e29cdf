"""Vast.ai's HTTP interface over the world, oddities included.

True to what was seen on the wire: a wrong key is 404, a machine that is gone is 200 with `instances: null`, a stale
offer is 400 with the reason in its text, listings come 25 to a page, a search shows 64 offers at the most.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from providers.money import micros
from providers.sandbox import catalogue
from providers.sandbox.books import Account, Machine, Rate
from providers.sandbox.catalogue import Ask
from providers.sandbox.wire import Request, Response, html, plain, reply

if TYPE_CHECKING:
    from providers.sandbox.world import World

PAGE = 25
SEARCH_CAP = 64
HOURS_PER_MONTH = 720
# No contract's number is ever given twice, not even by a sandbox that is started again on an older database:
# each second begins a step further.
FIRST_CONTRACT, STEP = 38_120_000, 13
FIRST_SECOND = 1_767_225_600  # 2026 began

# (method, path) to (operation, route); the least seconds between two calls of it are those of the provider.
_ROUTES: list[tuple[str, re.Pattern[str], str, float]] = [
    ("POST", re.compile(r"/api/v0/bundles/"), "quotes", 6.0),
    ("PUT", re.compile(r"/api/v0/asks/(?P<offer>\d+)/"), "create", 4.5),
    ("GET", re.compile(r"/api/v1/instances/"), "list", 1.0),
    ("GET", re.compile(r"/api/v0/instances/"), "list_v0", 20.0),
    ("GET", re.compile(r"/api/v0/instances/(?P<id>[^/]+)/"), "get", 2.0),
    ("PUT", re.compile(r"/api/v0/instances/(?P<id>[^/]+)/"), "relabel", 1.0),
    ("DELETE", re.compile(r"/api/v0/instances/(?P<id>[^/]+)/"), "destroy", 3.0),
    ("POST", re.compile(r"/api/v0/instances/(?P<id>[^/]+)/ssh/"), "attach_key", 2.0),
    ("GET", re.compile(r"/api/v0/instances/(?P<id>[^/]+)/ssh/"), "keys", 2.0),
    ("GET", re.compile(r"/api/v0/charges/"), "charges", 1.0),
    ("GET", re.compile(r"/api/v0/users/current/?"), "account", 1.0),
    ("GET", re.compile(r"/api/v0/ssh/"), "account_keys", 1.0),
    ("POST", re.compile(r"/api/v0/ssh/"), "account_key", 1.0),
]
_TOO_FREQUENT = "API requests too frequent"


class VastAI:
    name = "vastai"

    def __init__(self, world: World) -> None:
        self.world = world
        seconds = max(0, int(world.began.timestamp()) - FIRST_SECOND)
        self._contracts = itertools.count(FIRST_CONTRACT + STEP * seconds, STEP)
        self._sorted: list[int] = sorted(world.asks)
        self._next_ask = max(self._sorted, default=41_000_000) + 17

    # --- Routes -----------------------------------------------------------------------------------------------

    def _found(self, request: Request) -> tuple[str, str, dict[str, str], float]:
        for method, pattern, operation, seconds in _ROUTES:
            if method == request.method and (match := pattern.fullmatch(request.path)):
                return operation, re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern.pattern), match.groupdict(), seconds
        return "unknown", request.path, {}, 0.0

    def operation(self, request: Request) -> str:
        found = self._found(request)[0]
        return "list" if found == "list_v0" else found

    def route(self, request: Request) -> str:
        return self._found(request)[1]

    def least_seconds(self, request: Request) -> float:
        return self._found(request)[3]

    def machine_of(self, request: Request) -> str:
        return self._found(request)[2].get("id", "")

    def label_of(self, request: Request) -> str:
        body = request.json
        return str(body.get("label") or "") if isinstance(body, dict) else ""

    def answer(self, request: Request) -> Response:
        operation, _, named, _ = self._found(request)
        if operation == "unknown":
            return reply(404, {"success": False, "error": "not_found", "msg": "Not found"})
        account = self.world.account_of(request.bearer)
        if account is None:
            return self._not_logged_in() if not request.bearer else self.unauthorized(404)
        return self._answers[operation](self, request, account, named)

    # --- Errors ---------------------------------------------------------------------------------------------

    def _not_logged_in(self) -> Response:
        return reply(403, _error("auth_error", "This action requires login."))

    def unauthorized(self, value: Any) -> Response:
        if value == 401:
            return reply(
                401, _error("auth_error", "Authorization Error. Your key lacks the instance_read route access.")
            )
        if value == 403:
            return self._not_logged_in()
        return reply(404, _error("auth_error", "Invalid user key"))

    def limited(self, value: Any) -> Response:
        """The five bodies that a 429 was seen with."""
        text = f"{_TOO_FREQUENT}: endpoint threshold=4.5*1.0\n\n"
        told = f"The action could not be performed because there were too many requests by the client.\n\n{text}"
        if value == 2:
            return reply(429, {"detail": f"{_TOO_FREQUENT} endpoint threshold=2.0"})
        if value == 3:
            return reply(429, _error("rate_limit_exceeded", f"{_TOO_FREQUENT} endpoint threshold=3.0"))
        if value == 4:
            return plain(429, f"{_TOO_FREQUENT}: endpoint threshold=2.0")
        if value == 5:
            body = {"error": "HTTPTooManyRequests", "msg": _TOO_FREQUENT, "retry_after": 3, "limit": 5, "remaining": 0}
            return reply(429, body, **{"Retry-After": "3", "X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0"})
        return reply(429, {"message": told, "code": "429 Too Many Requests"})

    def server_error(self, value: Any = True) -> Response:
        return html(500, "<html><body>Internal Server Error</body></html>")

    # --- Search -----------------------------------------------------------------------------------------------

    def _search(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        query = request.json
        if not isinstance(query, dict):
            return reply(400, _error("invalid_request", "Invalid query: must be dict of conditions"))
        disk = float(query.get("allocated_storage", 8))
        lenient = self._hit("search.ignore_filters")
        cap = int(self._hit("search.cap") or SEARCH_CAP)
        most = min(cap, int(query.get("limit", cap)))
        rows = []
        for ask in self._in_range(query.get("ask_contract_id", {})):
            if ask.rented and not lenient:
                continue
            row = self._offer(ask, disk)
            if lenient or _fits(row, query):
                rows.append(row)
            if len(rows) >= most:
                break
        return reply(200, {"offers": rows})

    def _in_range(self, bounds: dict[str, Any]) -> Iterator[Ask]:
        low, high = int(bounds.get("gte", 0)), int(bounds.get("lt", 2**62))
        for id in self._sorted[bisect_left(self._sorted, low) :]:
            if id >= high:
                return
            yield self.world.asks[id]

    def _offer(self, ask: Ask, disk: float) -> dict[str, Any]:
        name, _, vram_mb, _, _ = catalogue.MODELS[ask.model]
        machine = ask.machine_id + (1_000_000 if self._hit("search.reissue_machine") else 0)
        unverified = bool(self._hit("search.ignore_filters")) and ask.id % 3 == 0
        place, _ = catalogue.PLACES[ask.place]
        storage = disk * ask.storage_cost / HOURS_PER_MONTH
        return {
            "id": ask.id, "ask_contract_id": ask.id, "bundle_id": ask.id + 1_889_000_000, "machine_id": machine,
            "host_id": ask.host_id, "bundled_results": None, "gpu_name": name, "gpu_arch": "nvidia",
            "num_gpus": ask.count, "gpu_frac": round(ask.count / 8, 3), "gpu_ram": vram_mb,
            "gpu_total_ram": vram_mb * ask.count, "gpu_mem_bw": 3274.1, "compute_cap": 890, "cuda_max_good": ask.cuda,
            "driver_version": "570.124.04", "driver_vers": 570124004, "cpu_name": "AMD EPYC 7443P 24-Core Processor",
            "cpu_arch": "amd64", "cpu_cores": ask.cpu_cores, "cpu_cores_effective": ask.cpu_share,
            "cpu_ram": ask.ram_mb, "has_avx": 1, "disk_space": ask.disk_space, "disk_bw": 2210.7, "inet_up": 612.8,
            "inet_down": 744.0, "inet_up_cost": 0.008, "inet_down_cost": 0.004, "direct_port_count": 124,
            "static_ip": True, "public_ipaddr": f"{_ip(ask)}\n", "geolocation": place if ask.id % 11 else None,
            "verification": "unverified" if unverified else "verified", "vms_enabled": False, "hosting_type": 0,
            "external": None, "reliability": ask.reliability, "reliability2": ask.reliability, "rentable": True,
            "rented": ask.rented, "is_bid": False, "min_bid": round(ask.price * 0.55, 4), "dph_base": ask.price,
            "dph_total": ask.price + storage, "storage_cost": ask.storage_cost,
            "start_date": self.world.began.timestamp(), "end_date": self.world.began.timestamp() + 90 * 86400,
            "duration": 90 * 86400.0, "logo": "/static/logos/vastai_small2.png", "webpage": None, "hostname": None,
        }  # fmt: skip

    # --- Create -----------------------------------------------------------------------------------------------

    def _create(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        body, ask = request.json, self.world.asks.get(int(named["offer"]))
        if not isinstance(body, dict):
            return reply(400, _error("invalid_args", "error 400/3467: Invalid args: no JSON"))
        if wrong := self._wrong_args(body):
            return wrong
        if refused := self._refusal(account, named["offer"], ask, body):
            return refused
        assert ask is not None
        host = str(ask.host_id)
        if self._hit("create.phantom", host=host):
            return reply(200, {"success": True, "new_contract": next(self._contracts), "instance_api_key": "phantom"})
        stopped = bool(self._hit("create.success_false_with_id", host=host))
        machine = self._rent(account, ask, body, stopped=stopped)
        if self._hit("create.duplicate", host=host):
            self._rent(account, ask, body, stopped=False)
        machine.returned = True
        secret = self.world.secret(f"container {machine.id}")
        return reply(
            200, {"success": not stopped, "new_contract": int(machine.id), "instance_api_key": secret},
        )  # fmt: skip

    def _wrong_args(self, body: dict[str, Any]) -> Response | None:
        image, label = body.get("image"), body.get("label") or ""
        if not body.get("template_hash_id") and not isinstance(image, str):
            return reply(400, _error("invalid_args", "image must be a str, not NoneType"))
        if len(str(image)) > 1024 or len(str(body.get("onstart") or "")) > 16384 or len(label) > 256:
            text = "error 400/3471: Invalid args: len(image) > 1024, or len(args) > 16384, or len(label) > 256"
            return reply(400, _error("invalid_args", text))
        if isinstance(image, str) and ":" not in image.rpartition("/")[2]:
            return reply(400, _error("server_error", "Something went wrong"))
        return None

    def _refusal(self, account: Account, offer: str, ask: Ask | None, body: dict[str, Any]) -> Response | None:
        host = str(ask.host_id) if ask else None
        stale = self._hit("create.stale", host=host)
        if stale or ask is None or ask.rented:
            return _stale(offer, int(stale) if stale and stale is not True else 400)
        seconds = self._hit("create.late_row", host=host)
        if seconds is not None:
            self.world.after(float(seconds), lambda at: self._rent(account, ask, body, stopped=False))
            return _stale(offer, 400)
        if self._hit("create.no_credit", host=host) or self._credit(account) <= 0:
            return reply(400, _error("insufficient_credit", "Your account lacks credit; see the billing page."))
        if code := self._hit("create.refused", host=host):
            return reply(400, _error(str(code), f"error 400/3500: {code}"))
        return None

    def _rent(self, account: Account, ask: Ask, body: dict[str, Any], *, stopped: bool) -> Machine:
        if not ask.rented:
            ask.rented = True
        disk = max(8, int(body.get("disk") or 8))
        storage = micros(Decimal(str(ask.storage_cost)) / HOURS_PER_MONTH * disk)
        script = unpacked(str(body.get("onstart") or ""))
        deadline = re.search(r"^at=(\d{10})$", script, re.MULTILINE)
        return self.world.make(
            self.name, account.id, id=str(next(self._contracts)), label=str(body.get("label") or ""), offer=ask,
            model=ask.model, count=ask.count, disk_gb=disk, users=("root",), cuda=f"{ask.cuda:.1f}",
            rate=Rate(gpu=micros(Decimal(str(ask.price))), storage=storage), keys=keys_in(script),
            deadline=int(deadline[1]) if deadline else None, host=str(ask.host_id),
            asked={"image": body.get("image"), "runtype": body.get("runtype"), "stopped": stopped,
                   "env": body.get("env") if isinstance(body.get("env"), dict) else {}},
        )  # fmt: skip

    def freed(self, machine: Machine) -> None:
        """What was rented comes back under another ask id."""
        ask: Ask = machine.offer
        if ask is None or ask.id not in self.world.asks:
            return
        del self.world.asks[ask.id]
        del self._sorted[bisect_left(self._sorted, ask.id)]
        ask.id, ask.rented = self._next_ask, False
        self._next_ask += 17
        self.world.asks[ask.id] = ask
        self._sorted.append(ask.id)

    def plant(self, label: str, account: str) -> Machine:
        ask = next(ask for ask in reversed(list(self.world.asks.values())) if not ask.rented)
        owner = next(a for a in self.world.accounts.values() if a.id == (account or "vastai-60713"))
        return self._rent(owner, ask, {"label": label, "disk": 20, "image": "somebody/else:1"}, stopped=False)

    def rate_stopped(self, rate: Rate) -> Rate:
        return Rate(storage=rate.storage)

    # --- Instances --------------------------------------------------------------------------------------------

    def _mine(self, account: Account) -> list[Machine]:
        now = self.world.now()
        return [
            machine for machine in self.world.machines.values()
            if machine.provider == self.name and machine.account == account.id and machine.is_shown(now)
        ]  # fmt: skip

    def _list(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        token = request.first("after_token")
        if token and not token.startswith("after-"):
            return reply(400, {"error": "invalid_token", "msg": "Invalid pagination token"})
        rows = sorted((m for m in self._mine(account) if not self._hidden(m)), key=lambda machine: int(machine.id))
        total = len(rows)
        only = _only_id(request.first("select_filters"))
        rows = [m for m in rows if only is None or int(m.id) == only]
        rows = [m for m in rows if not token or int(m.id) > int(token.removeprefix("after-"))]
        if token and self._hit("list.page_500"):
            return self.server_error()
        asked = request.first("limit")
        size = int(self._hit("list.page_size") or min(PAGE, int(asked) if asked.isdigit() and int(asked) else PAGE))
        page, more = rows[:size], len(rows) > size
        next_token = f"after-{page[-1].id}" if more and not self._hit("list.drop_token") else None
        return reply(200, {
            "success": True, "instances_found": len(page), "total_instances": total, "label_counts": {},
            "next_token": next_token, "instances": [self._row(machine, account) for machine in page],
        })  # fmt: skip

    def _hidden(self, machine: Machine) -> bool:
        return not self.world.weather.calm and bool(
            self.world.weather.hit("list.hide", provider=self.name, machine=machine.id)
        )

    def _list_v0(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        if self._hit("list.v0_alive"):
            rows = [self._row(machine, account) for machine in self._mine(account)]
            return reply(200, {"instances_found": len(rows), "instances": rows})
        text = "/api/v0/instances/ is deprecated. Use /api/v1/instances/ instead."
        return reply(410, _error("deprecated_endpoint", text))

    def _machine(self, account: Account, id: str) -> Machine | None:
        machine = self.world.machines.get(id)
        if machine is None or machine.provider != self.name or machine.account != account.id:
            return None
        return machine if machine.is_shown(self.world.now()) else None

    def _get(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        if not named["id"].isdigit():
            return reply(400, _error("invalid_args", "invalid instance_id"))
        machine = self._machine(account, named["id"])
        if machine is None or self._hit("get.deny", machine=named["id"]):
            return self._gone(named["id"])
        return reply(200, {"instances": self._row(machine, account)})

    def _gone(self, id: str) -> Response:
        form = self._hit("get.gone")
        if form == "404":
            return self._no_such_instance(id)
        return reply(200, {} if form == "empty" else {"instances": None})

    def _no_such_instance(self, id: str) -> Response:
        return reply(404, _error("no_such_instance", f"Instance {id} not found."))

    def _relabel(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        machine, body = self._machine(account, named["id"]), request.json
        if machine is None:
            return self._no_such_instance(named["id"])
        if not isinstance(body, dict) or len(body) != 1:
            return reply(400, _error("invalid_args", "one of label, state"))
        if "label" in body:
            self.world.relabel(machine, str(body["label"]))
        elif body.get("state") == "stopped":
            self.world.stop(machine, self.world.now())
        elif body.get("state") != "running":
            return reply(400, {"success": False, "msg": "Invalid target state"})
        return reply(200, {"success": True})

    def _destroy(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        machine = self._machine(account, named["id"])
        if machine is None or not machine.exists:
            return self._no_such_instance(named["id"])
        if self._hit("destroy.success_false", machine=machine.id):
            return reply(200, _error("busy", "try again"))
        if self._hit("destroy.http_500", machine=machine.id):
            return self.server_error()
        self.world.ask_to_destroy(machine)
        return reply(200, {"success": True, "msg": "Instance destroyed successfully"})

    def _attach(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        machine, body = self._machine(account, named["id"]), request.json
        key = body.get("ssh_key") if isinstance(body, dict) else None
        if machine is None:
            return self._no_such_instance(named["id"])
        if not key:
            return reply(400, _error("no_ssh_key", "No ssh key provided to add to instance."))
        known = machine.asked.setdefault("attached", [])
        if key in known and key in machine.guest.authorized_keys:
            return reply(200, {"success": False, "msg": "SSH key already associated with instance."})
        known.append(key)
        if "\\" not in key:  # A backslash in the comment breaks the provider's SSH proxy.
            self.world.attach(machine, key)
        told = json.dumps({"id": 91822, "public_key": key})
        return reply(200, {"success": True, "msg": "SSH key added to instance.", "key": told})

    def _keys(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        machine = self._machine(account, named["id"])
        if machine is None:
            return reply(200, _error("no_such_instance", f"Instance {named['id']} not found."))
        keys = [{"id": 91822 + n, "public_key": key} for n, key in enumerate(machine.asked.get("attached", []))]
        return reply(200, {"success": True, "ssh_keys": json.dumps(keys)})

    # --- The row of an instance ---------------------------------------------------------------------------------

    def _row(self, machine: Machine, account: Account) -> dict[str, Any]:
        ask: Ask = machine.offer
        name, _, vram_mb, _, _ = catalogue.MODELS[machine.model]
        place, _ = catalogue.PLACES[ask.place]
        states = self._states(machine)
        runs = states["actual_status"] == "running"
        price = machine.rate.gpu / 1e6
        gpu = price if machine.state == "up" else 0
        storage = machine.disk_gb * ask.storage_cost / HOURS_PER_MONTH
        end_after = machine.faults.get("host.end_date_after")
        end = (
            machine.created_at + timedelta(seconds=float(end_after))
            if end_after
            else self.world.began + timedelta(days=90)
        )
        return {
            "id": int(machine.id), "machine_id": ask.machine_id, "host_id": ask.host_id, "bundle_id": None,
            "label": machine.label, **states, "image_uuid": machine.asked.get("image"),
            "image_runtype": f"ssh {machine.asked.get('runtype') or ''}".strip(), "image_args": [],
            "extra_env": [[key, value] for key, value in machine.asked.get("env", {}).items()],
            "onstart": "touch ~/.no_auto_tmux", "template_id": None, "template_hash_id": None, "ssh_host": None,
            "ssh_port": None, "ssh_idx": "7", **self._access(machine, ask, runs),
            "local_ipaddrs": "10.0.4.17 172.17.0.1 \n",
            "jupyter_token": self.world.secret(f"jupyter {machine.id}"), "start_date": machine.created_at.timestamp(),
            "end_date": end.timestamp(), "duration": (end - self.world.now()).total_seconds(), "uptime_mins": None,
            "is_bid": bool(machine.faults.get("create.is_bid")), "min_bid": round(ask.price * 0.55, 4),
            "dph_base": price, "dph_total": price + storage, "storage_cost": ask.storage_cost,
            "inet_up_cost": 0.008, "inet_down_cost": 0.004,
            "instance": {"gpuCostPerHour": gpu, "diskHour": storage, "totalHour": gpu + storage},
            "search": {"gpuCostPerHour": price, "diskHour": storage, "totalHour": price + storage},
            "gpu_name": name, "num_gpus": machine.count, "gpu_ram": vram_mb, "gpu_totalram": vram_mb * machine.count,
            "gpu_util": 3.0, "cpu_name": "AMD EPYC 7443P 24-Core Processor", "cpu_cores": ask.cpu_cores,
            "cpu_cores_effective": ask.cpu_share, "cpu_ram": ask.ram_mb, "disk_space": float(machine.disk_gb),
            "reliability2": ask.reliability, "verification": "verified", "geolocation": place,
            "driver_version": "570.124.04", "cuda_max_good": ask.cuda,
        }  # fmt: skip

    def _access(self, machine: Machine, ask: Ask, runs: bool) -> dict[str, Any]:
        if machine.destroyed_at is not None or not machine.has_address or not runs:
            return {"public_ipaddr": f"{_ip(ask)}\n", "ports": None, "static_ip": True, "direct_port_count": 124}
        host, port = self.world.address_of(machine)
        mapped = [{"HostIp": "0.0.0.0", "HostPort": str(port)}, {"HostIp": "::", "HostPort": str(port)}]  # noqa: S104
        ports = {} if machine.faults.get("ssh.no_port_map") else {"22/tcp": mapped}
        return {"public_ipaddr": f"{host}\n", "ports": ports, "static_ip": True, "direct_port_count": 124}

    def _states(self, machine: Machine) -> dict[str, Any]:
        actual, books, message = self._told(machine)
        return {"actual_status": actual, "intended_status": machine.wanted, "cur_state": books,
                "next_state": machine.wanted, "status_msg": message}  # fmt: skip

    def _told(self, machine: Machine) -> tuple[str | None, str, str]:
        image = str(machine.asked.get("image") or "").replace(":", "_")
        good = f"success, running {image}/ssh\n"
        faults = machine.faults
        for name, (actual, message) in _BROKEN.items():
            if name in faults:
                return actual, "stopped", message
        if machine.state == "stopped":
            return "exited", "stopped", good if "host.stale_status_msg" in faults else ""
        if machine.state == "offline":
            return "offline", "running", good
        if machine.state != "up":
            return self._loading(machine)
        lag = timedelta(seconds=float(faults.get("host.status_lag", 0)))
        if lag and self.world.now() - machine.created_at < lag + timedelta(seconds=machine.boot.up):
            return "exited", "running", ""
        return "running", "running", good

    def _loading(self, machine: Machine) -> tuple[str | None, str, str]:
        age = (self.world.now() - machine.created_at).total_seconds()
        if age < min(1.0, machine.boot.up / 4):
            return None, "scheduling", ""
        if "host.retry_then_ok" in machine.faults:
            return "loading", "stopped", "80ee424dc764: error pulling image configuration, Retrying in 5 seconds"
        return "loading", "stopped", "4c7d45f7c63c: Download complete"

    # --- Money --------------------------------------------------------------------------------------------------

    def _credit(self, account: Account) -> int:
        left = None if self.world.weather.calm else self._hit("account.credit")
        return account.credit - self.world.spent(account.id) if left is None else int(left)

    def _account(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        number = int(account.id.rpartition("-")[2])
        return reply(200, {
            "id": number, "email": "ops@example.org", "username": "ops", "balance": 0,
            "credit": round(self._credit(account) / 1e6, 6), "ssh_key": None, "sid": "1", "has_billing": True,
        })  # fmt: skip

    def _charges(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        if self._hit("bill.host_account"):
            return reply(200, {"success": False, "msg": "Host users do not have instance charges", "count": 0})
        try:
            day = json.loads(request.first("select_filters"))["day"]
            since, until = datetime.fromtimestamp(day["gte"], UTC), datetime.fromtimestamp(day["lte"] + 1, UTC)
        except (ValueError, KeyError, TypeError):
            text = "Must provide both 'day' gte and lte filters for instance charges"
            return reply(400, {"success": False, "msg": text})
        lag = timedelta(seconds=float(self._hit("bill.lag") or 0))
        ready = self.world.now() - lag
        mine = [m for m in self.world.machines.values() if m.provider == self.name and m.account == account.id]
        rows = [row for machine in mine if (row := self._charge(machine, since, min(until, ready)))]
        start = int(request.first("after_token") or 0) if request.first("after_token").isdigit() else 0
        size = min(500, int(request.first("limit", "100")))
        page = rows[start : start + size]
        following = str(start + size) if len(rows) > start + size else None
        return reply(200, {"success": True, "count": len(page), "total": len(rows), "next_token": following,
                           "results": page})  # fmt: skip

    def _charge(self, machine: Machine, since: datetime, until: datetime) -> dict[str, Any] | None:
        start, end = max(machine.created_at, since), min(machine.destroyed_at or until, until)
        if end <= start:
            return None
        gpu = self._part(machine, "gpu", start, end)
        disk = self._part(machine, "storage", start, end)
        hours = (end - start).total_seconds() / 3600
        span = {"start": int(start.timestamp()), "end": int(end.timestamp())}
        lines: list[dict[str, Any]] = [
            {**span, "type": "gpu", "source": None, "amount": gpu, "metadata": {}, "items": [],
             "description": f"{hours:.3f} hours at ${machine.rate.gpu / 1e6:.3f}/hour"},
            {**span, "type": "disk", "source": None, "amount": disk, "metadata": {}, "items": [],
             "description": f"{hours:.3f} hours at ${machine.rate.storage / 1e6:.3f}/hour"},
        ]  # fmt: skip
        return {**span, "type": "instance", "source": f"instance-{machine.id}", "amount": round(gpu + disk, 6),
                "description": f"Instance {machine.id} Charges - 1 days", "metadata": {"label": machine.label},
                "items": lines}  # fmt: skip

    def _part(self, machine: Machine, part: str, start: datetime, end: datetime) -> float:
        ends = [at for at, _ in machine.rates[1:]] + [end]
        total = 0.0
        for (at, rate), stop in zip(machine.rates, ends, strict=True):
            seconds = (min(stop, end) - max(at, start)).total_seconds()
            total += max(0.0, seconds) * getattr(rate, part)
        return round(total / 3600 / 1e6, 6)

    def _account_keys(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        return reply(200, [])

    def _account_key(self, request: Request, account: Account, named: dict[str, str]) -> Response:
        if self._hit("auth.team"):
            text = "Team SSH keys are not supported. SSH keys can only be created in personal context."
            return reply(400, _error("team_ssh_keys_not_supported", text))
        return reply(200, {"success": True, "key": {"id": 91822, "public_key": ""}})

    def _hit(self, name: str, machine: str | None = None, host: str | None = None) -> Any:
        weather = self.world.weather
        return None if weather.calm else weather.hit(name, provider=self.name, machine=machine, host=host)

    _answers: dict[str, Callable[[VastAI, Request, Account, dict[str, str]], Response]] = {
        "quotes": _search, "create": _create, "list": _list, "list_v0": _list_v0, "get": _get, "relabel": _relabel,
        "destroy": _destroy, "attach_key": _attach, "keys": _keys, "charges": _charges, "account": _account,
        "account_keys": _account_keys, "account_key": _account_key,
    }  # fmt: skip


_DOCKER = "Error response from daemon:"
_BROKEN: dict[str, tuple[str, str]] = {
    "host.oci_fail": (
        "created",
        f"{_DOCKER} failed to create task for container: failed to create shim task: OCI runtime create failed: "
        "failed to inject CDI devices: unresolvable CDI devices D.1/gpu=0: unknown\n",
    ),
    "host.gpu_error": ("created", "Error: GPU error, unable to start instance."),
    "host.registry_fail": (
        "loading",
        "error pulling image configuration: download failed after attempts=6: read tcp: connection reset by peer",
    ),
    "host.manifest_unknown": ("created", f"{_DOCKER} manifest for x not found: manifest unknown"),
}


def _error(code: str, text: str) -> dict[str, Any]:
    return {"success": False, "error": code, "msg": text}


def _stale(offer: str, status: int) -> Response:
    if status == 410:
        text = f"error 410/3907: no_such_ask Instance type {offer} is no longer available."
        return reply(410, {**_error("no_such_ask", text), "ask_id": int(offer)})
    text = f"error 404/3603: no_such_ask  Instance type by id {offer} is not available."
    return reply(status, {**_error("invalid_args", text), "ask_id": int(offer)})


def _ip(ask: Ask) -> str:
    return f"203.0.{ask.host_id % 113}.{ask.machine_id % 250 + 1}"


def _only_id(filters: str) -> int | None:
    try:
        return int(json.loads(filters)["id"]["eq"])
    except (ValueError, KeyError, TypeError):
        return None


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda have, want: have == want,
    "neq": lambda have, want: have != want,
    "gt": lambda have, want: have is not None and have > want,
    "gte": lambda have, want: have is not None and have >= want,
    "lt": lambda have, want: have is not None and have < want,
    "lte": lambda have, want: have is not None and have <= want,
    "in": lambda have, want: have in want,
    "notin": lambda have, want: have not in want,
}
_PLAIN = {"type", "order", "limit", "allocated_storage"}


def _fits(row: dict[str, Any], query: dict[str, Any]) -> bool:
    for name, bounds in query.items():
        if name in _PLAIN or not isinstance(bounds, dict):
            continue
        have = row.get("verification") == "verified" if name == "verified" else row.get(name)
        if not all(_OPERATORS[operator](have, want) for operator, want in bounds.items() if operator in _OPERATORS):
            return False
    return True


_KEY = re.compile(r"(?:ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+) [A-Za-z0-9+/]+={0,3}(?: [A-Za-z0-9@-]+)?")
_PACKED = re.compile(r"echo (\S+) \| base64 -d \| gzip -d")


def unpacked(script: str) -> str:
    """A start script may come packed, since long ones are refused."""
    found = _PACKED.search(script)
    return gzip.decompress(base64.b64decode(found[1])).decode() if found else script


def keys_in(script: str) -> list[str]:
    """The public keys that a start script appends."""
    return list(dict.fromkeys(_KEY.findall(script)))
