"""The operators' commands, each against a provider that does as it is told."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from providers import registry, tag
from providers.base import Machine, MachineState, Unauthorized, Unavailable
from sessions.lifecycle import State
from sessions.management.commands import cleanup_orphans
from sessions.models import Account, Event, Instance, Session
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.operators.commands import run
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db

KEY = "a tag key only for the tests"

Types = Callable[[str], list[str]]


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Types:
    """What the person types at each question; the questions asked."""

    def will_type(words: str) -> list[str]:
        asked: list[str] = []

        def told(question: str) -> str:
            asked.append(question)
            return words

        monkeypatch.setattr("builtins.input", told)
        return asked

    return will_type


@pytest.fixture(autouse=True)
def nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test says what is typed, standard input is at its end."""

    def end_of_file(question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end_of_file)


@pytest.fixture
def running(alice: APIClient, engine: Engine) -> dict[str, Any]:
    session = order(alice)
    engine.run(5)
    return shown(alice, session)


def orphan(provider: FakeProvider, nonce: str = "abcdefghijklmnop", deployment: str = "tests1") -> str:
    return provider.add(tag.sign(deployment, nonce, NOON + timedelta(hours=3), KEY))


# --- teardown -------------------------------------------------------------------------------------------------


def test_teardown_ends_a_session_and_returns_when_it_is_proven_gone(
    running: dict[str, Any], alice: APIClient, provider: FakeProvider
) -> None:
    ran = run("teardown", running["id"], "--yes")
    assert ran.code == 0
    assert "Everything is proven gone." in ran.out
    assert shown(alice, running)["status"] == "stopped"
    assert shown(alice, running)["status_reason"] == "teardown"
    assert provider.count("destroy") == 1
    assert not provider.listed


def test_teardown_asks_before_it_ends_what_lives(running: dict[str, Any], provider: FakeProvider, types: Types) -> None:
    asked = types("yes")
    ran = run("teardown", running["id"])
    assert asked == ["Type 'end them' to go on: "]
    assert ran.code == 1
    assert "Nothing was ended" in ran.err
    assert Session.objects.get().status == "running"
    types("end them")
    assert run("teardown", running["id"]).code == 0
    assert not provider.listed


def test_teardown_without_anybody_to_answer_ends_nothing(running: dict[str, Any]) -> None:
    ran = run("teardown", "--all")
    assert ran.code == 1
    assert "Nothing was ended" in ran.err
    assert Session.objects.get().status == "running"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Give session ids, or --all."),
        (("--all", str(uuid.uuid4())), "Give session ids, or --all."),
        ((str(uuid.uuid4()), "--provider", "fake"), "--provider goes with --all."),
        (("--all", "--provider", "elsewhere"), "Nothing was ever rented at 'elsewhere'"),
        (("--all", "--wait", "-1"), "--wait"),
        (("--all", "--wait", "nan"), "--wait"),
        (("nonsense",), "'nonsense' is not a session's id"),
        ((str(uuid.UUID(int=7)),), f"No such session: {uuid.UUID(int=7)}"),
    ],
)
def test_teardown_refuses_what_it_does_not_understand(
    running: dict[str, Any], args: tuple[str, ...], says: str
) -> None:
    ran = run("teardown", *args, "--yes")
    assert ran.code == 1
    assert says in ran.err
    assert Session.objects.get().status == "running"


def test_one_wrong_id_among_right_ones_ends_nothing(running: dict[str, Any]) -> None:
    assert run("teardown", running["id"], str(uuid.uuid4()), "--yes").code == 1
    assert Session.objects.get().status == "running"


@pytest.mark.parametrize("shown_as", [lambda pk: pk[:8], lambda pk: pk[:13], lambda pk: pk.replace("-", "").upper()])
def test_the_first_characters_of_an_id_are_enough(running: dict[str, Any], shown_as: Callable[[str], str]) -> None:
    name = shown_as(running["id"])
    assert run("extend_session", name, "--hours", "1").code == 0
    assert run("teardown", name, running["id"], "--yes").code == 0
    assert Session.objects.get().status == "stopped"


