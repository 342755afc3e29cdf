"""The menu's bounds as options. Named as the API has them, with the letters that the seed gave them."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Bounds"


def _bound(*names: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        *names, help=help, metavar=metavar, rich_help_panel=PANEL, show_default=False
    )
    return option


GpuType = Annotated[
    list[str] | None,
    _bound(
        "--gpu-type", "-g", metavar="NAME", help="However it is written: RTX 4090, rtx4090. Repeat it: any of them."
    ),
]
MaxPrice = Annotated[float | None, _bound("--max-price", "-p", metavar="USD", help="Per hour, the whole machine.")]
Provider = Annotated[str | None, _bound("--provider", metavar="NAME", help="vastai, tensordock, or a plug-in's.")]
MinVram = Annotated[int | None, _bound("--min-vram", metavar="GB", help="Of one GPU.")]
MinGpuCount = Annotated[int | None, _bound("--min-gpu-count", metavar="N", help="GPUs in one machine.")]
MinReliability = Annotated[float | None, _bound("--min-reliability", metavar="0..1", help="Of the host.")]
MinConfidence = Annotated[
    float | None, _bound("--min-availability-confidence", metavar="0..1", help="That it can really be had.")
]
MinCuda = Annotated[str | None, _bound("--min-cuda", metavar="12.4", help="What the driver runs.")]
Location = Annotated[str | None, _bound("--location", metavar="TEXT", help="A part of it, in any case.")]
Country = Annotated[str | None, _bound("--country", metavar="XX", help="Two letters, ISO 3166.")]
