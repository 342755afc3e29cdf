"""`nvidia-smi` on a sandbox machine: its table, its list, and its answers to `--query-gpu`.

Pure.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from providers.sandbox.guest import Guest

# The driver that came with each version of CUDA; one of several each time.
DRIVERS = {
    "11.4": "470.256.02",
    "11.8": "520.61.05",
    "12.0": "525.147.05",
    "12.1": "530.41.03",
    "12.2": "535.183.01",
    "12.4": "550.144.03",
    "12.5": "555.58.02",
    "12.6": "560.35.05",
    "12.7": "565.57.01",
    "12.8": "570.133.20",
    "12.9": "575.64.03",
    "13.0": "580.95.05",
}
OLD_CUDA = "11.4"
OTHER_GPU, OTHER_VRAM_MB = "GTX 1080 Ti", 11264
_NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
_UNITS = {"memory.total": "MiB", "memory.used": "MiB", "memory.free": "MiB", "utilization.gpu": "%"}


class Answer(NamedTuple):
    exit_status: int
    stdout: str


@dataclass(frozen=True, slots=True)
class _Gpu:
    index: int
    uuid: str
    name: str
    vram_mb: int
    used_mb: int
    busy: int

    def cell(self, key: str, driver: str) -> str:
        """Raises KeyError: `nvidia-smi` has no such field, or this stand-in does not know it."""
        return {
            "index": str(self.index),
            "uuid": self.uuid,
            "name": self.name,
            "gpu_name": self.name,
            "count": "1",
            "driver_version": driver,
            "memory.total": str(self.vram_mb),
            "memory.used": str(self.used_mb),
            "memory.free": str(self.vram_mb - self.used_mb),
            "utilization.gpu": str(self.busy),
        }[key]


def run(guest: Guest, words: Iterable[str]) -> Answer | None:
    """What `nvidia-smi` with these arguments answers; None if it is not installed."""
    if "gpu.absent" in guest.faults:
        return None
    if "gpu.driver" in guest.faults:
        return Answer(9, _NO_DRIVER)
    gpus = _gpus(guest)
    if not gpus:
        return Answer(6, "No devices were found\n")
    cuda = OLD_CUDA if "cuda.old" in guest.faults else guest.cuda
    options = dict(word.partition("=")[::2] for word in words)
    if "--query-gpu" in options:
        return _query(gpus, options["--query-gpu"].split(","), options.get("--format", "").split(","), _driver(cuda))
    if "-L" in options or "--list-gpus" in options:
        return Answer(0, "".join(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})\n" for gpu in gpus))
    return Answer(0, _table(gpus, _driver(cuda), cuda))


def _gpus(guest: Guest) -> list[_Gpu]:
    name, vram_mb = guest.gpu_name, guest.vram_mb
    if "gpu.other" in guest.faults:
        name, vram_mb = OTHER_GPU, OTHER_VRAM_MB
    if "gpu.vram" in guest.faults:
        vram_mb //= 2
    busy = guest.gpu_utilisation if isinstance(guest.gpu_utilisation, int) else guest.gpu_utilisation()
    used = vram_mb * busy // 100 or 1
    count = guest.gpu_count - ("gpu.fewer" in guest.faults)
    return [_Gpu(i, _uuid(guest.machine_id, i), driver_name(name), vram_mb, used, busy) for i in range(count)]


def _uuid(machine_id: str, index: int) -> str:
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_URL, f'sandbox:{machine_id}:{index}')}"


def driver_name(menu_name: str) -> str:
    """What the driver calls a GPU that a menu calls "RTX 4090": "NVIDIA GeForce RTX 4090"."""
    name = menu_name.removeprefix("NVIDIA ")
    if re.match(r"(GTX|RTX) \d{4}\b(?! ?Ada)", name):
        name = f"GeForce {name}"
    if name.startswith("GeForce "):
        name = re.sub(r"( PCIe)?( \d+ ?GB)?$", "", name)
    return f"NVIDIA {name}"


def _driver(cuda: str) -> str:
    return DRIVERS.get(cuda, DRIVERS["12.8"])


def _query(gpus: list[_Gpu], fields: list[str], formats: list[str], driver: str) -> Answer:
    fields = [name.strip() for name in fields]
    bare = "nounits" in formats
    try:
        rows = [[_with_unit(name, gpu.cell(name, driver), bare) for name in fields] for gpu in gpus]
    except KeyError as error:
        return Answer(2, f'Field "{error.args[0]}" is not a valid field to query.\n\n')
    if "noheader" not in formats:
        rows.insert(0, [f"{name} [{_UNITS[name]}]" if name in _UNITS else name for name in fields])
    return Answer(0, "".join(", ".join(row) + "\n" for row in rows))


def _with_unit(name: str, value: str, bare: bool) -> str:
    return value if bare or name not in _UNITS else f"{value} {_UNITS[name]}"


_RULE = "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22
_COLUMNS = (
    ("GPU  Name                 Persistence-M", "Bus-Id          Disp.A", "Volatile Uncorr. ECC"),
    ("Fan  Temp   Perf          Pwr:Usage/Cap", "Memory-Usage", "GPU-Util  Compute M."),
)


def _table(gpus: list[_Gpu], driver: str, cuda: str) -> str:
    head = f"NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda}"
    lines = [f"+{'-' * 89}+", f"| {head:<87} |", f"|{_RULE}+", *(_row(*cells) for cells in _COLUMNS)]
    lines.append(f"|{_RULE.replace('-', '=')}|")
    for gpu in gpus:
        lines.append(_row(f"{gpu.index:>3}  {gpu.name:<29}  On", f"00000000:{gpu.index + 1:02X}:00.0 Off", "N/A"))
        memory = f"{gpu.used_mb}MiB / {gpu.vram_mb:>6}MiB"
        lines.append(_row("30%   41C    P8              21W / 450W", memory, f"{gpu.busy}%      Default"))
    return "\n".join([*lines, f"+{_RULE}+", ""])


def _row(left: str, middle: str, right: str) -> str:
    return f"| {left:<39} | {middle:>22} | {right:>20} |"