def test_the_beginning_of_two_ids_names_both_and_ends_none(running: dict[str, Any]) -> None:
    twin = Session.objects.get()
    twin.pk = uuid.UUID(running["id"][:8] + "-0000-4000-8000-000000000000")
    twin.offer_id = "another"
    twin.save(force_insert=True)
    for command in (("teardown", "--yes"), ("extend_session", "--hours=1")):
        ran = run(*command, running["id"][:8])
        assert ran.code == 1
        assert f"2 sessions begin with {running['id'][:8]}" in ran.err
        assert running["id"] in ran.err and str(twin.pk) in ran.err
    assert {one.status for one in Session.objects.all()} == {"running"}
    assert not Event.objects.filter(kind="session_extended").exists()


def test_a_beginning_that_is_too_short_is_no_name(running: dict[str, Any]) -> None:
    ran = run("teardown", running["id"][:7], "--yes")
    assert ran.code == 1
    assert "nor its first 8 characters" in ran.err
    assert "Nothing was ended" in ran.err


def test_teardown_of_what_is_over_says_so(running: dict[str, Any]) -> None:
    run("teardown", running["id"], "--yes")
    again = run("teardown", running["id"])
    assert again.code == 0
    assert "over already: stopped (teardown)" in again.out
    assert "Nothing is left to end." in again.out


def test_teardown_of_one_session_launches_no_other(
    running: dict[str, Any], client_for: Any, provider: FakeProvider
) -> None:
    """Whoever stopped the service and ends one session wants no new machine of somebody else's."""
    waiting = order(client_for("bob"), offer_id="fake-2")
    assert run("teardown", running["id"], "--yes").code == 0
    assert provider.count("create") == 1
    assert Session.objects.get(pk=waiting["id"]).status == "pending"


def test_teardown_while_the_provider_is_silent_is_not_success(
    running: dict[str, Any], provider: FakeProvider, alice: APIClient
) -> None:
    provider.trouble["destroy"] = [Unavailable("no answer")] * 100
    provider.trouble["machines"] = [Unavailable("no answer")] * 100
    ran = run("teardown", running["id"], "--yes", "--wait", "60")
    assert ran.code == 3
    assert "Not proven gone after 60 s, and maybe billing" in ran.err
    assert "machine 101 at fake: asked" in ran.err
    assert "can't be seen: no answer" in ran.err
    assert shown(alice, running)["status"] == "stopping"


def test_teardown_may_only_record_the_wish(running: dict[str, Any], provider: FakeProvider) -> None:
    ran = run("teardown", running["id"], "--yes", "--wait", "0")
    assert ran.code == 0
    assert "the service does the rest" in ran.out
    assert provider.count("destroy") == 0
    assert Session.objects.get().status == "stopping"


def test_teardown_of_all_ends_adopted_machines_too(
    running: dict[str, Any], provider: FakeProvider, engine: Engine, settings: Any
) -> None:
    settings.ORPHAN_AUTO_DESTROY = False
    orphan(provider)
    engine.run(500)
    assert Instance.objects.filter(session=None, state=State.RUNNING).count() == 1
    ran = run("teardown", "--all", "--yes")
    assert ran.code == 0
    assert "(adopted): ending" in ran.out
    assert not provider.listed


def test_teardown_at_one_provider_leaves_the_other_alone(running: dict[str, Any], client_for: Any) -> None:
    other = Session.objects.create(
        consumer="bob", provider="other", offer_id="other-1", gpu_type="A100", gpu_count=1, vram_gb=80, price=1,
        disk_gb=50, reservation=timedelta(hours=1), ssh_public_key="k",
    )  # fmt: skip
    assert run("teardown", "--all", "--provider", "fake", "--yes").code == 0
    other.refresh_from_db()
    assert other.status == "pending"


