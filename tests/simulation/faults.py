"""The rows of both failure tables as weather, with the ends that each of them justifies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sessions.lifecycle import Reason

if TYPE_CHECKING:
    from tests.simulation.run import Run

UNUSABLE = frozenset({Reason.BOOT_TIMEOUT, Reason.SSH_TIMEOUT, Reason.HOST_BROKEN, Reason.DIED, Reason.WRONG_HARDWARE})


@dataclass(frozen=True)
class Fault:
    name: str
    switch: str
    value: Any = True
    excuses: frozenset[Reason] = frozenset()
    provider: str | None = None
    operation: str | None = None
    times: int | None = None
    seconds: float | None = None

    def begin(self, run: Run) -> None:
        narrowed = {"provider": self.provider, "operation": self.operation, "times": self.times}
        told = {name: value for name, value in narrowed.items() if value is not None}
        run.world.weather.set(self.switch, self.value, seconds=self.seconds, **told)
        if self.seconds is not None:
            began = run.clock.instant
            run.outages.append((began, began + timedelta(seconds=self.seconds)))


CALLS = (
    "call.lost_before", "call.lost_after", "call.timeout", "call.http_500", "call.http_500_after", "call.html_502",
    "call.garbage", "call.empty", "call.unauthorized", "call.rate_limited", "call.redirect",
)  # fmt: skip
OPERATIONS = ("create", "destroy", "list", "get", "account", "attach_key")


def _calls() -> Iterator[Fault]:
    for switch in CALLS:
        for operation in OPERATIONS:
            yield Fault(f"{switch} on {operation}, once", switch, operation=operation, times=1)
            yield Fault(f"{switch} on {operation}, thrice", switch, operation=operation, times=3)
        yield Fault(f"{switch} for ten minutes", switch, seconds=600)
    for body in range(1, 6):
        yield Fault(f"rate limited, body {body}", "call.rate_limited", body, times=2)
    for status in (404, 403, 401):
        yield Fault(f"key rejected with {status} for ten minutes", "call.unauthorized", status, seconds=600)


def _creates() -> Iterator[Fault]:
    for value in (400, 404, 410):
        yield Fault(f"a stale offer, {value}", "create.stale", value, times=1)
    refused = frozenset({Reason.REFUSED})
    yield Fault("success false with an id", "create.success_false_with_id", excuses=refused, times=1)
    yield Fault("a late row", "create.late_row", 45, excuses=refused | {Reason.LAUNCH_LOST}, times=1)
    yield Fault("a phantom", "create.phantom", times=1)
    yield Fault("a duplicate", "create.duplicate", times=1)
    yield Fault("interruptible", "create.is_bid", excuses=frozenset({Reason.INTERRUPTIBLE}), times=1)
    yield Fault("no credit", "create.no_credit", times=1)
    for kind in ("capacity", "no_public_ip", "generic", "validation"):
        yield Fault(f"a create that fails: {kind}", "create.fail", kind, times=1)
    yield Fault("an image that is not offered", "create.image_refused", times=1)
    lost = frozenset({Reason.LABEL_LOST})
    for length in (0, 8, 30, 59):
        yield Fault(f"a label cut to {length}", "create.truncate_label", length, excuses=lost, times=1)
    yield Fault("a label that is lost", "create.drop_label", excuses=lost, times=1)


def _listings() -> Iterator[Fault]:
    yield Fault("listings of two rows a page", "list.page_size", 2)
    yield Fault("a page that is missing", "list.drop_token", times=5)
    yield Fault("a second page that fails", "list.page_500", times=5)
    yield Fault("listings that lag for 40 s", "list.lag", 40)
    yield Fault("machines hidden from listings for 2 min", "list.hide", seconds=120)
    yield Fault("rows without a name", "list.sparse", times=5)
    yield Fault("listings of an unknown shape", "list.fail", "unknown", times=5)
    for shape in ("L1", "L2", "L3", "L4"):
        yield Fault(f"listings of shape {shape}", "list.shape", shape)
    for form in ("null", "404", "empty", "200err", "status"):
        yield Fault(f"gone reads {form}", "get.gone", form)
    yield Fault("look-ups that deny a machine", "get.deny", times=5)


def _destroys() -> Iterator[Fault]:
    yield Fault("yes, and nothing happens, thrice", "destroy.swallow", times=3)
    yield Fault("deletes without effect for an hour", "destroy.swallow", seconds=3600)
    yield Fault("a destroy with success false", "destroy.success_false", times=2)
    yield Fault("a destroy answered 500", "destroy.http_500", times=3)
    yield Fault("a destroy that takes two minutes", "destroy.late", 120, times=1)
    yield Fault("a row that lingers for 25 s", "destroy.linger", 25)
    yield Fault("a machine that comes back", "destroy.resurrect", 45, times=1)


def _hosts() -> Iterator[Fault]:
    for switch in ("host.stuck_loading", "host.stuck_stopped", "host.oci_fail", "host.gpu_error", "host.registry_fail",
                   "host.manifest_unknown", "host.small_disk", "ssh.deny_forever", "ssh.never", "ssh.no_port_map",
                   "net.ignore_forwards", "guest.cuda_old", "guest.driver_broken", "guest.gpu_absent",
                   "guest.gpu_other", "guest.gpu_fewer"):  # fmt: skip
        yield Fault(switch, switch, excuses=UNUSABLE, times=1)
    for switch, value in (("host.retry_then_ok", True), ("host.stale_status_msg", True), ("host.status_lag", 20),
                          ("boot.flicker", 20), ("boot.ip_delay", 10), ("boot.slow", 20), ("ssh.deny_for", 20),
                          ("ssh.refuse_for", 20), ("ssh.lose_key_after", 30), ("ssh.new_host_key", True),
                          ("net.remap_ports", True), ("net.hostname", True), ("guest.driver_late", 15),
                          ("guest.key_ignored", True), ("deadman.broken", True)):  # fmt: skip
        yield Fault(switch, switch, value, times=1)
    for switch in ("host.offline_after", "host.stop_after", "host.disassociate_after", "host.end_date_after"):
        yield Fault(switch, switch, 40, excuses=UNUSABLE, times=1)
    yield Fault("host.resume_after", "host.resume_after", 60, excuses=UNUSABLE, times=1)
    yield Fault("host.vanish_after", "host.vanish_after", 40, excuses=frozenset({Reason.VANISHED}), times=1)


FAULTS: dict[str, Fault] = {
    fault.name: fault for group in (_calls(), _creates(), _listings(), _destroys(), _hosts()) for fault in group
}
