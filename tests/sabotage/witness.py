"""A plug-in of pytest that tells of each failure whether a claim of the test failed, or the test itself."""

from __future__ import annotations

import os
from typing import Any

import pytest

from providers.base import ProviderError
from tests.sabotage import REPORT


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception) or REPORT not in os.environ:
        return
    from tests.sabotage.patching import tell

    error = call.excinfo.value
    in_the_test = call.excinfo.traceback[-1].path == item.path
    claimed = call.when == "call" and is_a_claim(error, in_the_test=in_the_test)
    tell(test=item.nodeid, claimed=claimed, text=f"{type(error).__name__}: {error}".splitlines()[0])


def is_a_claim(error: BaseException, *, in_the_test: bool) -> bool:
    """An assertion, an error that was to be raised and was not, or a provider's word that was to be another.

    Also an answer to the test that lacks what the test wants to read. Anything else may be a mistake that is none.
    """
    if isinstance(error, BaseExceptionGroup):  # Hypothesis may find several at once.
        return all(is_a_claim(each, in_the_test=in_the_test) for each in error.exceptions)
    if isinstance(error, LookupError):
        return in_the_test
    return isinstance(error, (AssertionError, pytest.fail.Exception, ProviderError))
