"""Reading JSON strictly: what JSON does not have, or a reader could take two ways, is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from rest_framework import exceptions, parsers

from rest.errors import bad_field

# Longer ones are no figure of anything here, and slow to read.
MOST_DIGITS = 400


class StrictJSON(parsers.JSONParser):
    """UTF-8, each name once, finite numbers, no half characters."""

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            text = stream.read().decode()
            data = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
            if "\\u" in text:
                json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair is no character
            finite = _is_finite(data)
        except UnicodeError as error:
            raise exceptions.ParseError("The body is not UTF-8 text.") from error
        except RecursionError as error:
            raise exceptions.ParseError("The body is nested too deeply.") from error
        except ValueError as error:
            raise exceptions.ParseError(f"The body is not JSON: {error}") from error
        if not finite:
            raise exceptions.ParseError("The body is not JSON: a number has to be finite.")
        return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise bad_field(name[:100], "Given twice.")
        if not _is_finite(value):
            raise bad_field(name[:100], "A finite number, please.")
        found[name] = value
    return found


def _is_finite(value: Any) -> bool:
    """The number, or each of a list. Objects have been looked through by the time that they are read."""
    if isinstance(value, list):
        return all(_is_finite(each) for each in value)
    return not isinstance(value, float) or math.isfinite(value)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else math.inf
