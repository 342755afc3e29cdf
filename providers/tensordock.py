"""TensorDock: the verbs of `providers.base` over its v2 REST API.

Facts are from its API docs (dashboard.tensordock.com/api/docs) and public reports of its users. The traps in
short: HTTP 200 can carry a failure; a create that times out may have made a machine; listed stock is often
fiction; lists come in four shapes; a delete that says yes proves nothing; a stopped machine bills on.

Pure below `TensorDock`; the network is `providers.http`. What is remembered between calls is only which default
image a place has refused.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from shlex import quote
from typing import Any

import requests

from providers import clock, deadman
from providers.base import (
    Account,
    Charge,
    LaunchSpec,
    Machine,
    MachineState,
    NotUnderstood,
    PriceParts,
    Quote,
    Rates,
    Refusal,
    Refused,
    SshTarget,
    Traits,
    Unauthorized,
    Unavailable,
)
from providers.http import SHOWN_BYTES, Answer, Call, Client, NoPacer, Pacer, limited_for, one_line
from providers.money import micros

DEFAULT_URL = "https://dashboard.tensordock.com/api/v2"
# Which images exist depends on the place, so this is a list; the plain ones have no working NVIDIA driver.
DEFAULT_IMAGES = (
    "ubuntu2404_ml_pytorch",
    "ubuntu2404_ml_everything",
    "ubuntu2404_ml_tensorflow",
    "ubuntu2404",
    "ubuntu2204",
)
MIN_DISK_GB, DISK_STEP_GB = 100, 50
RAM_SIZES = (2, 4, 6, 8, 10, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 512)
COUNTS = (1, 2, 4, 8)

# Good tokens have been answered 401 now and then; one later look tells that from a bad one.
RECHECK = 5.0  # seconds

# Seconds between two calls of one kind. The limit is 100 a minute for the whole organisation; together these
# stay just within it: 12 + 12 + 20 + 30 + 6 + 20.
_INTERVAL = {"quotes": 5.0, "hostnodes": 5.0, "list": 3.0, "get": 2.0, "create": 10.0, "destroy": 3.0}
# Seconds until a call is given up. Creates have needed more than a minute.
_TIMEOUT = {"create": 150.0, "destroy": 60.0}

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_QUOTE = re.compile(rf"({_UUID.pattern})-(.+?)(?:-x([1-9]))?(-fwd)?", re.IGNORECASE)


class TensorDock:
    name = "tensordock"
    traits = Traits(
        settle=timedelta(minutes=15),
        min_disk_gb=MIN_DISK_GB,
        disk_step_gb=DISK_STEP_GB,
        takes_onstart=True,
        dead_man="powers_off",
    )

    def __init__(
        self,
        token: str,
        base_url: str = DEFAULT_URL,
        *,
        image: str = "",
        auth_id: str = "",
        session: requests.Session | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self._images = tuple(dict.fromkeys((image, *DEFAULT_IMAGES))) if image else DEFAULT_IMAGES
        self._refused_images: dict[str, set[str]] = {}  # by location
        self._client = Client(self.name, base_url, token, session=session, pacer=pacer)
        self._pair = {"api_key": auth_id, "api_token": token} if auth_id else None
        legacy = base_url.rstrip("/").removesuffix("/v2") + "/v0"
        self._legacy = Client(self.name, legacy, token, session=session, pacer=pacer)

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], *, session: requests.Session | None = None, pacer: Pacer | None = None
    ) -> TensorDock | None:
        """None if no token is set. Raises ValueError with a sentence if what is set can't be one."""
        token = token_of(env)
        if not token:
            return None
        if pacer is None and env.get("PROVIDER_PACING") == "off":
            pacer = NoPacer()
        url = env.get("TENSORDOCK_BASE_URL") or DEFAULT_URL
        image, auth_id = env.get("TENSORDOCK_DEFAULT_IMAGE", ""), env.get("TENSORDOCK_AUTH_ID", "").strip()
        return cls(token, url, image=image, auth_id=auth_id, session=session, pacer=pacer)

    def __repr__(self) -> str:
        return "TensorDock()"

    # --- The menu ---------------------------------------------------------------------------------------

    def quotes(self, *, disk_gb: int) -> Sequence[Quote]:
        """One quote for each place, GPU model and count. Storage is priced per GB, so `disk_gb` changes nothing."""
        locations = locations_of(self._understood("quotes", "/locations").body)
        nodes = self._nodes()
        return [found for location in locations for found in quotes_of(location, nodes)]

    def _nodes(self) -> list[dict[str, Any]]:
        """Single machines, to rank places by; none where they are not told, which must not cost the menu."""
        try:
            body = self._understood("hostnodes", "/hostnodes").body
        except (Unavailable, NotUnderstood, Unauthorized):
            return []  # /instances says whether the token works.
        return _rows(_dict(_dict(body).get("data")).get("hostnodes"))

    # --- Machines ---------------------------------------------------------------------------------------

    def machines(self) -> Sequence[Machine]:
        """Every listed machine. A row whose status says that it is deleted is no machine and is left out."""
        body = self._understood("list", "/instances").body
        rows = rows_of(body)
        if says_more(body, len(rows)):
            raise NotUnderstood(f"TensorDock's list of instances shows {len(rows)} and says that there are more")
        ids = [id_of(row) for row in rows]
        if not all(ids) or len(set(ids)) != len(ids):
            raise NotUnderstood("TensorDock's list of instances has a row without an id, or one id twice")
        return [self._named(row) for row in rows if not is_gone(row)]

    def _named(self, row: dict[str, Any]) -> Machine:
        """A row may lack its name, which is the only tag; the machine's own page is asked before it is given up."""
        listed = machine_of(row)
        if listed.label is not None:
            return listed
        try:
            return self.machine(listed.id) or listed
        except (Unavailable, NotUnderstood):
            return listed  # It exists, so it is told; the next listing may know its name.

    def machine(self, machine_id: str) -> Machine | None:
        answer = self._read("get", f"/instances/{_checked(machine_id)}", route="/instances/id")
        failure = failure_of(answer)
        if failure is not None:
            if failure.status == 404 and says_absent(answer):
                return None
            if failure.status == 404:
                raise Unavailable(f"TensorDock get: a 404 that is not TensorDock's own: {self._shown(answer, failure)}")
            raise self._no_answer("get", answer, failure)
        row = row_of(answer.body)
        if str(row.get("id")) != machine_id or not row.get("status"):
            raise NotUnderstood(f"TensorDock's answer on instance {machine_id} is not about it")
        return None if is_gone(row) else machine_of(row)

    def create(self, spec: LaunchSpec) -> str:
        """See `providers.base.Provider`.

        A default image that a place does not offer is remembered, and the next create there takes the next
        image: until the list is used up the refusal is OFFER_GONE, so that trying again makes sense.
        """
        location = target_of(spec.quote_id).location
        image = spec.image or self._image_for(location)
        body = create_body(spec, image)
        secrets = (*spec.secrets, packed(spec.onstart))
        answer = self._client.send_once(_call("create", "POST", "/instances", "/instances", body, secrets))
        failure = failure_of(answer)
        if failure is None:
            made = id_of(row_of(answer.body))
            if not made:
                raise NotUnderstood("TensorDock answered a create with success, but without an id")
            return made
        # An id is one under every status, a rejected token's too: what it names may bill.
        if made := made_in(answer.body):
            message = f"TensorDock made {made} and said that it failed: {self._shown(answer, failure)}"
            raise Refused(message, why=Refusal.OFFER_GONE, machine_id=made)
        if _denied(answer):
            raise _unauthorized()
        raise self._create_failed(answer, failure, spec, location, image)

    def _create_failed(
        self, answer: Answer, failure: Failure, spec: LaunchSpec, location: str, image: str
    ) -> Exception:
        # These do not prove that nothing was made, whatever they say.
        if failure.status in (429, 502, 503, 504):
            return self._no_answer("create", answer, failure)
        if "invalid_enum_value" in failure.text.lower():
            left = not spec.image and self._refuse_image(location, image)
            why = Refusal.OFFER_GONE if left else Refusal.HOST
            return Refused(f"TensorDock has no image {one_line(image, 60)} at this place", why=why)
        found = refusal_of(failure)
        if found is None:
            return self._no_answer("create", answer, failure)
        return Refused(f"TensorDock refused: {self._shown(answer, failure)}", why=found)

    def _image_for(self, location: str) -> str:
        refused = self._refused_images.get(location, set())
        return next((image for image in self._images if image not in refused), self._images[0])

    def _refuse_image(self, location: str, image: str) -> bool:
        """Remember; False if no other is left, and then all are tried again next time."""
        refused = self._refused_images.setdefault(location, set())
        refused.add(image)
        if refused >= set(self._images):
            del self._refused_images[location]
            return False
        return True

    def destroy(self, machine_id: str) -> None:
        path = f"/instances/{_checked(machine_id)}"
        answer = self._client.send_once(_call("destroy", "DELETE", path, "/instances/id"))
        if _denied(answer):
            raise _unauthorized()
        failure = failure_of(answer)
        if failure is not None and failure.status != 404:
            raise self._no_answer("destroy", answer, failure)

    def attach_key(self, machine_id: str, public_key: str) -> None:
        """Nothing: keys are put on the machine at its first boot only."""

    def relabel(self, machine_id: str, label: str) -> None:
        raise NotUnderstood("TensorDock can't rename a machine")

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        return ()

    def account(self) -> Account:
        """The listing is the one read that is known to need the token; whose it is, nothing tells."""
        rows_of(self._understood("account", "/instances").body)  # A page of a proxy is no sign that the token works.
        return Account(id="", balance=self._balance())

    def _balance(self) -> int | None:
        """From the legacy interface, which alone tells it, and only to the pair with the Authorization ID.

        None where it is not told: public projects have found that interface unreliable, so nothing hangs on it.
        """
        if self._pair is None:
            return None
        call = Call(operation="balance", method="POST", path="/billing/balance", form=self._pair, interval=60.0)
        try:
            answer = self._legacy.read(call, attempts=1)
        except (Unavailable, NotUnderstood):
            return None
        told = _number(answer.fields.get("balance"))
        return micros(told) if answer.status == 200 and told is not None else None

    # --- Calls ------------------------------------------------------------------------------------------

    def _understood(self, operation: str, path: str) -> Answer:
        answer = self._read(operation, path)
        failure = failure_of(answer)
        if failure is not None:
            raise self._no_answer(operation, answer, failure)
        return answer

    def _read(self, operation: str, path: str, *, route: str = "") -> Answer:
        call = _call(operation, "GET", path, route or path)
        answer = self._client.read(call)
        if not _denied(answer):
            return answer
        clock.sleep(RECHECK)
        answer = self._client.read(call)
        if _denied(answer):
            raise _unauthorized()
        return answer

    def _no_answer(self, operation: str, answer: Answer, failure: Failure) -> Exception:
        said = f"TensorDock {operation} failed ({failure.status or 'no status'}): {self._shown(answer, failure)}"
        if failure.status == 429:
            return Unavailable(said, retry_after=limited_for(answer, 3))
        return Unavailable(said) if failure.status >= 500 else NotUnderstood(said)

    def _shown(self, answer: Answer, failure: Failure) -> str:
        return one_line(self._client.redacted(failure.text[:SHOWN_BYTES], answer.secrets), 160)


