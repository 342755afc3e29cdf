"""All known mistakes, by what they get wrong. Django has to be set up before this is imported."""

from tests.sabotage.catalogue import MISTAKES
from tests.sabotage.mistakes import clocks, deadlines, ends, guards, knowledge, launches

__all__ = ["MISTAKES", "clocks", "deadlines", "ends", "guards", "knowledge", "launches"]
