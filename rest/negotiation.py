"""Which format answers: the one in `Accept` or `?format=`."""

from __future__ import annotations

from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer

from rest.errors import bad_field


class Negotiation(DefaultContentNegotiation):
    """As usual, but a `?format=` that is not known is a bad parameter and no missing page."""

    def filter_renderers(self, renderers: Any, format: str) -> Any:
        found = [renderer for renderer in renderers if renderer.format == format]
        if not found:
            known = ", ".join(renderer.format for renderer in renderers)
            raise bad_field("format", f"One of: {known}.")
        return found


class TheOneFormat(DefaultContentNegotiation):
    """For monitors, which ask for all sorts of formats and take what they get."""

    def select_renderer(
        self, request: Any, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type
