"""Vast.ai: the verbs of `providers.base` over its REST API.

Facts are from its documentation (docs.vast.ai), its command line client, and public reports of its users up to
October 2026. The traps in short: a create that says `success: false` may have made a contract; a stale offer
comes as HTTP 400; a wrong key comes as 404; a destroyed machine reads `200 {"instances": null}`; the list is
paged by 25; a 2xx on a delete proves nothing.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import requests

from providers import deadman
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
from providers.http import Answer, Call, Client, NoPacer, Pacer, limited_for
from providers.money import micros

DEFAULT_URL = "https://console.vast.ai"
DEFAULT_IMAGE = "vastai/base-image:cuda-12.8.1-auto"

PAGE = 25  # the most that the listing gives at once
SEARCH_CAP = 64  # the most that a search gives, whatever is asked for
SEARCH_PAGES = 10
HOURS_OF_A_MONTH = 720  # by which Vast.ai's price of storage is meant
MAX_ONSTART = 3900  # docs: 4096 for start script and arguments together

# Seconds between two calls of one kind: the slower of the documented figures, plus a tenth.
_INTERVAL = {
    "quotes": 6.6, "list": 1.1, "get": 2.2, "create": 5.0, "destroy": 3.3, "relabel": 1.1, "attach_key": 2.2,
    "charges": 1.1, "account": 1.1,
}  # fmt: skip


class VastAI:
    name = "vastai"
    traits = Traits(
        settle=timedelta(minutes=10),
        boot_timeout=timedelta(minutes=15),
        min_disk_gb=8,
        can_relabel=True,
        takes_image=True,
        takes_template=True,
        takes_env=True,
        takes_onstart=True,
        has_charges=True,
        bills_stopped=False,
        dead_man="destroys",
    )

    def __init__(
        self, key: str, base_url: str = DEFAULT_URL, *, session: requests.Session | None = None, pacer: Pacer | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._client = Client(self.name, self.base_url, key, session=session, pacer=pacer)

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], *, session: requests.Session | None = None, pacer: Pacer | None = None
    ) -> VastAI | None:
        key = env.get("VASTAI_API_KEY", "").strip()
        if not key:
            return None
        if any(letter.isspace() for letter in key):
            raise ValueError("VASTAI_API_KEY: a key has no spaces in it")
        if pacer is None and env.get("PROVIDER_PACING") == "off":
            pacer = NoPacer()
        return cls(key, env.get("VASTAI_BASE_URL") or DEFAULT_URL, session=session, pacer=pacer)

    def __repr__(self) -> str:
        return f"VastAI({self.base_url})"

    # --- The menu -------------------------------------------------------------------------------------------

    def quotes(self, *, disk_gb: int) -> Sequence[Quote]:
        """On-demand offers of verified hosts, the cheapest first.

        A search gives at most 64 rows, so it is walked by price; beyond `SEARCH_PAGES` pages the dearest are
        left out.
        """
        found: dict[str, Quote] = {}
        floor = Decimal(0)
        for _ in range(SEARCH_PAGES):
            rows = self._search(disk_gb, floor)
            fresh = {quote.provider_id: quote for row in rows if (quote := quote_of(row))}
            before = len(found)
            found.update(fresh)
            prices = [price for row in rows if (price := _number(row.get("dph_total"))) is not None]
            if len(rows) < SEARCH_CAP or not prices or (len(found) == before and max(prices) <= floor):
                break
            floor = max(prices)
        return list(found.values())

    def _search(self, disk_gb: int, floor: Decimal) -> list[dict[str, Any]]:
        body = {
            "rentable": {"eq": True}, "rented": {"eq": False}, "verified": {"eq": True}, "external": {"eq": False},
            "direct_port_count": {"gte": 1}, "disk_space": {"gte": disk_gb}, "dph_total": {"gte": float(floor)},
            "duration": {"gte": 12 * 3600},
            "type": "ondemand", "allocated_storage": disk_gb, "order": [["dph_total", "asc"]], "limit": SEARCH_CAP,
        }  # fmt: skip
        answer = self._call("quotes", "POST", "/api/v0/bundles/", body=body, read=True)
        offers = answer.body.get("offers") if isinstance(answer.body, dict) else None
        if not _ok(answer) or not isinstance(offers, list):
            raise _not_understood(answer, "the search")
        return [row for row in offers if isinstance(row, dict)]

    # --- Machines -------------------------------------------------------------------------------------------

    def machines(self) -> Sequence[Machine]:
        rows: dict[str, dict[str, Any]] = {}
        token = ""
        while True:
            page, token, total = self._page(token)
            for row in page:
                rows[_id(row)] = row
            if not token:
                break
        if len(rows) < total:
            raise NotUnderstood(f"Vast.ai says that it has {total} instances and listed {len(rows)}")
        return [machine_of(row) for row in rows.values()]

    def _page(self, token: str) -> tuple[list[dict[str, Any]], str, int]:
        params = {"limit": str(PAGE), "order_by": '[{"col":"id","dir":"asc"}]'}
        if token:
            params["after_token"] = token
        answer = self._call("list", "GET", "/api/v1/instances/", params=params, read=True)
        body = answer.body
        if not _ok(answer) or not isinstance(body, dict) or body.get("success") is not True:
            raise _not_understood(answer, "the list of instances")
        rows, total, following = body.get("instances"), body.get("total_instances"), body.get("next_token")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not isinstance(total, int):
            raise _not_understood(answer, "the list of instances")
        if following is not None and (not isinstance(following, str) or following == token):
            raise _not_understood(answer, "the list of instances")
        return rows, following or "", total

    def machine(self, machine_id: str) -> Machine | None:
        answer = self._call("get", "GET", f"/api/v0/instances/{_checked(machine_id)}/", read=True)
        body = answer.body
        if _ok(answer) and isinstance(body, dict) and "instances" in body and body.get("success") is not False:
            row = body["instances"]
            if row is None:
                return None
            if isinstance(row, dict) and str(row.get("id")) == machine_id:
                return machine_of(row)
        if answer.status == 404 and _error(answer) in _GONE:
            return None
        raise _not_understood(answer, f"instance {machine_id}")

    def create(self, spec: LaunchSpec) -> str:
        body = create_body(spec, self.base_url)
        answer = self._call("create", "PUT", f"/api/v0/asks/{_checked(spec.quote_id)}/", body=body, timeout=60.0)
        contract = _contract(answer)
        if contract and _ok(answer) and answer.body.get("success") is True:
            return contract
        raise _create_failed(answer, contract)

    def destroy(self, machine_id: str) -> None:
        answer = self._call("destroy", "DELETE", f"/api/v0/instances/{_checked(machine_id)}/", body={}, timeout=60.0)
        if _ok(answer) and isinstance(answer.body, dict) and answer.body.get("success") is True:
            return
        if _error(answer) in _GONE and answer.status in (200, 404):
            return  # Gone, or another account's: its absence from the listing decides.
        raise _not_understood(answer, f"the destruction of {machine_id}")

    def attach_key(self, machine_id: str, public_key: str) -> None:
        # The path names the machine; an id in the body would override it.
        answer = self._call(
            "attach_key", "POST", f"/api/v0/instances/{_checked(machine_id)}/ssh/", body={"ssh_key": public_key}
        )
        told = str(answer.body.get("msg", "")) if isinstance(answer.body, dict) else ""
        if answer.status == 409 or "already associated" in told:
            return
        if not _ok(answer) or not isinstance(answer.body, dict) or answer.body.get("success") is not True:
            raise _not_understood(answer, f"the key for {machine_id}")

    def relabel(self, machine_id: str, label: str) -> None:
        answer = self._call("relabel", "PUT", f"/api/v0/instances/{_checked(machine_id)}/", body={"label": label})
        if not _ok(answer) or not isinstance(answer.body, dict) or answer.body.get("success") is not True:
            raise _not_understood(answer, f"the label of {machine_id}")

    # --- Money ----------------------------------------------------------------------------------------------

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        found: list[Charge] = []
        token = ""
        while True:
            rows, token = self._charges_page(since, until, token)
            for row in rows:
                found.extend(charges_of(row))
            if not token:
                return found

    def _charges_page(self, since: datetime, until: datetime, token: str) -> tuple[list[dict[str, Any]], str]:
        days = {"gte": int(since.timestamp()), "lte": int(until.timestamp())}
        params = {"select_filters": json.dumps({"day": days, "type": {"in": ["instance"]}}), "limit": "100"}
        if token:
            params["after_token"] = token
        answer = self._call("charges", "GET", "/api/v0/charges/", params=params, read=True)
        body = answer.body
        if not _ok(answer) or not isinstance(body, dict) or body.get("success") is not True:
            raise _not_understood(answer, "the charges")
        rows = body.get("results")
        if not isinstance(rows, list):
            raise _not_understood(answer, "the charges")
        return [row for row in rows if isinstance(row, dict)], body.get("next_token") or ""

    def account(self) -> Account:
        answer = self._call("account", "GET", "/api/v0/users/current/", read=True)
        body = answer.body
        if not _ok(answer) or not isinstance(body, dict) or not isinstance(body.get("id"), int):
            raise _not_understood(answer, "the account")
        credit = _number(body.get("credit"))  # `balance` is often 0; what can be spent is `credit`
        return Account(id=str(body["id"]), balance=None if credit is None else micros(credit))

    # --- Calls ----------------------------------------------------------------------------------------------

    def _call(
        self, operation: str, method: str, path: str, *, read: bool = False, params: Mapping[str, str] | None = None,
        body: Any = None, timeout: float = 30.0,
    ) -> Answer:  # fmt: skip
        call = Call(
            operation=operation, method=method, path=path, route=operation, params=params or {}, body=body,
            interval=_INTERVAL[operation], read_timeout=timeout, total_timeout=2 * timeout,
        )  # fmt: skip
        answer = self._client.read(call) if read else self._client.send_once(call)
        _raise_for_credentials(answer)
        if operation != "create":
            _raise_for_trouble(answer, operation)
        return answer


# --- What an answer means -------------------------------------------------------------------------------------


def _ok(answer: Answer) -> bool:
    return 200 <= answer.status < 300


_GONE = {"no_such_instance", "not_found", "instances_not_found"}


def _error(answer: Answer) -> str:
    return str(answer.body.get("error") or "") if isinstance(answer.body, dict) else ""


def _message(answer: Answer) -> str:
    """The provider's own sentence, shortened, for people."""
    body = answer.body if isinstance(answer.body, dict) else {}
    text = body.get("msg") or body.get("message") or body.get("detail") or body.get("error") or ""
    return " ".join(str(text).split())[:200] or f"HTTP {answer.status} without a known text"


