"""What the stand-ins have to offer. Deterministic: the same seed makes the same menu."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Any

# name at Vast.ai, v0 name at TensorDock, MB of VRAM, dollars an hour for one, nvidia-smi's name
MODELS: list[tuple[str, str, int, float, str]] = [
    ("RTX 4090", "geforcertx4090-pcie-24gb", 24564, 0.38, "NVIDIA GeForce RTX 4090"),
    ("RTX 3090", "geforcertx3090-pcie-24gb", 24576, 0.19, "NVIDIA GeForce RTX 3090"),
    ("RTX 5090", "geforcertx5090-pcie-32gb", 32607, 0.62, "NVIDIA GeForce RTX 5090"),
    ("RTX A6000", "rtxa6000-pcie-48gb", 49140, 0.45, "NVIDIA RTX A6000"),
    ("L40S", "l40s-pcie-48gb", 46068, 0.79, "NVIDIA L40S"),
    ("A100 PCIE", "a100-pcie-80gb", 81920, 1.05, "NVIDIA A100 80GB PCIe"),
    ("A100 SXM4", "a100-sxm4-80gb", 81920, 1.19, "NVIDIA A100-SXM4-80GB"),
    ("H100 SXM", "h100-sxm5-80gb", 81559, 2.35, "NVIDIA H100 80GB HBM3"),
]
PLACES = [
    ("Quebec, CA", "CA"), ("Texas, US", "US"), ("Iceland, IS", "IS"), ("Bavaria, DE", "DE"),
    ("Sweden, SE", "SE"), ("Tokyo, JP", "JP"), (", US", "US"), ("Poland, PL", "PL"),
]  # fmt: skip
CITIES = [
    ("Riverton", "Ohio", "United States", 3), ("Manassas", "Virginia", "United States", 4),
    ("Frankfurt", "Hesse", "Germany", 3), ("Warsaw", "Mazovia", "Poland", 2), ("Oslo", "Oslo", "Norway", 4),
]  # fmt: skip


@dataclass
class Ask:
    """One offer of Vast.ai."""

    id: int
    machine_id: int
    host_id: int
    model: int
    count: int
    price: float  # for the GPUs, dollars an hour
    storage_cost: float  # dollars a GB and month
    place: int
    reliability: float
    disk_space: float
    cpu_cores: int
    cpu_share: float
    ram_mb: int
    cuda: float
    rented: bool = False

    @property
    def name(self) -> str:
        return MODELS[self.model][0]


def asks(chance: random.Random, how_many: int) -> dict[int, Ask]:
    found = {}
    for number in range(how_many):
        model = number % len(MODELS)
        count = (1, 1, 1, 2, 4, 8)[(number // len(MODELS)) % 6]
        cores = chance.choice([32, 48, 64, 128])
        ask = Ask(
            id=41_000_000 + number * 17, machine_id=50_000 + number, host_id=200_000 + number % 37, model=model,
            count=count, price=round(MODELS[model][3] * count * chance.uniform(0.9, 1.4), 4),
            storage_cost=chance.choice([0.1, 0.15, 0.18, 0.2]), place=chance.randrange(len(PLACES)),
            reliability=round(chance.uniform(0.95, 0.999), 4), disk_space=float(chance.randrange(200, 2000)),
            cpu_cores=cores, cpu_share=float(cores // (8 // count)), ram_mb=cores * 4096,
            cuda=chance.choice([12.4, 12.6, 12.8]),
        )  # fmt: skip
        found[ask.id] = ask
    return found


@dataclass
class Place:
    """One location of TensorDock with its models: v0 name to (most in one machine, dollars an hour)."""

    id: str
    city: tuple[str, str, str, int]
    gpus: dict[str, tuple[int, float]]
    per_vcpu: float = 0.003
    per_gb_ram: float = 0.002
    per_gb_storage: float = 0.00005


def places(chance: random.Random) -> dict[str, Place]:
    found = {}
    for number, city in enumerate(CITIES):
        name = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        some = chance.sample(range(len(MODELS)), 5) if number else [0, 1, 3, 5, 7]
        gpus = {
            MODELS[m][1]: (chance.choice([1, 2, 4, 8]), round(MODELS[m][3] * chance.uniform(0.95, 1.3), 4))
            for m in some
        }
        found[name] = Place(id=name, city=city, gpus=gpus)
    return found


def model_of(name: str) -> tuple[str, str, int, float, str]:
    """By either provider's name."""
    return next(model for model in MODELS if name in (model[0], model[1]))


def location_json(place: Place, *, dedicated_ip: bool = True, wrong: bool = False) -> dict[str, Any]:
    city, state, country, tier = place.city
    return {
        "id": place.id, "city": city, "stateprovince": state, "country": country, "tier": tier,
        "gpus": [
            {
                "v0Name": name, "displayName": display(name), "max_count": 0 if wrong else most, "price_per_hr": price,
                "resources": {"max_vcpus": 48, "max_ram_gb": 256, "max_storage_gb": 6000},
                "pricing": {"per_vcpu_hr": place.per_vcpu, "per_gb_ram_hr": place.per_gb_ram,
                            "per_gb_storage_hr": place.per_gb_storage},
                "network_features": {"dedicated_ip_available": dedicated_ip, "port_forwarding_available": True,
                                     "network_storage_available": False},
            }
            for name, (most, price) in place.gpus.items()
        ],
    }  # fmt: skip


def display(v0_name: str) -> str:
    model = model_of(v0_name)
    return (
        f"NVIDIA GeForce {model[0]} PCIe {round(model[2] / 1024)}GB" if "geforce" in v0_name else f"NVIDIA {model[0]}"
    )
