"""Messages: who is told of what, and that none is lost, doubled or held up."""

from __future__ import annotations

import base64
import json
import logging
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from rest_framework.test import APIClient

from costs import delivery, signing, targets, tasks, webhooks
from costs.models import Delivery, DeliveryAttempt, Endpoint
from providers.base import Refusal, Refused
from sessions import rows, wake
from sessions.lifecycle import LIVE
from sessions.models import Event, Session
from tests.conftest import ClientFor
from tests.costs.receiver import WITHIN, Receiver
from tests.fakes import Engine, FakeClock, FakeProvider
from tests.sessions.test_life import order, shown

pytestmark = pytest.mark.django_db


def subscribe(client: APIClient, url: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/webhooks", {"url": url, **more})
    assert answer.status_code == 201, answer.content
    made: dict[str, Any] = answer.json()
    return made


def endpoint(url: str = "http://127.0.0.1:1/", consumer: str = "alice") -> Endpoint:
    return webhooks.add(url, consumer=consumer, events=list(webhooks.CONSUMER_EVENTS))


def message(to: Endpoint, virtual: FakeClock) -> Delivery:
    webhooks.emit("session.running", {"n": 1}, virtual.now(), consumer=to.consumer)
    return Delivery.objects.filter(endpoint=to).latest("id")


def deliver_all(virtual: FakeClock) -> None:
    """What a tick wakes, done here."""
    due = Delivery.objects.filter(due_at__lte=virtual.now()).order_by().values_list("endpoint", flat=True).distinct()
    for pk in due:
        webhooks.deliver(pk)


# --- What is told -----------------------------------------------------------------------------------------------


def test_a_life_is_told_signed(alice: APIClient, engine: Engine, receiver: Receiver, virtual: FakeClock) -> None:
    hook = subscribe(alice, receiver.url)
    session = order(alice)
    engine.run(5)
    deliver_all(virtual)
    alice.post(f"/api/v1/sessions/{session['id']}/done")
    engine.run(60)
    deliver_all(virtual)
    told = [got.verified_at(hook["secret"], virtual) for got in receiver.got]
    assert [each["type"] for each in told] == ["session.running", "session.stopped"]
    assert told[0]["data"]["session"]["ssh_command"] == "ssh -p 22 root@127.0.0.1"
    assert told[0]["data"]["session"]["status"] == "running"
    assert told[1]["data"]["session"]["id"] == session["id"]
    assert told[1]["data"]["session"]["verified_gone_at"]
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 2


def test_a_failed_session_is_told(alice: APIClient, engine: Engine, provider: FakeProvider, receiver: Receiver,
                                  virtual: FakeClock) -> None:  # fmt: skip
    provider.trouble["create"] = [Refused("no_such_ask", why=Refusal.OFFER_GONE)]
    hook = subscribe(alice, receiver.url)
    order(alice)
    engine.run(90)
    deliver_all(virtual)
    [got] = receiver.got
    told = got.verified_at(hook["secret"], virtual)
    assert told["type"] == "session.failed"
    assert told["data"]["session"]["failure"]["type"] == "refused"


def test_each_consumer_hears_of_its_own_and_operators_of_all(client_for: ClientFor, engine: Engine) -> None:
    alice, bob, ops = client_for("alice"), client_for("bob"), client_for("ops", operator=True)
    of = {client: endpoint(consumer=name) for client, name in ((alice, "alice"), (bob, "bob"), (ops, ""))}
    order(alice)
    engine.run(5)
    assert {row.endpoint for row in Delivery.objects.all()} == {of[alice], of[ops]}


def test_orphans_and_overdue_destroys_are_for_operators_only(virtual: FakeClock) -> None:
    webhooks.add("http://127.0.0.1:1/", consumer="alice", events=list(webhooks.OPERATOR_EVENTS))
    ours = webhooks.add("http://127.0.0.1:1/", consumer="", events=list(webhooks.OPERATOR_EVENTS))
    rows.tell("orphan_adopted", "Machine 7 bears our tag", virtual.now(), provider="fake", machine_id="7")
    rows.tell("destroy_overdue", "Machine 7 is on its way out", virtual.now(), provider="fake", machine_id="7")
    rows.tell("create_sent", "Nobody is told of this", virtual.now())
    kinds = Delivery.objects.values_list("kind", "endpoint")
    assert set(kinds) == {("orphan.detected", ours.pk), ("destroy.overdue", ours.pk)}
    assert json.loads(Delivery.objects.get(kind="orphan.detected").body)["data"]["machine_id"] == "7"


def test_only_the_events_asked_for_are_sent(alice: APIClient, engine: Engine, receiver: Receiver) -> None:
    subscribe(alice, receiver.url, events=["session.stopped"])
    session = order(alice)
    engine.run(5)
    assert not Delivery.objects.exists()
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert [row.kind for row in Delivery.objects.all()] == ["session.stopped"]


def test_the_message_stands_or_falls_with_what_it_tells_of(virtual: FakeClock) -> None:
    endpoint(consumer="")
    Endpoint.objects.update(events=list(webhooks.OPERATOR_EVENTS))
    with pytest.raises(RuntimeError), transaction.atomic():
        rows.tell("orphan_adopted", "Machine 7", virtual.now())
        assert Delivery.objects.exists()
        raise RuntimeError("the process dies here")
    assert not Event.objects.exists()
    assert not Delivery.objects.exists()


def test_a_machine_goes_its_way_though_its_webhooks_can_not_be_queued(
    alice: APIClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint()
    monkeypatch.setattr(webhooks, "_announce", lambda *given: connection.cursor().execute("SELECT no_such_column"))
    session = order(alice)
    engine.run(5)
    assert shown(alice, session)["status"] == "running"


def test_the_largest_message_stays_below_20_kilobytes(alice: APIClient, engine: Engine, virtual: FakeClock) -> None:
    endpoint()
    session = order(alice)
    engine.run(5)
    Session.objects.update(end_reason="refused", end_note="x" * 500)
    webhooks.announce(
        rows.tell("session_failed", "y" * 500, virtual.now(), session=Session.objects.get(pk=session["id"]))
    )
    assert max(len(row.body.encode()) for row in Delivery.objects.all()) < 20_000


# --- Attempts --------------------------------------------------------------------------------------------------


def test_a_receiver_that_is_down_for_hours_loses_nothing(receiver: Receiver, virtual: FakeClock) -> None:
    receiver.always = 500
    to = endpoint(receiver.url)
    row = message(to, virtual)
    for _ in range(3600 * 9 // 60):
        deliver_all(virtual)
        virtual.advance(60)
    assert len(receiver.got) == 6, "at 0 s, 5 s, 5 min, 30 min, 2 h and 5 h"
    receiver.always = None
    virtual.advance(10 * 3600)
    deliver_all(virtual)
    row.refresh_from_db()
    assert row.state == "delivered"
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1, "a repetition can be told by its id"
    assert receiver.got[-1].verified_at(to.secret, virtual)["data"] == {"n": 1}
    assert [each.status_code for each in row.attempts.all()] == [500] * 6 + [204]


def test_the_back_off_lasts_three_days_and_then_it_is_given_up(
    virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "post", lambda *given: 503)
    monkeypatch.setattr(targets, "resolve", lambda *given: ["1.1.1.1"])
    row = message(endpoint("https://hooks.example.org/"), virtual)
    began = virtual.now()
    while Delivery.objects.filter(pk=row.pk, due_at__isnull=False).exists():
        virtual.instant = Delivery.objects.get(pk=row.pk).due_at
        assert not webhooks.attempt(row.pk)
    row.refresh_from_db()
    assert row.state == "given up"
    assert row.attempts.count() == 10
    assert virtual.now() - began == sum(webhooks.BACK_OFF, timedelta()) > timedelta(hours=24)


def test_a_redirect_is_not_followed(receiver: Receiver, virtual: FakeClock) -> None:
    receiver.answers = [(307, {"Location": receiver.url + "/elsewhere"})]
    row = message(endpoint(receiver.url), virtual)
    deliver_all(virtual)
    assert [got.path for got in receiver.got] == ["/hook"]
    [attempt] = row.attempts.all()
    assert (attempt.status_code, attempt.error) == (307, "a redirect is not followed")


def test_a_receiver_that_is_gone_is_left_alone(alice: APIClient, receiver: Receiver, virtual: FakeClock) -> None:
    receiver.answers = [(410, {})]
    to = endpoint(receiver.url)
    first, second = message(to, virtual), message(to, virtual)
    virtual.advance(1)
    deliver_all(virtual)
    virtual.advance(86400 * 4)
    deliver_all(virtual)
    webhooks.emit("session.running", {}, virtual.now(), consumer="alice")
    assert len(receiver.got) == 1
    assert Delivery.objects.count() == 2, "nothing new is queued for it"
    assert {Delivery.objects.get(pk=row.pk).state for row in (first, second)} == {"given up"}
    shown = alice.get(f"/api/v1/webhooks/{to.pk}").json()
    assert shown["disabled_at"] and "410" in shown["disabled_because"]


def test_an_address_that_has_become_private_is_not_connected_to(
    receiver: Receiver, virtual: FakeClock, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was public when it was set, and points inside when it is used (DNS rebinding)."""
    settings.WEBHOOK_ALLOW_PRIVATE = False
    monkeypatch.setattr(targets, "resolve", lambda *given: ["127.0.0.1"])
    row = message(endpoint(f"https://hooks.example.org:{receiver.port}/"), virtual)
    deliver_all(virtual)
    assert not receiver.got
    assert "not on the public internet" in row.attempts.get().error


def test_the_name_is_looked_up_once_for_an_attempt(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["1.1.1.1"], ["127.0.0.1"]]
    monkeypatch.setattr(targets, "resolve", lambda *given: answers.pop(0))
    connected: list[str] = []
    monkeypatch.setattr(delivery, "post", lambda target, *more: connected.append(target.address) or 204)
    message(endpoint("https://hooks.example.org/"), virtual)
    deliver_all(virtual)
    assert connected == ["1.1.1.1"]
    assert len(answers) == 1


def test_a_dead_receiver_holds_up_no_other(receiver: Receiver, virtual: FakeClock) -> None:
    """While one receiver does not answer, another gets all of its messages."""
    with Receiver() as dead:
        dead.hold.clear()
        stuck, lively = endpoint(dead.url), endpoint(receiver.url)
        for _ in range(3):
            message(lively, virtual)
        taken, release = threading.Event(), threading.Event()

        def wait_for_it() -> None:
            with webhooks._seat(stuck.pk) as seat:
                assert seat
                taken.set()
                release.wait(WITHIN)

        thread = threading.Thread(target=wait_for_it)
        thread.start()
        assert taken.wait(WITHIN)
        assert webhooks.deliver(lively.pk) == 3
        assert webhooks.deliver(stuck.pk) == 0, "its seat is taken: not a second thread for it"
        release.set()
        thread.join()
    assert len(receiver.got) == 3


def test_dead_receivers_never_take_more_than_a_few_threads() -> None:
    seats = [webhooks._seat(uuid.uuid4()) for _ in range(webhooks.SEATS + 1)]
    taken = [seat.__enter__() for seat in seats]
    for seat in seats:
        seat.__exit__(None, None, None)
    assert taken == [True] * webhooks.SEATS + [False]
    with webhooks._seat(uuid.uuid4()) as free:
        assert free


def test_after_a_failure_the_rest_of_that_endpoint_rests(receiver: Receiver, virtual: FakeClock) -> None:
    receiver.always = 500
    to = endpoint(receiver.url)
    for _ in range(5):
        message(to, virtual)
        virtual.advance(1)
    deliver_all(virtual)
    deliver_all(virtual)
    assert len(receiver.got) == 1
    receiver.always = None
    virtual.advance(webhooks.REST.total_seconds())
    deliver_all(virtual)
    assert not Delivery.objects.filter(delivered_at=None).exists()
    assert len(receiver.got) == 6


def test_a_worker_that_dies_while_it_sends_leaves_the_message_due(
    receiver: Receiver, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*given: Any) -> None:
        raise Killed

    to = endpoint(receiver.url)
    row = message(to, virtual)
    for step in ("_send", "_record"):  # before the POST, and after it
        with monkeypatch.context() as patched:
            patched.setattr(webhooks, step, die)
            with pytest.raises(Killed):
                webhooks.deliver(to.pk)
        virtual.advance(webhooks.LEASE.total_seconds() - 1)
        assert webhooks.deliver(to.pk) == 0, "nobody else takes it while the lease lasts"
        virtual.advance(1)
    webhooks.deliver(to.pk)
    row.refresh_from_db()
    assert row.state == "delivered"
    assert len(receiver.got) == 2, "at least once: the answer to the first was lost"
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1


def test_a_late_worker_does_not_undo_what_another_has_recorded(receiver: Receiver, virtual: FakeClock) -> None:
    to = endpoint(receiver.url)
    row = message(to, virtual)
    late = rows.claim(Delivery, row.pk, virtual.now())
    assert late
    virtual.advance(webhooks.LEASE.total_seconds())
    webhooks.deliver(to.pk)
    webhooks._record(late, None, "no complete answer within 15 s", 15.0, virtual.now())
    row.refresh_from_db()
    assert row.state == "delivered" and row.due_at is None
    assert row.attempts.count() == 2, "what was tried is shown all the same"


def test_an_endpoint_deleted_while_it_is_sent_to_is_no_error(virtual: FakeClock, receiver: Receiver) -> None:
    to = endpoint(receiver.url)
    row = message(to, virtual)
    claimed = rows.claim(Delivery, row.pk, virtual.now())
    assert claimed
    to.delete()
    assert not webhooks._record(claimed, 204, "", 0.1, virtual.now())
    assert not DeliveryAttempt.objects.exists()


def test_the_tick_wakes_each_endpoint_once_and_sends_nothing_itself(
    receiver: Receiver, virtual: FakeClock, no_messages: list[tuple[str, object]]
) -> None:
    one, two = endpoint(receiver.url), endpoint(receiver.url)
    message(one, virtual)
    no_messages.clear()
    tasks.tick()
    assert sorted(no_messages, key=str) == sorted([(webhooks.DELIVER, one.pk), (webhooks.DELIVER, two.pk)], key=str)
    assert not receiver.got


@pytest.mark.django_db(transaction=True)
def test_what_is_published_carries_an_id_and_nothing_else(virtual: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, object, str]] = []
    monkeypatch.setattr(wake, "publish", lambda *given: sent.append(given))
    to = endpoint()
    with transaction.atomic():
        message(to, virtual)
        assert not sent, "only after the commit"
    assert sent == [(webhooks.DELIVER, to.pk, "misc")]


# --- Endpoints --------------------------------------------------------------------------------------------------


def test_after_a_rotation_both_secrets_sign_for_a_day(alice: APIClient, receiver: Receiver, virtual: FakeClock) -> None:
    old = subscribe(alice, receiver.url)
    rotated = alice.post(f"/api/v1/webhooks/{old['id']}/rotate").json()
    assert rotated["secret"] != old["secret"]
    to = Endpoint.objects.get(pk=old["id"])
    message(to, virtual)
    deliver_all(virtual)
    assert receiver.got[0].verified_at(old["secret"], virtual)
    assert receiver.got[0].verified_at(rotated["secret"], virtual)
    virtual.advance(86400)
    message(to, virtual)
    deliver_all(virtual)
    assert receiver.got[1].verified_at(rotated["secret"], virtual)
    assert not receiver.got[1].is_signed_by(old["secret"], virtual)


def test_the_secret_is_shown_once(alice: APIClient, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = subscribe(alice, receiver.url)
    secret = made["secret"]
    assert secret.startswith("whsec_")
    for path in ("", f"/{made['id']}", f"/{made['id']}/deliveries"):
        assert secret not in alice.get(f"/api/v1/webhooks{path}").content.decode()
    assert secret not in caplog.text
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM costs_endpoint")
        [(kept,)] = cursor.fetchall()
    assert secret.removeprefix("whsec_") not in kept, "sealed at rest"


def test_somebody_elses_webhook_does_not_exist(alice: APIClient, client_for: ClientFor, receiver: Receiver) -> None:
    path = f"/api/v1/webhooks/{subscribe(alice, receiver.url)['id']}"
    bob = client_for("bob")
    answers = [bob.get(path), bob.delete(path), bob.post(f"{path}/rotate"), bob.get(f"{path}/deliveries")]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert bob.get("/api/v1/webhooks").json()["total"] == 0
    assert bob.get("/api/v1/webhooks?consumer_id=alice").status_code == 403
    assert bob.post("/api/v1/webhooks", {"url": receiver.url, "consumer_id": "alice"}).status_code == 403
    assert Endpoint.objects.count() == 1


def test_an_operators_endpoint_is_hidden_from_consumers(
    alice: APIClient, operator: APIClient, receiver: Receiver
) -> None:
    made = subscribe(operator, receiver.url)
    assert made["consumer_id"] is None
    assert "orphan.detected" in made["events"]
    assert alice.get(f"/api/v1/webhooks/{made['id']}").status_code == 404


def test_an_operator_may_add_one_for_a_consumer(alice: APIClient, operator: APIClient, receiver: Receiver) -> None:
    made = subscribe(operator, receiver.url, consumer_id="alice")
    assert made["events"] == list(webhooks.CONSUMER_EVENTS)
    assert alice.get(f"/api/v1/webhooks/{made['id']}").status_code == 200
    answer = operator.post("/api/v1/webhooks", {"url": receiver.url, "consumer_id": "nobody"})
    assert answer.status_code == 400 and "consumer_id" in answer.json()["fields"]


def test_deleted_is_deleted_with_what_waits(alice: APIClient, receiver: Receiver, virtual: FakeClock) -> None:
    made = subscribe(alice, receiver.url)
    message(Endpoint.objects.get(), virtual)
    assert alice.delete(f"/api/v1/webhooks/{made['id']}").status_code == 204
    assert alice.delete(f"/api/v1/webhooks/{made['id']}").status_code == 404
    deliver_all(virtual)
    assert not receiver.got


def test_deliveries_show_every_attempt(alice: APIClient, receiver: Receiver, virtual: FakeClock) -> None:
    made = subscribe(alice, receiver.url)
    receiver.answers = [(500, {})]
    row = message(Endpoint.objects.get(), virtual)
    deliver_all(virtual)
    page = alice.get(f"/api/v1/webhooks/{made['id']}/deliveries").json()
    assert (page["count"], page["total"]) == (1, 1)
    [told] = page["deliveries"]
    assert told["id"] == row.message_id == receiver.got[0].headers["webhook-id"]
    assert (told["event"], told["state"], told["next_attempt_at"]) == (
        "session.running",
        "waiting",
        "2026-01-29T12:00:05Z",
    )
    [attempt] = told["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (500, "the answer was 500")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"), ({"url": ""}, "url"), ({"url": 7}, "url"), ({"url": "http://1.1.1.1/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"), ({"url": "https://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "https://no-such-name.invalid/"}, "url"), ({"url": "https://a:b@1.1.1.1/"}, "url"),
        ({"url": "https://1.1.1.1/", "events": []}, "events"),
        ({"url": "https://1.1.1.1/", "events": ["session.exploded"]}, "events"),
        ({"url": "https://1.1.1.1/", "events": ["session.running", "orphan.detected"]}, "events"),
        ({"url": "https://1.1.1.1/", "secret": "whsec_mine"}, "secret"),
    ],
)  # fmt: skip
def test_bad_input_is_named(alice: APIClient, body: dict[str, Any], field: str) -> None:
    answer = alice.post("/api/v1/webhooks", body)
    assert answer.status_code == 400, answer.content
    assert list(answer.json()["fields"]) == [field]
    assert not Endpoint.objects.exists()


def test_there_is_an_end_to_how_many(alice: APIClient, receiver: Receiver) -> None:
    for _ in range(20):
        subscribe(alice, receiver.url)
    answer = alice.post("/api/v1/webhooks", {"url": receiver.url})
    assert (answer.status_code, answer.json()["error_type"]) == (409, "too_many")


def test_settled_messages_are_kept_for_a_month(receiver: Receiver, virtual: FakeClock) -> None:
    to = endpoint(receiver.url)
    message(to, virtual)
    deliver_all(virtual)
    virtual.advance(86400 * 29)
    webhooks.forget_old(virtual.now())
    assert Delivery.objects.count() == 1
    waiting = message(to, virtual)
    virtual.advance(86400 * 40)
    webhooks.forget_old(virtual.now())
    assert [row.pk for row in Delivery.objects.all()] == [waiting.pk]


# --- The admin ---------------------------------------------------------------------------------------------------


@pytest.fixture
def staff(db: Any) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="irrelevant"))
    return client


def test_the_admin_delivers_again_with_the_old_id(staff: Client, receiver: Receiver, virtual: FakeClock) -> None:
    to = endpoint(receiver.url)
    row = message(to, virtual)
    deliver_all(virtual)
    chosen = {"action": "deliver_again", "_selected_action": [str(row.pk)]}
    page = staff.post("/admin/costs/delivery/", chosen, follow=True)
    assert b"Sent again, with the old id: 1 message." in page.content
    deliver_all(virtual)
    assert len(receiver.got) == 2
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1


def test_a_disabled_endpoint_gets_nothing_again_until_it_is_enabled(
    staff: Client, receiver: Receiver, virtual: FakeClock
) -> None:
    to = endpoint(receiver.url)
    row = message(to, virtual)
    webhooks.disable(to, "for the test", virtual.now())
    chosen = {"action": "deliver_again", "_selected_action": [str(row.pk)]}
    page = staff.post("/admin/costs/delivery/", chosen, follow=True)
    assert b"1 message not: the endpoint is disabled." in page.content
    staff.post("/admin/costs/endpoint/", {"action": "enable", "_selected_action": [str(to.pk)]})
    staff.post("/admin/costs/delivery/", chosen)
    deliver_all(virtual)
    assert len(receiver.got) == 1


def test_no_page_shows_a_secret(staff: Client, virtual: FakeClock) -> None:
    to = endpoint()
    webhooks.rotate(to, virtual.now())
    row = message(to, virtual)
    to.refresh_from_db()
    pages = ["endpoint/", f"endpoint/{to.pk}/change/", "delivery/", f"delivery/{row.pk}/change/"]
    for page in pages:
        answer = staff.get(f"/admin/costs/{page}")
        assert answer.status_code == 200, page
        for secret in (to.secret, to.old_secret):
            assert secret.removeprefix("whsec_") not in answer.content.decode()
            assert "whsec_" not in answer.content.decode()


def test_sessions_end_whether_their_receivers_answer_or_not(
    alice: APIClient, engine: Engine, provider: FakeProvider, receiver: Receiver
) -> None:
    """Nothing of a session's life waits for a webhook: not one is sent in this whole life."""
    receiver.hold.clear()
    subscribe(alice, receiver.url)
    session = order(alice)
    engine.run(5)
    alice.delete(f"/api/v1/sessions/{session['id']}")
    engine.run(60)
    assert not receiver.got
    assert not provider.listed
    assert not Session.objects.filter(status__in=LIVE).exists()


def test_secrets_have_the_length_that_the_specification_asks_for() -> None:
    assert 24 <= len(base64.b64decode(signing.make_secret().removeprefix("whsec_"))) <= 64
