"""TensorDock's HTTP interface over the world, oddities included.

True to what was seen on the wire: HTTP 200 may carry a failure, a single machine comes bare and a listing wrapped,
requests are in snake_case and replies in camelCase, the name is the only label, and 401 is plain text.
"""

from __future__ import annotations

import base64
import binascii
import random
import re
import shlex
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from providers import deadman
from providers.money import micros
from providers.sandbox import catalogue
from providers.sandbox.books import Account, Machine, Rate
from providers.sandbox.catalogue import Place
from providers.sandbox.wire import Request, Response, plain, reply

if TYPE_CHECKING:
    from providers.sandbox.world import World

IMAGES = (
    "ubuntu2404_ml_everything", "ubuntu2404_ml_pytorch", "ubuntu2404_ml_tensorflow", "ubuntu2404", "ubuntu2204",
    "windows10",
)  # fmt: skip
RAM_SIZES = (2, 4, 6, 8, 10, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 512)
MIN_STORAGE_GB = 100
MIN_CREDIT = 1_000_000  # micro-dollars that an account must have left for a create
CALLS_PER_MINUTE = 100  # of one organisation

_ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    ("GET", re.compile(r"/api/v2/locations"), "quotes"),
    ("GET", re.compile(r"/api/v2/hostnodes"), "hostnodes"),
    ("POST", re.compile(r"/api/v2/instances"), "create"),
    ("GET", re.compile(r"/api/v2/instances"), "list"),
    ("GET", re.compile(r"/api/v2/instances/(?P<id>[^/]+)"), "get"),
    ("DELETE", re.compile(r"/api/v2/instances/(?P<id>[^/]+)"), "destroy"),
    ("POST", re.compile(r"/api/v2/instances/(?P<id>[^/]+)/start"), "start"),
    ("POST", re.compile(r"/api/v2/instances/(?P<id>[^/]+)/stop"), "stop"),
    ("POST", re.compile(r"/api/v0/billing/balance"), "balance"),
]
AUTHORIZATION_ID = "0f8b6a2c-51d4-4e7b-a9c3-64e2d7b1f058"  # the other half of every key's pair
# What `create.fail` may say. These texts were seen; the forms around them differ.
_FAILURES = {
    "capacity": "No available nodes found",
    "no_public_ip": "No available public IPs on hostnode",
    "generic": "unexpected error during deployment",
}