def token_of(env: Mapping[str, str]) -> str:
    """The API Token; "" if none is set. Other programs keep either half of the pair in TENSORDOCK_API_KEY."""
    token = env.get("TENSORDOCK_API_TOKEN", "").strip()
    if token:
        return token
    key = env.get("TENSORDOCK_API_KEY", "").strip()
    if _UUID.fullmatch(key):
        raise ValueError(
            "TENSORDOCK_API_KEY holds a UUID, which is an Authorization ID; "
            "set TENSORDOCK_API_TOKEN to the API Token, not Authorization ID"
        )
    return key


def _call(operation: str, method: str, path: str, route: str, body: Any = None, secrets: tuple[str, ...] = ()) -> Call:
    silence = _TIMEOUT.get(operation, 30.0)
    interval = _INTERVAL.get(operation, _INTERVAL["list"])
    return Call(
        operation=operation,
        method=method,
        path=path,
        route=route,
        body=body,
        secrets=secrets,
        interval=interval,
        read_timeout=silence,
        total_timeout=silence + 30,
    )


def _checked(machine_id: str) -> str:
    """An id is put into a path only if it can be one."""
    if not _ID.fullmatch(machine_id):
        raise NotUnderstood("this is not the form of a TensorDock id")
    return machine_id


def _unauthorized() -> Unauthorized:
    return Unauthorized(
        "TensorDock rejected the token: TENSORDOCK_API_TOKEN must be the API Token, not Authorization ID"
    )


