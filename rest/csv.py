"""Answers as CSV, for spreadsheets: `?format=csv`, or `Accept: text/csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from rest.doors import Door

Cell = str | int | Decimal | None

# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Table:
    name: str  # of the file that a browser saves
    columns: Sequence[str]
    rows: Iterable[Sequence[Cell]]


def text_of(table: Table) -> str:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return written.getvalue()


def _cell(value: Cell) -> str:
    """Text that would be run as a formula gets a quote in front; numbers are numbers."""
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


class CSVRenderer(BaseRenderer):
    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return text_of(data).encode()


class TableDoor(Door):
    """A door that answers with a table where CSV is asked for. What is no table, errors too, is JSON all the same."""

    renderer_classes = (*APIView.renderer_classes, CSVRenderer)

    @property
    def wants_csv(self) -> bool:
        return isinstance(self.request.accepted_renderer, CSVRenderer)

    def table(self, table: Table) -> Response:
        return Response(table, headers={"Content-Disposition": f'attachment; filename="{table.name}.csv"'})

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        if isinstance(getattr(request, "accepted_renderer", None), CSVRenderer) and not isinstance(
            getattr(response, "data", None), Table
        ):
            request.accepted_renderer = JSONRenderer()
            request.accepted_media_type = JSONRenderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)
