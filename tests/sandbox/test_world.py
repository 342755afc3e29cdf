"""The world's own promises: exact ends and bills whenever it is looked at, and a weather whose switches all work."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import json
import random
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from providers import clock as product_clock
from providers import deadman, http
from providers.base import ProviderError
from providers.sandbox.books import BOOTS, Rate
from providers.sandbox.transport import session_for
from providers.sandbox.weather import SWITCHES
from providers.sandbox.wire import Request, Response
from providers.sandbox.world import TAKEN_OVER, World
from tests.contract.scene import LABEL, OTHER_KEY, TOKENS, Scene, adapter, scene
from tests.simulation.virtual_clock import VirtualClock

HOUR = 3600
NAMES = ("vastai", "tensordock")


# --- Money ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_hour", "microseconds", "micros"),
    [
        (1_000_000, 3_600_000_000, 1_000_000),
        (1, 1_800_000_000, 0),  # a half goes to the even side
        (3, 1_800_000_000, 2),
        (5, 1_800_000_000, 2),
        (7, 1_800_000_000, 4),
        (399_999, 1, 0),
        (2_350_000, 86_399_999_999, 56_400_000),
    ],
)
def test_a_bill_is_rate_times_time_rounded_once(either: Scene, per_hour: int, microseconds: int, micros: int) -> None:
    machine_id = either.create()
    machine = either.world.machines[machine_id]
    machine.rates[0] = (machine.created_at, Rate(gpu=per_hour))
    assert either.world.bill(machine_id, machine.created_at + timedelta(microseconds=microseconds)) == micros


def test_a_bill_does_not_depend_on_when_or_how_often_it_is_looked_at(clock: VirtualClock) -> None:
    chance = random.Random(11)
    bills = []
    for looks in (0, 1, 50):
        world = scene("vastai", VirtualClock())
        product_clock.use(world.clock)
        world.set("host.stop_after", 1234.567)
        world.set("host.resume_after", 2000.000001)
        world.set("host.vanish_after", 5000.25)
        machine_id = world.create(hard_deadline=None)
        for moment in sorted(chance.uniform(0, 9000) for _ in range(looks)):
            world.wait(moment - world.clock.monotonic())
            world.world.truth()
        world.wait(10_000 - world.clock.monotonic())
        bills.append((world.world.truth()["machines"][0]["cost_micros"], world.books(machine_id).destroyed_at))
    assert len(set(bills)) == 1
    rate = world.books(machine_id).rate
    runs = 1234.567 + (5000.25 - 2000.000001)
    assert bills[0][0] == round(rate.gpu * runs / HOUR + rate.storage * 5000.25 / HOUR)


def test_a_stopped_machine_bills_its_disk_at_one_and_all_of_it_at_the_other(either: Scene) -> None:
    machine_id = either.create()
    rate = either.world.machines[machine_id].rate
    either.world.stop(either.world.machines[machine_id], either.world.now())
    either.wait(HOUR)
    assert either.world.bill(machine_id) == (rate.storage if either.name == "vastai" else rate.total)


def test_nothing_is_billed_after_the_end(either: Scene) -> None:
    machine_id = either.rent()
    either.provider.destroy(machine_id)
    bill = either.world.bill(machine_id)
    assert bill > 0
    either.wait(10 * HOUR)
    assert either.world.bill(machine_id) == bill


def test_what_came_back_was_billed_all_the_time(either: Scene) -> None:
    either.set("destroy.resurrect", 600)
    machine_id = either.create()
    either.provider.destroy(machine_id)
    either.wait(HOUR)
    assert either.books(machine_id).exists
    assert either.world.bill(machine_id) == either.books(machine_id).rate.total


def test_the_parts_of_a_bill_are_the_bill(either: Scene) -> None:
    machine_id = either.create()
    either.wait(1234.5)
    parts = either.world.bill_parts(machine_id)
    assert sum(parts.values()) == either.world.bill(machine_id)
    assert parts["storage"] == round(either.world.machines[machine_id].rate.storage * 1234.5 / HOUR)


def test_an_account_has_spent_what_its_machines_cost(either: Scene) -> None:
    machine_ids = [either.create() for _ in range(3)]
    either.wait(HOUR)
    account = either.world.machines[machine_ids[0]].account
    assert either.world.spent(account) == sum(either.world.bill(machine_id) for machine_id in machine_ids)


# --- Time -------------------------------------------------------------------------------------------------------


def test_what_was_due_is_done_at_its_own_instant_however_late_somebody_looks(either: Scene) -> None:
    either.set("destroy.late", 90)
    machine_id = either.create()
    either.provider.destroy(machine_id)
    asked = either.clock.now()
    either.wait(7 * HOUR)
    assert either.books(machine_id).destroyed_at == asked + timedelta(seconds=90)


@pytest.mark.parametrize("boot", BOOTS)
def test_a_boot_goes_through_its_stages_at_the_seconds_that_it_names(clock: VirtualClock, boot: str) -> None:
    vastai = scene("vastai", clock, boot=boot)
    machine_id = vastai.create(hard_deadline=None)
    stages = BOOTS[boot]
    seen = {}
    for stage in ("up", "address", "door", "keys"):
        vastai.wait(max(0.0, getattr(stages, stage) - vastai.clock.monotonic() - 0.001))
        vastai.world.pass_time()
        before = _stage(vastai, machine_id)
        vastai.wait(max(0.0, getattr(stages, stage) - vastai.clock.monotonic()))
        vastai.world.pass_time()
        seen[stage] = (before, _stage(vastai, machine_id))
    assert all(after >= number for number, (_, after) in enumerate(seen.values(), 1))
    if boot == "true":
        assert [before for before, _ in seen.values()] == [0, 1, 2, 3]


def _stage(vastai: Scene, machine_id: str) -> int:
    """How many of the stages are through."""
    machine = vastai.world.machines[machine_id]
    door = vastai.world.ssh_door(machine_id)
    return sum((machine.state == "up", machine.has_address, door != "refused", door == "open"))


# --- The dead man's switch --------------------------------------------------------------------------------------


def test_the_switch_acts_at_its_deadline_and_the_grace(either: Scene) -> None:
    deadline = either.clock.now() + timedelta(hours=1)
    machine_id = either.create(hard_deadline=deadline)
    acts = deadline + timedelta(seconds=deadman.GRACE)
    either.wait((acts - either.clock.now()).total_seconds() - 0.001)
    assert either.books(machine_id).state == "up"
    either.wait(5 * HOUR)
    machine = either.books(machine_id)
    if either.name == "vastai":
        assert (machine.destroyed_at, machine.destroyed_by) == (acts, "dead_man")
    else:
        assert (machine.exists, machine.state) == (True, "stopped")
        assert machine.rates[-1][0] == acts


def test_the_switch_goes_by_what_is_in_its_file_now(either: Scene) -> None:
    deadline = either.clock.now().replace(microsecond=0) + timedelta(hours=1)
    machine_id = either.rent(hard_deadline=deadline)
    either.run(machine_id, deadman.rearm_command(deadline + timedelta(hours=2)))
    either.wait(2 * HOUR)
    assert either.books(machine_id).state == "up"
    either.wait(2 * HOUR)
    machine = either.books(machine_id)
    acted = machine.destroyed_at or machine.rates[-1][0]
    assert acted == deadline + timedelta(hours=2, seconds=deadman.GRACE)


def test_a_deadline_that_became_earlier_counts_from_then_on(either: Scene) -> None:
    deadline = either.clock.now().replace(microsecond=0) + timedelta(hours=8)
    machine_id = either.rent(hard_deadline=deadline)
    either.run(machine_id, deadman.rearm_command(deadline - timedelta(hours=6)))
    either.wait(9 * HOUR)
    assert _acted(either, machine_id) == deadline - timedelta(hours=6) + timedelta(seconds=deadman.GRACE)


def test_a_deadline_that_is_long_past_when_it_is_written_counts_at_once(either: Scene) -> None:
    machine_id = either.rent(hard_deadline=either.clock.now() + timedelta(hours=8))
    either.wait(HOUR)
    written = either.clock.now()
    either.run(machine_id, deadman.rearm_command(written - timedelta(hours=1)))
    either.wait(HOUR)
    assert _acted(either, machine_id) == written


@pytest.mark.parametrize("command", [f"rm {deadman.DEADLINE_FILE}", f"echo soon > {deadman.DEADLINE_FILE}"])
def test_a_damaged_file_leaves_the_last_deadline_in_force(either: Scene, command: str) -> None:
    deadline = either.clock.now().replace(microsecond=0) + timedelta(hours=1)
    machine_id = either.rent(hard_deadline=deadline)
    either.run(machine_id, command)
    either.wait(9 * HOUR)
    assert _acted(either, machine_id) == deadline + timedelta(seconds=deadman.GRACE)


def test_a_switch_that_is_gone_does_nothing(either: Scene) -> None:
    machine_id = either.rent(hard_deadline=either.clock.now() + timedelta(hours=1))
    either.books(machine_id).guest.stop_dead_man()
    either.wait(9 * HOUR)
    assert either.books(machine_id).state == "up"


def test_a_machine_that_starts_again_after_its_deadline_ends_at_once(either: Scene) -> None:
    either.set("host.stop_after", HOUR / 2)
    either.set("host.resume_after", 5 * HOUR)
    machine_id = either.rent(hard_deadline=either.clock.now() + timedelta(hours=1))
    either.wait(9 * HOUR)
    assert _acted(either, machine_id) == either.books(machine_id).created_at + timedelta(hours=5)


def _acted(either: Scene, machine_id: str) -> datetime:
    """When the switch ended the machine, or powered it off."""
    machine = either.books(machine_id)
    assert (machine.destroyed_by, machine.state) in [("dead_man", "up"), ("", "stopped")]
    return machine.rates[-1][0]


# --- Books ------------------------------------------------------------------------------------------------------


def test_the_books_are_json_and_hold_no_secret(either: Scene) -> None:
    either.rent()
    either.world.user_boxes(5)
    text = json.dumps(either.world.truth()) + repr(either.world.calls)
    assert "sandbox-vastai-key" not in text
    assert "sandbox-tensordock-token" not in text


def test_each_call_is_in_the_log_without_the_ids_in_its_path(either: Scene) -> None:
    machine_id = either.create()
    either.provider.destroy(machine_id)
    create, destroy = (next(c for c in either.world.calls if c.operation == what) for what in ("create", "destroy"))
    assert (create.label, create.provider) == (LABEL, either.name)
    assert (destroy.machine, machine_id in destroy.route) == (machine_id, False)


@pytest.mark.parametrize(
    ("switch", "outcome"),
    [("bill.lag", "200"), ("call.lost_before", "lost"), ("call.lost_after", "lost"), ("call.timeout", "silence"),
     ("call.http_500", "500"), ("call.rate_limited", "429")],
)  # fmt: skip
def test_the_log_says_what_came_of_each_call(either: Scene, switch: str, outcome: str) -> None:
    spec = either.spec()
    either.set(switch)
    with contextlib.suppress(ProviderError):
        either.provider.create(spec)
    assert [call.outcome for call in either.world.calls if call.operation == "create"] == [outcome]


def test_the_books_name_the_offer_that_was_rented(either: Scene) -> None:
    quote = either.quote()
    machine_id = either.create(quote=quote)
    either.provider.destroy(machine_id)
    (told,) = either.world.truth()["machines"]
    assert told["offer"]
    assert quote.provider_id.startswith(told["offer"])


def test_no_two_machines_share_an_address(clock: VirtualClock) -> None:
    world = scene("tensordock", clock).world
    machine = world.machines[world.plant("tensordock", "")]
    for number in range(0, 2**17, 64):
        machine.number, machine.address = number, ("", 0)
        assert world.machine_at(*world.address_of(machine)) is machine
    assert len(world._by_address) == len(range(0, 2**17, 64))


def test_a_machine_whose_id_was_told_to_nobody_is_marked(either: Scene) -> None:
    assert either.books(either.create()).returned
    either.set("call.lost_after", operation="create")
    with pytest.raises(ProviderError):
        either.create()
    assert [machine.returned for machine in either.made()] == [True, False]


def test_strangers_have_machines_at_both_providers(clock: VirtualClock) -> None:
    vastai = scene("vastai", clock)
    ids = vastai.world.user_boxes(10)
    assert {vastai.world.machines[each].provider for each in ids} == {"vastai", "tensordock"}
    assert len(vastai.listed()) == 5


def test_the_same_seed_makes_the_same_world(clock: VirtualClock) -> None:
    worlds = [World(clock, random.Random(5)) for _ in range(2)]
    assert worlds[0].asks == worlds[1].asks
    assert worlds[0].places == worlds[1].places
    assert worlds[0].user_boxes(4) == worlds[1].user_boxes(4)


def test_a_path_that_belongs_to_nobody_is_not_found(either: Scene) -> None:
    for path in ("/", f"/{either.name}/api/v9/nothing", "/elsewhere/api/v0/instances/"):
        assert either.world.handle(Request("GET", path)).status == 404


def test_a_quiet_world_answers_quickly(either: Scene) -> None:
    """The simulation asks millions of times."""
    machine_id = either.rent()
    below = {"vastai": f"api/v0/instances/{machine_id}/", "tensordock": f"api/v2/instances/{machine_id}"}
    path = f"/{either.name}/{below[either.name]}"
    request = Request("GET", path, headers={"authorization": f"Bearer {TOKENS[either.name]}"})
    began = time.process_time()
    for _ in range(200):
        assert either.world.handle(request).status == 200
    assert (time.process_time() - began) / 200 < 0.002


# --- Weather ----------------------------------------------------------------------------------------------------


def test_every_switch_is_read_somewhere() -> None:
    folder = Path(inspect.getfile(World)).parent
    read = {name for path in folder.glob("*.py") if path.name != "weather.py" for name in _strings(path)}
    assert set(SWITCHES) - read == set()


def test_nothing_is_read_that_can_not_be_switched() -> None:
    folder = Path(inspect.getfile(World)).parent
    groups = {name.partition(".")[0] for name in SWITCHES}
    form = re.compile(rf"({'|'.join(groups)})\.[a-z0-9_]+")
    read = {name for path in folder.glob("world.py") for name in _strings(path) if form.fullmatch(name)}
    guest_faults = {"gpu.driver", "gpu.absent", "gpu.other", "gpu.fewer", "disk.small", "cuda.old"}
    assert read - set(SWITCHES) - guest_faults == set()


def _strings(path: Path) -> set[str]:
    """All text constants of a source file."""
    tree = ast.parse(path.read_text())
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_a_switch_that_does_not_exist_is_refused(either: Scene) -> None:
    with pytest.raises(ValueError, match="no switch"):
        either.world.weather.set("no.such")
    with pytest.raises(ValueError, match="takes"):
        either.world.weather.set("call.empty", place="here")


def test_a_switch_holds_for_its_times_its_span_and_its_place(either: Scene) -> None:
    weather = either.world.weather
    weather.set("call.empty", times=2)
    assert [weather.hit("call.empty") for _ in range(3)] == [True, True, None]
    weather.set("call.timeout", seconds=60)
    assert weather.hit("call.timeout")
    either.wait(60)
    assert weather.hit("call.timeout") is None
    weather.set("get.deny", machine="7")
    assert [weather.hit("get.deny", machine=name) for name in ("7", "8", None)] == [True, None, None]
    weather.set("call.garbage", chance=0.5)
    assert 300 < sum(bool(weather.hit("call.garbage")) for _ in range(1000)) < 700


def test_a_machine_keeps_the_weather_it_was_made_in_unless_it_is_named(either: Scene) -> None:
    named, other = either.rent(), either.rent()
    either.set("ssh.deny_forever")
    either.set("ssh.never", machine=named)
    later = either.rent()
    assert [either.world.ssh_door(each) for each in (named, other, later)] == ["timeout", "open", "no_auth"]
    either.clear()
    assert [either.world.ssh_door(each) for each in (named, other, later)] == ["open", "open", "no_auth"]


# What each switch is set to, and at which provider it is looked for first. True and either one, if not named.
VALUES: dict[str, Any] = {
    "call.unauthorized": 401, "call.rate_limited": 1, "create.stale": 400, "create.late_row": 20, "create.refused": "x",
    "create.fail": "capacity", "create.truncate_label": 4, "list.page_size": 3, "list.lag": 30, "list.shape": "L2",
    "list.fail": "unknown", "get.gone": "200err", "destroy.late": 30, "destroy.linger": 30, "destroy.resurrect": 5,
    "host.offline_after": 5, "host.stop_after": 5, "host.resume_after": 40, "host.end_date_after": 5,
    "host.status_lag": 50, "host.vanish_after": 5, "host.disassociate_after": 5, "boot.flicker": 50,
    "boot.ip_delay": 50, "boot.slow": 50, "ssh.deny_for": 90, "ssh.lose_key_after": 5, "ssh.refuse_for": 50,
    "guest.driver_late": 60, "guest.busy": 97, "bill.lag": HOUR, "account.credit": -1, "search.cap": 3,
    "locations.drift": "high",
}  # fmt: skip
# Some can be seen only together with another one.
WITH: dict[str, dict[str, Any]] = {
    "host.resume_after": {"host.stop_after": 5},
    "host.stale_status_msg": {"host.stop_after": 5},
    "host.retry_then_ok": {"boot.slow": 60},
    "net.ignore_forwards": {"net.no_dedicated_ip": True},
    "net.remap_ports": {"net.no_dedicated_ip": True},
}
# What is seen of these lies outside of `_story`; each has its own test.
ELSEWHERE = {
    "auth.team": "tests.contract.test_vastai.test_keys_are_attached_to_the_machine_which_works_with_a_teams_key_too",
    "guest.key_ignored": "tests.contract.test_tensordock.test_the_key_of_the_order_alone_may_not_be_enough",
    "list.v0_alive": "tests.contract.test_vastai.test_the_old_listing_is_closed_and_never_asked",
    "ssh.new_host_key": "tests.contract.test_either.test_another_host_key_from_now_on_is_one_that_was_not_pinned",
}


@pytest.mark.parametrize("switch", sorted(set(SWITCHES) - set(ELSEWHERE)))
def test_every_switch_changes_what_is_seen(switch: str) -> None:
    others = WITH.get(switch, {})
    weather = {**others, switch: VALUES.get(switch, True)}
    assert any(_story(name, *weather.items()) != _story(name, *others.items()) for name in NAMES)


def test_the_story_is_the_same_each_time_it_is_told() -> None:
    """Else any switch would seem to change it."""
    for name in NAMES:
        assert _story.__wrapped__(name) == _story.__wrapped__(name)


def test_a_switch_that_nothing_reads_changes_nothing() -> None:
    """Else a switch without an effect would seem to have one."""
    with patch.dict(SWITCHES, {"no.effect": ("", "")}):
        for name in NAMES:
            assert _story(name, ("no.effect", True)) == _story(name)


@functools.cache
def _story(name: str, *weather: tuple[str, Any]) -> list[Any]:
    """All that a caller sees of a machine's life, under that weather."""
    clock = VirtualClock()
    before = product_clock.use(clock)
    # No chance in the waits between two tries, and no counts in a database.
    with patch("random.uniform", lambda low, high: low), patch.object(http, "observers", []):
        try:
            told = _Storyteller(scene(name, clock))
            told.tell(dict(weather))
        finally:
            product_clock.use(before)
    return told.lines


