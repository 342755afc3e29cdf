"""What the author of a plug-in tells the kit: the adapter, a stand-in of its service, and how that one fails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import requests

from providers.base import Provider, Quote, Refusal
from providers.sandbox.wire import Request, Response


class Scene(ABC):
    """One adapter and one stand-in of its service, made afresh for each test.

    The stand-in asks `providers.clock` for the time. What is created is listed at once, and what is destroyed is
    gone at once, unless a trouble says otherwise.
    """

    adapter: ClassVar[Any]  # the class that the entry point names
    key_variable: ClassVar[str]  # where `from_env` finds the key
    key: ClassVar[str] = "key-of-the-conformance-kit-5e0c2c91"
    wrong_key: ClassVar[str] = "key-that-nobody-knows-77aa01de"
    many: ClassVar[int] = 5  # so many machines fill more than one page of a listing, if it has pages

    # The service's own ways to fail, by names of the author's choice; `trouble` switches them on. Those that the
    # kit can make by itself (no answer, half an answer, an error of a gateway) need no name here.
    rejections: ClassVar[tuple[str, ...]] = ()  # other ways to say that a key is wrong than that for `wrong_key`
    refusals: ClassVar[Mapping[str, Refusal]] = {}  # a create is refused, and nothing is made
    refusals_that_made: ClassVar[tuple[str, ...]] = ()  # a create is refused, and the answer names what it made
    short_listings: ClassVar[tuple[str, ...]] = ()  # a part of the machines is told where all were asked for

    def provider(self, session: requests.Session, key: str) -> Provider:
        """The adapter, speaking through `session` only, and without a pace."""
        made: Provider | None = self.adapter.from_env(self.env(key), session=session)
        assert made is not None, f"{self.key_variable} is set, and from_env gives no adapter"
        return made

    def env(self, key: str) -> dict[str, str]:
        return {self.key_variable: key, "PROVIDER_PACING": "off"}

    @abstractmethod
    def handle(self, request: Request) -> Response:
        """The service's answer. It knows `key` and no other."""

    @abstractmethod
    def price_of(self, quote: Quote, disk_gb: int) -> int:
        """Micro-dollars per hour, with that disk, by the service's own menu rather than by the adapter."""

    def trouble(self, name: str) -> None:
        """From now on the service fails in the way of that name."""
        raise NotImplementedError(f"the scene names {name!r} and does not make it")