def _raise_for_credentials(answer: Answer) -> None:
    """A wrong key answers 404 `auth_error`: looked at before the status, lest it be read as "gone"."""
    if _error(answer) == "auth_error" or answer.status == 401:
        raise Unauthorized(f"Vast.ai rejects the key: {_message(answer)}")


def is_rate_limited(answer: Answer) -> bool:
    return answer.status == 429 or _error(answer) in ("rate_limit_exceeded", "HTTPTooManyRequests")


def _raise_for_trouble(answer: Answer, operation: str) -> None:
    if is_rate_limited(answer):
        raise Unavailable(f"Vast.ai limits the rate of {operation}", retry_after=limited_for(answer))
    if answer.status >= 500 or 300 <= answer.status < 400:
        raise Unavailable(f"Vast.ai answered {operation} with HTTP {answer.status}")


def _not_understood(answer: Answer, what: str) -> NotUnderstood:
    return NotUnderstood(f"Vast.ai's answer about {what} is not one that we know: HTTP {answer.status}: {_message(answer)}")


def _contract(answer: Answer) -> str | None:
    """`new_contract` is the machine's id, on whatever status it comes."""
    found = answer.body.get("new_contract") if isinstance(answer.body, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | str):
        return None
    return str(found) if str(found).isdigit() and int(found) > 0 else None


