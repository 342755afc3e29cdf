"""`gpu-shopper inventory`: the menu."""

from __future__ import annotations

import enum
from typing import Annotated
from urllib.parse import quote

import typer

from gpushopper.cli import bounds, show
from gpushopper.cli.terminal import Terminal


class Sort(enum.StrEnum):
    PRICE = "price_per_hour"
    DEAREST = "-price_per_hour"
    RELIABILITY = "-reliability"
    CONFIDENCE = "-availability_confidence"
    VRAM = "-vram_gb"
    VALUE = "value"


def inventory(
    terminal: Terminal,
    offer: Annotated[str | None, typer.Argument(help="One offer's id: everything about it.")] = None,
    gpu_type: bounds.GpuType = None,
    max_price: bounds.MaxPrice = None,
    provider: bounds.Provider = None,
    min_vram: bounds.MinVram = None,
    min_gpu_count: bounds.MinGpuCount = None,
    min_reliability: bounds.MinReliability = None,
    min_availability_confidence: bounds.MinConfidence = None,
    min_cuda: bounds.MinCuda = None,
    location: bounds.Location = None,
    country: bounds.Country = None,
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first.")] = Sort.PRICE,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="Offers to show.")] = 20,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Offers to skip.")] = 0,
) -> None:
    """What can be rented now, the cheapest first.

    Prices are of the whole machine, with the default disk.
    """
    if offer is not None:
        one = terminal.api.get(f"/inventory/{quote(offer, safe='')}")
        terminal.answer(one, show.offer(one, terminal.api.now))
        return
    page = terminal.api.get(
        "/inventory", gpu_type=gpu_type, max_price=max_price, provider=provider, min_vram=min_vram,
        min_gpu_count=min_gpu_count, min_reliability=min_reliability,
        min_availability_confidence=min_availability_confidence, min_cuda=min_cuda, location=location,
        country=country, sort=sort.value, limit=limit, offset=offset,
    )  # fmt: skip
    terminal.answer(page, show.menu(page, terminal.api.now))
