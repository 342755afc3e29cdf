"""How things look: money, times, statuses, tables. Pure: values in, text and tables out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpushopper.cli.api import Body

STATUS_STYLE = {
    "pending": "yellow",
    "provisioning": "yellow",
    "running": "bold green",
    "stopping": "magenta",
    "stopped": "dim",
    "failed": "bold red",
}
OVER = ("stopped", "failed")  # and proven gone
SHORT_ID = 8  # characters of a session's id in a table; commands take them too
NOTHING = "–"


def plain(value: object) -> str:
    """Text from elsewhere, without what would steer a terminal."""
    return "".join(c for c in str(value) if c == "\n" or not unicodedata.category(c).startswith("C"))


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def money(usd: float | None) -> str:
    return NOTHING if usd is None else f"{usd:.4f}"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.1f} %"


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def span(length: timedelta) -> str:
    """Two units at most: `42 s`, `3 min 5 s`, `1 h 54 min`, `3 d 2 h`."""
    seconds = round(length.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or len(parts) - 1 == first)


def relative(text: str | None, now: datetime) -> str:
    """`in 1 h 54 min`, `3 min 5 s ago`."""
    moment = instant(text)
    if moment is None:
        return NOTHING
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def status(session: Body) -> Text:
    word = plain(session["status"])
    return Text(word, style=STATUS_STYLE.get(word, ""))


def gpu(thing: Body) -> str:
    """The name, with how many of them if it is not one."""
    count = thing["gpu_count"]
    return plain(thing["gpu_type"]) if count == 1 else f"{count} × {plain(thing['gpu_type'])}"


# Sentences are broken over lines where a terminal is narrow; all else is something to copy, or a figure.
BREAKABLE = ("What",)


def _vram(thing: Body) -> str:
    return f"{thing['vram_gb']} GB of VRAM" + (" each" if thing["gpu_count"] > 1 else "")


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """`>` before a heading: its column is of numbers."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    texts = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
    for index, heading in enumerate(headings):
        title = heading.removeprefix(">")
        breakable = title in BREAKABLE
        shown.add_column(
            title, justify="right" if heading.startswith(">") else "left", no_wrap=not breakable,
            min_width=None if breakable else max(len(title), *(row[index].cell_len for row in texts), 0),
        )  # fmt: skip
    for row in texts:
        shown.add_row(*row)
    return shown


