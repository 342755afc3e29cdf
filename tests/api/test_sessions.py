"""The promises of the sessions' paths, sentence by sentence."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, connection

from providers import registry
from providers.base import Machine, MachineState, Refusal, Refused, Unauthorized, Unavailable
from sessions import controller, ssh
from sessions.lifecycle import Reason
from sessions.models import Event, Reply, Session
from tests.api.conformance import CheckingClient
from tests.fakes import NOON, Engine, FakeClock, FakeGuests, FakeProvider, quote

pytestmark = pytest.mark.django_db

URL = "/api/v1/sessions"
ORDER = {"offer_id": "fake-1", "reservation_hours": 1}


@pytest.fixture
def owner(client_for: Any, provider: FakeProvider) -> CheckingClient:
    client: CheckingClient = client_for("alice")
    return client


@pytest.fixture
def root(client_for: Any, provider: FakeProvider) -> CheckingClient:
    client: CheckingClient = client_for("ops", operator=True)
    return client


def rent(client: CheckingClient, **wishes: Any) -> dict[str, Any]:
    answer = client.post(URL, {**ORDER, **wishes})
    assert answer.status_code == 201, answer.content
    session: dict[str, Any] = answer.json()["session"]
    assert answer["Location"] == f"{URL}/{session['id']}"
    return session


# --- Shape ------------------------------------------------------------------------------------------------------

FIELDS = [
    "id", "consumer_id", "provider", "offer_id", "gpu_type", "gpu_count", "vram_gb", "status", "status_reason",
    "failure", "attempts", "ssh_host", "ssh_port", "ssh_user", "ssh_command", "known_hosts", "workload_type",
    "reservation_hours", "price_per_hour", "cost_so_far", "disk_gb", "created_at", "started_at", "running_at",
    "expires_at", "hard_deadline", "stopped_at", "verified_gone_at",
]  # fmt: skip
TIMES = [name for name in FIELDS if name.endswith("_at") or name == "hard_deadline"]
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")


def test_a_session_has_the_promised_fields_from_birth_to_end(owner: CheckingClient, engine: Engine) -> None:
    session = rent(owner)
    seen = [session]
    for seconds in (1, 5, 0):
        engine.run(seconds)
        seen.append(owner.get(f"{URL}/{session['id']}").json())
    owner.post(f"{URL}/{session['id']}/done")
    engine.run(90)
    seen.append(owner.get(f"{URL}/{session['id']}").json())
    for shown in seen:
        assert list(shown) == FIELDS
        assert all(shown[name] is None or RFC3339.match(shown[name]) for name in TIMES)
    first, running, last = seen[0], seen[-2], seen[-1]
    assert first["status"] == "pending"
    assert {name for name in FIELDS if first[name] is None} == {
        "failure", "ssh_host", "ssh_port", "ssh_user", "ssh_command", "known_hosts", *TIMES,
    } - {"created_at"}  # fmt: skip
    assert running["status"] == "running"
    assert {name for name in FIELDS if running[name] is None} == {"failure", "stopped_at", "verified_gone_at"}
    assert (last["status"], last["failure"]) == ("stopped", None)
    assert last["verified_gone_at"] and last["ssh_host"] is None


def test_money_has_six_places(owner: CheckingClient, provider: FakeProvider) -> None:
    shown = rent(owner)
    assert shown["price_per_hour"] == 0.41  # 0.40 and 50 GB at 0.0002
    assert json.dumps(shown["price_per_hour"]) == "0.41"


def test_fractions_of_hours_are_taken_however_many_places_they_have(owner: CheckingClient) -> None:
    assert rent(owner, reservation_hours=1 / 3)["reservation_hours"] == 0.333333
    assert rent(owner, offer_id="fake-2", reservation_hours="0.5")["reservation_hours"] == 0.5
    assert rent(owner, offer_id="fake-3", reservation_hours=12)["reservation_hours"] == 12


def test_the_hard_maximum_is_a_setting(owner: CheckingClient, settings: Any) -> None:
    from datetime import timedelta

    settings.HARD_MAX = timedelta(hours=2)
    answer = owner.post(URL, {**ORDER, "reservation_hours": 2.5})
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["reservation_hours"])
    assert "2 hours" in answer.json()["error"]


def test_a_disk_below_the_providers_minimum_is_raised_and_echoed(owner: CheckingClient) -> None:
    registry.use({"fake": FakeProvider(quotes=[quote("1")], min_disk_gb=100, disk_step_gb=50)})
    assert rent(owner, disk_gb=10)["disk_gb"] == 100


def test_what_a_provider_cant_take_is_refused_by_its_name(owner: CheckingClient) -> None:
    nothing = dict.fromkeys(("takes_image", "takes_template", "takes_onstart", "takes_env"), False)
    registry.use({"fake": FakeProvider(quotes=[quote("1")], **nothing)})
    for name, value in {"image": "ubuntu", "template_hash_id": "abc", "onstart": "ls", "env": {"A": "1"}}.items():
        answer = owner.post(URL, {**ORDER, name: value})
        assert answer.status_code == 400
        assert "fake" in answer.json()["fields"][name][0]


def test_with_an_own_public_key_no_private_key_is_made(owner: CheckingClient) -> None:
    _, public = ssh.make_key_pair("me")
    answer = owner.post(URL, {**ORDER, "ssh_public_key": public})
    assert answer.json()["ssh_private_key"] is None
    assert owner.get(f"{URL}/{answer.json()['session']['id']}/ssh-key").status_code == 410


def test_the_same_offer_twice_is_a_conflict_until_the_first_has_ended(owner: CheckingClient, engine: Engine) -> None:
    first = rent(owner)
    again = owner.post(URL, ORDER)
    assert (again.status_code, again.json()["error_type"]) == (409, "duplicate_session")
    owner.delete(f"{URL}/{first['id']}")
    engine.run(90)
    rent(owner)


def test_nobody_rents_in_another_name_but_an_operator_also_for_somebody_new(
    owner: CheckingClient, root: CheckingClient, client_for: Any
) -> None:
    assert owner.post(URL, {**ORDER, "consumer_id": "bob"}).status_code == 403
    assert rent(owner, consumer_id="alice")["consumer_id"] == "alice"
    assert rent(root, consumer_id="newcomer", offer_id="fake-2")["consumer_id"] == "newcomer"
    assert [s["consumer_id"] for s in client_for("newcomer").get(URL).json()["sessions"]] == ["newcomer"]


def test_an_unknown_offer_is_named(owner: CheckingClient) -> None:
    answer = owner.post(URL, {**ORDER, "offer_id": "fake-99"})
    assert (answer.status_code, list(answer.json()["fields"])) == (404, ["offer_id"])
    assert owner.get("/api/v1/inventory/fake-%00").status_code == 404


def test_a_price_of_nothing_finds_nothing(owner: CheckingClient) -> None:
    wish = {"gpu_type": "rtx4090", "reservation_hours": 1, "max_price": 0}
    assert (owner.post(URL, wish).status_code, Session.objects.count()) == (409, 0)


# --- Lists ------------------------------------------------------------------------------------------------------


def test_the_list_is_newest_first_paged_and_filtered(
    owner: CheckingClient, root: CheckingClient, virtual: FakeClock, engine: Engine
) -> None:
    made = []
    for number in (1, 2, 3):
        made.append(rent(owner, offer_id=f"fake-{number}")["id"])
        virtual.advance(1)
    owner.delete(f"{URL}/{made[0]}")
    newest = list(reversed(made))

    def ids(client: CheckingClient, query: str) -> list[str]:
        page = client.get(f"{URL}?{query}").json()
        assert page["count"] == len(page["sessions"])
        return [shown["id"] for shown in page["sessions"]]

    assert ids(owner, "") == newest
    assert ids(owner, "limit=1&offset=1") == newest[1:2]
    assert ids(owner, "offset=500") == []
    assert owner.get(f"{URL}?offset=500").json()["total"] == 3
    assert ids(owner, "status=stopping") == [made[0]]
    assert ids(owner, "status=stopping&status=pending") == newest
    assert ids(owner, "provider=elsewhere") == []
    assert ids(root, "consumer_id=alice") == newest
    assert ids(root, "consumer_id=bob") == []
    assert owner.get(f"{URL}?consumer_id=bob").status_code == 403


# --- Idempotency-Key --------------------------------------------------------------------------------------------


def test_the_same_key_and_body_get_the_first_answer_again(owner: CheckingClient, engine: Engine) -> None:
    first = owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1")
    engine.run(5)
    again = owner.generic("POST", f"{URL}/", '{"reservation_hours":1,"offer_id":"fake-1"}',
                          content_type="application/json", HTTP_IDEMPOTENCY_KEY="k1")  # fmt: skip
    assert (again.status_code, again.json(), again["Location"]) == (201, first.json(), first["Location"])
    assert first.json()["ssh_private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert Session.objects.count() == 1
    assert Event.objects.filter(kind="ssh_key_read").count() == 1


def test_a_replay_that_waits_is_answered_like_the_first(
    owner: CheckingClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = virtual.sleep
    monkeypatch.setattr(virtual, "sleep", lambda seconds: (plain(seconds), engine.settle()))
    waiting = {"HTTP_IDEMPOTENCY_KEY": "k1", "HTTP_PREFER": "wait=60"}
    first = owner.post(URL, ORDER, **waiting)
    assert first.json()["session"]["status"] == "running"
    engine.run(600)
    again = owner.post(URL, ORDER, **waiting)
    assert (again.status_code, again.json()) == (201, first.json()), "status and key included"
    assert again["Preference-Applied"] == first["Preference-Applied"] == "wait=60"
    assert owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1").json() == first.json()


def test_a_replay_waits_for_what_the_first_did_not(
    owner: CheckingClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1").json()
    assert first["session"]["status"] == "pending"
    plain = virtual.sleep

    def sleep(seconds: float) -> None:
        assert connection.savepoint_ids == [], "in no transaction, for which others would wait"
        plain(seconds)
        engine.settle()

    monkeypatch.setattr(virtual, "sleep", sleep)
    again = owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1", HTTP_PREFER="wait=60")
    assert again["Preference-Applied"] == "wait=60"
    assert again.json()["session"]["status"] == "running"
    assert again.json()["ssh_private_key"] == first["ssh_private_key"]
    assert Session.objects.count() == 1


def test_a_key_that_is_acknowledged_during_the_wait_stays_erased(
    owner: CheckingClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = virtual.sleep

    def sleep(seconds: float) -> None:
        plain(seconds)
        owner.delete(f"{URL}/{Session.objects.get().pk}/ssh-key")
        engine.settle()

    monkeypatch.setattr(virtual, "sleep", sleep)
    waiting = {"HTTP_IDEMPOTENCY_KEY": "k1", "HTTP_PREFER": "wait=60"}
    assert owner.post(URL, ORDER, **waiting).json()["session"]["status"] == "running"
    again = owner.post(URL, ORDER, **waiting).json()
    assert (again["ssh_private_key"], again["session"]["status"]) == (None, "running")


def test_another_body_is_422_and_another_consumer_is_another_key(owner: CheckingClient, client_for: Any) -> None:
    owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1")
    answer = owner.post(URL, {**ORDER, "reservation_hours": 2}, HTTP_IDEMPOTENCY_KEY="k1")
    assert (answer.status_code, answer.json()["error_type"]) == (422, "idempotency_key_reused")
    assert client_for("bob").post(URL, {**ORDER, "offer_id": "fake-2"}, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


def test_a_refused_wish_keeps_no_answer(owner: CheckingClient) -> None:
    for bad in ({**ORDER, "reservation_hours": 0}, {**ORDER, "offer_id": "fake-99"}):
        assert owner.post(URL, bad, HTTP_IDEMPOTENCY_KEY="k1").status_code in (400, 404)
    assert Reply.objects.count() == 0
    assert owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1").status_code == 201


def test_after_a_day_the_key_is_free(owner: CheckingClient, virtual: FakeClock) -> None:
    owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1")
    virtual.advance(24 * 3600 + 1)
    assert owner.post(URL, {**ORDER, "offer_id": "fake-2"}, HTTP_IDEMPOTENCY_KEY="k1").status_code in (201, 404)


def test_old_answers_are_forgotten_by_the_engine(owner: CheckingClient, virtual: FakeClock) -> None:
    from sessions import engine

    owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1")
    for seconds, kept in ((24 * 3600 - 1, 1), (60, 0)):
        virtual.advance(seconds)
        engine.begin_round("beat", virtual.now())
        assert Reply.objects.count() == kept


@pytest.mark.parametrize(("key", "code"), [("x" * 255, 201), ("x" * 256, 400), ("a b", 400), ("", 400), ("é", 400)])
def test_a_key_is_visible_ascii(owner: CheckingClient, key: str, code: int) -> None:
    answer = owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY=key)
    assert answer.status_code == code
    assert code == 201 or list(answer.json()["fields"]) == ["Idempotency-Key"]


# --- Prefer: wait -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "applied", "slept"),
    [("wait=3", "wait=3", 3), ("wait=500", "wait=120", 120), ('respond-async, wait="2"', "wait=2", 2),
     ("wait=0", None, 0), ("wait=soon", None, 0), ("wait=-5", None, 0), ("wait=5s", None, 0), ("await=5", None, 0),
     ("wait", None, 0)],
)  # fmt: skip
def test_a_wait_is_kept_within_its_bounds_and_nonsense_is_ignored(
    owner: CheckingClient, virtual: FakeClock, prefer: str, applied: str | None, slept: float
) -> None:
    before = virtual.monotonic()
    answer = owner.post(URL, ORDER, HTTP_PREFER=prefer)
    assert answer.status_code == 201
    assert answer.get("Preference-Applied") == applied
    assert virtual.monotonic() - before == pytest.approx(slept, abs=0.3)


def test_the_answer_comes_as_soon_as_it_has_settled(
    owner: CheckingClient, engine: Engine, virtual: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = virtual.sleep
    monkeypatch.setattr(virtual, "sleep", lambda seconds: (plain(seconds), engine.settle()))
    answer = owner.post(URL, ORDER, HTTP_PREFER="wait=60")
    assert answer.json()["session"]["status"] == "running"
    one = f"{URL}/{answer.json()['session']['id']}"
    assert owner.post(f"{one}/done", HTTP_PREFER="wait=120").json()["session"]["status"] == "stopped"
    assert owner.delete(one, HTTP_PREFER="wait=120")["Preference-Applied"] == "wait=120"
    assert virtual.monotonic() < 120


def test_those_who_wait_leave_room_for_others(owner: CheckingClient, virtual: FakeClock) -> None:
    from rest import waiting

    for _ in range(waiting.AT_ONCE):
        assert waiting._seats.acquire(blocking=False)
    try:
        answer = owner.post(URL, ORDER, HTTP_PREFER="wait=60")
    finally:
        waiting._seats.release(waiting.AT_ONCE)
    assert answer.status_code == 201
    assert "Preference-Applied" not in answer
    assert virtual.monotonic() == 0


# --- Ends and extensions ----------------------------------------------------------------------------------------


def test_delete_is_idempotent_and_done_is_not_after_the_end(owner: CheckingClient, engine: Engine) -> None:
    one = f"{URL}/{rent(owner)['id']}"
    engine.run(5)
    assert [owner.post(f"{one}/done").status_code for _ in range(2)] == [202, 202]
    engine.run(90)
    assert owner.delete(one).status_code == 202
    assert owner.delete(one).json()["session"]["status_reason"] == "released", "the first reason stays"
    assert owner.post(f"{one}/done").status_code == 409
    assert owner.post(f"{one}/extend", {"additional_hours": 1}).status_code == 409


def test_an_extension_stays_within_the_hard_maximum(owner: CheckingClient, engine: Engine) -> None:
    one = f"{URL}/{rent(owner)['id']}"
    engine.run(5)
    extended = owner.post(f"{one}/extend", {"additional_hours": 11})
    assert extended.status_code == 200
    assert extended.json()["new_expires_at"] == extended.json()["session"]["expires_at"]
    for more in (0.001, 100, 8000):
        beyond = owner.post(f"{one}/extend", {"additional_hours": more})
        assert (beyond.status_code, beyond.json()["error_type"]) == (400, "hard_max")
        assert list(beyond.json()["fields"]) == ["additional_hours"]


def test_only_an_operator_with_a_reason_goes_beyond(
    owner: CheckingClient, root: CheckingClient, engine: Engine
) -> None:
    one = f"{URL}/{rent(owner)['id']}/extend"
    engine.run(5)
    wish = {"additional_hours": 20, "override": True}
    assert owner.post(one, {**wish, "reason": "please"}).status_code == 403
    assert list(root.post(one, wish).json()["fields"]) == ["reason"]
    answer = root.post(one, {**wish, "reason": "a long training"})
    assert answer.status_code == 200
    assert answer.json()["session"]["reservation_hours"] == 21
    told = Event.objects.get(kind="session_extended")
    assert "a long training" in told.message and told.actor == "ops"


def test_a_reason_without_an_override_is_refused_rather_than_ignored(root: CheckingClient) -> None:
    one = f"{URL}/{rent(root, consumer_id='alice')['id']}/extend"
    for said in ({"reason": "a long training"}, {"reason": "a long training", "override": False}):
        answer = root.post(one, {"additional_hours": 1, **said})
        assert (answer.status_code, list(answer.json()["fields"])) == (400, ["reason"])


# --- What providers say -----------------------------------------------------------------------------------------

THEIRS = '{"success": false, "msg": "canary of theirs"}'


def told(client: CheckingClient, session: dict[str, Any]) -> str:
    """Whatever can be read of a session."""
    one = f"{URL}/{session['id']}"
    return "".join(client.get(path).content.decode() for path in (one, URL, f"{one}/events?limit=500"))


@pytest.mark.parametrize(
    "refusal",
    [*(Refused(f"vastai: {THEIRS}", why=why) for why in Refusal), Unauthorized(f"vastai: {THEIRS}"),
     Refused(f"vastai: {THEIRS}", why=Refusal.HOST, machine_id="7"), Unavailable(f"answered 502: {THEIRS}")],
    ids=lambda refusal: type(refusal).__name__,
)  # fmt: skip
def test_a_refusal_in_the_providers_words_is_for_operators(
    owner: CheckingClient, root: CheckingClient, engine: Engine, provider: FakeProvider, refusal: Exception
) -> None:
    provider.trouble["create"] = [refusal]
    session = rent(owner)
    engine.run(1200)
    assert "canary" not in told(owner, session)
    assert "canary" in told(root, session)
    assert owner.get(f"{URL}/{session['id']}").json()["failure"]["message"]


@pytest.mark.parametrize("state", [MachineState.BROKEN, MachineState.DOWN])
def test_what_the_provider_says_of_a_machine_is_for_operators(
    owner: CheckingClient, root: CheckingClient, engine: Engine, provider: FakeProvider, state: MachineState
) -> None:
    session = rent(owner)
    engine.run(5)
    ((machine_id, machine),) = provider.listed.items()
    provider.listed[machine_id] = Machine(id=machine_id, label=machine.label, state=state, status=THEIRS)
    provider.trouble["destroy"] = [Unavailable(f"destroy was answered 500: {THEIRS}")]
    engine.run(1200)
    assert owner.get(f"{URL}/{session['id']}").json()["status"] == "failed"
    assert "canary" not in told(owner, session)
    shown = root.get(f"{URL}/{session['id']}").json()
    assert "canary" in shown["status_reason"] and "canary" in shown["failure"]["message"]


@pytest.mark.parametrize(
    ("note", "shown"),
    [("ssh timeout: refused", "ssh_timeout: ssh timeout: refused"), ("", "ssh_timeout")],
)
def test_an_end_is_told_in_our_words_with_our_note(
    owner: CheckingClient, root: CheckingClient, note: str, shown: str
) -> None:
    session = rent(owner)
    controller.wish_end(session["id"], Reason.SSH_TIMEOUT, NOON, note=note, said=THEIRS)
    assert owner.get(f"{URL}/{session['id']}").json()["status_reason"] == shown
    assert "canary" not in told(owner, session)
    ending = root.get(f"{URL}/{session['id']}/events").json()["events"][-1]
    assert ending["message"] == f"The end is wished: ssh timeout{': ' + note if note else ''}."
    assert ending["said"] == THEIRS


def test_our_own_notes_are_for_everybody(owner: CheckingClient, engine: Engine, provider: FakeProvider) -> None:
    provider.trouble["create"] = [Refused(THEIRS, why=Refusal.OFFER_GONE)] * 9
    session = rent(owner, auto_retry=True, max_retries=5)
    engine.run(1200)
    shown = owner.get(f"{URL}/{session['id']}").json()
    assert shown["status_reason"] == "no_offer: no fitting offer is left on the menu"
    assert "canary" not in told(owner, session)


def test_diagnostics_of_a_running_session_only(owner: CheckingClient, engine: Engine) -> None:
    one = f"{URL}/{rent(owner)['id']}"
    assert owner.get(f"{one}/diagnostics").status_code == 409
    engine.run(5)
    shown = owner.get(f"{one}/diagnostics").json()
    assert shown["time_left_seconds"] > 3500
    assert shown["safeguards"]["hard_deadline"]
    owner.delete(one)
    assert owner.get(f"{one}/diagnostics").status_code == 409


def test_how_busy_a_gpu_is_is_what_the_latest_visit_read(
    owner: CheckingClient, engine: Engine, guests: FakeGuests
) -> None:
    one = f"{URL}/{rent(owner, reservation_hours=3)['id']}/diagnostics"
    engine.run(5)
    first = owner.get(one).json()["nvidia_smi"]
    guests.gpus = guests.gpus.replace(", 50", ", 97")
    engine.run(400)
    shown = owner.get(one).json()
    later = shown["nvidia_smi"]
    assert [gpus["gpus"][0]["busy_percent"] for gpus in (first, later)] == [50, 97]
    assert later["read_at"] == shown["last_ssh_check"]["at"] > first["read_at"]
    assert (later["cuda_version"], later["disk_gb"]) == (first["cuda_version"], first["disk_gb"]) == ("12.8", 54)
    guests.gpus = ""
    engine.run(400)
    assert owner.get(one).json()["nvidia_smi"] == later, "what nvidia-smi does not say now keeps its older time"


# --- The private key --------------------------------------------------------------------------------------------


def test_the_key_is_there_until_it_is_acknowledged(owner: CheckingClient) -> None:
    answer = owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1")
    one = f"{URL}/{answer.json()['session']['id']}/ssh-key"
    assert answer["Cache-Control"] == "no-store"
    assert owner.get(one).json()["ssh_private_key"] == answer.json()["ssh_private_key"]
    assert [owner.delete(one).status_code for _ in range(2)] == [204, 204]
    assert owner.get(one).status_code == 410
    kinds = list(Event.objects.filter(kind__startswith="ssh_key").values_list("kind", "actor"))
    assert kinds == [("ssh_key_read", "alice"), ("ssh_key_erased", "alice")]
    again = owner.post(URL, ORDER, HTTP_IDEMPOTENCY_KEY="k1")
    assert again.json()["ssh_private_key"] is None, "erased is erased"


def test_the_key_is_gone_after_a_day(owner: CheckingClient, virtual: FakeClock) -> None:
    one = f"{URL}/{rent(owner)['id']}/ssh-key"
    virtual.advance(24 * 3600 - 1)
    assert owner.get(one).status_code == 200
    virtual.advance(1)
    assert owner.get(one).json()["error_type"] == "key_gone"


def test_the_key_is_sealed_at_rest(owner: CheckingClient) -> None:
    answer = owner.post(URL, {**ORDER, "env": {"TOKEN": "canary-env"}}, HTTP_IDEMPOTENCY_KEY="k1").json()
    with connection.cursor() as cursor:
        stored = [
            str(row)
            for table in ("gpu_sessions_session", "gpu_sessions_reply", "gpu_sessions_event")
            for row in cursor.execute(f"SELECT * FROM {table}").fetchall()
        ]
    body = answer["ssh_private_key"].splitlines()[2]
    assert not [row for row in stored if body in row or "canary-env" in row]


# --- When the database is away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/sessions", "/api/v1/inventory", "/admin/"])
def test_a_database_that_is_away_is_a_503_to_be_tried_again(owner: CheckingClient, path: str) -> None:
    owner.cookies["sessionid"] = "x" * 32  # so that the admin looks for its session, too
    with mock.patch("django.db.backends.utils.CursorWrapper.execute", side_effect=OperationalError("secret host down")):
        answer = owner.get(path, HTTP_ACCEPT="application/json")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer.json()["error_type"] == "not_ready"
    assert b"secret host" not in answer.content