_NO_MONEY = ("insufficient_credit", "missing_billing", "spend_rate_limit", "lacks credit", "lack credit", "insufficient credit")


def _create_failed(answer: Answer, contract: str | None) -> Exception:
    """Each known form of a refusal; everything else may have happened."""
    message, error, text = _message(answer), _error(answer), answer.text.lower()
    if is_rate_limited(answer):
        return Refused(f"Vast.ai limits the rate of creates: {message}", why=Refusal.BUSY, machine_id=contract)
    if contract:
        return Refused(f"made, but not started: {message}", why=Refusal.OFFER_GONE, machine_id=contract)
    if answer.status in (408, 409, 425) or answer.status >= 500 or 300 <= answer.status < 400:
        return Unavailable(f"Vast.ai answered the create with HTTP {answer.status}")
    if not isinstance(answer.body, dict) or _ok(answer):
        return NotUnderstood(f"Vast.ai's answer to the create names no contract: HTTP {answer.status}: {message}")
    if "no_such_ask" in text:
        return Refused(f"the offer is gone: {message}", why=Refusal.OFFER_GONE)
    if any(word in text for word in _NO_MONEY):
        return Refused(f"the account lacks money: {message}", why=Refusal.NO_MONEY)
    if error == "invalid_price":
        return Refused(f"the price has moved: {message}", why=Refusal.PRICE)
    if "blacklisted host" in text or "not your own" in text:
        return Refused(f"this host won't have us: {message}", why=Refusal.HOST)
    if 400 <= answer.status < 500:
        return Refused(f"Vast.ai takes the request for wrong: {message}", why=Refusal.INVALID)
    return NotUnderstood(f"Vast.ai's answer to the create is not one that we know: HTTP {answer.status}: {message}")