def facts(pairs: Iterable[tuple[str, str | Text | None]]) -> Table:
    """Names and values, one below the other; what is None is left out."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column()
    for name, value in pairs:
        if value is not None:
            shown.add_row(name, value if isinstance(value, Text) else Text(plain(value)))
    return shown


def note(sentence: str, style: str = "dim") -> Text:
    return Text(plain(sentence), style=style)


# --- The menu --------------------------------------------------------------------------------------------


MADE_UP = "Sandbox: these offers are made up, nothing real is rented, nothing costs money."


def menu(page: Body, now: datetime) -> RenderableType:
    offers = page["offers"]
    parts: list[RenderableType] = []
    if any(offer.get("sandbox") for offer in offers):
        parts += [note(MADE_UP, "bold yellow"), ""]
    if offers:
        parts += [table(MENU_HEADINGS, map(_offer_row, offers)), ""]
    parts.append(note(_counted(page)))
    parts += [note(line) for line in _freshness(page["as_of"], now)]
    return Group(*parts)


# The offer's id comes last: some have over 70 characters, and a terminal may wrap the end of a line.
MENU_HEADINGS = ("GPU", ">VRAM", ">USD/h", ">Reliable", ">vCPU", ">RAM", "Where", "Offer")
LONGEST_PLACE = 24  # characters


def _offer_row(offer: Body) -> list[str | Text]:
    return [
        gpu(offer),
        f"{offer['vram_gb']} GB",
        money(offer["price_per_hour"]),
        percent(offer["reliability"]),
        str(offer["cpu_cores"] or NOTHING),
        f"{offer['ram_gb']} GB" if offer["ram_gb"] else NOTHING,
        shortened(offer["location"] or NOTHING, LONGEST_PLACE),
        Text(plain(offer["id"]), style="cyan"),
    ]


def _counted(page: Body) -> str:
    if not page["total"]:
        return "No offer fits. Fewer bounds show more: `gpu-shopper inventory` shows everything."
    kind = "sandbox offer" if any(offer.get("sandbox") for offer in page["offers"]) else "offer"
    if page["count"] < page["total"]:
        return f"{page['count']} of {page['total']} {kind}s; --limit and --offset show the others."
    return f"{page['total']} {kind}{'s' if page['total'] != 1 else ''}."


def _freshness(as_of: dict[str, Any], now: datetime) -> Iterable[str]:
    for provider, state in as_of.items():
        asked = f"listed {relative(state['fetched_at'], now)}" if state["fetched_at"] else "not listed yet"
        old = "; these offers are old" if state["stale"] and state["fetched_at"] else ""
        yield f"{provider}: {asked}{old}" + (f" ({state['error']})" if state["error"] else "")


def offer(one: Body, now: datetime) -> RenderableType:
    parts = one["price_parts"]
    shown = facts(
        [
            ("Offer", one["id"]),
            ("GPU", f"{gpu(one)}, {_vram(one)}, CUDA up to {one['cuda_version'] or NOTHING}"),
            ("Price", f"{money(one['price_per_hour'])} USD/h: " + _price_parts(parts)),
            ("Machine", f"{one['cpu_cores']} vCPU, {one['ram_gb']} GB of RAM, up to {one['disk_gb']} GB of disk"),
            ("Where", one["location"] or NOTHING),
            ("Reliable", percent(one["reliability"])),
            ("Available", f"{percent(one['availability_confidence'])} likely"),
            ("At most", f"{one['max_duration_hours']:g} h" if one["max_duration_hours"] else "no limit"),
            ("Listed", relative(one["fetched_at"], now)),
        ]
    )
    return Group(note(MADE_UP, "bold yellow"), shown) if one.get("sandbox") else shown


def _price_parts(parts: Body) -> str:
    return ", ".join(f"{name} {money(usd)}" for name, usd in parts.items() if usd)


# --- Sessions --------------------------------------------------------------------------------------------


def sessions(found: Sequence[Body], now: datetime) -> RenderableType:
    several = len({one["consumer_id"] for one in found}) > 1
    headings = ("Session", "Status", "GPU", "Provider", ">USD/h", ">Cost USD", "Begun", "Ends")
    rows = [_session_row(one, now) + ([one["consumer_id"]] if several else []) for one in found]
    return table((*headings, "Consumer") if several else headings, rows)


def _session_row(one: Body, now: datetime) -> list[str | Text]:
    ended = one["verified_gone_at"] or one["stopped_at"]
    return [
        Text(one["id"][:SHORT_ID], style="cyan"),
        status(one),
        gpu(one),
        one["provider"],
        money(one["price_per_hour"]),
        money(one["cost_so_far"]),
        relative(one["created_at"], now),
        f"ended {relative(ended, now)}" if ended else relative(one["expires_at"], now),
    ]


def session(one: Body, now: datetime) -> RenderableType:
    reason = f"  {plain(one['status_reason'])}" if one["status_reason"] else ""
    failure = one["failure"]
    return facts(
        [
            ("Session", Text(one["id"], style="cyan")),
            ("Status", status(one) + Text(reason)),
            ("Failure", Text(plain(failure["message"]), style="red") if failure else None),
            ("GPU", f"{gpu(one)}, {_vram(one)}, {one['disk_gb']} GB of disk"),
            ("Offer", one["offer_id"]),
            ("Price", f"{money(one['price_per_hour'])} USD/h; {money(one['cost_so_far'])} USD {_until_when(one)}"),
            ("Reserved", f"{one['reservation_hours']:g} h for {one['consumer_id']}"),
            *_times(one, now),
            ("SSH", one["ssh_command"]),
            ("Attempts", _attempts(one["attempts"]) if len(one["attempts"]) > 1 else None),
        ]
    )


def _until_when(one: Body) -> str:
    return "in all" if one["status"] in OVER else "so far"


def _age(text: str, now: datetime) -> str:
    return span(max(now - datetime.fromisoformat(text), timedelta(0)))


def _times(one: Body, now: datetime) -> list[tuple[str, str | None]]:
    over = one["status"] in OVER
    return [
        ("Asked for", relative(one["created_at"], now)),
        ("Running", f"for {_age(one['running_at'], now)}" if one["running_at"] and not over else None),
        ("Ends", relative(one["expires_at"], now) if one["expires_at"] and not over else None),
        ("Proven gone", relative(one["verified_gone_at"], now) if one["verified_gone_at"] else None),
    ]


def _attempts(attempts: Sequence[Body]) -> str:
    return "; ".join(f"{one['offer_id']}: {one['outcome'].replace('_', ' ')}" for one in attempts)


def events(found: Sequence[Body]) -> RenderableType:
    start = instant(found[0]["at"]) if found else None

    def row(event: Body) -> list[str | Text]:
        at = instant(event["at"])
        after = span(at - start) if at and start else ""
        who = f" ({event['actor']})" if event["actor"] else ""
        said = f" They said: {event['said']}" if event.get("said") else ""  # shown to operators
        return [event["at"], f"+{after}", Text(plain(event["type"]), style="cyan"), event["message"] + who + said]

    return table(("At", ">After", "Event", "What"), map(row, found))


def diagnostics(found: Body, now: datetime) -> RenderableType:
    guards = found["safeguards"]
    dead_man, check = guards["dead_man"], found["last_ssh_check"]
    seconds = timedelta(seconds=1)
    idle = _age(found["idle_since"], now) if found["idle_since"] else None
    return facts(
        [
            ("Session", Text(plain(found["session_id"]), style="cyan")),
            ("Up", f"{span(found['uptime_seconds'] * seconds)}, {span(found['time_left_seconds'] * seconds)} left"),
            ("SSH check", f"{relative(check['at'], now)} {check['note']}".strip()),
            ("Machine", ", ".join(_hardware(found["nvidia_smi"])) or NOTHING),
            ("Idle", idle and f"for {idle}"),
            ("Ends", relative(guards["expires_at"], now)),
            ("At the latest", relative(guards["hard_deadline"], now)),
            ("Seen listed", relative(guards["last_seen_in_listing"], now)),
            ("Guardian", relative(guards["guardian_beat"], now)),
            ("Dead man", _dead_man(dead_man, now)),
        ]
    )


def _hardware(said: Body) -> Iterable[str]:
    """What the machine says of itself; names that are not known here are shown as they are."""
    for one in said.get("gpus", []):
        busy = one.get("busy_percent")
        yield f"{one.get('name')} with {one.get('vram_mib')} MiB" + ("" if busy is None else f", {busy} % busy")
    yield from (f"{name.replace('_', ' ')} {value}" for name, value in said.items() if name != "gpus")


def _dead_man(switch: Body, now: datetime) -> str:
    if not switch["deadline"]:
        return plain(switch["state"])
    return f"{switch['state']}: {switch['does'].replace('_', ' ')} the machine {relative(switch['deadline'], now)}"


# --- Costs -----------------------------------------------------------------------------------------------


def cost_of_session(cost: Body) -> RenderableType:
    parts = cost.get("parts") or {}
    billed = cost.get("provider_billed")
    return facts(
        [
            ("Session", Text(plain(cost["session_id"]), style="cyan")),
            ("Cost", f"{money(cost['total_cost'])} {cost['currency']}" + ("" if cost.get("final") else " so far")),
            ("Of which", _price_parts(parts) or None),
            ("Hours", f"{cost['hours_used']:.4f}"),
            ("Billed", None if billed is None else f"{money(billed)} {cost['currency']} by the provider"),
        ]
    )


def costs(total: Body) -> RenderableType:
    lines: list[RenderableType] = [
        facts(
            [
                ("For", total["consumer_id"] or "everybody"),
                ("Period", f"{total['period_start']} to {total['period_end']}"),
                ("Cost", Text(f"{money(total['total_cost'])} {total['currency']}", style="bold")),
                ("Orphans", f"{money(orphans)} {total['currency']}" if (orphans := total.get("orphan_cost")) else None),
                ("Sessions", str(total["session_count"])),
                ("Hours", f"{total['hours_used']:.4f}"),
            ]
        )
    ]
    for heading, name in (("Provider", "by_provider"), ("GPU", "by_gpu_type")):
        if shares := total.get(name):
            lines += ["", table((heading, ">USD"), [(key, money(_cost(share))) for key, share in shares.items()])]
    if series := total.get("series"):
        rows = [(one["start"], money(one["total_cost"]), f"{one['hours_used']:.4f}") for one in series]
        lines += ["", table(("From", ">USD", ">Hours"), rows)]
    return Group(*lines)


def _cost(share: Any) -> float:
    """A share is a sum, or an object that has it among other figures."""
    return float(share["total_cost"] if isinstance(share, dict) else share)
