"""What Vast.ai's rows mean: offers, instances, charges, in their JSON form, to our values.

Pure. A row comes from outside: every field may be missing, null, or of another type. Units there: USD per
hour for the whole machine, storage in USD per GB and month of 720 hours, memory in MB, times in Unix seconds.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from providers.base import Charge, Machine, MachineState, NotUnderstood, PriceParts, Quote, Rates, SshTarget
from providers.http import SHOWN_BYTES, one_line, redact
from providers.money import micros

Row = Mapping[str, Any]

HOURS_PER_MONTH = 720
MIN_DISK_GB = 8
STATUS_LENGTH = 200  # characters of a status that are shown


# --- Fields -------------------------------------------------------------------------------------------


def number(value: Any) -> Decimal | None:
    """A finite number of a size that occurs; None for anything else, `true` too."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    found = Decimal(value)
    return found if found.is_finite() and abs(found) < 10**15 else None


def identifier(value: Any) -> str:
    """An id as we write it; "" if it is none."""
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63
    return str(value) if whole else ""


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return int(number(value) or 0)


def _price(value: Any) -> Decimal | None:
    """A price is never negative; a negative one is not known."""
    found = number(value)
    return found if found is not None and 0 <= found < 10**6 else None


def _instant(value: Any) -> datetime | None:
    found = number(value)
    if found is None or not 0 < found < 4_000_000_000:
        return None
    return datetime.fromtimestamp(float(found), UTC)


def _storage_per_gb(row: Row) -> Decimal | None:
    monthly = _price(row.get("storage_cost"))
    return None if monthly is None else monthly / HOURS_PER_MONTH


def host(row: Row) -> str:
    """The physical host. Not `machine_id`: a host that is installed anew comes back under another one."""
    owner, address = identifier(row.get("host_id")), _address(row)
    if owner and address:
        return f"{owner}@{address}"
    machine = identifier(row.get("machine_id"))
    return f"machine-{machine}" if machine else ""


def _address(row: Row) -> str:
    # Some hosts have a line break at the end of it [vast-cli#75].
    try:
        return str(ipaddress.ip_address(_text(row.get("public_ipaddr"))))
    except ValueError:
        return ""


# --- Offers -------------------------------------------------------------------------------------------


def quote(row: Row, *, disk_gb: int) -> Quote | None:
    """The offer if it fits what we asked for; None if not: the search does not honour every filter [gpuhunt]."""
    found = identifier(row.get("ask_contract_id") or row.get("id"))
    gpu, cores = _price(row.get("dph_base")), number(row.get("cpu_cores"))
    count, disk = _whole(row.get("num_gpus")), _whole(row.get("disk_space"))
    if not (found and gpu and cores and count > 0 and _text(row.get("gpu_name")) and _can_be_rented(row)):
        return None
    if disk < max(disk_gb, MIN_DISK_GB):
        return None
    effective = number(row.get("cpu_cores_effective")) or cores
    place, _, country = _text(row.get("geolocation")).rpartition(",")
    return Quote(
        provider_id=found,
        gpu_name=_text(row.get("gpu_name")),
        gpu_count=count,
        vram_gb=round((number(row.get("gpu_ram")) or 0) / 1024),
        rates=Rates(gpu=gpu, storage_per_gb=_storage_per_gb(row)),
        location=place.strip(),
        country=_country(country),
        reliability=_reliability(row),
        max_duration_hours=float((number(row.get("duration")) or 0) / 3600),
        cuda_version=_cuda(row.get("cuda_max_good")),
        cpu_cores=int(effective),
        # The RAM told is the whole host's; ours is the share of the cores.
        ram_gb=int((number(row.get("cpu_ram")) or 0) * min(effective / cores, Decimal(1)) / 1024),
        disk_gb=disk,
        min_disk_gb=MIN_DISK_GB,
        internet_mbps_down=float(number(row.get("inet_down")) or 0),
        host=host(row),
    )


