"""Every page of the admin, walked; what its actions do; and that it never shows a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from rest_framework.test import APIClient

from costs.models import Alert, Balance, Bill, BilledCharge, Budget, Spending
from gpushopper import alarms
from gpushopper.models import Alarm, ApiKey, Consumer, Pace, make_key
from providers import registry, tag
from sessions import lifecycle, next_step
from sessions.lifecycle import State
from sessions.models import Account, Counter, Event, Heartbeat, Instance, Reply, Session, Stranger
from tests.fakes import NOON, Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db

TAG_KEY = "a tag key only for the tests"


@pytest.fixture
def root(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="secret-of-root"))
    return client


@pytest.fixture
def staff(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("sam", password="secret-of-sam", is_staff=True))
    return client


@pytest.fixture
def running(alice: APIClient, engine: Engine) -> dict[str, Any]:
    session = order(alice, onstart="echo CANARY-onstart", env={"TOKEN": "CANARY-env"})
    engine.run(5)
    return shown(alice, session)


@pytest.fixture
def adopted(provider: FakeProvider, engine: Engine, settings: Any) -> Instance:
    """A machine of ours without a row, kept since it is for an operator to decide."""
    settings.ORPHAN_AUTO_DESTROY = False
    provider.add(tag.sign("tests1", "abcdefghijklmnop", NOON + timedelta(hours=3), TAG_KEY))
    engine.run(500)
    return Instance.objects.get(session=None)


@pytest.fixture
def everything(running: dict[str, Any], adopted: Instance) -> None:
    """A row of each kind."""
    alarms.raise_new(NOON)
    Alarm.objects.create(name="provider_blind", subject="fake", text="fake is blind.", raised_at=NOON)
    Stranger.objects.create(provider="fake", machine_id="5", label="somebody's", ownership="foreign",
                            first_seen_at=NOON, seen_at=NOON)  # fmt: skip
    Reply.objects.create(consumer="alice", key="once", body_digest="d", status_code=201, body="CANARY-reply")
    Counter.objects.create(name="orphans_detected", label="other", value=3)
    Heartbeat.objects.update_or_create(name="beat", defaults={"at": NOON})
    Pace.objects.create(key="fake:abc:GET /x", free_at=NOON)
    Budget.objects.create(consumer="alice", period="daily", limit=5_000_000, on_limit="stop")
    Bill.objects.update_or_create(provider="fake", defaults={"read_at": NOON})
    Balance.objects.create(provider="fake", at=NOON, amount=7_000_000)
    BilledCharge.objects.create(provider="fake", machine_id="5", day=NOON.date(), line=0, kind="gpu", started_at=NOON,
                                ended_at=NOON, amount=100_000, imported_at=NOON)  # fmt: skip
    every = IntervalSchedule.objects.create(every=5, period="seconds")
    PeriodicTask.objects.create(name="tick", task="sessions.tasks.tick", interval=every)


def url(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def pages() -> Iterator[str]:
    """Every page that an operator may open with what is in the database now."""
    yield reverse("admin:index")
    yield reverse("admin:password_change")
    for model, page in admin.site._registry.items():
        yield url(model, "changelist")
        if type(page).has_add_permission.__qualname__.startswith(("ModelAdmin", "BaseModelAdmin", "UserAdmin")):
            yield url(model, "add")
        for row in model._default_manager.all()[:20] if model is not Spending else ():
            yield url(model, "change", row.pk)
            yield url(model, "history", row.pk)


def act(client: Client, model: Any, action: str, *pks: Any, **more: Any) -> Any:
    """Choose rows in a list and run an action, as a browser does it without JavaScript."""
    return client.post(url(model, "changelist"), {"action": action, "_selected_action": pks, **more}, follow=True)


# --- Walking ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everything")
def test_every_page_opens(root: Client) -> None:
    walked = list(pages())
    assert len(walked) > 60
    for page in walked:
        answer = root.get(page)
        assert answer.status_code == 200, page


def test_every_model_of_ours_has_a_page() -> None:
    from django.apps import apps

    ours = {"gpushopper", "gpu_sessions", "inventory", "costs", "django_celery_beat"}
    registered = set(admin.site._registry)
    without = {m._meta.label for m in apps.get_models() if m._meta.app_label in ours and m not in registered}
    # The first only remembers when the list was changed; the other stands on the pages of its deliveries.
    assert without <= {"django_celery_beat.PeriodicTasks", "costs.DeliveryAttempt"}


SECRETS = {
    "VASTAI_API_KEY": "CANARY-provider-key", "METRICS_TOKEN": "CANARY-metrics",
    "HEARTBEAT_URL": "https://monitor/CANARY-url",
}  # fmt: skip


@pytest.mark.usefixtures("everything")
def test_no_page_shows_a_secret(root: Client, settings: Any) -> None:
    settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, **SECRETS}
    settings.METRICS_TOKEN, settings.HEARTBEAT_URL = SECRETS["METRICS_TOKEN"], SECRETS["HEARTBEAT_URL"]
    consumer = Consumer.objects.get(name="alice")
    key, text = make_key(consumer)
    Session.objects.update(ssh_private_key="CANARY-private-key")
    Instance.objects.update(our_key="CANARY-our-key")
    never = {"CANARY", text, text.rpartition("_")[2], key.digest, settings.SECRET_KEY, TAG_KEY,
             settings.FIELD_ENCRYPTION_KEYS[0], User.objects.get().password}  # fmt: skip
    for page in pages():
        body = root.get(page).content.decode()
        for secret in never:
            assert secret not in body, page


@pytest.mark.usefixtures("everything")
def test_no_page_loads_anything_from_elsewhere(root: Client) -> None:
    for page in (*pages(), "/admin/login/"):
        body = root.get(page).content.decode()
        loaded = re.findall(r"<(?:link|script|img|iframe|form)[^>]+(?:href|src|action)=[\"']([^\"']+)", body)
        assert [address for address in loaded if re.match(r"(?:[a-z]+:)?//", address)] == [], page


@pytest.mark.usefixtures("everything")
def test_a_page_of_many_sessions_asks_no_question_for_each(
    root: Client, django_assert_max_num_queries: Any, engine: Engine
) -> None:
    one = Session.objects.get()
    for number in range(40):
        one.pk = None
        one.offer_id = f"fake-{number + 10}"
        one.id = Session._meta.get_field("id").get_default()
        one.save(force_insert=True)
    with django_assert_max_num_queries(20):
        assert root.get(url(Session, "changelist")).status_code == 200


def test_a_page_of_many_budgets_asks_no_question_for_each(
    root: Client, running: dict[str, Any], django_assert_num_queries: Any
) -> None:
    def budgets_of(*consumers: str) -> list[Budget]:
        return [Budget.objects.create(consumer=name, period="daily", limit=5_000_000) for name in consumers]

    budgets_of("alice")
    root.get(url(Budget, "changelist"))
    with CaptureQueriesContext(connection) as of_one:
        assert "$5.00" in root.get(url(Budget, "changelist")).content.decode()
    budgets_of(*(f"c{number}" for number in range(30)))
    with django_assert_num_queries(len(of_one)):
        assert "c29" in root.get(url(Budget, "changelist")).content.decode()


def test_a_page_of_many_alerts_asks_no_question_for_each(root: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(20):
        budget = Budget.objects.create(consumer=f"c{number}", period="daily", limit=5_000_000)
        Alert.objects.create(budget=budget, period=budget.period, period_start=NOON, threshold=5000, limit=5_000_000,
                             spent=1, at=NOON)  # fmt: skip
    with django_assert_max_num_queries(15):
        assert "c19" in root.get(url(Alert, "changelist")).content.decode()


def test_what_is_not_so_is_not_shown_as_wrong(root: Client, running: dict[str, Any]) -> None:
    page = root.get(url(Account, "change", Account.objects.get().pk)).content.decode()
    assert "accepted" in page and "close_small" not in page
    Account.objects.update(unauthorized=True)
    assert "rejected" in root.get(url(Account, "change", Account.objects.get().pk)).content.decode()
    assert "close_small" not in root.get(url(Session, "change", running["id"])).content.decode()


def test_without_javascript_the_page_is_not_hidden(root: Client) -> None:
    """The theme hides the page until its script has run."""
    for client, page in ((root, reverse("admin:index")), (Client(), "/admin/login/")):
        body = client.get(page).content.decode()
        assert "x-cloak" in body
        assert "html[x-cloak] { display: block !important; }" in body


def test_the_sandbox_is_named_on_every_page(root: Client, settings: Any) -> None:
    settings.SANDBOX = True
    for page in (*pages(), "/admin/login/"):
        assert "Sandbox." in root.get(page, follow=True).content.decode(), page
    assert "Sandbox." in Client().get("/admin/login/").content.decode()
    settings.SANDBOX = False
    assert "Sandbox." not in root.get(reverse("admin:index")).content.decode()


# --- The first page -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("running")
def test_the_first_page_tells_what_runs_and_what_it_burns(root: Client) -> None:
    Heartbeat.objects.update_or_create(name="beat", defaults={"at": NOON + timedelta(seconds=5)})
    body = root.get(reverse("admin:index")).content.decode()
    assert "$0.4100/h" in body
    assert "1 running" in body
    assert "13:00 UTC" in body
    assert "in 60 min" in body
    assert "1 ours" in body


def test_an_alarm_stays_on_the_first_page_until_it_is_over(root: Client, adopted: Instance) -> None:
    body = root.get(reverse("admin:index")).content.decode()
    assert "orphan adopted" in body
    assert f"Machine {adopted.machine_id} at fake bears our label" in body
    assert url(Instance, "change", adopted.pk) in body
    Instance.objects.filter(pk=adopted.pk).update(state=State.DESTROYED)
    assert "orphan adopted" not in root.get(reverse("admin:index")).content.decode()


@pytest.mark.usefixtures("adopted")
def test_every_other_page_says_that_there_are_alarms(root: Client, virtual: FakeClock) -> None:
    for name in ("beat", "guardian"):
        Heartbeat.objects.update_or_create(name=name, defaults={"at": virtual.now()})
    alarms.raise_new(virtual.now())
    assert "2 alarms" in root.get(url(Session, "changelist")).content.decode()
    assert "2 alarms" not in Client().get("/admin/login/").content.decode()


# --- What comes next ----------------------------------------------------------------------------------------


def test_every_decision_has_a_sentence() -> None:
    decisions = {*get_args(lifecycle.Action), *get_args(lifecycle.SessionAction)} - {lifecycle.Wait}
    assert set(next_step._DOES) == decisions
    assert set(next_step._WAITS_IN) == set(State)


def test_the_next_step_is_told_with_its_instant(
    root: Client, alice: APIClient, engine: Engine, virtual: FakeClock, provider: FakeProvider
) -> None:
    session = order(alice)
    pk = session["id"]

    def told() -> tuple[str, str]:
        now = virtual.now()
        rows = Instance.objects.all()
        return (next_step.of_session(Session.objects.get(pk=pk), now),
                next_step.of_instance(rows[0], now) if rows else "")  # fmt: skip

    assert told()[0] == "At once: takes the next fitting offer."
    engine.run(5)
    assert told() == (
        "Runs until 13:00:00 UTC (in 60 min). Next look: 12:05:02 UTC (in 5 min), or as soon as something happens.",
        "Runs. Next look: 12:05:02 UTC (in 5 min), or as soon as something happens.",
    )
    alice.delete(f"/api/v1/sessions/{pk}")
    assert told()[1] == "At once: asks fake to destroy it (ask 1)."
    engine.run(2)
    assert told() == (
        "Waits for the proof that each of its machines is gone.",
        "Waits for complete listings to agree that it is gone.",
    )
    engine.run(60)
    assert told() == ("Nothing: it is over.", "Nothing: it is proven gone.")


@pytest.mark.usefixtures("running")
def test_without_a_key_the_next_step_says_that_nothing_can_be_asked(virtual: FakeClock) -> None:
    Instance.objects.update(state=State.DESTROYING)
    registry.use({})
    told = next_step.of_instance(Instance.objects.get(), virtual.now())
    assert told == "Nothing can be asked of fake: no key for it is set. It is kept as it is."


# --- Actions ------------------------------------------------------------------------------------------------


def test_ending_a_session_asks_first(root: Client, running: dict[str, Any], engine: Engine) -> None:
    asked = act(root, Session, "end_sessions", running["id"]).content.decode()
    assert '<h1 class="gs-title">End 1 live session?</h1>' in asked
    assert "1 × RTX 4090 at fake, running, until 2026-01-29 13:00 UTC" in asked
    assert Session.objects.get().status == "running", "a question ends nothing"
    act(root, Session, "end_sessions", running["id"], confirmed="yes")
    assert Session.objects.get().status == "stopping"
    assert Event.objects.get(kind="session_stopping").actor == "admin root"
    engine.run(60)
    assert Session.objects.get().status == "stopped"


def test_ending_what_is_over_does_nothing_and_says_so(root: Client, running: dict[str, Any], engine: Engine) -> None:
    act(root, Session, "end_sessions", running["id"], confirmed="yes")
    engine.run(60)
    again = act(root, Session, "end_sessions", running["id"], confirmed="yes")
    assert "there is nothing to end" in again.content.decode()
    assert Event.objects.filter(kind="session_stopping").count() == 1


def test_the_page_of_a_session_offers_what_can_be_done_now(
    root: Client, running: dict[str, Any], engine: Engine
) -> None:
    page = url(Session, "change", running["id"])
    assert 'value="end_sessions"' in root.get(page).content.decode()
    act(root, Session, "end_sessions", running["id"], confirmed="yes")
    engine.run(60)
    assert 'value="end_sessions"' not in root.get(page).content.decode()


def test_extending_moves_the_deadline(root: Client, running: dict[str, Any]) -> None:
    assert "Hours to add" in act(root, Session, "extend_sessions", running["id"]).content.decode()
    act(root, Session, "extend_sessions", running["id"], confirmed="yes", hours="1.5")
    assert Session.objects.get().expires_at == NOON + timedelta(hours=2.5)


@pytest.mark.parametrize("hours", ["", "0", "-1", "nan", "inf", "1e9", "two"])
def test_impossible_hours_are_asked_again(root: Client, running: dict[str, Any], hours: str) -> None:
    answer = act(root, Session, "extend_sessions", running["id"], confirmed="yes", hours=hours)
    assert 'class="gs-error"' in answer.content.decode()
    assert Session.objects.get().expires_at == NOON + timedelta(hours=1)


def test_the_hard_maximum_needs_a_reason(root: Client, running: dict[str, Any]) -> None:
    def extend(**said: str) -> str:
        answer = act(root, Session, "extend_sessions", running["id"], confirmed="yes", hours="20", **said)
        body: str = answer.content.decode()
        return body

    assert "that passes the hard maximum" in extend()
    assert "Say why it may go beyond" in extend(override="on", reason=" ")
    assert Session.objects.get().expires_at == NOON + timedelta(hours=1)
    assert "runs until 2026-01-30 09:00 UTC" in extend(override="on", reason="a long training")
    assert "a long training" in Event.objects.get(kind="session_extended").message


def test_an_adopted_machine_is_ended_on_its_page(root: Client, adopted: Instance, engine: Engine) -> None:
    assert 'value="end_adopted"' in root.get(url(Instance, "change", adopted.pk)).content.decode()
    assert "may be somebody&#x27;s live one" in act(root, Instance, "end_adopted", adopted.pk).content.decode()
    act(root, Instance, "end_adopted", adopted.pk, confirmed="yes")
    adopted.refresh_from_db()
    assert adopted.state == State.DESTROYING
    engine.run(60)
    adopted.refresh_from_db()
    assert adopted.state == State.DESTROYED


def test_a_machine_with_a_session_is_not_ended_by_itself(root: Client, running: dict[str, Any]) -> None:
    row = Instance.objects.get()
    assert 'value="end_adopted"' not in root.get(url(Instance, "change", row.pk)).content.decode()
    assert "ended by its session" in act(root, Instance, "end_adopted", row.pk, confirmed="yes").content.decode()
    assert Instance.objects.get().state == State.RUNNING


def test_the_brake_is_released_after_a_question(root: Client, adopted: Instance) -> None:
    assert Account.objects.get().brake
    act(root, Account, "release_brake", "fake")
    assert Account.objects.get().brake
    act(root, Account, "release_brake", "fake", confirmed="yes")
    assert not Account.objects.get().brake
    assert Event.objects.get(kind="brake_released").actor == "admin root"


@pytest.mark.usefixtures("running")
def test_an_account_is_listed_now(root: Client, virtual: FakeClock) -> None:
    Account.objects.update(due_at=NOON + timedelta(hours=1))
    act(root, Account, "list_now", "fake")
    assert Account.objects.get().due_at == virtual.now()


def test_a_key_is_shown_once_and_kept_nowhere(root: Client, alice: APIClient) -> None:
    answer = act(root, Consumer, "give_a_key", "alice")
    [text] = re.findall(r'value="(gs_[^"]+)"', answer.content.decode())
    assert "no-store" in answer["Cache-Control"]
    assert APIClient(HTTP_AUTHORIZATION=f"Bearer {text}").get("/api/v1/sessions").status_code == 200
    assert not any(text in morsel.value for morsel in root.cookies.values()), "no cookie carries it"
    assert text not in str(dict(root.session)), "nor does the session"
    assert text not in "".join(Event.objects.values_list("message", flat=True))
    assert text not in root.get(url(ApiKey, "changelist")).content.decode()


def test_an_operators_key_is_given_after_a_question(root: Client, alice: APIClient) -> None:
    assert "sees, rents and ends" in act(root, Consumer, "give_an_operator_key", "alice").content.decode()
    assert not ApiKey.objects.filter(role="operator").exists()
    answer = act(root, Consumer, "give_an_operator_key", "alice", confirmed="yes")
    assert "gs_" in answer.content.decode()
    assert ApiKey.objects.filter(role="operator").count() == 1


def test_a_revoked_key_is_dead_at_once(root: Client, alice: APIClient) -> None:
    key = ApiKey.objects.get()
    act(root, ApiKey, "revoke", key.pk)
    assert alice.get("/api/v1/sessions").status_code == 200
    act(root, ApiKey, "revoke", key.pk, confirmed="yes")
    assert alice.get("/api/v1/sessions").status_code == 401


# --- Who may do what ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everything")
def test_the_staff_see_and_end_everything(staff: Client, running: dict[str, Any]) -> None:
    for model in (Session, Instance, Account, Event, Stranger, Alarm, Consumer, ApiKey):
        assert staff.get(url(model, "changelist")).status_code == 200, model
    act(staff, Session, "end_sessions", running["id"], confirmed="yes")
    assert Session.objects.get().status == "stopping"
    assert Event.objects.filter(kind="session_stopping", actor="admin sam").exists()


@pytest.mark.usefixtures("alice")
def test_the_staff_touch_no_people_and_no_keys(staff: Client) -> None:
    for page in (url(User, "changelist"), url(User, "add"), url(Consumer, "add")):
        assert staff.get(page).status_code == 403, page
    before = ApiKey.objects.count()
    for action in ("give_a_key", "give_an_operator_key"):
        act(staff, Consumer, action, "alice", confirmed="yes")
    assert ApiKey.objects.count() == before
    assert 'value="give_a_key"' not in staff.get(url(Consumer, "change", "alice")).content.decode()


@pytest.mark.usefixtures("alice")
def test_a_member_of_the_staff_with_the_permission_gives_keys(staff: Client) -> None:
    User.objects.get(username="sam").user_permissions.add(Permission.objects.get(codename="add_apikey"))
    assert "gs_" in act(staff, Consumer, "give_a_key", "alice").content.decode()


@pytest.mark.usefixtures("everything")
def test_nobody_else_sees_anything() -> None:
    outsider = Client()
    outsider.force_login(User.objects.create_user("eve", password="x"))
    for client in (Client(), outsider):
        for page in pages():
            assert client.get(page).status_code == 302, page


@pytest.mark.usefixtures("everything")
def test_no_row_of_the_service_can_be_written_by_hand(root: Client) -> None:
    for model in (Session, Instance, Account, Event, Stranger, Counter, Heartbeat, Reply, Alarm, PeriodicTask):
        row = model._default_manager.first()
        assert row is not None
        assert root.get(url(model, "add")).status_code == 403, model
        assert root.post(url(model, "change", row.pk), {}).status_code == 403, model
        assert root.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model
        act(root, model, "delete_selected", row.pk, post="yes")
        assert model._default_manager.filter(pk=row.pk).exists()