# --- What we send -----------------------------------------------------------------------------------------------


def create_body(spec: LaunchSpec, base_url: str = DEFAULT_URL) -> dict[str, Any]:
    """`cancel_unavail`, or an offer that can't start would leave a stopped contract whose disk bills."""
    body: dict[str, Any] = {
        "client_id": "me",
        "label": spec.label,
        "disk": spec.disk_gb,
        "runtype": "ssh_direc ssh_proxy",
        "target_state": "running",
        "cancel_unavail": True,
        "env": dict(spec.env),
        "onstart": onstart(spec, base_url),
    }
    if spec.template_hash_id:
        body["template_hash_id"] = spec.template_hash_id
    if spec.image or not spec.template_hash_id:
        body["image"] = with_tag(spec.image or DEFAULT_IMAGE)
    return body


def with_tag(image: str) -> str:
    """An image without a tag makes Vast.ai answer `server_error`."""
    return image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"


def onstart(spec: LaunchSpec, base_url: str = DEFAULT_URL) -> str:
    """Our keys are appended, the dead man's switch is armed, then the consumer's own script runs."""
    keys = "\n".join(spec.ssh_public_keys)
    lines = [
        "touch ~/.no_auto_tmux; mkdir -p ~/.ssh; chmod 700 ~/.ssh",
        f"cat >> ~/.ssh/authorized_keys <<'GPU_SHOPPER_KEYS'\n{keys}\nGPU_SHOPPER_KEYS",
        "chmod 600 ~/.ssh/authorized_keys",
    ]
    if spec.hard_deadline is not None:
        lines.append(deadman.vastai_script(spec.hard_deadline, base_url))
    lines.append(spec.onstart)
    text = "\n".join(line for line in lines if line)
    return text if len(text) <= MAX_ONSTART else _packed(text)


def _packed(text: str) -> str:
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return f"echo {packed} | base64 -d | gunzip > /tmp/gpu-shopper-onstart; sh /tmp/gpu-shopper-onstart"


# --- What we read -------------------------------------------------------------------------------------------------


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