def _denied(answer: Answer) -> bool:
    failure = failure_of(answer)
    return failure is not None and failure.status in (401, 403) and refusal_of(failure) is None


# --- Failures -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, whatever it was wrapped in. `status` is the body's own if it has one; 0: none was told."""

    status: int
    text: str
    is_list: bool = False  # the validator's list of issues


def failure_of(answer: Answer) -> Failure | None:
    """What failed, or None if nothing says so; whether a success has what it needs, the caller checks.

    HTTP 200 may carry `{"status": 400, "error": …}`, an `error` of another form, or either inside `data`. The
    status of a machine is a word, so only a number from 400 on is a failure.
    """
    if answer.status >= 400:
        text = " ".join(_strings(answer.body)) or answer.text
        return Failure(answer.status, text, isinstance(answer.body, list))
    for part in _layers(answer.body):
        status = int(_number(part.get("status")) or 0)
        if status >= 400 or part.get("error"):
            error = part.get("error")
            text = " ".join(_strings(error)) or " ".join(_strings(part))
            return Failure(max(status, 0), text, isinstance(error, list))
    return None


_NO_INSTANCE = re.compile(r"\b(instance|virtual ?machine|vm)\b.{0,80}\bnot found\b", re.IGNORECASE)


def says_absent(answer: Answer) -> bool:
    """Whether a 404 is TensorDock's own word that it has no such machine (tensordock.md §3.5 and §8).

    `{"status": 404, "error": "Instance not found"}` under 404, or such a body with any text under 200. An HTTP 404
    of any other form may be a gateway's, which misses a page and knows nothing of machines.
    """
    return any(_names_absence(part, answer.status) for part in _layers(answer.body))


