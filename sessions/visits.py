"""Visiting a rented machine over SSH: is it usable, is it what was offered, is its GPU busy?

Single short commands with a key of our own. Whatever goes wrong here says nothing about whether the machine
exists, and not knowing ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from inventory import menu
from providers import deadman
from providers.base import SshTarget
from sessions import hardware, lifecycle, ssh
from sessions.controller import end, learn_from, move
from sessions.lifecycle import Reason, State
from sessions.models import Instance
from sessions.rows import count, tell, write
from sessions.sealed import Unreadable

log = logging.getLogger(__name__)

GPU_AGAIN = timedelta(seconds=5)  # drivers come up minutes after SSH does


def _targets(row: Instance) -> list[SshTarget]:
    if row.ssh_host:
        return [SshTarget(row.ssh_host, row.ssh_port, row.ssh_user)]
    return [SshTarget(**target) for target in row.ssh_targets]


def _visit(row: Instance, commands: Sequence[str]) -> tuple[SshTarget, ssh.Visit]:
    """Run the commands at the first address that takes our key. Raises `SshError`; that we are denied tells most."""
    trouble: ssh.SshError = ssh.Unreachable("no address is known yet")
    try:
        our_key = row.our_key
    except Unreadable as error:
        raise ssh.SshError(f"our key to it is unreadable: {error}") from error
    for target in _targets(row):
        try:
            return target, ssh.run(target, our_key, commands, host_key=row.host_key)
        except ssh.SshError as error:
            trouble = trouble if isinstance(trouble, ssh.Denied) else error
    raise trouble


def probe(row: Instance, now: datetime) -> None:
    """The check of readiness: a login, a GPU that answers, and hardware as offered."""
    try:
        target, visit = _visit(row, (hardware.QUERY, hardware.CUDA, hardware.DISK, deadman.read_back_command()))
        found = _gpus(visit.outputs[0])
    except ssh.SshError as error:
        count("ssh_verify_failures", row.provider)
        denied = {"denied_login_at": now} if isinstance(error, ssh.Denied) else {}
        write(row, probed_at=now, probe_note=str(error)[:300], due_at=now + lifecycle.PROBE_SOONEST, **denied)
        return
    if not found:
        note = "SSH works, but nvidia-smi does not (yet)"
        write(row, probed_at=now, probe_note=note, due_at=now + GPU_AGAIN)
        return
    _verified(row, target, visit, found, now)


def _gpus(output: ssh.Output) -> list[hardware.Gpu]:
    """None, where it printed what nobody can read."""
    try:
        return hardware.gpus(output.stdout) if output.exit_status == 0 else []
    except ValueError:
        return []


def _verified(row: Instance, target: SshTarget, visit: ssh.Visit, found: list[hardware.Gpu], now: datetime) -> None:
    cuda = hardware.cuda_version(visit.outputs[1].stdout)
    disk_gb = hardware.disk_total_gb(visit.outputs[2].stdout)
    promise = hardware.Promise(row.gpu_type, row.gpu_count, row.vram_gb, row.cuda_version, row.disk_gb)
    if wrong := hardware.mismatches(promise, found, cuda, disk_gb):
        if end(row, Reason.WRONG_HARDWARE, now, "; ".join(wrong)):
            learn_from(row, Reason.WRONG_HARDWARE, now)
        return
    moved = move(
        row, State.RUNNING, now, f"SSH login at {target.host}:{target.port} worked; the hardware is as offered.",
        ssh_host=target.host, ssh_port=target.port, ssh_user=target.user, host_key=visit.host_key,
        verified_at=now, probed_at=now, inspected_at=now, probe_note="", verify_seconds=_verify_seconds(row, now),
        hardware=_shown(found, cuda, disk_gb, now), dead_man_deadline=deadman.parse_state(visit.outputs[3].stdout),
        dead_man_read_at=now,
    )  # fmt: skip
    if moved:
        menu.record_attempt(provider=row.provider, provider_id=row.quote_id, host=row.host, success=True, now=now)


def _verify_seconds(row: Instance, now: datetime) -> float:
    return (now - (row.up_since or row.launched_at or now)).total_seconds()


def _shown(found: list[hardware.Gpu], cuda: str, disk_gb: float | None, now: datetime) -> dict[str, Any]:
    disk = round(disk_gb) if disk_gb is not None else None
    return {**_read(found, now), "cuda_version": cuda, "disk_gb": disk}


def _read(found: list[hardware.Gpu], now: datetime) -> dict[str, Any]:
    """What every visit reads anew. Nothing, where `nvidia-smi` said nothing: what was read before keeps its time."""
    if not found:
        return {}
    return {
        "gpus": [{"name": g.name, "vram_mib": g.vram_mib, "busy_percent": g.busy_percent} for g in found],
        "driver_version": found[0].driver,
        "read_at": f"{now:%Y-%m-%dT%H:%M:%SZ}",
    }


IDLE_BELOW_PERCENT = 5
# Between two looks that are further apart the GPU may have been busy.
UNBROKEN = timedelta(minutes=3)


def inspect(row: Instance, now: datetime) -> None:
    """Is the GPU busy, is the dead man's switch armed with our deadline? Not knowing ends nothing."""
    commands = [hardware.QUERY, deadman.read_back_command()]
    if row.dead_man_deadline is not None and row.dead_man_deadline != row.hard_deadline:
        commands.insert(1, deadman.rearm_command(row.hard_deadline))
    try:
        _, visit = _visit(row, commands)
    except ssh.HostKeyChanged as error:
        count("host_key_changed", row.provider)
        tell("host_key_changed", f"{error}. The pinned key stays; look into it before logging in.", now, instance=row)
        write(row, inspected_at=now, idle_since=None, due_at=now)
        return
    except ssh.SshError as error:
        denied = {"denied_login_at": now} if isinstance(error, ssh.Denied) else {}
        write(row, inspected_at=now, idle_since=None, probe_note=str(error)[:300], due_at=now, **denied)
        return
    found = _gpus(visit.outputs[0])
    write(
        row, inspected_at=now, probe_note="", due_at=now, idle_since=_idle_since(row, found, now),
        hardware={**row.hardware, **_read(found, now)},
        dead_man_deadline=deadman.parse_state(visit.outputs[-1].stdout), dead_man_read_at=now,
    )  # fmt: skip


def _idle_since(row: Instance, found: list[hardware.Gpu], now: datetime) -> datetime | None:
    idle = found and all(g.busy_percent is not None and g.busy_percent < IDLE_BELOW_PERCENT for g in found)
    unbroken = row.inspected_at is not None and now - row.inspected_at <= UNBROKEN
    if not idle:
        return None
    return row.idle_since if unbroken and row.idle_since else now