def test_an_interrupted_teardown_says_that_the_wish_stays(
    running: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("sessions.management.proof.until_gone", interrupted)
    ran = run("teardown", running["id"], "--yes")
    assert ran.code == 3
    assert "The wish stays" in ran.err
    assert Session.objects.get().status == "stopping"


# --- cleanup_orphans ------------------------------------------------------------------------------------------


def test_a_dry_run_shows_orphans_and_touches_nothing(provider: FakeProvider) -> None:
    machine = orphan(provider)
    ran = run("cleanup_orphans")
    assert ran.code == 3
    assert f"{machine} " in ran.out
    assert "no row in the database; its label says: gone by 2026-01-29 15:00 UTC" in ran.out
    assert "A dry run: nothing was touched" in ran.err
    assert provider.count("destroy") == 0
    assert not Instance.objects.exists()


def test_executing_destroys_orphans_and_waits_for_the_proof(provider: FakeProvider, types: Types) -> None:
    orphan(provider)
    types("destroy 1")
    ran = run("cleanup_orphans", "--execute")
    assert ran.code == 0, ran
    assert "No orphans are left." in ran.out
    assert not provider.listed
    assert Instance.objects.get().state == State.DESTROYED
    assert Event.objects.get(kind="instance_end_wished").actor == "manage.py cleanup_orphans"


def test_without_force_the_grace_is_waited_out(provider: FakeProvider, types: Types, virtual: FakeClock) -> None:
    orphan(provider)
    types("destroy 1")
    ran = run("cleanup_orphans", "--execute")
    assert "waiting 120 s (ORPHAN_GRACE_PERIOD)" in ran.out
    first_destroy = Event.objects.get(kind="destroy_sent").at
    assert first_destroy >= NOON + timedelta(seconds=120)


def test_force_neither_asks_nor_waits(provider: FakeProvider, virtual: FakeClock) -> None:
    orphan(provider)
    ran = run("cleanup_orphans", "--execute", "--force")
    assert ran.code == 0
    assert Event.objects.get(kind="destroy_sent").at < NOON + timedelta(seconds=5)


@pytest.mark.parametrize("typed", ["", "y", "yes", "destroy", "destroy 2"])
def test_anything_but_the_phrase_destroys_nothing(provider: FakeProvider, types: Types, typed: str) -> None:
    orphan(provider)
    types(typed)
    ran = run("cleanup_orphans", "--execute")
    assert ran.code == 1
    assert "Nothing was destroyed." in ran.err
    assert len(provider.listed) == 1


def test_a_machine_of_a_live_session_is_no_orphan(running: dict[str, Any], provider: FakeProvider) -> None:
    ran = run("cleanup_orphans", "--execute", "--force")
    assert ran.code == 0
    assert "No orphans" in ran.out
    assert len(provider.listed) == 1


def test_a_machine_whose_row_still_waits_for_its_id_is_no_orphan(
    alice: APIClient, engine: Engine, provider: FakeProvider
) -> None:
    """The create's answer was lost: the row knows the label only."""

    def lost(spec: Any) -> str:
        provider.add(spec.label)
        raise Unavailable("the connection broke")

    provider.create = lost  # type: ignore[method-assign]
    order(alice)
    real = provider.machines
    provider.machines = list  # type: ignore[method-assign, assignment]
    engine.run(4)
    provider.machines = real  # type: ignore[method-assign]
    assert Instance.objects.get().machine_id == ""
    ran = run("cleanup_orphans", "--execute", "--force")
    assert ran.code == 0
    assert len(provider.listed) == 1


def test_rows_are_read_after_the_listing(provider: FakeProvider) -> None:
    """A create that is answered while the account is listed: the machine is listed, and its row comes just in time."""
    label = tag.sign("tests1", "abcdefghijklmnop", NOON + timedelta(hours=3), KEY)
    real = provider.machines

    def listed_while_it_is_made() -> list[Machine]:
        provider.add(label)
        found = list(real())
        Instance.objects.create(provider="fake", tag=label, deadline=NOON, hard_deadline=NOON, launched_at=NOON)
        return found

    provider.machines = listed_while_it_is_made  # type: ignore[method-assign]
    assert run("cleanup_orphans").code == 0


def test_what_became_a_live_machine_while_the_person_thought_is_spared(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, alice: APIClient
) -> None:
    """Rows come back while the question stands: somebody mends the database."""
    machine = orphan(provider)
    session = order(alice)

    def mend(question: str) -> str:
        Instance.objects.create(
            provider="fake", tag=provider.listed[machine].label or "", machine_id=machine, state=State.RUNNING,
            deadline=NOON + timedelta(hours=3), hard_deadline=NOON + timedelta(hours=3), session_id=session["id"],
        )  # fmt: skip
        return "destroy 1"

    monkeypatch.setattr("builtins.input", mend)
    ran = run("cleanup_orphans", "--execute")
    assert ran.code == 0
    assert provider.count("destroy") == 0
    assert len(provider.listed) == 1


def test_a_blind_account_never_has_no_orphans(provider: FakeProvider) -> None:
    for trouble in (Unavailable("no answer"), Unauthorized("401")):
        provider.trouble["machines"] = [trouble]
        ran = run("cleanup_orphans")
        assert ran.code == 4
        assert "No orphans" not in ran.out
        assert "Not seen completely: fake. Nothing was concluded" in ran.err


def test_one_blind_account_hides_no_orphans_of_another(provider: FakeProvider) -> None:
    other = FakeProvider("other")
    other.trouble["machines"] = [Unavailable("no answer")]
    registry.use({"fake": provider, "other": other})
    machine = orphan(provider)
    ran = run("cleanup_orphans", "--execute", "--force")
    assert ran.code == 4
    assert machine not in provider.listed
    assert "Not seen completely: other." in ran.err


def test_an_account_that_goes_blind_after_the_question_loses_nothing(provider: FakeProvider, types: Types) -> None:
    orphan(provider)
    types("destroy 1")
    real, calls = provider.machines, []

    def once() -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise Unavailable("no answer")
        return real()

    provider.machines = once  # type: ignore[method-assign]
    ran = run("cleanup_orphans", "--execute")
    assert ran.code == 3
    assert "Nothing was destroyed there." in ran.err
    assert provider.count("destroy") == 0


def test_no_provider_is_not_no_orphans(db: None, settings: Any) -> None:
    registry.use({})
    settings.SANDBOX = False
    ran = run("cleanup_orphans")
    assert ran.code == 4
    assert "No provider is configured" in ran.err


@pytest.mark.parametrize("command", ["cleanup_orphans", "reconcile", "import_charges"])
def test_without_the_running_sandbox_a_command_says_where_it_would_be(command: str, db: None, settings: Any) -> None:
    registry.use({})
    settings.SANDBOX = True
    ran = run(command)
    assert ran.code == 4
    assert "the built-in sandbox is there only while the service runs" in ran.err
    assert str(settings.DATA_DIR) in ran.err


def test_an_unknown_provider_is_refused(provider: FakeProvider) -> None:
    assert run("cleanup_orphans", "--provider", "nowhere").code == 1


def test_two_deployments_on_one_account_keep_to_their_own(provider: FakeProvider) -> None:
    theirs = orphan(provider, deployment="tests2")
    forged = provider.add("gs-tests1-abcdefghijklmnop-tekl8p-aaaaaaaaaaaa")
    somebodys = provider.add("my training box")
    ran = run("cleanup_orphans", "--execute", "--force")
    assert ran.code == 0
    assert f"{forged} " in ran.out, "a label that is not signed by us is shown"
    assert "never touched" in ran.out
    assert set(provider.listed) == {theirs, forged, somebodys}


def test_a_restored_database_is_recognised_before_anything_is_destroyed(provider: FakeProvider, types: Types) -> None:
    """Rows of the last hour are missing: the machines may be in use."""
    for letter in "abcde":
        orphan(provider, nonce=f"abcdefghijklmno{letter}")
    types("no")
    ran = run("cleanup_orphans", "--execute")
    assert ran.code == 1
    assert "That is what a lost or restored database looks like" in ran.out
    assert len(provider.listed) == 5


def test_with_the_brake_on_the_dry_run_says_that_they_may_be_in_use(
    provider: FakeProvider, types: Types, virtual: FakeClock
) -> None:
    for letter in "abcde":
        orphan(provider, nonce=f"abcdefghijklmno{letter}")
    run("reconcile")
    virtual.advance(121)
    run("reconcile")
    ran = run("cleanup_orphans")
    assert "fake: the brake is on, since machines of ours had no session." in ran.out
    assert "people's live machines" in ran.out
    assert "5 orphans. A dry run" in ran.err
    types("no")
    asked = run("cleanup_orphans", "--execute").out
    assert asked.count("people's live machines") == 1
    assert "have no row at all" not in asked


def test_a_machine_on_its_way_out_is_shown_and_left_to_it(running: dict[str, Any], provider: FakeProvider) -> None:
    run("teardown", running["id"], "--yes", "--wait", "0")
    ran = run("cleanup_orphans", "--execute", "--force")
    assert ran.code == 0
    assert "leaving" in ran.out
    assert provider.count("destroy") == 0


def test_a_machine_that_was_proven_gone_and_is_listed_again_is_an_orphan(
    running: dict[str, Any], provider: FakeProvider
) -> None:
    label = Instance.objects.get().tag
    run("teardown", running["id"], "--yes")
    provider.listed["101"] = Machine(id="101", label=label, state=MachineState.UP)
    ran = run("cleanup_orphans")
    assert ran.code == 3
    assert "proven gone, and listed again" in ran.out
    assert run("cleanup_orphans", "--execute", "--force").code == 0
    assert not provider.listed


def test_an_end_that_is_proven_during_the_listing_makes_no_orphan(virtual: FakeClock) -> None:
    machine = Machine(id="7", label="gs-x", state=MachineState.LEAVING)
    row = Instance(machine_id="7", state=State.DESTROYED, ended_at=NOON + timedelta(seconds=3), provider="fake")
    assert cleanup_orphans._finding(machine, row, NOON) is None


def test_destroys_without_effect_are_not_success(provider: FakeProvider) -> None:
    orphan(provider)
    provider.destroy = lambda machine_id: None  # type: ignore[method-assign]
    ran = run("cleanup_orphans", "--execute", "--force", "--wait", "90")
    assert ran.code == 3
    assert "not proven gone: machine 101 at fake: asked" in ran.err
    assert "maybe billing" in ran.err


# --- extend_session -------------------------------------------------------------------------------------------


def test_extend_moves_the_deadline(running: dict[str, Any]) -> None:
    ran = run("extend_session", running["id"], "--hours", "2")
    assert ran.code == 0
    assert "of alice runs until 2026-01-29 15:00:00 UTC." in ran.out
    assert Event.objects.get(kind="session_extended").actor == "manage.py extend_session"


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf", "745"])
def test_extend_refuses_impossible_hours(running: dict[str, Any], hours: str) -> None:
    ran = run("extend_session", running["id"], f"--hours={hours}")
    assert ran.code == 1
    assert "--hours" in ran.err
    assert Session.objects.get().expires_at == NOON + timedelta(hours=1)


def test_the_hard_maximum_is_passed_by_override_and_reason_only(running: dict[str, Any]) -> None:
    ran = run("extend_session", running["id"], "--hours", "20")
    assert ran.code == 1
    assert "It has 1 h; the hard maximum is 12 h in all" in ran.err
    for half in (["--override"], ["--reason", "because"], ["--override", "--reason", " "]):
        assert run("extend_session", running["id"], "--hours", "20", *half).code == 1
    assert Session.objects.get().expires_at == NOON + timedelta(hours=1)
    assert run("extend_session", running["id"], "--hours", "20", "--override", "--reason", "a long training").code == 0
    assert "a long training" in Event.objects.get(kind="session_extended").message


def test_extend_of_what_is_not_there_or_over_says_which(running: dict[str, Any]) -> None:
    assert "is not a session's id" in run("extend_session", "x", "--hours", "1").err
    assert "No such session" in run("extend_session", str(uuid.uuid4()), "--hours", "1").err
    run("teardown", running["id"], "--yes")
    ran = run("extend_session", running["id"], "--hours", "1")
    assert ran.code == 1
    assert "not live any more (stopped, teardown)" in ran.err


# --- reconcile ------------------------------------------------------------------------------------------------


def test_reconcile_lists_and_tells(running: dict[str, Any], provider: FakeProvider) -> None:
    provider.add("my training box")
    ran = run("reconcile")
    assert ran.code == 0
    assert "fake: 2 machines: 1 ours, 0 with our label and no row yet, 1 foreign" in ran.out


def test_reconcile_of_a_silent_account_is_no_success(running: dict[str, Any], provider: FakeProvider) -> None:
    provider.trouble["machines"] = [Unavailable("no answer")]
    ran = run("reconcile", "--provider", "fake")
    assert ran.code == 4
    assert "Nothing was concluded" in ran.err
    assert Session.objects.get().status == "running"


def test_reconcile_destroys_nothing_itself(provider: FakeProvider, virtual: FakeClock) -> None:
    orphan(provider)
    assert "fake: 1 machine: 0 ours, 1 with our label and no row yet, 0 foreign" in run("reconcile").out
    virtual.advance(121)
    ran = run("reconcile")
    assert "1 adopted" in ran.out
    assert provider.count("destroy") == 0


def test_reconcile_names_the_brake(provider: FakeProvider) -> None:
    Account.objects.create(provider="fake", brake="amnesia")
    assert "release the brake" in run("reconcile").out


def test_reconcile_refuses_an_unknown_provider(provider: FakeProvider) -> None:
    assert run("reconcile", "--provider", "nowhere").code == 1
    registry.use({})
    assert run("reconcile").code == 4
