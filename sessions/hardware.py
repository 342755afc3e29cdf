"""What `nvidia-smi` and `df` on a rented machine say, and whether that is what the offer promised.

Pure. Hosts lie or break: a 12.8 driver sold as 12.9, 22 GB of disk where 120 were asked, a GPU missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inventory.gpus import normalise

QUERY = "nvidia-smi --query-gpu=name,memory.total,driver_version,utilization.gpu --format=csv,noheader,nounits"
CUDA = "nvidia-smi"
DISK = "df -Pk /"

_CUDA_VERSION = re.compile(r"CUDA Version:\s*(\d+\.\d+)")

# A 24 GB card says 24564 MiB, an 80 GB one 81559; cards with ECC show up to 7 % less than their name.
VRAM_TOLERANCE = 0.07
# File systems keep some blocks for themselves, and images take their part.
DISK_TOLERANCE = 0.20


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    vram_mib: int
    driver: str
    busy_percent: int | None  # None: the driver does not say


@dataclass(frozen=True, slots=True)
class Promise:
    gpu_type: str  # normalised
    gpu_count: int
    vram_gb: int
    cuda_version: str = ""  # "" promises none
    disk_gb: int = 0


def gpus(query_output: str) -> list[Gpu]:
    """The lines of `QUERY`. Raises ValueError if it is not such output."""
    return [_gpu(line) for line in query_output.splitlines() if line.strip()]


def _gpu(line: str) -> Gpu:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 4 or not cells[1].isdigit():
        raise ValueError("not the output of nvidia-smi")
    return Gpu(cells[0], int(cells[1]), cells[2], int(cells[3]) if cells[3].isdigit() else None)


def cuda_version(smi_output: str) -> str:
    """The highest CUDA version that the driver runs, such as "12.8"; "" if not told."""
    found = _CUDA_VERSION.search(smi_output)
    return found.group(1) if found else ""


def disk_total_gb(df_output: str) -> float | None:
    """The size of the root file system in GB (10^9 bytes) from `DISK`; None if not told."""
    lines = df_output.strip().splitlines()
    cells = lines[-1].split() if len(lines) >= 2 else []
    return int(cells[1]) * 1024 / 1e9 if len(cells) >= 6 and cells[1].isdigit() else None


def mismatches(promise: Promise, found: list[Gpu], cuda: str, disk_gb: float | None) -> list[str]:
    """What is not as promised, a sentence each; [] if all is well. What is not told is no mismatch."""
    wrong = []
    if len(found) != promise.gpu_count:
        wrong.append(f"{promise.gpu_count} GPUs promised, {len(found)} found")
    for gpu in found:
        if normalise(gpu.name) != promise.gpu_type and not _same_family(gpu.name, promise.gpu_type):
            wrong.append(f"{promise.gpu_type} promised, {gpu.name} found")
        if gpu.vram_mib / 1024 < promise.vram_gb * (1 - VRAM_TOLERANCE):
            wrong.append(f"{promise.vram_gb} GB of VRAM promised, {gpu.vram_mib} MiB found")
    if promise.cuda_version and cuda and _version(cuda) < _version(promise.cuda_version):
        wrong.append(f"CUDA {promise.cuda_version} promised, the driver runs {cuda}")
    if promise.disk_gb and disk_gb is not None and disk_gb < promise.disk_gb * (1 - DISK_TOLERANCE):
        wrong.append(f"{promise.disk_gb} GB of disk asked for, {disk_gb:.0f} GB found")
    return wrong


def _same_family(name: str, gpu_type: str) -> bool:
    """`nvidia-smi` leaves out words that menus add, such as PCIe or the memory size."""
    told, promised = set(normalise(name).lower().split()), set(gpu_type.lower().split())
    return bool(told) and (told <= promised or promised <= told)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