class TensorDock:
    name = "tensordock"

    def __init__(self, world: World) -> None:
        self.world = world
        self._recent: dict[str, deque[datetime]] = {}  # calls of the last minute, by account

    # --- Routes -----------------------------------------------------------------------------------------------

    def _found(self, request: Request) -> tuple[str, str, str]:
        """Operation, route and the id in the path."""
        for method, pattern, operation in _ROUTES:
            if method == request.method and (match := pattern.fullmatch(request.path)):
                route = pattern.pattern.replace("(?P<id>[^/]+)", "{id}")
                return operation, route, match.groupdict().get("id", "")
        return "unknown", request.path, ""

    def operation(self, request: Request) -> str:
        return self._found(request)[0]

    def route(self, request: Request) -> str:
        return self._found(request)[1]

    def least_seconds(self, request: Request) -> float:
        """The limit here is on all calls together, see `_over_the_limit`."""
        return 0.0

    def machine_of(self, request: Request) -> str:
        return self._found(request)[2]

    def label_of(self, request: Request) -> str:
        return str(_attributes(request).get("name") or "")

    def answer(self, request: Request) -> Response:
        operation, _, id = self._found(request)
        if operation == "unknown":
            return reply(404, {"status": 404, "error": "Not found"})
        if operation == "quotes":
            return self._locations()
        if operation == "balance":
            return self._balance(request)
        account = self.world.account_of(request.bearer)
        if account is None or not account.id.startswith(self.name):
            return self.unauthorized(401)
        if self._over_the_limit(account):
            return self.limited(1)
        return self._answers[operation](self, request, account, id)

    def _balance(self, request: Request) -> Response:
        """The legacy interface: a form with the pair, no header; failures are 200."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        account = self.world.account_of(form.get("api_token", ""))
        if account is None or form.get("api_key") != AUTHORIZATION_ID:
            return reply(200, {"success": False, "error": "invalid credentials"})
        left = account.credit - self.world.spent(account.id)
        return reply(200, {"success": True, "balance": round(left / 1e6, 2), "hourly_cost": 0})

    # --- Errors -----------------------------------------------------------------------------------------------

    def unauthorized(self, value: Any) -> Response:
        return plain(403, "Forbidden") if value == 403 else plain(401, "Unauthorized")

    def limited(self, value: Any) -> Response:
        body = {"status": 429, "error": "Too many requests"}
        if value == 2:
            return reply(429, body)
        if value == 3:
            return plain(429, "Too many requests")
        told = {"X-RateLimit-Limit": str(CALLS_PER_MINUTE), "X-RateLimit-Remaining": "0", "Retry-After": "5"}
        return reply(429, body, **told)

    def server_error(self, value: Any = True) -> Response:
        text = "Internal Server Error"
        return _in_disguise(text, 500) if value == "disguised" else reply(500, {"error": text})

    def _over_the_limit(self, account: Account) -> bool:
        if not self._hit("rate.enforce"):
            return False
        now, recent = self.world.now(), self._recent.setdefault(account.id, deque())
        while recent and now - recent[0] >= timedelta(minutes=1):
            recent.popleft()
        recent.append(now)
        return len(recent) > CALLS_PER_MINUTE

    # --- The menu ---------------------------------------------------------------------------------------------

    def _locations(self) -> Response:
        dedicated = not self._hit("net.no_dedicated_ip")
        drift = self._hit("locations.drift")
        rows: Any = [
            catalogue.location_json(place, dedicated_ip=dedicated, wrong=drift is True)
            for place in self.world.places.values()
        ]
        for gpu in (gpu for row in rows for gpu in row["gpus"] if drift == "high"):
            gpu["max_count"] = 8
            gpu["resources"] = {"max_vcpus": 1000, "max_ram_gb": 10_000, "max_storage_gb": 100_000}
        rename = self._hit("json.rename")
        if rename == "top":
            return reply(200, {"locations": rows})
        if rename:
            for row in rows:
                row["gpus"] = [_renamed(gpu) for gpu in row["gpus"]]
        return reply(200, {"data": {"locations": self._drifted(rows)}})

    def _hostnodes(self, request: Request, account: Account, id: str) -> Response:
        if self._hit("hostnodes.fail"):
            return self.server_error()
        has_ip = not self._hit("net.no_dedicated_ip")
        rows = [_hostnode(place, has_ip) for place in self.world.places.values()]
        return reply(200, {"data": {"hostnodes": self._drifted(rows)}})

    def _drifted(self, value: Any) -> Any:
        return _as_text(value) if self._hit("json.drift") else value

    # --- Create -----------------------------------------------------------------------------------------------

    def _create(self, request: Request, account: Account, id: str) -> Response:
        asked = _attributes(request)
        if issues := list(_issues(asked)):
            return reply(400, issues)
        place = self._place(asked)
        if refused := self._refusal(account, asked, place):
            return refused
        assert place is not None
        if self._hit("create.phantom", place.id):
            return self._made(self._new_id(), asked["name"])
        machine = self._rent(account, asked, place)
        if self._hit("create.duplicate", place.id):
            self._rent(account, asked, place)
        machine.returned = True
        return self._made(machine.id, asked["name"])

    def _made(self, id: str, name: str) -> Response:
        """It says `running` long before it does."""
        status = 201 if self._hit("create.as_201") else 200
        return reply(status, {"data": {"type": "virtualmachine", "id": id, "name": name, "status": "running"}})

    def _place(self, asked: dict[str, Any]) -> Place | None:
        if node := asked.get("hostnode_id"):
            return next((place for place in self.world.places.values() if _node_id(place) == node), None)
        return self.world.places.get(str(asked.get("location_id")))

    def _refusal(self, account: Account, asked: dict[str, Any], place: Place | None) -> Response | None:
        host = place.id if place else None
        image = self._hit("create.image_refused", host)
        if image is True or image == asked["image"]:
            return reply(400, [_bad_image(asked["image"])])
        if self._hit("create.no_credit", host) or self._credit(account) < MIN_CREDIT:
            return _in_disguise("You need at least $1 in your account to deploy")
        if place is None or not _fits(asked, place):
            return _in_disguise(_FAILURES["capacity"])
        if asked.get("useDedicatedIp") and self._hit("net.no_dedicated_ip", host):
            return _in_disguise(_FAILURES["no_public_ip"])
        if (seconds := self._hit("create.late_row", host)) is not None:
            self.world.after(float(seconds), lambda at: self._rent(account, asked, place))
            return _in_disguise(_FAILURES["generic"])
        failure = self._hit("create.fail", host)
        return _failed(str(failure)) if failure else None

    def _rent(self, account: Account, asked: dict[str, Any], place: Place) -> Machine:
        resources = asked["resources"]
        model, count = next(iter((resources.get("gpus") or {}).items()))
        init = asked.get("cloud_init") or {}
        lines = [str(line) for line in init.get("runcmd") or ()]
        machine = self.world.make(
            self.name, account.id, id=self._new_id(), label=asked["name"], offer=place,
            model=_index(model), count=int(count["count"]), disk_gb=int(resources["storage_gb"]),
            users=("user", "root"), cuda="12.8", rate=_rate(asked, place),
            keys=self._keys(asked, lines, place), deadline=deadline_in(lines), host=place.id, asked=asked,
        )  # fmt: skip
        for file in init.get("write_files") or ():
            machine.guest.files[str(file["path"])] = str(file["content"])  # `encoding` is not honoured
        return machine

    def _new_id(self) -> str:
        """Never given twice, not even by a sandbox that is started again."""
        fresh = random.Random(f"{self.world.began.isoformat()} {self.world.chance.getrandbits(128)}")
        return str(uuid.UUID(int=fresh.getrandbits(128), version=4))

    def _keys(self, asked: dict[str, Any], lines: list[str], place: Place) -> list[str]:
        own = [] if self._hit("guest.key_ignored", place.id) else [str(asked["ssh_key"])]
        return list(dict.fromkeys([*own, *keys_in(lines)]))

    def freed(self, machine: Machine) -> None:
        """A place has no stock that is counted."""

    def plant(self, label: str, account: str) -> Machine:
        place = next(iter(self.world.places.values()))
        owner = next(a for a in self.world.accounts.values() if a.id == (account or "tensordock-60713"))
        asked = {
            "name": label, "image": IMAGES[0], "location_id": place.id, "useDedicatedIp": True,
            "ssh_key": "ssh-ed25519 AAAASomebodyElses",
            "resources": {"vcpu_count": 8, "ram_gb": 32, "storage_gb": 100,
                          "gpus": {next(iter(place.gpus)): {"count": 1}}},
        }  # fmt: skip
        return self._rent(owner, asked, place)

    def rate_stopped(self, rate: Rate) -> Rate:
        """A stopped machine is charged in full, as far as anybody can tell from outside."""
        return rate

    # --- Instances --------------------------------------------------------------------------------------------

    def _list(self, request: Request, account: Account, id: str) -> Response:
        fail = self._hit("list.fail")
        if fail == "503":
            return plain(503, "Service Unavailable")
        if fail == "empty":
            return Response(200, {"Content-Type": "application/json"})
        if fail:
            return reply(200, {"data": {"items": []}})
        sparse = self._hit("list.sparse")
        rows = [self._row(machine) for machine in self._mine(account)]
        if sparse:
            rows = [{"id": row["id"], "status": row["status"]} for row in rows]
        return reply(200, _shaped(rows, str(self._hit("list.shape") or "L1")))

    def _mine(self, account: Account) -> Iterator[Machine]:
        now = self.world.now()
        for machine in self.world.machines.values():
            if machine.provider != self.name or machine.account != account.id or not machine.is_shown(now):
                continue
            if not self._hit("list.hide", machine=machine.id):
                yield machine

    def _machine(self, account: Account, id: str) -> Machine | None:
        machine = self.world.machines.get(id)
        if machine is None or machine.provider != self.name or machine.account != account.id:
            return None
        return machine if machine.is_shown(self.world.now()) else None

    def _get(self, request: Request, account: Account, id: str) -> Response:
        machine = self._machine(account, id)
        if machine is None or self._hit("get.deny", machine=id):
            return self._gone(id)
        return reply(200, self._row(machine))

    def _gone(self, id: str) -> Response:
        form = self._hit("get.gone")
        known = self.world.machines.get(id)
        if form == "status" and known is not None:
            return reply(200, {"type": "virtualmachine", "id": id, "name": known.label, "status": "terminated"})
        return _not_found(200 if form == "200err" else 404)

    def _destroy(self, request: Request, account: Account, id: str) -> Response:
        machine = self._machine(account, id)
        if machine is None or not machine.exists:
            return _not_found(404)
        if self._hit("destroy.http_500", machine=id):
            return self.server_error()
        self.world.ask_to_destroy(machine)
        text = "Instance deleted successfully"
        return reply(200, {"data": {"type": "success", "attributes": {"message": text}}})

    def _start(self, request: Request, account: Account, id: str) -> Response:
        machine = self._machine(account, id)
        if machine is None or not machine.exists:
            return _not_found(404)
        if machine.state == "disassociated":
            return reply(400, {"error": "The GPU of this instance was taken"})
        if machine.state != "stopped":
            return reply(409, {"error": "Instance is already running"})
        machine.touched = True
        self.world.resume(machine, self.world.now())
        return _switched(id, "starting")

    def _stop(self, request: Request, account: Account, id: str) -> Response:
        machine = self._machine(account, id)
        if machine is None or not machine.exists:
            return _not_found(404)
        machine.touched = True
        self.world.stop(machine, self.world.now())
        return _switched(id, "stopping")

    def _row(self, machine: Machine) -> dict[str, Any]:
        host, forwards = self._network(machine)
        resources = machine.asked["resources"]
        gpus = {name: {"count": gpu["count"], "v0Name": name} for name, gpu in resources["gpus"].items()}
        row = {
            "type": "virtualmachine", "id": machine.id, "name": machine.label, "status": self._status(machine),
            "ipAddress": host, "portForwards": forwards, "resources": {**resources, "gpus": gpus},
            "rateHourly": machine.rate.total / 1e6,
        }  # fmt: skip
        return row if self.world.weather.calm else self._drifted(row)

    def _network(self, machine: Machine) -> tuple[str, list[dict[str, int]]]:
        """Its address. With a dedicated one nothing is forwarded, but for a sandbox that has one host only."""
        if not machine.exists or not machine.has_address:
            return "", []
        host, port = self.world.address_of(machine)
        dedicated = bool(machine.asked.get("useDedicatedIp"))
        if (dedicated and port == 22) or (not dedicated and self.world.fault(machine, "net.ignore_forwards")):
            return host, []
        return host, [{"internal_port": 22, "external_port": port}]

    def _status(self, machine: Machine) -> str:
        if not machine.exists:
            return "deleting"
        if machine.state == "disassociated" or self._flickers(machine):
            return "stoppeddisassociated"
        if machine.state == "stopped":
            return "stopped"
        if machine.state == "up":
            return "running"
        broken = machine.state in ("offline", "broken") or any(name in machine.faults for name in _BROKEN)
        return "error" if broken else "creating"

    def _flickers(self, machine: Machine) -> bool:
        seconds = machine.faults.get("boot.flicker")
        if seconds is None:
            return False
        return self.world.now() - machine.created_at < timedelta(seconds=float(seconds))

    # --- Money ------------------------------------------------------------------------------------------------

    def _credit(self, account: Account) -> int:
        left = self._hit("account.credit")
        return account.credit - self.world.spent(account.id) if left is None else int(left)

    def _hit(self, name: str, host: str | None = None, machine: str | None = None) -> Any:
        weather = self.world.weather
        return None if weather.calm else weather.hit(name, provider=self.name, host=host, machine=machine)

    _answers: dict[str, Callable[[TensorDock, Request, Account, str], Response]] = {
        "hostnodes": _hostnodes, "create": _create, "list": _list, "get": _get, "destroy": _destroy,
        "start": _start, "stop": _stop,
    }  # fmt: skip


_BROKEN = ("host.oci_fail", "host.gpu_error", "host.registry_fail", "host.manifest_unknown")


# --- Bodies -----------------------------------------------------------------------------------------------------


def _attributes(request: Request) -> dict[str, Any]:
    body = request.json
    data = body.get("data") if isinstance(body, dict) else None
    attributes = data.get("attributes") if isinstance(data, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _in_disguise(text: str, status: int = 400) -> Response:
    """A failure as it mostly comes: with HTTP 200."""
    return reply(200, {"status": status, "error": text})


def _failed(value: str) -> Response:
    """`create.fail`: a reason, and after a dot the form that it comes in."""
    reason, _, form = value.partition(".")
    if reason == "validation":
        return reply(400, [_issue("Invalid value", "resources")])
    text = _FAILURES[reason]
    if form == "http":
        return reply(400, {"error": text})
    if form == "nested":
        return reply(200, {"data": {"status": 500, "error": text}})
    if form == "issues":
        return reply(200, {"error": [{"code": "custom", "message": text}]})
    return _in_disguise(text)


def _not_found(status: int) -> Response:
    return reply(status, {"status": 404, "error": "Instance not found"})


def _switched(id: str, status: str) -> Response:
    return reply(200, {"data": {"type": "instance", "id": id, "attributes": {"status": status}}})


def _shaped(rows: list[dict[str, Any]], shape: str) -> dict[str, Any]:
    """The four shapes in which listings were seen or are documented."""
    if shape == "L2":
        return {"data": {"instances": [
            {"type": "VM", "id": row["id"], "attributes": {k: v for k, v in row.items() if k not in ("id", "type")}}
            for row in rows
        ]}}  # fmt: skip
    if shape == "L3":
        return {"data": {"type": "list", "id": "instances", "attributes": {"instances": rows}}}
    return {"instances": rows} if shape == "L4" else {"data": rows}


def _renamed(gpu: dict[str, Any]) -> dict[str, Any]:
    names = {"v0Name": "name", "price_per_hr": "price_per_hour"}
    return {names.get(name, name): value for name, value in gpu.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_text(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _hostnode(place: Place, has_ip: bool) -> dict[str, Any]:
    city, state, country, tier = place.city
    gpus = [
        {"v0Name": name, "availableCount": most, "price_per_hr": price} for name, (most, price) in place.gpus.items()
    ]
    return {
        "id": _node_id(place), "location_id": place.id, "engine": "example-engine", "uptime_percentage": 99.4,
        "available_resources": {
            "gpus": gpus, "vcpu_count": 128, "ram_gb": 512, "storage_gb": 6000, "max_vcpus_per_gpu": 16,
            "max_ram_per_gpu": 96, "max_vcpus": 128, "max_ram_gb": 512, "max_storage_gb": 6000,
            "available_ports": [20010, 20011, 20012], "has_public_ip_available": has_ip,
        },
        "pricing": {"per_vcpu_hr": place.per_vcpu, "per_gb_ram_hr": place.per_gb_ram,
                    "per_gb_storage_hr": place.per_gb_storage},
        "location": {"uuid": place.id, "city": city, "stateprovince": state, "country": country, "tier": tier,
                     "has_network_storage": False, "network_speed_gbps": 9.4, "network_speed_upload_gbps": 7.8,
                     "organization": "org-example", "organizationName": "Example Hosting"},
    }  # fmt: skip


def _node_id(place: Place) -> str:
    return str(uuid.uuid5(uuid.UUID(place.id), "hostnode"))


# --- What a create says -----------------------------------------------------------------------------------------


def _issues(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the validator finds wrong."""
    resources = asked.get("resources") if isinstance(asked.get("resources"), dict) else {}
    assert resources is not None
    if not isinstance(asked.get("name"), str) or not asked["name"]:
        yield _issue("Required", "name")
    if asked.get("image") not in IMAGES:
        yield _bad_image(asked.get("image"))
    if not _whole(resources.get("vcpu_count")) or resources["vcpu_count"] % 2:
        yield _issue("vcpu_count must be even", "resources", "vcpu_count")
    if resources.get("ram_gb") not in RAM_SIZES:
        yield _issue("ram_gb must be a listed size", "resources", "ram_gb")
    if not _whole(resources.get("storage_gb")) or resources["storage_gb"] < MIN_STORAGE_GB:
        yield _issue(f"storage_gb must be at least {MIN_STORAGE_GB}", "resources", "storage_gb")
    yield from _placement_issues(asked, resources)
    if bool(asked.get("ssh_key")) == bool(asked.get("ssh_key_id")):
        yield _issue("exactly one of ssh_key and ssh_key_id must be given", "ssh_key")