def _names_absence(part: Mapping[str, Any], http_status: int) -> bool:
    if "status" in part and _number(part["status"]) != 404:
        return False
    if http_status == 404:
        return any(_NO_INSTANCE.search(text) for text in _strings([part.get("error"), part.get("message")]))
    return "status" in part and bool(part.get("error"))


def _layers(body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a failure may be told: at the top, or in `data`."""
    return _dict(body), _dict(_dict(body).get("data"))


# Seen from the live service (tensordock.md §7): these mean no under every status.
_SEEN = (
    (Refusal.OFFER_GONE, r"\bno available (nodes found|public ips)\b|\bunexpected error during deployment\b"),
    (Refusal.INVALID, r"\bssh port \(22\) must be forwarded\b"),
    (Refusal.NO_MONEY, r"\bneed at least \$"),
)
# Known from other programs only, and wide: below 500 they mean no; a server that fails says such words by chance.
# First match wins: "insufficient capacity" is stock, though "insufficient" alone is money.
_HEARD_OF = (
    (Refusal.OFFER_GONE, r"\b(hostnode unavailable|insufficient capacity|out of stock|resource unavailable)\b"),
    (Refusal.INVALID, r"\bmust be\b"),
    (Refusal.NO_MONEY, r"\b(quota exceeded|limit reached|maximum)\b"),  # the account's limits, not stock
    (Refusal.NO_MONEY, r"\b(balance|insufficient)\b"),
)


def refusal_of(failure: Failure) -> Refusal | None:
    """Why a create was refused; None if this is not a form that is known to mean no."""
    is_list = failure.is_list and failure.status < 500
    for why, words in _SEEN if failure.status >= 500 else _SEEN + _HEARD_OF:
        if is_list and why is Refusal.NO_MONEY:
            continue
        if re.search(words, failure.text, re.IGNORECASE):
            return why
    return Refusal.INVALID if is_list else None


# --- Machines -----------------------------------------------------------------------------------------

_STATES = {
    MachineState.STARTING: ("creating", "queued", "pending", "provisioning", "starting"),
    MachineState.UP: ("running", "online", "active"),
    MachineState.DOWN: ("stopped", "stoppeddisassociated", "stopping"),
    MachineState.BROKEN: ("error", "failed"),
    MachineState.LEAVING: ("deleting", "deleted", "terminated"),
}
_STATE_OF = {word: state for state, words in _STATES.items() for word in words}


def state_of(status: str) -> MachineState:
    return _STATE_OF.get(_plain(status), MachineState.UNKNOWN)


def is_gone(row: Mapping[str, Any]) -> bool:
    return _plain(str(row.get("status") or "")) in ("deleted", "terminated")


def _plain(status: str) -> str:
    return re.sub(r"[_\-\s]", "", status.lower())


def rows_of(body: Any) -> list[dict[str, Any]]:
    """The rows of a listing, in any of the four shapes seen. Raises NotUnderstood: never empty by mistake."""
    data = _dict(body).get("data")
    for rows in (
        data,
        _dict(data).get("instances"),
        _dict(_dict(data).get("attributes")).get("instances"),
        _dict(body).get("instances"),
    ):
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return [_flat(row) for row in rows]
    raise NotUnderstood("TensorDock's list of instances has a form that is not known")


def says_more(body: Any, shown: int) -> bool:
    """Whether a listing says of itself that it is a part. TensorDock is not known to page, so no page is asked for."""
    for part in _tellers(body):
        if (_number(part.get("total")) or 0) > shown:
            return True
        if any(part.get(name) not in (None, False, "") for name in ("has_more", "hasMore", "next")):
            return True
    return False


def _tellers(body: Any) -> Iterator[dict[str, Any]]:
    """The parts of a listing that could tell how long it is; never a row."""
    for layer in (*_layers(body), _dict(_dict(_dict(body).get("data")).get("attributes"))):
        yield layer
        yield from (_dict(layer.get(name)) for name in ("meta", "links", "pagination"))


def id_of(row: Mapping[str, Any]) -> str:
    """ "" if there is none, or if what is there can't be one."""
    told = row.get("id")
    return told if isinstance(told, str) and _ID.fullmatch(told) else ""


def row_of(body: Any) -> dict[str, Any]:
    """One machine, bare or in `data`; {} if it is neither."""
    fields = _dict(body)
    return _flat(_dict(fields["data"]) if isinstance(fields.get("data"), dict) else fields)


def made_in(body: Any) -> str:
    """The id that a failed create tells all the same, in `data` or beside the error; "" if there is none."""
    return id_of(row_of(body)) or id_of(_dict(body))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return row | _dict(row.get("attributes"))


def machine_of(row: Mapping[str, Any]) -> Machine:
    status = str(row.get("status") or "")
    name = row.get("name")
    rate = _number(row.get("rateHourly"))
    gpu_name, gpu_count = _gpu(row)
    return Machine(
        id=str(row["id"]),
        label=name if isinstance(name, str) else None,
        state=state_of(status),
        status=one_line(status, 60),
        ssh_targets=ssh_targets(row),
        gpu_name=gpu_name,
        gpu_count=gpu_count,
        interruptible=False,
        # The rate is told as one figure: all of it is put under the GPU, so that the total is right.
        price=PriceParts(gpu=micros(rate)) if rate is not None and rate > 0 else None,
    )


def ssh_targets(row: Mapping[str, Any]) -> tuple[SshTarget, ...]:
    """`user` first, then `root`: which of them gets the key varies. () while there is no address.

    With a dedicated IP there are no forwards, and SSH is on 22; else the port is the one granted, which may
    differ from the one asked for.
    """
    host = str(row.get("ipAddress") or row.get("ip_address") or "").strip()
    forwards = _rows(row.get("portForwards") or row.get("port_forwards"))
    ports = [_number(each.get("external_port")) for each in forwards if _number(each.get("internal_port")) == 22]
    port = int(ports[0] or 0) if ports else 22
    if not host or not 0 < port < 65536 or (forwards and not ports):
        return ()
    return tuple(SshTarget(host, port, user) for user in ("user", "root"))


def _gpu(row: Mapping[str, Any]) -> tuple[str, int]:
    for model, gpu in _dict(_dict(row.get("resources")).get("gpus")).items():
        return str(_dict(gpu).get("v0Name") or model), int(_number(_dict(gpu).get("count")) or 0)
    return str(row.get("gpu_model") or ""), int(_number(row.get("gpu_count")) or 0)


# --- The menu -----------------------------------------------------------------------------------------

# Tier 4 is the best data centre; tier 0 is somebody's home, whose owner may want the GPU back.
_RELIABILITY = {0: 0.5, 1: 0.8, 2: 0.9, 3: 0.97, 4: 0.99}
_COUNTRIES = {
    "united states": "US", "usa": "US", "canada": "CA", "united kingdom": "GB", "germany": "DE", "france": "FR",
    "netherlands": "NL", "poland": "PL", "sweden": "SE", "norway": "NO", "finland": "FI", "spain": "ES",
    "italy": "IT", "belgium": "BE", "estonia": "EE", "bulgaria": "BG", "romania": "RO", "india": "IN",
    "japan": "JP", "singapore": "SG", "south korea": "KR", "australia": "AU", "brazil": "BR",
    "south africa": "ZA", "united arab emirates": "AE", "iceland": "IS", "ireland": "IE", "switzerland": "CH",
}  # fmt: skip


def locations_of(body: Any) -> list[dict[str, Any]]:
    """The places. Raises NotUnderstood if there are places, but no offer in them that can be read."""
    rows = _dict(_dict(body).get("data")).get("locations")
    if not isinstance(rows, list):
        raise NotUnderstood("TensorDock's list of locations has a form that is not known")
    locations = _rows(rows)
    if rows and not any(True for location in locations for _ in _offers(location)):
        raise NotUnderstood("TensorDock lists locations, but no offer in them could be read")
    return locations


def _offers(location: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not _UUID.fullmatch(str(location.get("id") or "")):
        return
    for gpu in _rows(location.get("gpus")):
        price = _number(gpu.get("price_per_hr"))
        if gpu.get("v0Name") and price is not None and price > 0:
            yield gpu


def quotes_of(location: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Iterator[Quote]:
    here = (
        [node for node in nodes if location["id"] in (node.get("location_id"), _place(node).get("uuid"))]
        if nodes
        else []
    )
    for gpu in _offers(location):
        most = int(_number(gpu.get("max_count")) or 0)
        for count in COUNTS:
            if count <= most:
                yield quote_of(location, gpu, count, here)


def quote_of(
    location: Mapping[str, Any], gpu: Mapping[str, Any], count: int, nodes: Sequence[Mapping[str, Any]]
) -> Quote:
    caps, pricing = _dict(gpu.get("resources")), _dict(gpu.get("pricing"))
    vcpus, ram_gb = shape(count, caps)
    forwards = _dict(gpu.get("network_features")).get("dedicated_ip_available") is False
    return Quote(
        provider_id=f"{location['id']}-{gpu['v0Name']}{f'-x{count}' if count > 1 else ''}{'-fwd' if forwards else ''}",
        gpu_name=str(gpu["v0Name"]),
        gpu_count=count,
        vram_gb=vram_of(gpu),
        rates=Rates(
            gpu=count * (_number(gpu.get("price_per_hr")) or Decimal(0)),
            cpu=_times(vcpus, _number(pricing.get("per_vcpu_hr"))),
            ram=_times(ram_gb, _number(pricing.get("per_gb_ram_hr"))),
            storage_per_gb=_number(pricing.get("per_gb_storage_hr")),
        ),
        location=one_line(", ".join(str(location.get(key) or "") for key in ("city", "stateprovince", "country")), 120),
        country=_COUNTRIES.get(str(location.get("country") or "").strip().lower(), ""),
        reliability=reliability_of(location, nodes),
        available=not nodes or any(_has_room(node, str(gpu["v0Name"]), count, not forwards) for node in nodes),
        cpu_cores=vcpus,
        ram_gb=ram_gb,
        disk_gb=int(_number(caps.get("max_storage_gb")) or 0),
        min_disk_gb=MIN_DISK_GB,
    )


def shape(count: int, caps: Mapping[str, Any]) -> tuple[int, int]:
    """vCPUs (even) and RAM (from TensorDock's list) for `count` GPUs, within the caps; a cap of 0 is no cap."""
    vcpus = min(8 * count, int(_number(caps.get("max_vcpus")) or 0) or 8 * count)
    ram = min(32 * count, int(_number(caps.get("max_ram_gb")) or 0) or 32 * count)
    return max(2, vcpus - vcpus % 2), max((size for size in RAM_SIZES if size <= ram), default=RAM_SIZES[0])


def vram_of(gpu: Mapping[str, Any]) -> int:
    """Of one GPU, from its name ("…-24gb"); 0 if that does not tell."""
    for key in ("v0Name", "displayName"):
        found = re.findall(r"(\d+)\s*gb\b", str(gpu.get(key) or "").lower())
        if found:
            return int(found[-1])
    return 0


def reliability_of(location: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> float | None:
    """The best uptime stated here, but no more than the tier deserves; None if neither is told."""
    tier = _number(location.get("tier"))
    told = [] if tier is None else [_RELIABILITY[min(4, max(0, int(tier)))]]
    uptimes = [float(up) / 100 for node in nodes if (up := _number(node.get("uptime_percentage"))) is not None]
    told += [min(1.0, max(0.0, max(uptimes)))] if uptimes else []
    return min(told, default=None)


def _has_room(node: Mapping[str, Any], model: str, count: int, needs_ip: bool) -> bool:
    room = _dict(node.get("available_resources"))
    if needs_ip and room.get("has_public_ip_available") is False:
        return False
    free = (_number(gpu.get("availableCount")) or 0 for gpu in _rows(room.get("gpus")) if gpu.get("v0Name") == model)
    return any(each >= count for each in free)


def _place(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return _dict(node.get("location"))


# --- The order ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    location: str
    gpu: str
    count: int
    forwards: bool  # the place has no dedicated IPs


def target_of(quote_id: str) -> Target:
    """What a quote's id says; it says all, so a create needs no memory of the menu. Raises Refused."""
    found = _QUOTE.fullmatch(quote_id)
    if found is None:
        raise Refused("this is not the id of a TensorDock offer", why=Refusal.INVALID)
    return Target(found[1], found[2], int(found[3] or 1), found[4] is not None)


def create_body(spec: LaunchSpec, image: str) -> dict[str, Any]:
    """The order. Raises Refused, with nothing sent, if it can't be a valid one."""
    target = target_of(spec.quote_id)
    if not spec.ssh_public_keys:
        raise Refused("TensorDock takes no machine without an SSH key", why=Refusal.INVALID)
    vcpus, ram_gb = shape(target.count, {})
    attributes: dict[str, Any] = {
        "name": spec.label,
        "type": "virtualmachine",
        "image": image,
        "resources": {
            "vcpu_count": spec.cpu_cores + spec.cpu_cores % 2 or vcpus,
            "ram_gb": next((s for s in RAM_SIZES if s >= spec.ram_gb), RAM_SIZES[-1]) if spec.ram_gb else ram_gb,
            "storage_gb": max(MIN_DISK_GB, -(-spec.disk_gb // DISK_STEP_GB) * DISK_STEP_GB),
            "gpus": {target.gpu: {"count": target.count}},
        },
        "location_id": target.location,
        "ssh_key": spec.ssh_public_keys[0],
        "cloud_init": {"package_update": False, "package_upgrade": False, "runcmd": runcmd(spec)},
    }
    if target.forwards:
        attributes["port_forwards"] = [{"internal_port": 22, "external_port": 22}]  # another may be granted
    else:
        attributes["useDedicatedIp"] = True
    return {"data": {"type": "virtualmachine", "attributes": attributes}}


# The package lock is held for minutes after a boot. Guarded, bounded and last but one: it may never keep a
# machine from being reached, nor from ending.
_NVIDIA = (
    "nvidia-smi >/dev/null 2>&1 || { systemctl stop unattended-upgrades; "
    "timeout 300 sh -c 'while fuser /var/lib/dpkg/lock-frontend >/dev/null 2>&1; do sleep 5; done'; "
    "DEBIAN_FRONTEND=noninteractive timeout 300 dpkg --configure -a; "
    "timeout 300 dkms autoinstall; modprobe nvidia; } || true"
)


def runcmd(spec: LaunchSpec) -> list[str]:
    """Lines for the first boot, as root: keys, the dead man's switch, no passwords, the driver, then `onstart`."""
    lines = key_lines(spec.ssh_public_keys)
    if spec.hard_deadline is not None:
        lines += deadman.tensordock_runcmd(spec.hard_deadline)
    lines += [
        "mkdir -p /etc/ssh/sshd_config.d",
        # sshd takes the first value it reads, so this file has to sort before cloud-init's own.
        "echo 'PasswordAuthentication no' > /etc/ssh/sshd_config.d/00-gpu-shopper.conf",
        "systemctl reload ssh || systemctl reload sshd || true",
        _NVIDIA,
    ]
    if spec.onstart:
        lines += [
            f"echo {packed(spec.onstart)} | base64 -d > /opt/gpu-shopper-onstart",
            "chmod 700 /opt/gpu-shopper-onstart",
            "setsid bash /opt/gpu-shopper-onstart </dev/null >/var/log/gpu-shopper-onstart.log 2>&1 &",
        ]
    return lines


def packed(script: str) -> str:
    return base64.b64encode(script.encode()).decode()


def key_lines(keys: Sequence[str]) -> list[str]:
    """Appends, never overwrites; `user` does not exist on every image."""
    text = " ".join(quote(key) for key in keys)
    root = f"install -d -m 700 /root/.ssh && printf '%s\\n' {text} >> /root/.ssh/authorized_keys"
    home = "/home/user/.ssh"
    user = f"install -d -m 700 -o user -g user {home} && printf '%s\\n' {text} >> {home}/authorized_keys"
    return [
        f"{root} && chmod 600 /root/.ssh/authorized_keys",
        f"! id user || {{ {user} && chmod 600 {home}/authorized_keys && chown user:user {home}/authorized_keys; }}",
    ]


# --- Lenient reading ----------------------------------------------------------------------------------


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _number(value: Any) -> Decimal | None:
    """Numbers have come as text, and whole ones as fractions. None if it is no number, or below zero."""
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and 0 <= number < 10**9 else None


def _times(amount: int, rate: Decimal | None) -> Decimal | None:
    return None if rate is None else amount * rate


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(part)
