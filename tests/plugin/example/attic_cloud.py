"""Attic, as GPU Shopper's verbs: the adapter of a provider that does not exist.

Each method is one call of Attic's HTTP interface, and says only what its answer says. The network is
`providers.http`; what the answers look like is told by the stand-in, `attic_house.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import requests

from providers.base import (
    Account,
    Charge,
    LaunchSpec,
    Machine,
    MachineState,
    NotUnderstood,
    PriceParts,
    Quote,
    Rates,
    Refusal,
    Refused,
    SshTarget,
    Traits,
    Unauthorized,
)
from providers.http import Answer, Call, Client, NoPacer, Pacer
from providers.money import micros

URL = "https://api.attic.example"
MOST_PAGES = 200
STATES = {"running": MachineState.UP, "starting": MachineState.STARTING, "stopped": MachineState.DOWN}
REFUSALS = {"taken": Refusal.OFFER_GONE, "no_such_room": Refusal.OFFER_GONE, "no_money": Refusal.NO_MONEY}
_ID = re.compile(r"m-[0-9]{1,12}")


class Attic:
    name = "attic"
    traits = Traits(settle=timedelta(minutes=5), can_relabel=True, can_attach=True, has_charges=True)

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], *, session: requests.Session | None = None, pacer: Pacer | None = None
    ) -> Attic | None:
        if not (key := env.get("ATTIC_KEY", "")):
            return None
        if pacer is None and env.get("PROVIDER_PACING") == "off":
            pacer = NoPacer()
        return cls(Client(cls.name, env.get("ATTIC_URL") or URL, key, session=session, pacer=pacer))

    def quotes(self, *, disk_gb: int) -> Sequence[Quote]:
        body = self._read("quotes", "/menu")
        rows = _list(body, "rooms")
        if body.get("count") != len(rows):
            raise NotUnderstood("attic quotes: another number of rooms than was announced")
        return [_quote(row) for row in rows]

    def machines(self) -> Sequence[Machine]:
        """Page by page; whole if as many came as the last page counts."""
        found: dict[str, Machine] = {}
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self._read("list", "/machines", **after)
            found |= {machine.id: machine for machine in map(_machine, _list(page, "machines"))}
            if page.get("next") is None:
                break
            after = {"after": str(page["next"])}
        if type(page.get("total")) is not int or page["total"] != len(found):
            raise NotUnderstood("attic list: another number of machines than was announced")
        return list(found.values())

    def machine(self, machine_id: str) -> Machine | None:
        answer = self._known(self.client.read(_call("get", "GET", machine_id)))
        if _is_absent(answer):
            return None  # A gateway's 404 has no such word, and means nothing.
        found = _machine(_body(answer, 200))
        if found.id != machine_id:
            raise NotUnderstood("attic get: the answer is about another machine")
        return found

    def create(self, spec: LaunchSpec) -> str:
        order = {"room": spec.quote_id, "label": spec.label, "keys": list(spec.ssh_public_keys), "disk": spec.disk_gb}
        answer = self._known(
            self.client.send_once(Call(operation="create", method="POST", path="/machines", body=order))
        )
        word = answer.fields.get("error")
        if answer.status == 500 and word == "half_made":
            raise Refused("attic could not start it", why=Refusal.HOST, machine_id=_id(answer.fields))
        if answer.status in (402, 409, 422) and word in REFUSALS:
            raise Refused(f"attic says {word}", why=REFUSALS[word])
        return _id(_body(answer, 201))

    def destroy(self, machine_id: str) -> None:
        answer = self._known(self.client.send_once(_call("destroy", "DELETE", machine_id)))
        if not _is_absent(answer):
            _body(answer, 202)

    def relabel(self, machine_id: str, label: str) -> None:
        call = _call("relabel", "PATCH", machine_id, body={"label": label})
        _body(self._known(self.client.send_once(call)), 200)

    def attach_key(self, machine_id: str, public_key: str) -> None:
        call = _call("attach_key", "POST", machine_id, "/keys", body={"key": public_key})
        _body(self._known(self.client.send_once(call)), 200)

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        body = self._read("charges", "/bill", since=since.isoformat(), until=until.isoformat())
        return [_charge(line) for line in _list(body, "lines")]

    def account(self) -> Account:
        body = self._read("account", "/account")
        if not isinstance(body.get("id"), str):
            raise NotUnderstood("attic account: an answer without an id")
        return Account(id=body["id"], balance=micros(_number(body, "usd")))

    def _read(self, operation: str, path: str, **params: str) -> Mapping[str, Any]:
        call = Call(operation=operation, method="GET", path=path, params=params, interval=1.0)
        return _body(self._known(self.client.read(call)), 200)

    def _known(self, answer: Answer) -> Answer:
        if answer.status in (401, 403) and answer.fields.get("error") in ("bad_key", "key_withdrawn"):
            raise Unauthorized("attic rejects our key")
        return answer


# --- Calls ------------------------------------------------------------------------------------------------


def _call(operation: str, method: str, machine_id: str, rest: str = "", body: Any = None) -> Call:
    if not _ID.fullmatch(machine_id):
        raise NotUnderstood("attic: that is no id of a machine")
    path, route = f"/machines/{machine_id}{rest}", f"/machines/id{rest}"
    return Call(operation=operation, method=method, path=path, route=route, body=body)


def _body(answer: Answer, status: int) -> Mapping[str, Any]:
    if answer.status != status or not isinstance(answer.body, dict):
        raise NotUnderstood(f"attic answered {answer.status}: {answer.text}")
    return answer.body


def _is_absent(answer: Answer) -> bool:
    return answer.status == 404 and answer.fields.get("error") == "no_such_machine"


# --- What rows mean ---------------------------------------------------------------------------------------


def _quote(row: Mapping[str, Any]) -> Quote:
    rates = Rates(gpu=_number(row, "usd_per_hour"), storage_per_gb=_number(row, "usd_per_gb_hour"))
    return Quote(
        provider_id=_text(row, "id"), gpu_name=_text(row, "gpu"), gpu_count=_whole(row, "gpus"),
        vram_gb=_whole(row, "vram_gb"), disk_gb=_whole(row, "disk_gb"), cpu_cores=_whole(row, "cores"),
        ram_gb=_whole(row, "ram_gb"), rates=rates, available=row.get("free") is True,
    )  # fmt: skip


def _machine(row: Mapping[str, Any]) -> Machine:
    label, ssh = row.get("label"), row.get("ssh")
    reachable = isinstance(ssh, dict) and isinstance(ssh.get("host"), str) and isinstance(ssh.get("port"), int)
    known = all(isinstance(row.get(name), Decimal) for name in ("usd_per_hour", "disk_usd_per_hour"))
    return Machine(
        id=_id(row),
        label=label if isinstance(label, str) else None,
        state=STATES.get(str(row.get("state")), MachineState.UNKNOWN),
        ssh_targets=(SshTarget(ssh["host"], ssh["port"], "root"),) if reachable else (),
        gpu_count=row["gpus"] if type(row.get("gpus")) is int else 0,
        price=PriceParts(gpu=micros(row["usd_per_hour"]), storage=micros(row["disk_usd_per_hour"])) if known else None,
    )


def _charge(line: Mapping[str, Any]) -> Charge:
    begun, ended = (datetime.fromisoformat(_text(line, name)) for name in ("from", "to"))
    amount = micros(_number(line, "usd"))
    return Charge(
        machine_id=_text(line, "machine"), label="", kind="gpu", started_at=begun, ended_at=ended, amount=amount
    )


def _id(row: Mapping[str, Any]) -> str:
    if not _ID.fullmatch(found := _text(row, "id")):
        raise NotUnderstood("attic: an id of another form")
    return found


def _list(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = body.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NotUnderstood(f"attic: no list of {name}")
    return rows


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str) or not row[name]:
        raise NotUnderstood(f"attic: {name} is missing")
    return str(row[name])


def _whole(row: Mapping[str, Any], name: str) -> int:
    if type(row.get(name)) is not int or row[name] < 1:
        raise NotUnderstood(f"attic: {name} is missing")
    return int(row[name])


def _number(row: Mapping[str, Any], name: str) -> Decimal:
    if not isinstance(row.get(name), Decimal) or row[name] < 0:
        raise NotUnderstood(f"attic: {name} is missing")
    return Decimal(row[name])