def _can_be_rented(row: Row) -> bool:
    return (
        row.get("rentable") is not False
        and row.get("rented") is not True
        and row.get("is_bid") is not True
        and row.get("verification") == "verified"
        and _whole(row.get("direct_port_count")) >= 2
    )


def _country(text: str) -> str:
    code = text.strip().upper()
    return code if len(code) == 2 and code.isascii() and code.isalpha() else ""


def _reliability(row: Row) -> float | None:
    for name in ("reliability2", "reliability"):
        found = number(row.get(name))
        if found is not None and 0 <= found <= 1:
            return float(found)
    return None


def _cuda(value: Any) -> str:
    found = number(value)
    return f"{found:.1f}" if found else ""


# --- Instances ----------------------------------------------------------------------------------------


def machine(row: Row, now: datetime) -> Machine:
    """Raises NotUnderstood if the row has no id: such a row can't be told from any other."""
    found = identifier(row.get("id"))
    if not found:
        raise NotUnderstood("vastai: an instance without an id")
    label = row.get("label") if "label" in row else False
    return Machine(
        id=found,
        label="" if label is None else label if isinstance(label, str) else None,
        state=verdict(row, now),
        status=status(row),
        ssh_targets=ssh_targets(row),
        gpu_name=_text(row.get("gpu_name")),
        gpu_count=max(0, _whole(row.get("num_gpus"))),
        interruptible=row["is_bid"] if isinstance(row.get("is_bid"), bool) else None,
        price=price(row),
        started_at=_instant(row.get("start_date")),
        ends_at=_instant(row.get("end_date")),
        host=host(row),
    )


def price(row: Row) -> PriceParts | None:
    """As rented, while running; bandwidth is billed on top."""
    gpu, disk = _price(row.get("dph_base")), _price(row.get("disk_space"))
    storage = _storage_per_gb(row)
    if gpu is None or disk is None or storage is None:
        return None
    return PriceParts(gpu=micros(gpu), storage=micros(storage * disk))


def status(row: Row) -> str:
    """The provider's words, for people: `loading: 4c7d45f7c63c: Download complete`."""
    message = redact(_text(row.get("status_msg"))[:SHOWN_BYTES], _secrets(row))
    words = [_text(row.get("actual_status")) or "made", message]
    return one_line(": ".join(word for word in words if word), STATUS_LENGTH)


