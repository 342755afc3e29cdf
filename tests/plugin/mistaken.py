"""The kit over each mistaken adapter. Run as a test module next to the example; see `test_mistakes`."""

from __future__ import annotations

from mistakes import MISTAKES, mistaken
from test_conformance import AtticScene

from providers.conformance.kit import Conformance

for _each in MISTAKES:
    _scene = type("MistakenScene", (AtticScene,), {"adapter": mistaken(_each)})
    globals()[f"Test_{_each.name}"] = type(f"Test_{_each.name}", (Conformance,), {"scene": _scene})
