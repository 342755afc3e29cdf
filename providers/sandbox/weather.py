"""What can be made to go wrong, and for how long.

Pure. A switch is set for all, or for one provider, operation, host or machine; for some times, for a span, or
by chance. Rows in brackets are those of the failure tables that the contract tests go by (V: Vast.ai,
F: TensorDock).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

# name: (rows, meaning). A value is True unless the meaning names others.
SWITCHES: dict[str, tuple[str, str]] = {
    # Any call: narrow it with provider= and operation=.
    "call.lost_before": ("V2 V39 F3", "the connection dies before anything happens"),
    "call.lost_after": ("V2 V5 F3 F17", "it happens, and the answer is lost"),
    "call.timeout": ("V39 F33", "no answer comes, nothing happens"),
    "call.http_500": ("V39 F18", "500, nothing happens; TensorDock: value disguised: with HTTP 200"),
    "call.http_500_after": ("V2 F3", "it happens, and 500 is answered"),
    "call.html_502": ("V39 F39", "a gateway's HTML page instead of an answer; value: another status"),
    "call.garbage": ("V2 F27", "it happens, and half an answer comes"),
    "call.empty": ("V2 F39", "it happens, and an empty 200 comes"),
    "call.unauthorized": ("V9 F22", "the key is rejected; Vast.ai: value 404, 403 or 401"),
    "call.rate_limited": ("V6 F32", "429; value 1 to 5 (TensorDock: 1 to 3) chooses the body"),
    "call.redirect": ("", "a redirect to another host"),
    "auth.team": ("V36", "Vast.ai: a team's key, for which the account keeps no SSH keys"),
    "rate.enforce": ("V6 F32", "the providers' limits are kept for real"),
    # Create
    "create.stale": ("V1", "Vast.ai: the offer is gone; value 400, 404 or 410"),
    "create.success_false_with_id": ("V3", "Vast.ai: success false, and a contract that is stopped and bills"),
    "create.late_row": ("V3", "refused, and the machine appears all the same; value: after how many seconds"),
    "create.phantom": ("V4", "success, and nothing is made"),
    "create.duplicate": ("V5", "two machines under one label"),
    "create.is_bid": ("V22", "Vast.ai: an interruptible contract where on-demand was asked"),
    "create.no_credit": ("V29 F30", "the account lacks money"),
    "create.refused": ("V1", "Vast.ai: value: the error code of a 400"),
    "create.fail": ("F1 F2 F14 F15", "TensorDock: capacity, no_public_ip, generic (.http .nested .issues), validation"),
    "create.image_refused": ("F16", "TensorDock: the image is not offered there; value: the image, or True for any"),
    "create.as_201": ("", "TensorDock: 201 instead of 200"),
    "create.truncate_label": ("", "the label is cut; value: to how many characters"),
    "create.drop_label": ("", "the label is lost"),
    # Listings and look-ups
    "list.v0_alive": ("V7", "Vast.ai: the old list answers 200 instead of 410"),
    "list.page_size": ("V8", "Vast.ai: value: rows of a page"),
    "list.drop_token": ("V8", "Vast.ai: the first page says that it is the last"),
    "list.page_500": ("V8", "Vast.ai: the second page fails"),
    "list.lag": ("V27 F3", "new machines are not listed or found for so many seconds"),
    "list.hide": ("V27", "machines are missing from listings, and found by id"),
    "list.shape": ("F12", "TensorDock: value L1 to L4"),
    "list.sparse": ("F13", "TensorDock: rows without a name"),
    "list.fail": ("F39", "TensorDock: value unknown (a shape that nobody knows), empty or 503"),
    "get.gone": ("V28 F20", "how a machine that is gone reads: null, 404, empty; TensorDock: 404, 200err, status"),
    "get.deny": ("", "a look-up by id says that there is no such machine, which is not true"),
    # Destroy
    "destroy.swallow": ("V25 F19", "yes is said, and nothing happens"),
    "destroy.success_false": ("V25", "Vast.ai: 200 with success false"),
    "destroy.http_500": ("F18", "500, and it lives"),
    "destroy.late": ("F17", "it takes effect after so many seconds"),
    "destroy.linger": ("V27", "the row stays listed for so many seconds after its end"),
    "destroy.resurrect": ("V25", "it comes back so many seconds after its end"),
    # Machines: taken over when a machine is made; those of the door also if set on one with machine=
    "host.stuck_loading": ("V10", "it never comes up"),
    "host.stuck_stopped": ("V24", "it is stopped from the start"),
    "host.oci_fail": ("V12", "the container can't be created"),
    "host.gpu_error": ("V13", "the GPU is broken"),
    "host.registry_fail": ("V14", "the image can't be pulled"),
    "host.retry_then_ok": ("V14", "the pull fails once and recovers"),
    "host.manifest_unknown": ("V15", "there is no such image"),
    "host.offline_after": ("V20", "the host is lost after so many seconds"),
    "host.stop_after": ("V21 V38 F6", "it stops so many seconds after it was made"),
    "host.resume_after": ("V23", "what was stopped starts again so many seconds after it was made"),
    "host.end_date_after": ("V38", "Vast.ai: the rental window ends after so many seconds"),
    "host.status_lag": ("V35", "the status trails behind: exited while SSH works; value: seconds"),
    "host.stale_status_msg": ("V35", "Vast.ai: 'success, running' while it is stopped"),
    "host.small_disk": ("V37", "less disk than was asked for"),
    "host.vanish_after": ("F23", "it is gone after so many seconds, unasked"),
    "host.disassociate_after": ("F24", "TensorDock: the host takes the GPU back"),
    "boot.flicker": ("F25", "TensorDock: stoppeddisassociated for a moment while it boots; value: seconds"),
    "boot.ip_delay": ("F11", "TensorDock: the address comes so many seconds later"),
    "boot.slow": ("V10", "it takes so many seconds longer"),
    "ssh.deny_forever": ("V16 F7 F34", "no key ever logs in"),
    "ssh.deny_for": ("V16 F10", "no key logs in for so many seconds"),
    "ssh.lose_key_after": ("V17", "the keys are wiped after so many seconds"),
    "ssh.refuse_for": ("V18 F7", "the port refuses for so many seconds more"),
    "ssh.never": ("V18 F7 F38", "nothing ever answers"),
    "ssh.no_port_map": ("V19", "Vast.ai: port 22 is not mapped, and the proxy does not answer"),
    "ssh.new_host_key": ("", "another host key from now on"),
    "net.ignore_forwards": ("F4", "TensorDock: forwards are accepted and ignored"),
    "net.remap_ports": ("F5", "TensorDock: other external ports than asked for"),
    "net.no_dedicated_ip": ("F2", "TensorDock: places have no dedicated addresses"),
    "net.hostname": ("F29", "TensorDock: a name in place of the address"),
    "guest.cuda_old": ("V11", "the driver runs less CUDA than was promised"),
    "guest.driver_broken": ("F8", "nvidia-smi can't talk to the driver"),
    "guest.driver_late": ("F9", "the driver works after so many seconds only"),
    "guest.gpu_absent": ("F35", "there is no GPU"),
    "guest.gpu_other": ("", "another GPU than was offered"),
    "guest.gpu_fewer": ("", "one GPU less than was offered"),
    "guest.key_ignored": ("F10", "the key of the create call is not installed; the start script's is"),
    "guest.busy": ("", "how busy the GPU is, in per cent (default 50)"),
    "deadman.broken": ("", "the dead man's switch does not start"),
    # Menus
    "search.cap": ("V34", "Vast.ai: most rows of a search"),
    "search.ignore_filters": ("V34", "Vast.ai: rented and unverified offers are among the rows"),
    "search.reissue_machine": ("V33", "Vast.ai: hosts come back under new machine ids"),
    "locations.drift": ("F26", "TensorDock: no counts, or with value high too high ones"),
    "json.drift": ("F27", "TensorDock: numbers as strings"),
    "json.rename": ("F28", "TensorDock: the members have other names; value top: no data around them"),
    # Money
    "bill.lag": ("V31", "Vast.ai: charges appear after so many seconds"),
    "bill.host_account": ("V32", "Vast.ai: host accounts have no charges"),
    "account.credit": ("V30 F31", "micro-dollars that are left"),
    "hostnodes.fail": ("", "TensorDock: the list of host nodes does not answer"),
}  # fmt: skip


@dataclass
class Setting:
    value: Any
    provider: str | None = None
    operation: str | None = None
    machine: str | None = None
    host: str | None = None
    times: int | None = None  # hits that are left
    until: datetime | None = None
    chance: float = 1.0

    def fits(self, now: datetime, context: dict[str, str | None]) -> bool:
        if self.times == 0 or (self.until is not None and now >= self.until):
            return False
        wanted = {"provider": self.provider, "operation": self.operation, "machine": self.machine, "host": self.host}
        return all(want is None or want == context.get(name) for name, want in wanted.items())


class Weather:
    def __init__(self, now: Callable[[], datetime], chance: random.Random) -> None:
        self._now = now
        self._chance = chance
        self._settings: dict[str, list[Setting]] = {}

    def set(self, name: str, value: Any = True, *, seconds: float | None = None, **narrowed: Any) -> None:
        """Switch on. `times`: for so many hits; `seconds`: for that span; `chance`: 0 to 1; and for one
        `provider`, `operation`, `machine` or `host` only.

        Raises:
            ValueError: there is no such switch, or not so narrowed.
        """
        if name not in SWITCHES:
            raise ValueError(f"there is no switch {name}")
        until = None if seconds is None else self._now() + timedelta(seconds=seconds)
        try:
            setting = Setting(value, until=until, **narrowed)
        except TypeError as error:
            raise ValueError(
                f"{name} takes value, provider, operation, machine, host, times, seconds, chance"
            ) from error
        self._settings.setdefault(name, []).append(setting)

    def clear(self, name: str | None = None) -> None:
        if name is None:
            self._settings.clear()
        else:
            self._settings.pop(name, None)

    def hit(self, name: str, **context: str | None) -> Any:
        """The value, if it is switched on here and now; else None. Uses up one of its times."""
        for setting in self._settings.get(name, ()):
            if setting.fits(self._now(), context) and (setting.chance >= 1 or self._chance.random() < setting.chance):
                if setting.times is not None:
                    setting.times -= 1
                return setting.value
        return None

    def of_machine(self, name: str, machine: str, provider: str) -> Any:
        """The value if it was set on this very machine."""
        for setting in self._settings.get(name, ()):
            if setting.machine == machine and setting.fits(self._now(), {"machine": machine, "provider": provider}):
                return setting.value
        return None

    @property
    def calm(self) -> bool:
        return not self._settings

    def on(self, prefix: str) -> bool:
        """Is any switch of this kind set? A quick no for the common case."""
        return any(name.startswith(prefix) for name in self._settings)

    def describe(self) -> dict[str, Any]:
        on = {name: [_told(setting) for setting in settings] for name, settings in self._settings.items()}
        return {"on": on, "switches": {name: meaning for name, (_, meaning) in SWITCHES.items()}}


def _told(setting: Setting) -> dict[str, Any]:
    return {name: value for name, value in vars(setting).items() if value is not None}
