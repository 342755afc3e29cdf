from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.costs.receiver import Receiver
from tests.sessions.conftest import engine, guests, no_messages, provider

__all__ = ["engine", "guests", "no_messages", "provider"]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A receiver on loopback, where webhooks may go in these tests."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    with Receiver() as running:
        yield running