def _int(value: Any) -> int:
    number = _number(value)
    return int(number) if number is not None else 0


def _float(value: Any) -> float:
    number = _number(value)
    return float(number) if number is not None else 0.0


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _instant(value: Any) -> datetime | None:
    number = _number(value)
    if number is None or number <= 0:
        return None
    try:
        return datetime.fromtimestamp(float(number), UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _checked(number: str) -> str:
    """Ids are numbers; anything else never gets into a path."""
    if not number.isdigit():
        raise NotUnderstood(f"{number[:40]!r} is not an id of Vast.ai's")
    return number


def _id(row: Mapping[str, Any]) -> str:
    found = row.get("id")
    if isinstance(found, bool) or not isinstance(found, int):
        raise NotUnderstood("an instance without an id is listed")
    return str(found)


def quote_of(row: Mapping[str, Any]) -> Quote | None:
    """A row of a search; None if it is not what was asked for, since filters are not always honoured."""
    number, gpu, storage = row.get("ask_contract_id") or row.get("id"), _number(row.get("dph_base")), _number(row.get("storage_cost"))
    wanted = row.get("rentable") is True and not row.get("rented") and not row.get("is_bid")
    if not wanted or not isinstance(number, int) or gpu is None or gpu <= 0 or _text(row.get("verification")) != "verified":
        return None
    count = _int(row.get("num_gpus"))
    cores, share = _number(row.get("cpu_cores")), _number(row.get("cpu_cores_effective"))
    if count < 1 or not cores or not share:
        return None
    geolocation = _text(row.get("geolocation"))
    return Quote(
        provider_id=str(number),
        gpu_name=_text(row.get("gpu_name")),
        gpu_count=count,
        vram_gb=round(_float(row.get("gpu_ram")) / 1024),
        rates=Rates(gpu=gpu, storage_per_gb=None if storage is None else storage / HOURS_OF_A_MONTH),
        location=geolocation.strip(", "),
        country=_country(geolocation),
        reliability=_reliability(row),
        max_duration_hours=round(_float(row.get("duration")) / 3600, 1),
        cuda_version=str(_number(row.get("cuda_max_good")) or ""),
        cpu_cores=int(share),
        ram_gb=int(_float(row.get("cpu_ram")) * float(share / cores) / 1024),  # of the whole host, it seems
        disk_gb=_int(row.get("disk_space")),
        min_disk_gb=VastAI.traits.min_disk_gb,
        internet_mbps_down=_float(row.get("inet_down")),
        host=str(_int(row.get("machine_id"))),
    )


def _reliability(row: Mapping[str, Any]) -> float | None:
    told = row.get("reliability2", row.get("reliability"))
    number = _number(told)
    return None if number is None else max(0.0, min(1.0, float(number)))


def _country(geolocation: str) -> str:
    """The last two letters of `Quebec, CA` or `, US`."""
    last = geolocation.rpartition(",")[2].strip()
    return last.upper() if re.fullmatch(r"[A-Za-z]{2}", last) else ""


def machine_of(row: Mapping[str, Any]) -> Machine:
    label = row.get("label")
    return Machine(
        id=_id(row),
        # Each row has the member; null is "has none".
        label=(label if isinstance(label, str) else "") if "label" in row else None,
        state=verdict(row),
        status=status_of(row),
        ssh_targets=ssh_targets(row),
        gpu_name=_text(row.get("gpu_name")),
        gpu_count=_int(row.get("num_gpus")),
        interruptible=row["is_bid"] if isinstance(row.get("is_bid"), bool) else None,
        price=_price(row),
        started_at=_instant(row.get("start_date")),
        ends_at=_instant(row.get("end_date")),
        host=str(_int(row.get("machine_id"))) if row.get("machine_id") else "",
    )


def _price(row: Mapping[str, Any]) -> PriceParts | None:
    gpu, storage, disk = (_number(row.get(name)) for name in ("dph_base", "storage_cost", "disk_space"))
    if gpu is None or storage is None or disk is None:
        return None
    return PriceParts(gpu=micros(gpu), storage=micros(storage * disk / HOURS_OF_A_MONTH))


def status_of(row: Mapping[str, Any]) -> str:
    words = _text(row.get("actual_status")) or "not reported yet"
    message = " ".join(_text(row.get("status_msg")).split())
    return f"{words}: {message}"[:300] if message else words


# Texts of hosts that can't start the container; an open set, seen verbatim. The bare word "error" is not
# among them: build logs echo it while the machine goes on to run.
HOST_BROKEN = (
    "OCI runtime create failed", "failed to inject CDI devices", "GPU error, unable to start instance",
    "nvidia-container-cli", "unsatisfied condition: cuda", "unknown or invalid runtime",
    "download failed after attempts", "proxyconnect tcp", "driver failed programming external connectivity",
    "error writing dockerfile", "Cannot connect to the Docker daemon", "Error: Internal error.",
    "Error: container is mounted", "machine does not support VMs", "manifest unknown", "pull access denied",
)  # fmt: skip


def verdict(row: Mapping[str, Any]) -> MachineState:
    """What the row's words mean. DOWN and BROKEN may be reports that trail behind: who reads this looks twice."""
    actual, intended = _text(row.get("actual_status")), _text(row.get("intended_status"))
    contract = {_text(row.get(name)) for name in ("cur_state", "intended_status", "next_state")}
    if actual == "running" and intended == "running":
        return MachineState.UP
    message = _text(row.get("status_msg"))
    if actual != "running" and "Retrying in" not in message and any(text in message for text in HOST_BROKEN):
        return MachineState.BROKEN
    if contract == {"stopped"}:
        return MachineState.DOWN
    if actual in ("stopped", "exited", "unknown", "offline", "frozen"):
        return MachineState.DOWN
    if actual in ("destroyed", "terminated"):
        return MachineState.LEAVING
    if actual in ("", "created", "loading", "rebooting", "restarting", "scheduling", "running"):
        return MachineState.STARTING
    return MachineState.UNKNOWN


def ssh_targets(row: Mapping[str, Any]) -> tuple[SshTarget, ...]:
    """Direct first, then through the proxy: either can be blocked."""
    return tuple(target for target in (_direct(row), *_proxies(row)) if target is not None)


def _direct(row: Mapping[str, Any]) -> SshTarget | None:
    ports, host = row.get("ports"), _text(row.get("public_ipaddr"))
    bindings = ports.get("22/tcp") if isinstance(ports, dict) else None
    first = bindings[0] if isinstance(bindings, list) and bindings else None
    port = _int(first.get("HostPort")) if isinstance(first, dict) else 0
    return SshTarget(host, port, "root") if host and 0 < port < 65536 else None


def _proxies(row: Mapping[str, Any]) -> Iterator[SshTarget]:
    host, port = _text(row.get("ssh_host")), _int(row.get("ssh_port"))
    if not host or not 0 < port < 65535:
        return
    shift = 1 if "jupyter" in _text(row.get("image_runtype")) else 0
    yield SshTarget(host, port + shift, "root")


_KINDS = {"gpu": "gpu", "disk": "storage", "bwd": "network", "bwu": "network"}


def charges_of(row: Mapping[str, Any]) -> Iterator[Charge]:
    """The lines of one instance's charges."""
    machine_id = _text(row.get("source")).removeprefix("instance-")
    metadata = row.get("metadata")
    label = _text(metadata.get("label")) if isinstance(metadata, dict) else ""
    items = row.get("items")
    for item in items if isinstance(items, list) and items else [row]:
        began, ended, amount = _instant(item.get("start")), _instant(item.get("end")), _number(item.get("amount"))
        if began is None or ended is None or amount is None or not machine_id.isdigit():
            continue
        kind = _KINDS.get(_text(item.get("type")), "other")
        yield Charge(machine_id=machine_id, label=label, kind=kind, started_at=began, ended_at=ended, amount=micros(amount))


