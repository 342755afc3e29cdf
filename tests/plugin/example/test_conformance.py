"""Attic through GPU Shopper's conformance kit."""

from __future__ import annotations

from decimal import Decimal

from attic_cloud import Attic
from attic_house import House, always, half_made, on_create, page_cut_short

from providers.base import Quote, Refusal
from providers.conformance import Request, Response, Scene
from providers.conformance.kit import Conformance
from providers.money import micros


class AtticScene(Scene):
    adapter = Attic
    key_variable = "ATTIC_KEY"
    rejections = ("the key was withdrawn",)
    refusals = {"taken": Refusal.OFFER_GONE, "no money": Refusal.NO_MONEY}
    refusals_that_made = ("half made",)
    short_listings = ("the first page says that it is the last",)

    def __init__(self) -> None:
        self.house = House(self.key)
        self.troubles = {
            "the key was withdrawn": always(403, "key_withdrawn"),
            "taken": on_create(409, "taken"),
            "no money": on_create(402, "no_money"),
            "half made": half_made(self.house),
            "the first page says that it is the last": page_cut_short(self.house),
        }

    def handle(self, request: Request) -> Response:
        return self.house.handle(request)

    def price_of(self, quote: Quote, disk_gb: int) -> int:
        room = self.house.rooms[quote.provider_id]
        gpu, per_gb = (Decimal(str(room[name])) for name in ("usd_per_hour", "usd_per_gb_hour"))
        return micros(gpu) + micros(per_gb * disk_gb)

    def trouble(self, name: str) -> None:
        self.house.trouble = self.troubles[name]


class TestAttic(Conformance):
    scene = AtticScene
