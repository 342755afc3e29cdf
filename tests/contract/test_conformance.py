"""Our own two adapters, through the kit that a third party's has to pass."""

from __future__ import annotations

import random
from decimal import Decimal

from providers.base import Quote, Refusal
from providers.conformance import Request, Response, Scene
from providers.conformance.kit import Conformance
from providers.money import micros
from providers.sandbox.world import World
from providers.tensordock import TensorDock
from providers.vastai import VastAI
from providers.vastai.rows import HOURS_PER_MONTH
from tests.contract.scene import TOKENS


class SandboxScene(Scene):
    """The sandbox's world as the service; its weather as the troubles."""

    weather: dict[str, tuple[str, object]]

    def __init__(self) -> None:
        self.world = World(chance=random.Random(7), boot="instant", offers=100)

    def handle(self, request: Request) -> Response:
        return self.world.handle(request)

    def trouble(self, name: str) -> None:
        switch, value = self.weather[name]
        self.world.weather.set(switch, value, provider=self.adapter.name)


class VastAIScene(SandboxScene):
    adapter = VastAI
    key_variable = "VASTAI_API_KEY"
    key = TOKENS["vastai"]
    many = 30
    rejections = ("404", "403", "401")
    refusals = {
        "stale, 400": Refusal.OFFER_GONE,
        "stale, 404": Refusal.OFFER_GONE,
        "stale, 410": Refusal.OFFER_GONE,
        "no credit": Refusal.NO_MONEY,
        "another price": Refusal.PRICE,
        "wrong arguments": Refusal.INVALID,
    }
    refusals_that_made = ("success false",)
    short_listings = ("the second page fails", "the first page says that it is the last")
    weather = {
        "404": ("call.unauthorized", 404),
        "403": ("call.unauthorized", 403),
        "401": ("call.unauthorized", 401),
        "stale, 400": ("create.stale", 400),
        "stale, 404": ("create.stale", 404),
        "stale, 410": ("create.stale", 410),
        "no credit": ("create.no_credit", True),
        "another price": ("create.refused", "invalid_price"),
        "wrong arguments": ("create.refused", "invalid_args"),
        "success false": ("create.success_false_with_id", True),
        "the second page fails": ("list.page_500", True),
        "the first page says that it is the last": ("list.drop_token", True),
    }

    def price_of(self, quote: Quote, disk_gb: int) -> int:
        ask = self.world.asks[int(quote.provider_id)]
        storage = Decimal(str(ask.storage_cost)) / HOURS_PER_MONTH * disk_gb
        return micros(str(ask.price)) + micros(storage)


class TensorDockScene(SandboxScene):
    adapter = TensorDock
    key_variable = "TENSORDOCK_API_TOKEN"
    key = TOKENS["tensordock"]
    rejections = ("401", "403")
    refusals = {
        "no capacity": Refusal.OFFER_GONE,
        "no public address": Refusal.OFFER_GONE,
        "no credit": Refusal.NO_MONEY,
        "an image that is not there": Refusal.OFFER_GONE,
    }
    short_listings = ("a form that nobody knows", "an empty answer", "503")
    weather = {
        "401": ("call.unauthorized", 401),
        "403": ("call.unauthorized", 403),
        "no capacity": ("create.fail", "capacity"),
        "no public address": ("create.fail", "no_public_ip"),
        "no credit": ("create.no_credit", True),
        "an image that is not there": ("create.image_refused", True),
        "a form that nobody knows": ("list.fail", "unknown"),
        "an empty answer": ("list.fail", "empty"),
        "503": ("list.fail", "503"),
    }

    def price_of(self, quote: Quote, disk_gb: int) -> int:
        place = next(place for id, place in self.world.places.items() if quote.provider_id.startswith(id))
        parts = {
            quote.gpu_count: place.gpus[quote.gpu_name][1],
            quote.cpu_cores: place.per_vcpu,
            quote.ram_gb: place.per_gb_ram,
            disk_gb: place.per_gb_storage,
        }
        return sum(micros(amount * Decimal(str(each))) for amount, each in parts.items())


class TestVastAI(Conformance):
    scene = VastAIScene


class TestTensorDock(Conformance):
    scene = TensorDockScene
