"""What a provider says in its own words is for operators; a consumer is told in ours, whatever it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from costs.models import Delivery, Endpoint
from inventory import refresh
from providers.base import MachineState, Refusal, Refused, Traits, Unauthorized, Unavailable
from tests.api.conformance import CheckingClient
from tests.api.test_sessions import ORDER, URL, owner, rent, root
from tests.fakes import Engine, FakeProvider

__all__ = ["owner", "root"]

pytestmark = pytest.mark.django_db

CANARY = "canary of theirs"
THEIRS = f'{{"success": false, "msg": "{CANARY}"}}'

MONEY = ("/api/v1/costs", "/api/v1/costs?period=daily", "/api/v1/costs/summary", "/api/v1/budgets", "/api/v1/webhooks")
MENU = ("/api/v1/inventory", "/api/v1/inventory/fake-1", "/api/v1/providers", "/health", "/ready")


def trouble(verb: str, error: Exception, times: int = 500) -> Callable[[FakeProvider], None]:
    def make(provider: FakeProvider) -> None:
        provider.trouble[verb] = [error] * times

    return make


def shows(**said: Any) -> Callable[[FakeProvider], None]:
    """Each machine, from now on."""

    def make(provider: FakeProvider) -> None:
        for machine_id, machine in provider.listed.items():
            provider.listed[machine_id] = replace(machine, **said)

    return make


def makes(**said: Any) -> Callable[[FakeProvider], None]:
    """Each new machine."""

    def make(provider: FakeProvider) -> None:
        add = provider.add
        provider.add = lambda label: add(**{"label": label, **said})  # type: ignore[method-assign, assignment]

    return make


def together(*parts: Callable[[FakeProvider], None]) -> Callable[[FakeProvider], None]:
    def make(provider: FakeProvider) -> None:
        for part in parts:
            part(provider)

    return make


AWAY = Unavailable(f"answered 502: {THEIRS}")
REJECTED = Unauthorized(f"answered 401: {THEIRS}")

# Where a provider can speak: before the machine is asked for, and of one that runs.
AT_CREATE = {
    **{f"refusal_{why}": trouble("create", Refused(THEIRS, why=why)) for why in Refusal},
    "refusal_with_a_machine": trouble("create", Refused(THEIRS, why=Refusal.HOST, machine_id="7"), times=1),
    "create_unauthorized": trouble("create", REJECTED),
    "create_unanswered": trouble("create", AWAY),
    "keys_failed": trouble("attach_key", AWAY),
    "status_of_a_broken_host": makes(state=MachineState.BROKEN, status=THEIRS),
    "status_while_it_boots": makes(state=MachineState.STARTING, status=THEIRS),
    "label": makes(label=CANARY),
    "relabel_failed": together(makes(label="cut"), trouble("relabel", AWAY)),
}
OF_A_RUNNING_ONE = {
    "status_when_it_died": shows(state=MachineState.DOWN, status=THEIRS),
    "status_while_it_runs": shows(status=THEIRS),
    "destroy_failed": trouble("destroy", AWAY),
    "look_up_failed": together(shows(state=MachineState.DOWN), trouble("machine", AWAY)),
    "listing_failed": trouble("machines", AWAY),
    "listing_unauthorized": trouble("machines", REJECTED),
    "account_failed": together(trouble("account", AWAY), trouble("machines", AWAY)),
    "menu_failed": trouble("quotes", AWAY),
    "menu_unauthorized": trouble("quotes", REJECTED),
}
# These end in a column of the machine or in the log, for operators who look there.
TOLD_NOWHERE = {"status_while_it_boots", "status_while_it_runs", "look_up_failed"}


def everything(client: CheckingClient, session: dict[str, Any]) -> str:
    """Whatever the API tells of it."""
    one = f"{URL}/{session['id']}"
    paths = [URL, one, f"{one}/events?limit=500", f"{one}/diagnostics", f"/api/v1/costs?session_id={session['id']}"]
    return "\n".join(client.get(path).content.decode() for path in [*paths, *MONEY, *MENU])


@pytest.fixture
def hook(db: Any) -> Endpoint:
    kinds = ["session.running", "session.stopped", "session.failed"]
    return Endpoint.objects.create(consumer="alice", url="https://alice.example/", events=kinds, secret="whsec_x")


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("place", [*AT_CREATE, *OF_A_RUNNING_ONE])
def test_no_word_of_a_provider_reaches_a_consumer(
    owner: CheckingClient, root: CheckingClient, engine: Engine, provider: FakeProvider, hook: Endpoint, place: str
) -> None:
    provider.traits = Traits(can_attach=True, can_relabel=True)
    if place in AT_CREATE:
        AT_CREATE[place](provider)
    session = rent(owner, auto_retry=True, max_retries=1)
    engine.run(20)
    if place in OF_A_RUNNING_ONE:
        assert owner.get(f"{URL}/{session['id']}").json()["status"] == "running"
        OF_A_RUNNING_ONE[place](provider)
    refresh.refresh("fake", even_if_not_due=True)
    heard, told = [], []
    for seconds in (60, 400):
        engine.run(seconds)
        heard.append(everything(owner, session))
        told.append(everything(root, session))
    heard.append(owner.delete(f"{URL}/{session['id']}").content.decode())
    engine.run(120)
    heard += [everything(owner, session), *Delivery.objects.filter(endpoint=hook).values_list("body", flat=True)]
    told.append(everything(root, session))
    assert CANARY not in "\n".join(heard)
    assert (CANARY in "\n".join(told)) is (place not in TOLD_NOWHERE)
    assert all(len(line) > 1 for line in heard)


def test_an_answer_to_an_operator_is_no_answer_to_a_consumer_by_its_etag(
    owner: CheckingClient, root: CheckingClient, provider: FakeProvider
) -> None:
    tags = {client.get("/api/v1/inventory")["ETag"] for client in (owner, root)}
    assert len(tags) == 2


def test_an_event_says_what_happened_and_to_operators_what_was_said_of_it(
    owner: CheckingClient, root: CheckingClient, engine: Engine, provider: FakeProvider
) -> None:
    provider.trouble["create"] = [Refused(THEIRS, why=Refusal.HOST)]
    events = f"{URL}/{rent(owner, **ORDER)['id']}/events"
    engine.run(5)
    heard, told = ({event["type"]: event for event in client.get(events).json()["events"]} for client in (owner, root))
    assert heard["create_refused"]["message"] == told["create_refused"]["message"] == "The provider refused."
    assert told["create_refused"]["said"] == THEIRS
    assert told["create_sent"]["said"] == ""
    assert not [event for event in heard.values() if "said" in event]
