"""One play of an adapter: a clock that only the adapter moves, a line that can break, and a machine or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from providers import tag
from providers.base import LaunchSpec, Machine, Provider, Quote
from providers.conformance.line import Line, heard, twists
from providers.conformance.scene import Scene
from providers.sandbox.wire import Response

START = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
DEPLOYMENT, TAG_KEY = "kit", "the tag key of the conformance kit"
OUR_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH3qJXl0r8kQm0mPZc5Ww1tZr2f7m6Yb4nD9sVtE0aGu gpu-shopper"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC1kWb8yN5rQ0cHj7TzL4eUoXv2gPd9sMiA6fRkB3wYt alice@laptop"


class StageClock:
    """Nothing waits: whoever sleeps moves the time."""

    def __init__(self) -> None:
        self.instant = START

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return (self.instant - START).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.instant += timedelta(seconds=seconds)


class Stage:
    def __init__(self, scene: Scene, clock: StageClock) -> None:
        self.scene, self.clock = scene, clock
        self.line = Line(scene)
        self._menu: list[Quote] = []  # what is left of it
        self.provider = self.adapter(scene.key)

    def adapter(self, key: str) -> Provider:
        return self.scene.provider(self.line.session(), key)

    # --- Machines ---------------------------------------------------------------------------------------

    @property
    def disk_gb(self) -> int:
        """The least that the provider takes, from 50 GB on."""
        traits = self.provider.traits
        least, step = max(50, traits.min_disk_gb), traits.disk_step_gb
        return -(-least // step) * step

    def quote(self) -> Quote:
        """The next of the menu, the smallest and cheapest first. The menu is read once for as long as it lasts."""
        if not self._menu:
            quotes = [quote for quote in self.provider.quotes(disk_gb=self.disk_gb) if quote.available]
            self._menu = sorted(quotes, key=lambda quote: (quote.gpu_count, quote.rates.gpu))
        return self._menu.pop(0)

    def spec(self, label: str = "", quote: Quote | None = None, **changed: Any) -> LaunchSpec:
        quote = quote or self.quote()
        deadline = self.clock.now() + timedelta(hours=2)
        spec = LaunchSpec(
            label=label or tag.mint(DEPLOYMENT, deadline, TAG_KEY), quote_id=quote.provider_id,
            gpu_name=quote.gpu_name, gpu_count=quote.gpu_count, disk_gb=self.disk_gb, cpu_cores=quote.cpu_cores,
            ram_gb=quote.ram_gb, ssh_public_keys=(OUR_KEY, OTHER_KEY), hard_deadline=deadline,
        )  # fmt: skip
        return replace(spec, **changed)

    def create(self, label: str = "") -> str:
        return self.provider.create(self.spec(label))

    def fill(self) -> dict[str, str]:
        """As many machines as make a listing of several pages: id to label."""
        labels = [f"gs-kit-machine-{number:03}" for number in range(self.scene.many)]
        return {self.create(label): label for label in labels}

    def listed(self) -> dict[str, str | None]:
        """Id to label; fails if an id is listed twice."""
        machines = self.provider.machines()
        found = {machine.id: machine.label for machine in machines}
        assert len(found) == len(machines), "an id is listed twice"
        return found

    def look(self, machine_id: str) -> Machine:
        found = self.provider.machine(machine_id)
        assert found is not None, f"{machine_id} is there, and the adapter says that it is not"
        return found

    # --- What goes over the line ------------------------------------------------------------------------

    def requests_of(self, ask: Callable[[], object]) -> int:
        before = len(self.line.sent)
        ask()
        return len(self.line.sent) - before

    def sends_one(self, ask: Callable[[], object]) -> None:
        """Fails if it is not exactly one request that is sent, also where it raises."""
        before = len(self.line.sent)
        try:
            ask()
        finally:
            sent = len(self.line.sent) - before
            assert sent == 1, f"{sent} requests, where one is promised"

    def answers_to(self, ask: Callable[[], object]) -> list[Response]:
        """What the service says while that is asked."""
        answers: list[Response] = []
        with self.line.broken(heard(answers)):
            ask()
        return answers

    def twisted(self, ask: Callable[[], object]) -> Iterator[tuple[str, Response, int]]:
        """What the service says while that is asked, with one thing wrong; and the number of the request.

        Of the first answer and the last: the ones between are alike, and the last says that it is the last.
        """
        answers = self.answers_to(ask)
        for number in sorted({0, len(answers) - 1}):
            for what, wrong in twists(answers[number]):
                yield f"answer {number} with {what}", wrong, number


# --- Verbs ----------------------------------------------------------------------------------------------

Ask = Callable[[Stage, str], object]


def _charges(stage: Stage) -> object:
    return stage.provider.charges(stage.clock.now() - timedelta(days=2), stage.clock.now())


# Each with the id of a machine that is there. What an adapter does not claim to do is left out by `verbs`.
READS: dict[str, Ask] = {
    "quotes": lambda stage, machine_id: stage.provider.quotes(disk_gb=stage.disk_gb),
    "machines": lambda stage, machine_id: stage.provider.machines(),
    "machine": lambda stage, machine_id: stage.provider.machine(machine_id),
    "account": lambda stage, machine_id: stage.provider.account(),
    "charges": lambda stage, machine_id: _charges(stage),
}
CHANGES: dict[str, Ask] = {
    "destroy": lambda stage, machine_id: stage.provider.destroy(machine_id),
    "relabel": lambda stage, machine_id: stage.provider.relabel(machine_id, "gs-kit-renamed"),
    "attach_key": lambda stage, machine_id: stage.provider.attach_key(machine_id, OTHER_KEY),
}
_CLAIMS = {"charges": "has_charges", "relabel": "can_relabel", "attach_key": "can_attach"}


def verbs(stage: Stage, asks: dict[str, Ask]) -> dict[str, Ask]:
    """Those that the adapter claims to have."""
    traits = stage.provider.traits
    return {verb: ask for verb, ask in asks.items() if verb not in _CLAIMS or getattr(traits, _CLAIMS[verb])}