def _secrets(row: Row) -> list[str]:
    """What the row itself knows of the consumer's and its status may echo: a failed start quotes its command line."""
    env = row.get("extra_env")
    pairs = list(env.items()) if isinstance(env, dict) else env if isinstance(env, list) else []
    values = [pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return [told for told in (*values, row.get("jupyter_token")) if isinstance(told, str)]


# Vast.ai says why a start failed in the free text only. These were all seen; the set is open. The bare word
# "error" is not among them: build logs echo it, and the instance runs all the same.
BROKEN_TEXTS = (
    # the host's container runtime or GPU
    "OCI runtime create failed",
    "failed to inject CDI devices",
    "GPU error, unable to start instance",
    "nvidia-container-cli",
    "unsatisfied condition: cuda",
    "unknown or invalid runtime",
    "driver failed programming external connectivity",
    "error writing dockerfile",
    "Cannot connect to the Docker daemon",
    "Error: Internal error.",
    "Error: container is mounted",
    "machine does not support VMs",
    # its way to the registry
    "download failed after attempts",
    "proxyconnect tcp",
    # our image
    "manifest unknown",
    "pull access denied",
)
MAY_RECOVER = "Retrying in"

_HALTED = ("stopped", "exited")
_ON_ITS_WAY = ("", "created", "scheduling", "loading", "running", "frozen", "rebooting", "restarting")


def verdict(row: Row, now: datetime) -> MachineState:
    """What the four status words and the free text mean together, in one look.

    One look is not enough to act on: BROKEN needs a second look that says the same, and DOWN a minute, as
    `exited` was seen shortly after a start, and once while SSH worked. That is the caller's to do.
    The text never makes a machine better than its states do: "success, running" stays when all is stopped.
    """
    actual, intended = _text(row.get("actual_status")), _text(row.get("intended_status"))
    books = {_text(row.get("cur_state")), intended, _text(row.get("next_state"))}
    if actual == "running" and intended in ("running", ""):
        return MachineState.UP
    if actual != "running" and _says_broken(_text(row.get("status_msg"))):
        return MachineState.BROKEN
    if books == {"stopped"} or actual in _HALTED or _over(row, now):
        return MachineState.DOWN
    if actual in ("unknown", "offline") or (actual == "running" and intended == "stopped"):
        return MachineState.DOWN
    if actual in ("destroyed", "terminated"):
        return MachineState.LEAVING
    return MachineState.STARTING if actual in _ON_ITS_WAY else MachineState.UNKNOWN


def _says_broken(message: str) -> bool:
    return MAY_RECOVER not in message and any(text in message for text in BROKEN_TEXTS)


def _over(row: Row, now: datetime) -> bool:
    ends_at = _instant(row.get("end_date"))
    return ends_at is not None and now >= ends_at and _text(row.get("cur_state")) == "stopped"


_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def ssh_targets(row: Row) -> tuple[SshTarget, ...]:
    """Direct first, then Vast.ai's proxy; both, because either may be blocked. () while neither is known."""
    return tuple(target for target in (_direct(row), _proxy(row)) if target)


def _direct(row: Row) -> SshTarget | None:
    ports = row.get("ports")
    mapped = ports.get("22/tcp") if isinstance(ports, dict) else None
    first = mapped[0] if isinstance(mapped, list) and mapped else None
    port = _port(first.get("HostPort")) if isinstance(first, dict) else 0
    address = _address(row)
    return SshTarget(address, port, "root") if address and port else None


def _proxy(row: Row) -> SshTarget | None:
    name, port = _text(row.get("ssh_host")), _port(row.get("ssh_port"))
    if not port or not _HOST_NAME.fullmatch(name):
        return None
    # With Jupyter in the runtype the port told is Jupyter's, and SSH has the next one [vast-cli#79].
    port = _port(port + ("jupyter" in _text(row.get("image_runtype"))))
    return SshTarget(name, port, "root") if port else None


def _port(value: Any) -> int:
    """1..65535, from a number or its text; 0 if it is none."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value.strip()):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 < value <= 65535 else 0


# --- Charges ------------------------------------------------------------------------------------------

_KINDS = {"gpu": "gpu", "disk": "storage", "bwd": "network", "bwu": "network"}


def charges(row: Row) -> Iterator[Charge]:
    """The lines of one instance's charge. What they leave of its amount is a line of its own.

    Raises NotUnderstood if it does not say for which instance, when, or how much.
    """
    metadata = row.get("metadata")
    label = _text(metadata.get("label")) if isinstance(metadata, dict) else ""
    source = _text(row.get("source")).removeprefix("instance-")
    if not source.isdecimal():
        raise NotUnderstood("vastai: a charge that names no instance")
    lines = row.get("items")
    made = [_charge(line, source, label) for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    total = _charge({**row, "type": "other"}, source, label)
    rest = total.amount - sum(line.amount for line in made)
    yield from made
    if rest:
        yield Charge(
            machine_id=source,
            label=label,
            kind="other",
            started_at=total.started_at,
            ended_at=total.ended_at,
            amount=rest,
        )


def _charge(line: Row, source: str, label: str) -> Charge:
    start, end, amount = _instant(line.get("start")), _instant(line.get("end")), number(line.get("amount"))
    if start is None or end is None or amount is None:
        raise NotUnderstood("vastai: a charge without times or amount")
    return Charge(
        machine_id=source,
        label=label,
        kind=_KINDS.get(_text(line.get("type")), "other"),
        started_at=start,
        ended_at=end,
        amount=micros(amount),
    )
