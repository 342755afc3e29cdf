"""The verbs of a provider as calls to Vast.ai, and its answers as values or errors.

Effects only by `providers.http`. What rows mean is in `rows`, what a create sends in `launch`; here is what
an answer as a whole means: it came, it failed, it says yes, it says "no such thing".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

import requests

from providers import clock
from providers.base import (
    Account,
    Charge,
    LaunchSpec,
    Machine,
    MachineState,
    NotUnderstood,
    Quote,
    Refusal,
    Refused,
    Traits,
    Unauthorized,
    Unavailable,
)
from providers.http import Answer, Call, Client, NoPacer, Pacer, limited_for, one_line
from providers.money import micros
from providers.vastai import launch, rows

BASE_URL = "https://console.vast.ai"

# Least seconds between two calls of one method and route, stated by the provider in most cases
# [vast-ai/docs#61], and a tenth on top. There is no burst, and who is too quick builds up a debt.
INTERVALS = {
    "quotes": 6.6,
    "list": 1.1,
    "get": 2.2,
    "create": 4.95,
    "destroy": 3.3,
    "relabel": 1.1,
    "attach_key": 2.2,
    "charges": 1.1,
    "account": 1.1,
}

SEARCH_LIMIT = 64  # rows; more are not given, whatever is asked
# A menu of several thousand offers takes half of these. More than that would be minutes of searching.
MAX_SEARCHES = 100
HIGHEST_OFFER_ID = 2**40  # ids have eight digits today
# From here on a page is worth the question whether it was cut off.
SUSPICIOUS_PAGE = 10

# How long a create or a destroy may be silent, in seconds. A create given up too early is a machine to look for.
CREATE_TIMEOUT = DESTROY_TIMEOUT = 60.0

PAGE_SIZE = 25  # the largest for instances
CHARGES_PAGE_SIZE = 100
MAX_PAGES = 400

_NO_SUCH_INSTANCE = ("no_such_instance", "not_found", "instances_not_found")
_NO_MONEY = ("insufficient_credit", "missing_billing", "spend_rate_limit")


class VastAI:
    """One account at Vast.ai, named by its key. Rents on demand only, for now."""

    name = "vastai"
    traits = Traits(
        settle=timedelta(minutes=10),
        min_disk_gb=rows.MIN_DISK_GB,
        can_relabel=True,
        can_attach=True,
        takes_image=True,
        takes_template=True,
        takes_env=True,
        takes_onstart=True,
        has_charges=True,
        bills_stopped=False,  # what is stopped goes on billing its disk, and nothing else
        dead_man="destroys",
    )

    def __init__(
        self,
        key: str,
        *,
        base_url: str = BASE_URL,
        session: requests.Session | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self.client = Client(self.name, base_url, key, session=session, pacer=pacer)
        self._base_url = base_url

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str],
        *,
        session: requests.Session | None = None,
        pacer: Pacer | None = None,
    ) -> Self | None:
        """From VASTAI_API_KEY and VASTAI_BASE_URL; None without a key. ValueError if one can't be right."""
        key = env.get("VASTAI_API_KEY", "").strip()
        if not key:
            return None
        if pacer is None and env.get("PROVIDER_PACING") == "off":
            pacer = NoPacer()
        return cls(key, base_url=env.get("VASTAI_BASE_URL", "").strip() or BASE_URL, session=session, pacer=pacer)

    # --- The menu -------------------------------------------------------------------------------------

    def quotes(self, *, disk_gb: int) -> Sequence[Quote]:
        """Every offer that fits: verified, on demand, not rented, two open ports, room for the disk.

        Raises Unavailable also if there are more offers than `MAX_SEARCHES` can bring.
        """
        found: dict[str, Quote] = {}
        for row in self._offers(disk_gb):
            quote = rows.quote(row, disk_gb=disk_gb)
            if quote is not None:
                found[quote.provider_id] = quote
        return sorted(found.values(), key=lambda quote: (quote.rates.gpu, quote.provider_id))

    def _offers(self, disk_gb: int) -> Iterator[rows.Row]:
        """All rows, by halving the range of ids until nothing is cut off.

        Not by a cursor: when more match than are given, what is given may be a sample.
        """
        first = self._search(disk_gb, 0, HIGHEST_OFFER_ID)
        if len(first) < SUSPICIOUS_PAGE:
            yield from first
            return
        searches, full = 1, SEARCH_LIMIT
        ranges = _halves(first, 0, HIGHEST_OFFER_ID)
        if len(first) < SEARCH_LIMIT:
            # The limit has changed before (3000, 512, 64). If a half holds more than this page showed of it,
            # then the page was full at this size.
            low, high = ranges[1]
            half = self._search(disk_gb, low, high)
            searches += 1
            if len(half) <= sum(low <= _offer_id(row) < high for row in first):
                yield from first
                return
            full = len(first)
        while ranges:
            if searches >= MAX_SEARCHES:
                raise Unavailable(f"vastai quotes: more offers than {MAX_SEARCHES} searches can show")
            low, high = ranges.pop()
            page = self._search(disk_gb, low, high)
            searches += 1
            if len(page) >= full and high - low > 1:
                ranges += _halves(page, low, high)
            else:
                yield from page

    def _search(self, disk_gb: int, low: int, high: int) -> list[rows.Row]:
        """Offers with `low` <= id < `high`, at most as many as a search gives."""
        query = {
            "verified": {"eq": True},
            "rentable": {"eq": True},
            "rented": {"eq": False},
            "direct_port_count": {"gte": 2},
            "disk_space": {"gte": max(disk_gb, rows.MIN_DISK_GB)},
            "ask_contract_id": {"gte": low, "lt": high},
            "type": "ondemand",
            "allocated_storage": max(disk_gb, rows.MIN_DISK_GB),
            "order": [["ask_contract_id", "asc"]],
            "limit": SEARCH_LIMIT,
        }
        answer = self.client.read(_call("quotes", "POST", "/api/v0/bundles/", body=query))
        offers = _success(answer, "quotes").get("offers")
        if not isinstance(offers, list) or not all(isinstance(row, dict) for row in offers):
            raise NotUnderstood(f"vastai quotes: no list of offers: {answer.text}")
        return offers

    # --- Machines -------------------------------------------------------------------------------------

    def machines(self) -> Sequence[Machine]:
        """The v1 listing; the older one answers 410 [dstack#3969].

        Complete means: each page was a success, the last one has no next, and there are at least as many
        ids as the last page counts in total. Anything less raises; nothing is asked twice within a listing.
        """
        now = clock.now()
        found: dict[str, Machine] = {}
        total: Any = None
        order = json.dumps([{"col": "id", "dir": "asc"}])
        for page in self._pages("list", "/api/v1/instances/", {"limit": str(PAGE_SIZE), "order_by": order}):
            listed = page.get("instances")
            if page.get("success") is not True or not isinstance(listed, list):
                raise NotUnderstood("vastai list: a page that is no listing")
            for row in listed:
                machine = rows.machine(_row(row, "list"), now)
                found[machine.id] = machine
            total = page.get("total_instances")
        if not isinstance(total, int) or isinstance(total, bool) or len(found) < total:
            raise NotUnderstood(f"vastai list: {len(found)} instances came, {total!r} were announced")
        return list(found.values())

    def machine(self, machine_id: str) -> Machine | None:
        """A destroyed instance is 200 with `instances: null`; a wrong key is a 404. So absence is read from
        the body, and a 404 is absence only if it names that reason."""
        answer = self.client.read(_call("get", "GET", _instance_path(machine_id)))
        if _no_such_instance(answer) and answer.status == 404:
            return None
        fields = _success(answer, "get")
        if "instances" not in fields:
            raise NotUnderstood("vastai get: an answer without an instance")
        row = _one(fields["instances"], machine_id)
        if row is None:
            return None
        now = clock.now()
        if rows.verdict(row, now) is MachineState.UP and not isinstance(row.get("ports"), dict):
            row = {**row, "ports": self._listed_ports(machine_id)}
        return rows.machine(row, now)

    def _listed_ports(self, machine_id: str) -> Any:
        """The port map from the listing, where the single instance lacks it; None if that fails too."""
        only = json.dumps({"id": {"eq": int(machine_id)}})
        call = _call("list", "GET", "/api/v1/instances/", params={"limit": "1", "select_filters": only})
        try:
            listed = _success(self.client.read(call, attempts=1), "list").get("instances")
        except (Unavailable, NotUnderstood):
            return None  # The proxy's address is there already; the next look asks again.
        row = _one(listed, machine_id) if isinstance(listed, list) else None
        return row.get("ports") if row is not None else None

    # --- Changes --------------------------------------------------------------------------------------

    def create(self, spec: LaunchSpec) -> str:
        """See `base.Provider`. Vast.ai may answer "no" and have made an instance all the same, which then
        bills its disk: so the id is looked for first, under every status."""
        if not spec.quote_id.isdecimal():
            raise Refused("vastai create: that is no offer's id", why=Refusal.INVALID)
        sent = launch.body(spec, base_url=self._base_url)
        path = f"/api/v0/asks/{spec.quote_id}/"
        call = _call(
            "create",
            "PUT",
            path,
            route="/api/v0/asks/",
            body=sent,
            read_timeout=CREATE_TIMEOUT,
            secrets=launch.secrets(spec, sent),
        )
        return _created(self.client.send_once(call))

    def destroy(self, machine_id: str) -> None:
        """Raises Unavailable also for a 200 with `success: false`, which destroys nothing."""
        call = _call("destroy", "DELETE", _instance_path(machine_id), body={}, read_timeout=DESTROY_TIMEOUT)
        answer = self.client.send_once(call)
        if _no_such_instance(answer) and answer.status in (200, 404):
            return
        if answer.status == 200 and answer.fields.get("success") is False and not _is_auth_error(answer):
            raise Unavailable(f"vastai destroy: not destroyed: {answer.text}")
        _success(answer, "destroy", explicit=True)

    def attach_key(self, machine_id: str, public_key: str) -> None:
        """Accepted before the instance runs; reaches the host in some 15 s."""
        try:
            key = launch.clean_key(public_key)
        except ValueError as error:
            raise NotUnderstood(f"vastai attach_key: not sent: {error}") from error
        sent = {"ssh_key": key}  # No id here: it would win over the one in the path.
        path = _instance_path(machine_id, "ssh/")
        call = _call("attach_key", "POST", path, route="/api/v0/instances/ssh/", body=sent, secrets=(key,))
        answer = self.client.send_once(call)
        if answer.status == 409 or "already associated" in _words(answer):
            return
        _success(answer, "attach_key", explicit=True)

    def relabel(self, machine_id: str, label: str) -> None:
        call = _call("relabel", "PUT", _instance_path(machine_id), body={"label": label})
        _success(self.client.send_once(call), "relabel", explicit=True)

    # --- Money ----------------------------------------------------------------------------------------

    def charges(self, since: datetime, until: datetime) -> Sequence[Charge]:
        """The instances' charges of whole UTC days. They lag by hours, and grow for a day.

        Raises NotUnderstood for an account that is a host's: it has none to show.
        """
        last = until - timedelta(microseconds=1) if until > since else until
        days = {"gte": _midnight(since), "lte": _midnight(last) + 86399}
        wanted = {"day": days, "type": {"in": ["instance"]}}
        params = {"select_filters": json.dumps(wanted), "limit": str(CHARGES_PAGE_SIZE)}
        results: list[rows.Row] = []
        total: Any = None
        for page in self._pages("charges", "/api/v0/charges/", params):
            if not isinstance(page.get("results"), list):
                raise NotUnderstood("vastai charges: a page without results")
            results += [_row(row, "charges") for row in page["results"]]
            total = page.get("total")
        if isinstance(total, int) and len(results) < total:
            raise NotUnderstood(f"vastai charges: {len(results)} came, {total} were announced")
        return [charge for row in results for charge in rows.charges(row)]

    def account(self) -> Account:
        """Spendable money is `credit`, not `balance`; it may be negative."""
        answer = self.client.read(_call("account", "GET", "/api/v0/users/current/"))
        fields = _success(answer, "account")
        found = rows.identifier(fields.get("id"))
        if not found:
            raise NotUnderstood("vastai account: an answer without an id")
        credit = rows.number(fields.get("credit"))
        return Account(id=found, balance=None if credit is None else micros(credit))

    def _pages(self, operation: str, path: str, params: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Page by page to the one without a next; each page was a 200 that does not deny success."""
        seen: set[str] = set()
        token = ""
        for _ in range(MAX_PAGES):
            asked = {**params, "after_token": token} if token else params
            fields = _success(self.client.read(_call(operation, "GET", path, params=asked), attempts=1), operation)
            yield fields
            following = fields.get("next_token")
            if following is None:
                return
            if not isinstance(following, str) or not following or following in seen:
                raise NotUnderstood(f"vastai {operation}: a page whose next page can't be asked for")
            seen.add(following)
            token = following
        raise NotUnderstood(f"vastai {operation}: no end after {MAX_PAGES} pages")


# --- What an answer means -----------------------------------------------------------------------------


def _created(answer: Answer) -> str:
    """The id of the new instance, or why there is none; see the errors of `base.Provider.create`."""
    made = _contract(answer)
    if made and answer.fields.get("success") is not False and answer.status < 400:
        return made
    if made:
        message = f"vastai create: made {made}, which did not start: {_said(answer)}"
        raise Refused(message, why=Refusal.OFFER_GONE, machine_id=made)
    _raise_if_no_access(answer, "create")
    if answer.status == 429:
        wait = limited_for(answer)
        raise Refused(f"vastai create: too many requests; wait {wait:.0f} s", why=Refusal.BUSY)
    if answer.status in (408, 409, 425) or not 400 <= answer.status < 500:
        raise Unavailable(f"vastai create: {answer.status} without an id: {answer.text}")
    if not answer.fields or not {"success", "error", "msg", "message", "detail"} & set(answer.fields):
        raise NotUnderstood(f"vastai create: {answer.status}: {answer.text}")
    raise Refused(f"vastai create: {_said(answer)}", why=_why(answer))


def _contract(answer: Answer) -> str:
    """`new_contract` is the instance's id, never the offer's."""
    value = answer.fields.get("new_contract")
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return rows.identifier(value)


def _why(answer: Answer) -> Refusal:
    """By the words, not by the status: a stale offer was seen as 400, 404 and 410."""
    error, words = answer.fields.get("error"), _words(answer)
    if "no_such_ask" in words:
        return Refusal.OFFER_GONE
    if error == "invalid_price":
        return Refusal.PRICE
    if error in _NO_MONEY or "lack credit" in words or "lacks credit" in words or "insufficient credit" in words:
        return Refusal.NO_MONEY
    return Refusal.HOST if "blacklisted host" in words else Refusal.INVALID


def _success(answer: Answer, operation: str, *, explicit: bool = False) -> Mapping[str, Any]:
    """The fields of a 200 that is a success. With `explicit` it has to say so.

    Raises Unauthorized, Unavailable, NotUnderstood.
    """
    _raise_if_no_access(answer, operation)
    what = f"vastai {operation}: {answer.status}: {answer.text}"
    if answer.status == 429:
        raise Unavailable(what, retry_after=limited_for(answer))
    if answer.status in (408, 409, 425) or answer.status >= 500:
        raise Unavailable(what, retry_after=answer.retry_after)
    if answer.body is None:
        raise Unavailable(f"{what} (no JSON)")
    said = answer.fields.get("success")
    if answer.status != 200 or not isinstance(answer.body, dict) or said is False:
        raise NotUnderstood(what)
    if explicit and said is not True:
        raise NotUnderstood(what)
    return answer.fields


def _raise_if_no_access(answer: Answer, operation: str) -> None:
    """Before any look at the status: a wrong key is a 404 here."""
    if _is_auth_error(answer) or answer.status == 401:
        raise Unauthorized(f"vastai {operation}: the key was rejected: {_said(answer)}")


def _is_auth_error(answer: Answer) -> bool:
    return answer.fields.get("error") == "auth_error"


def _no_such_instance(answer: Answer) -> bool:
    return answer.fields.get("error") in _NO_SUCH_INSTANCE


def _words(answer: Answer) -> str:
    """All that an error says, in lower case; the text is under one of several names."""
    said = (answer.fields.get(name) for name in ("error", "msg", "message", "detail"))
    return " ".join(word for word in said if isinstance(word, str)).lower()


def _said(answer: Answer) -> str:
    return one_line(answer.text) or f"status {answer.status}"


# --- Small things -------------------------------------------------------------------------------------


def _call(operation: str, method: str, path: str, *, route: str = "", **more: Any) -> Call:
    route = route or ("/api/v0/instances/id/" if path.startswith("/api/v0/instances/") else path)
    return Call(operation=operation, method=method, path=path, route=route, interval=INTERVALS[operation], **more)


def _instance_path(machine_id: str, rest: str = "") -> str:
    if not machine_id.isdecimal():
        raise NotUnderstood("vastai: that is no instance's id")
    return f"/api/v0/instances/{machine_id}/{rest}"


def _row(value: Any, operation: str) -> rows.Row:
    if not isinstance(value, dict):
        raise NotUnderstood(f"vastai {operation}: a row that is none")
    return value


def _one(value: Any, machine_id: str) -> rows.Row | None:
    """The row of that id: null, or an array without it, is the provider's way to say that there is none."""
    if value is None:
        return None
    if isinstance(value, list):
        found = [row for row in value if rows.identifier(_row(row, "get").get("id")) == machine_id]
        return found[0] if found else None
    row = _row(value, "get")
    if rows.identifier(row.get("id")) != machine_id:
        raise NotUnderstood("vastai get: the answer is about another instance")
    return row


def _offer_id(row: rows.Row) -> int:
    return int(rows.number(row.get("ask_contract_id") or row.get("id")) or Decimal(0))


def _halves(page: Sequence[rows.Row], low: int, high: int) -> list[tuple[int, int]]:
    """`low`..`high` cut where the rows seen are halved, so that both parts are smaller."""
    ids = sorted(_offer_id(row) for row in page)
    middle = min(max(ids[len(ids) // 2], low + 1), high - 1)
    return [(low, middle), (middle, high)]


def _midnight(at: datetime) -> int:
    """Unix seconds of the start of that UTC day."""
    return int(at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