def _placement_issues(asked: dict[str, Any], resources: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if bool(asked.get("location_id")) == bool(asked.get("hostnode_id")):
        yield _issue("exactly one of location_id and hostnode_id must be given", "location_id")
    gpus = resources.get("gpus")
    if not isinstance(gpus, dict) or not gpus:
        yield _issue("at least one GPU must be asked for", "resources", "gpus")
    elif not all(isinstance(gpu, dict) and _whole(gpu.get("count")) for gpu in gpus.values()):
        yield _issue("count must be a number", "resources", "gpus")
    forwards = asked.get("port_forwards") or []
    if not asked.get("useDedicatedIp") and not any(forward.get("internal_port") == 22 for forward in forwards):
        yield _issue("SSH port (22) must be forwarded for Ubuntu VMs", "port_forwards")


def _issue(message: str, *path: str, code: str = "custom") -> dict[str, Any]:
    return {"code": code, "message": message, "path": ["data", "attributes", *path]}


def _bad_image(image: Any) -> dict[str, Any]:
    return _issue(f"Invalid enum value, received '{image}'", "image", code="invalid_enum_value")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _fits(asked: dict[str, Any], place: Place) -> bool:
    """Whether the place has what is asked for, whatever its listing says."""
    return all(model in place.gpus and gpu["count"] <= place.gpus[model][0]
               for model, gpu in asked["resources"]["gpus"].items())  # fmt: skip


def _rate(asked: dict[str, Any], place: Place) -> Rate:
    """Part by part, as anybody would work it out from the listing."""
    resources = asked["resources"]
    model, gpu = next(iter(resources["gpus"].items()))
    return Rate(
        gpu=_micros(gpu["count"], place.gpus[model][1]),
        storage=_micros(resources["storage_gb"], place.per_gb_storage),
        cpu=_micros(resources["vcpu_count"], place.per_vcpu),
        ram=_micros(resources["ram_gb"], place.per_gb_ram),
    )


def _micros(amount: int, dollars: float) -> int:
    return micros(amount * Decimal(str(dollars)))


def _index(v0_name: str) -> int:
    return next(index for index, model in enumerate(catalogue.MODELS) if model[1] == v0_name)


_KEY = re.compile(r"(?:ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/]+={0,3}.*")
_PACKED = re.compile(r"echo (\S+) \| base64 -d > (\S+)")


def keys_in(lines: list[str]) -> list[str]:
    """The public keys that the lines of a `runcmd` append."""
    return [word for line in lines if "authorized_keys" in line for word in _words(line) if _KEY.fullmatch(word)]


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is not closed: the shell would not run it either
        return []


def deadline_in(lines: list[str]) -> int | None:
    """When the dead man's switch that the lines install fires, in unix seconds; None: they install none."""
    for line in lines:
        found = _PACKED.fullmatch(line)
        if found is None or found[2] != deadman.PER_BOOT:
            continue
        try:
            script = base64.b64decode(found[1], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        deadline = re.search(r"^at=(\d{10})$", script, re.MULTILINE)
        return int(deadline[1]) if deadline else None
    return None