class _Storyteller:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.scene.provider = adapter(scene.world, scene.name, session=session_for(scene.world, around=self._overhear))
        self.lines: list[Any] = []
        self.machine_id = ""

    def _overhear(self, request: Request, send: Callable[[], Response]) -> Response:
        answer = send()
        self.lines.append([request.method, request.path, answer.status, answer.body])
        return answer

    def tell(self, weather: dict[str, Any]) -> None:
        scene, provider = self.scene, self.scene.provider
        many = scene.name == "vastai"  # whose listings have pages
        for number in range(27 if many else 3):
            scene.world.plant(scene.name, f"box-{number}")
        for switch, value in weather.items():
            scene.world.weather.set(switch, value)
        self.note(lambda: provider.quotes(disk_gb=100))
        self.note(self._create)
        for seconds in (1, 9, 20, 40):
            self.look()
            scene.wait(seconds)
        self.note(lambda: provider.attach_key(self.machine_id, OTHER_KEY))
        self.look()
        for _ in range(5 if many else 105):  # TensorDock's limit is on a minute
            self.note(provider.account)
        self.note(lambda: provider.destroy(self.machine_id))
        for seconds in (10, 30):
            self.look()
            scene.wait(seconds)
        self.note(lambda: provider.charges(scene.clock.began, scene.clock.now() + timedelta(days=1)))
        self.lines.append(scene.clock.now())

    def _create(self) -> str:
        self.machine_id = self.scene.create()
        return self.machine_id

    def look(self) -> None:
        scene = self.scene
        self.note(lambda: scene.provider.machine(self.machine_id))
        self.note(scene.provider.machines)
        machine = scene.world.machines.get(self.machine_id)
        if machine is not None:
            door, guest = scene.world.ssh_door(machine.id), machine.guest
            seen = [guest.run("root", command) for command in ("nvidia-smi", "df -Pk /", deadman.read_back_command())]
            self.lines.append([door, list(guest.authorized_keys), seen])

    def note(self, ask: Callable[[], Any]) -> None:
        try:
            self.lines.append(ask())
        except ProviderError as error:
            self.lines.append([type(error).__name__, str(error)])


def test_every_switch_that_a_machine_takes_over_is_one() -> None:
    assert set(TAKEN_OVER) <= set(SWITCHES)


def test_what_is_shown_elsewhere_is_shown_there() -> None:
    for switch, name in ELSEWHERE.items():
        module, _, test = name.rpartition(".")
        assert switch in inspect.getsource(getattr(import_module(module), test))
