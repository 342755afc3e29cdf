"""The lives that are lived in the simulation, each as a client sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from costs import ledger
from costs.days import Days
from costs.models import Budget
from providers import tag
from sessions.lifecycle import Reason
from tests.simulation.story import OVER, Ask, Do, Sleep, Story, Until, end, minutes, rent

if TYPE_CHECKING:
    from tests.simulation.run import Run


@dataclass(frozen=True)
class Scenario:
    name: str
    story: Callable[[], Story]
    excuses: frozenset[Reason] = frozenset()  # ends that this life justifies, beyond wishes and deadlines
    before: Callable[[Run], None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    main: bool = False  # each of its boundaries is tried in the short suite
    lies: bool = False  # the provider denies a living machine on both channels
    long: bool = False  # too long for a sample in the short suite
    patient: bool = False  # what is in flight is listed less often, since it is waited for in vain


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *excuses: Reason,
    before: Callable[[Run], None] | None = None,
    main: bool = False,
    long: bool = False,
    lies: bool = False,
    patient: bool = False,
    **settings: Any,
) -> Callable[[Callable[[], Story]], Callable[[], Story]]:
    def register(story: Callable[[], Story]) -> Callable[[], Story]:
        SCENARIOS[story.__name__] = Scenario(
            story.__name__, story, frozenset(excuses), before, settings, main, lies, long, patient
        )
        return story

    return register


# In lives of an hour or so, listings at rest and menus would else be most of what is done, and most of where one dies.
SPARSE = {"RECONCILIATION_INTERVAL": timedelta(minutes=5), "INVENTORY_CACHE_TTL": timedelta(hours=1)}


# --- Plain lives -----------------------------------------------------------------------------------------


# Ended long before its deadline, so that an end that nobody carries out is seen.
LONG_BEFORE = 0.5


@scenario(main=True)
def plain_life() -> Story:
    session = yield from rent(hours=LONG_BEFORE)
    yield minutes(1)
    yield from end(session)


@scenario(main=True)
def plain_life_at_tensordock() -> Story:
    session = yield from rent(gpu_type="RTX 4090", provider="tensordock")
    yield minutes(1)
    yield from end(session)


@scenario(main=True)
def expiry() -> Story:
    session = yield from rent(hours=0.03)
    yield Until(session, ("stopped", "failed"))


@scenario()
def expiry_at_tensordock() -> Story:
    session = yield from rent(hours=0.05, gpu_type="RTX 4090", provider="tensordock")
    yield Until(session, ("stopped", "failed"))


@scenario(main=True)
def extension() -> Story:
    session = yield from rent(hours=0.03)
    yield Ask("POST", f"/api/v1/sessions/{session}/extend", {"additional_hours": 0.05})
    yield Until(session, ("stopped", "failed"))


def _ended(after: float, how: str = "delete") -> Story:
    session = yield from rent(hours=LONG_BEFORE, wait=False)
    if after:
        yield Sleep(after)
    yield from end(session, how=how)


@scenario(main=True)
def deleted_at_once() -> Story:
    yield from _ended(0)


@scenario(main=True)
def deleted_while_it_boots() -> Story:
    yield from _ended(2)


@scenario(main=True)
def done_while_ssh_is_awaited() -> Story:
    yield from _ended(4, "done")


@scenario(main=True)
def deleted_twice() -> Story:
    session = yield from rent()
    yield from end(session, how="delete", wait=False)
    yield Sleep(1)
    yield from end(session, how="delete")


def _none_outlived_the_maximum(run: Run) -> None:
    for machine in run.world.machines.values():
        lived = machine.destroyed_at - machine.created_at
        assert lived < timedelta(minutes=3 + 1), f"{machine.id} lived for {lived}"


@scenario(HARD_MAX=timedelta(minutes=3))
def hard_maximum_in_spite_of_extensions() -> Story:
    session = yield from rent(hours=0.03)
    for _ in range(8):
        yield Ask("POST", f"/api/v1/sessions/{session}/extend", {"additional_hours": 0.01}, may_be_refused=True)
        yield Sleep(20)
    yield Until(session, ("stopped", "failed"))
    yield Do(_none_outlived_the_maximum)


def _idle(run: Run) -> None:
    run.world.weather.set("guest.busy", 0)


@scenario(Reason.IDLE, before=_idle)
def idle() -> Story:
    session = yield from rent(hours=1, idle_threshold_minutes=4)
    yield Until(session, ("stopped", "failed"))


# --- Budgets ----------------------------------------------------------------------------------------------


def _gone_soon(run: Run) -> None:
    """What is over its budget is ended by the next look, or the one after a death; proving it takes as long as ever."""
    [budget] = Budget.objects.all()[:1]
    for machine in run.world.machines.values():
        assert machine.destroyed_at - budget.created_at < timedelta(minutes=3), f"{machine.id} lived on"


def _ended_by_a_budget(after: float) -> Story:
    session = yield from rent(hours=LONG_BEFORE, wait=False)
    yield Sleep(after)
    yield Ask("POST", "/api/v1/budgets", {"period": "total", "limit_usd": 0.00001, "on_limit": "stop"})
    yield Until(session, OVER)
    yield Do(_gone_soon)


@scenario(Reason.BUDGET)
def a_budget_that_ends_what_boots() -> Story:
    yield from _ended_by_a_budget(2)


@scenario(Reason.BUDGET)
def a_budget_that_ends_what_runs() -> Story:
    yield from _ended_by_a_budget(90)


# Enough for one short session at a time, with what it holds back for its end, and not for two.
FOR_ONE = {"period": "total", "limit_usd": 0.07, "on_limit": "block"}


@scenario()
def a_budget_that_holds_one_at_a_time() -> Story:
    """That none was spent beyond its limit, the judge checks in every life."""
    yield Ask("POST", "/api/v1/budgets", FOR_ONE)
    first = yield from rent(hours=0.03, name="a", wait=False)
    second = yield from rent(hours=0.03, name="b", wait=False)
    yield Do(lambda run: _one_was_refused(first, second))
    yield Until(first, OVER)
    third = yield from rent(hours=0.03, name="c", wait=False)
    yield Until(third, OVER)


def _one_was_refused(first: str, second: str) -> None:
    assert first, "nothing was rented, though the budget has room for one"
    assert not second, "two were rented, and the budget has room for one"


# --- Time and money ---------------------------------------------------------------------------------------


def _shortly_before_midnight(run: Run) -> None:
    run.clock.instant = run.clock.instant.replace(hour=23, minute=58)


def _two_days_were_used(run: Run) -> None:
    used = ledger.by_day("consumer", Days(run.clock.began.date(), run.clock.now().date()), run.clock.now())
    assert run.fault or len(used) == 2, f"it was used on {sorted(used)}"


@scenario(before=_shortly_before_midnight)
def across_midnight() -> Story:
    session = yield from rent(hours=LONG_BEFORE)
    yield minutes(5)
    yield from end(session)
    yield Do(_two_days_were_used)


@scenario(long=True, **SPARSE)
def fifty_nine_minutes_with_a_restart_every_ten() -> Story:
    session = yield from rent(hours=1)
    for _ in range(5):
        yield minutes(10)
        yield Do(lambda run: run.service.stop(5))
    yield minutes(9)
    yield from end(session)


def _twice_as_dear(run: Run) -> None:
    run.repriced = True
    for machine in run.world.machines.values():
        run.world.reprice(machine, replace(machine.rate, gpu=2 * machine.rate.gpu))


@scenario()
def a_price_that_doubles() -> Story:
    session = yield from rent(hours=LONG_BEFORE)
    yield minutes(1)
    yield Do(_twice_as_dear)
    yield minutes(2)
    yield from end(session)


# --- Machines that turn out badly -----------------------------------------------------------------------


def _weather(name: str, value: Any = True, **narrowed: Any) -> Callable[[Run], None]:
    return lambda run: run.world.weather.set(name, value, **narrowed)


@scenario(before=_weather("create.stale", 400, times=2), main=True)
def by_type_with_stale_offers() -> Story:
    session = yield from rent()
    yield from end(session)


@scenario(Reason.WRONG_HARDWARE, before=_weather("guest.gpu_other", times=1))
def wrong_hardware_then_the_next() -> Story:
    session = yield from rent()
    yield from end(session)


# What is waited for in vain is listed so often that half a minute is as good as many.
IN_VAIN = timedelta(seconds=30)


@scenario(
    Reason.BOOT_TIMEOUT,
    Reason.SSH_TIMEOUT,
    before=_weather("host.stuck_loading", times=1),
    patient=True,
    PROVISION_TIMEOUT=IN_VAIN,
)
def a_boot_that_never_ends() -> Story:
    session = yield from rent(hours=1)
    yield from end(session)


@scenario(
    Reason.SSH_TIMEOUT,
    Reason.BOOT_TIMEOUT,
    before=_weather("ssh.deny_forever", times=1),
    patient=True,
    SSH_VERIFY_TIMEOUT=IN_VAIN,
    SSH_CHECK_INTERVAL=timedelta(seconds=10),
)
def a_key_that_never_works() -> Story:
    session = yield from rent(hours=1)
    yield from end(session)


@scenario(Reason.HOST_BROKEN, Reason.DIED, before=_weather("host.oci_fail", times=1))
def a_broken_host() -> Story:
    session = yield from rent(hours=1)
    yield from end(session)


@scenario(Reason.VANISHED, before=_weather("host.vanish_after", 60, times=1))
def a_machine_that_vanishes() -> Story:
    session = yield from rent(hours=0.2)
    yield Until(session, ("stopped", "failed"))


@scenario(Reason.DIED, before=_weather("host.stop_after", 60, times=1), patient=True)
def a_machine_that_stops() -> Story:
    session = yield from rent(hours=0.2)
    yield Until(session, ("stopped", "failed"))


# --- Creates that are not what they seem -----------------------------------------------------------------


@scenario(before=_weather("call.lost_after", provider="vastai", operation="create", times=1), main=True)
def a_lost_create_answer() -> Story:
    session = yield from rent()
    yield from end(session)


# Nothing comes late here, and within this there are more listings than the two that silence takes.
SETTLED = timedelta(seconds=30)


@scenario(before=_weather("call.timeout", provider="vastai", operation="create", times=1), CREATE_SETTLE=SETTLED)
def a_create_that_never_happened() -> Story:
    session = yield from rent()
    yield from end(session)


@scenario(Reason.REFUSED, before=_weather("create.late_row", 40, times=1))
def a_refusal_that_lied() -> Story:
    session = yield from rent()
    yield from end(session)
    yield minutes(3)


# Where the refusal itself is lost, what is left is a machine that stands still.
@scenario(Reason.REFUSED, Reason.DIED, before=_weather("create.success_false_with_id", times=1), main=True)
def a_refusal_with_a_machine() -> Story:
    session = yield from rent()
    yield from end(session)


@scenario(before=_weather("create.duplicate", times=1))
def two_machines_for_one_create() -> Story:
    session = yield from rent()
    yield from end(session)


@scenario(before=_weather("create.phantom", times=1), patient=True)
def a_create_that_made_nothing() -> Story:
    session = yield from rent()
    yield from end(session)


def _late_create(run: Run) -> None:
    """The answer is lost and the machine appears ten minutes after the service gave up."""
    run.world.weather.set("create.late_row", 660, times=1)
    run.world.weather.set("call.lost_after", provider="vastai", operation="create", times=1)


@scenario(Reason.LAUNCH_LOST, Reason.REFUSED, before=_late_create, long=True, CREATE_SETTLE=SETTLED, **SPARSE)
def a_create_that_succeeds_ten_minutes_after_we_gave_up() -> Story:
    session = yield from rent()
    yield from end(session)
    yield minutes(20)


@scenario(before=_weather("destroy.swallow", times=2))
def a_delete_without_effect() -> Story:
    session = yield from rent()
    yield from end(session)


@scenario(before=_weather("destroy.resurrect", 120, times=1), lies=True)
def a_machine_that_comes_back() -> Story:
    session = yield from rent()
    yield from end(session)
    yield minutes(6)


@scenario()
def two_consumers_for_one_offer() -> Story:
    status, answer = yield Ask("GET", "/api/v1/inventory?provider=vastai&limit=1")
    offer = answer["offers"][0]["id"] if status == 200 and answer["offers"] else ""
    first = yield from rent(offer_id=offer, name="a", wait=False)
    second = yield from rent(offer_id=offer, name="b", consumer="bob", auto_retry=True, wait=False)
    for session, consumer in ((first, "alice"), (second, "bob")):
        if session:
            yield Until(session, ("running", "stopped", "failed"), consumer=consumer)
            yield from end(session, consumer=consumer)


# --- The account, the service, the database ---------------------------------------------------------------


def _another_life(run: Run) -> None:
    run.plant(run.tag(timedelta(hours=3)))


@scenario(Reason.ORPHAN, before=_another_life)
def a_machine_of_another_life() -> Story:
    session = yield from rent()
    yield from end(session)
    yield minutes(2)


def _two_deployments(run: Run) -> None:
    later = run.clock.instant + timedelta(hours=3)
    run.plant_foreign(tag.mint("other1", later, "the other deployment's key"))
    run.plant_foreign(tag.mint("tests1", later, "somebody else's key"))
    run.plant_foreign(run.tag(timedelta(hours=3))[:40])
    run.plant_foreign(run.tag(timedelta(hours=3)).upper())
    run.plant_foreign("training-box")
    run.plant_foreign("")


@scenario(before=_two_deployments)
def two_deployments_on_one_account() -> Story:
    session = yield from rent()
    yield from end(session)
    yield minutes(5)


def _the_switch_has_fired(run: Run) -> None:
    run.world.pass_time()  # What became due there happens when somebody looks.
    (machine,) = (m for m in run.world.machines.values() if m.id not in run.foreign)
    assert machine.destroyed_by == "dead_man", f"it ended by {machine.destroyed_by or 'nothing'}"
    lived = machine.destroyed_at - machine.created_at
    assert timedelta(minutes=3) < lived < timedelta(minutes=3 + 10), f"it lived for {lived}"


@scenario(HARD_MAX=timedelta(minutes=3))
def every_process_of_ours_is_dead() -> Story:
    session = yield from rent(hours=0.05)
    yield Do(lambda run: run.service.stop(3600))
    yield Sleep(3600)
    yield Do(_the_switch_has_fired)
    yield Until(session, ("stopped", "failed"))


@scenario(long=True)
def the_service_is_stopped_for_six_hours() -> Story:
    session = yield from rent(hours=1)
    yield Do(lambda run: run.service.stop(6 * 3600))
    yield Sleep(6 * 3600)
    yield Until(session, ("stopped", "failed"))


@scenario()
def the_service_is_stopped_while_a_machine_runs() -> Story:
    session = yield from rent(hours=1)
    yield Do(lambda run: run.service.stop(20 * 60))
    yield Sleep(21 * 60)
    yield Until(session, ("running", "stopped", "failed"), at_most=60)
    yield from end(session)


def _backup(run: Run) -> None:
    run.backup()


def _restore(run: Run) -> None:
    run.restore()


@scenario(Reason.ORPHAN, long=True, **{**SPARSE, "RECONCILIATION_INTERVAL": timedelta(minutes=10)})
def a_database_restored_from_an_hour_ago() -> Story:
    first = yield from rent(hours=3, name="before")
    yield Do(_backup)
    yield from rent(hours=1.5, name="after", gpu_type="RTX 3090", provider="vastai")
    assert first
    yield minutes(60)
    yield Do(_restore)
    yield minutes(11)
    yield from end(first)


def _ahead(run: Run) -> None:
    run.clock.skew = timedelta(seconds=60)


def _behind(run: Run) -> None:
    run.clock.skew = timedelta(seconds=-60)


@scenario(before=_ahead)
def a_clock_that_is_a_minute_ahead() -> Story:
    session = yield from rent(hours=0.1)
    yield Until(session, ("stopped", "failed"))


@scenario(before=_behind)
def a_clock_that_is_a_minute_behind() -> Story:
    session = yield from rent(hours=0.1)
    yield Until(session, ("stopped", "failed"))


@scenario()
def a_clock_that_is_set_while_a_machine_runs() -> Story:
    session = yield from rent(hours=0.1)
    yield Do(_ahead)
    yield minutes(3)
    yield Do(_behind)
    yield Until(session, ("stopped", "failed"))


def _boots_a_day_ahead(run: Run) -> None:
    run.service.stop(5)
    run.clock.skew = timedelta(days=1)


def _set_right(run: Run) -> None:
    run.clock.skew = timedelta(0)


@scenario()
def a_computer_that_boots_with_a_clock_a_day_ahead() -> Story:
    session = yield from rent(hours=0.1)
    yield Do(_boots_a_day_ahead)
    yield minutes(2)
    yield Do(_set_right)
    yield Until(session, ("stopped", "failed"))
