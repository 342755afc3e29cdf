"""Attic itself, as its documents describe it: a stand-in without network, for the tests of `attic_cloud`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from providers import clock
from providers.conformance import Request, Response, reply

PAGE = 2  # machines on one page of the listing

Trouble = Callable[[Request], Response | None]  # an answer out of turn, or None: go on


class House:
    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.rooms = {room["id"]: room for room in (_room(number) for number in range(1, 9))}
        self.machines: dict[str, dict[str, Any]] = {}
        self.trouble: Trouble = lambda request: None
        self.made = 0

    def handle(self, request: Request) -> Response:
        if request.bearer not in self.keys:
            return reply(401, {"error": "bad_key"})
        return self.trouble(request) or self._answer(request)

    def _answer(self, request: Request) -> Response:
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["menu"]:
                return reply(200, {"rooms": list(self.rooms.values()), "count": len(self.rooms)})
            case "GET", ["account"]:
                return reply(200, {"id": "attic-account-1", "usd": 25.5})
            case "GET", ["bill"]:
                return reply(200, {"lines": [_line(machine) for machine in self.machines.values()]})
            case "GET", ["machines"]:
                return self._page(request.first("after"))
            case "POST", ["machines"]:
                return self.create(request.json)
            case method, ["machines", machine_id, *rest] if machine_id in self.machines:
                return self._one(method, machine_id, rest, request.json)
            case _, ["machines", _, *_]:
                return reply(404, {"error": "no_such_machine"})
        return reply(404, {"error": "no_such_page"})

    def _page(self, after: str) -> Response:
        ids = sorted(self.machines)
        start = ids.index(after) + 1 if after in ids else 0
        page = ids[start : start + PAGE]
        following = page[-1] if page and page[-1] != ids[-1] else None
        listed = [_told(self.machines[each]) for each in page]
        return reply(200, {"machines": listed, "total": len(ids), "next": following})

    def create(self, order: dict[str, Any]) -> Response:
        room = self.rooms.get(order["room"])
        if room is None:
            return reply(422, {"error": "no_such_room"})
        if not room["free"]:
            return reply(409, {"error": "taken"})
        self.made += 1
        machine_id = f"m-{self.made:05}"
        room["free"] = False
        self.machines[machine_id] = {
            "id": machine_id, "label": order["label"], "state": "running", "gpus": room["gpus"],
            "usd_per_hour": room["usd_per_hour"], "disk_usd_per_hour": room["usd_per_gb_hour"] * order["disk"],
            "ssh": {"host": "192.0.2.7", "port": 22}, "room": room, "keys": order["keys"], "since": clock.now(),
        }  # fmt: skip
        return reply(201, {"id": machine_id})

    def _one(self, method: str, machine_id: str, rest: list[str], sent: Any) -> Response:
        machine = self.machines[machine_id]
        if method == "DELETE":
            del self.machines[machine_id]
            machine["room"]["free"] = True
            return reply(202, {"ending": machine_id})
        if method == "PATCH":
            machine["label"] = sent["label"]
        elif rest == ["keys"]:
            machine["keys"] = sorted({*machine["keys"], sent["key"]})
        return reply(200, _told(machine))


def _room(number: int) -> dict[str, Any]:
    return {
        "id": f"r-{number}", "gpu": "RTX 4090", "gpus": 1 + number % 2, "vram_gb": 24, "cores": 8, "ram_gb": 32,
        "disk_gb": 500, "usd_per_hour": 0.25 + number / 1000, "usd_per_gb_hour": 0.0002, "free": True,
    }  # fmt: skip


def _told(machine: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in machine.items() if name not in ("room", "keys", "since")}


def _line(machine: dict[str, Any]) -> dict[str, Any]:
    since: datetime = machine["since"]
    usd = round((clock.now() - since).total_seconds() / 3600 * machine["usd_per_hour"], 6)
    return {"machine": machine["id"], "from": since.isoformat(), "to": clock.now().isoformat(), "usd": usd}


# --- Troubles ---------------------------------------------------------------------------------------------


def always(status: int, word: str) -> Trouble:
    return lambda request: reply(status, {"error": word})


def on_create(status: int, word: str) -> Trouble:
    return lambda request: reply(status, {"error": word}) if _is_create(request) else None


def half_made(house: House) -> Trouble:
    """A create that makes the machine, and says no."""

    def happens(request: Request) -> Response | None:
        if not _is_create(request):
            return None
        made = json.loads(house.create(request.json).body)
        return reply(500, {"error": "half_made", **made})

    return happens


def page_cut_short(house: House) -> Trouble:
    """The first page says that it is the last."""

    def happens(request: Request) -> Response | None:
        if (request.method, request.path) != ("GET", "/machines"):
            return None
        page = json.loads(house._page("").body)
        return reply(200, {**page, "next": None})

    return happens


def _is_create(request: Request) -> bool:
    return (request.method, request.path) == ("POST", "/machines")
