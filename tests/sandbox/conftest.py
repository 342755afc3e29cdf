"""The world is tried through the adapters, as in the contract tests."""

from tests.contract.conftest import clock, either

__all__ = ["clock", "either"]
