"""The dead man's switch: what a rented machine runs so that it ends even if this service never comes back.

Pure: makes shell text and reads what it printed. On Vast.ai the switch destroys the machine with the key
that each container gets for itself (it can act on that container only); on TensorDock, which gives a machine
no key, it powers off, and the disk bills on. No account key ever goes onto a machine.

The switch reads its deadline from a file, so it can be re-armed over SSH. It never fires on a file that is
missing or damaged: the last deadline that it could read stays in force.
"""

from __future__ import annotations

import base64
import math
import re
from datetime import UTC, datetime
from shlex import quote

FOLDER = DIRECTORY = "/var/lib/gpu-shopper"
DEADLINE_FILE = f"{FOLDER}/deadline"  # unix seconds, as text
PID_FILE = f"{FOLDER}/dead-man.pid"
# cloud-init runs what is in here at each boot, so the switch survives a stop and start.
PER_BOOT = "/var/lib/cloud/scripts/per-boot/gpu-shopper-dead-man"

# The service comes first: its own destroy gets this long, with retries, before the machine acts on its own.
# It also covers a machine whose clock runs ahead of ours by less than that.
GRACE = 5 * 60  # seconds after the deadline
TICK = 30  # seconds between two looks at the file
AGAIN = 60  # seconds between two tries to end

_LATEST = datetime(2200, 1, 1, tzinfo=UTC)

# Ends when the deadline and the grace have passed. A shorter deadline counts at the next tick.
_WAIT = """\
trap '' HUP
D=@DIRECTORY@
umask 022
mkdir -p "$D"
[ -s "$D/deadline" ] || { echo @DEADLINE@ > "$D/deadline.boot" && mv "$D/deadline.boot" "$D/deadline"; }
sh -c 'echo $PPID' > "$D/dead-man.pid"
chmod 644 "$D/dead-man.pid"
at=@DEADLINE@
while :; do
  n=$(cat "$D/deadline" 2>/dev/null)
  case $n in ''|*[!0-9]*) ;; ??????????) at=$n ;; esac
  [ "$(date +%s)" -ge $((at + @GRACE@)) ] && break
  sleep @TICK@
done
"""

# The key goes through standard input or the environment: a command line is seen by every process.
_DESTROY = """\
own() { tr '\\0' '\\n' < /proc/1/environ 2>/dev/null | sed -n "s/^$1=//p" | head -n 1; }
: "${CONTAINER_ID:=$(own CONTAINER_ID)}" "${CONTAINER_API_KEY:=$(own CONTAINER_API_KEY)}"
export CONTAINER_ID CONTAINER_API_KEY
U=@BASE@/api/v0/instances/$CONTAINER_ID/
export U
while :; do
  if command -v curl >/dev/null; then
    printf 'header = "Authorization: Bearer %s"\\n' "$CONTAINER_API_KEY" |
      curl -sS -m 60 -X DELETE -H 'Content-Type: application/json' -d '{}' -K - "$U"
  elif command -v python3 >/dev/null; then
    python3 -c 'import os,urllib.request as r
h={"Authorization":"Bearer "+os.environ["CONTAINER_API_KEY"],"Content-Type":"application/json"}
r.urlopen(r.Request(os.environ["U"],b"{}",h,method="DELETE"),timeout=60)'
  else
    wget -q -T 60 -O - --method=DELETE --body-data='{}' --header='Content-Type: application/json' \\
      --header="Authorization: Bearer $CONTAINER_API_KEY" "$U"
  fi
  sleep @AGAIN@
done
"""

_POWER_OFF = """\
while :; do
  sync
  systemctl poweroff || shutdown -h now || poweroff -f
  sleep @AGAIN@
done
"""

# TensorDock's `user` logs in over SSH, and has to be able to re-arm.
_OWNED_BY_USER = "mkdir -p @DIRECTORY@; ! id user || chown user @DIRECTORY@\n"


def vastai_script(
    deadline: datetime,
    *,
    base_url: str = "https://console.vast.ai",
    directory: str = FOLDER,
    grace: int = GRACE,
    tick: int = TICK,
    again: int = AGAIN,
) -> str:
    """POSIX sh that returns at once and leaves the switch running; made for each start of the container.

    A restart keeps a deadline that was re-armed. Needs curl, python3 or GNU wget on the machine, and
    `CONTAINER_ID` and `CONTAINER_API_KEY`, which Vast.ai puts into each container.
    """
    script = f"(\n{_WAIT}{_DESTROY}) </dev/null >/dev/null 2>&1 &\n"
    return _filled(script, deadline, directory, grace, tick, again).replace("@BASE@", quote(base_url.rstrip("/")))


def tensordock_script(
    deadline: datetime,
    *,
    directory: str = FOLDER,
    grace: int = GRACE,
    tick: int = TICK,
    again: int = AGAIN,
) -> str:
    """POSIX sh that returns at once and leaves the switch running. It powers off: the disk bills on."""
    script = f"#!/bin/sh\n(\n{_OWNED_BY_USER}{_WAIT}{_POWER_OFF}) </dev/null >/dev/null 2>&1 &\n"
    return _filled(script, deadline, directory, grace, tick, again)


def tensordock_runcmd(deadline: datetime) -> list[str]:
    """Lines for cloud-init's `runcmd` (first boot, as root) which install the switch and start it."""
    packed = base64.b64encode(tensordock_script(deadline).encode()).decode()
    return [
        f"mkdir -p {PER_BOOT.rpartition('/')[0]}",
        f"echo {packed} | base64 -d > {PER_BOOT}",
        f"chmod 755 {PER_BOOT}",
        f"setsid sh {PER_BOOT}",
    ]


def rearm_command(deadline: datetime) -> str:
    """A shell line that puts `deadline` in force, whole or not at all."""
    new = f"{FOLDER}/deadline.new"
    return f"echo {_unix(deadline)} > {new} && mv {new} {FOLDER}/deadline"


def read_back_command() -> str:
    """A shell line whose output `parse_state` understands: the deadline, and whether the switch is alive."""
    return f"cat {DEADLINE_FILE} && test -d /proc/$(cat {PID_FILE}) && echo alive"


def parse_state(output: str) -> datetime | None:
    """The deadline that the machine has, to the second; None: no switch, or none that can be read."""
    found = re.fullmatch(r"\s*([0-9]{10})\s+alive\s*", output)
    if found is None:
        return None
    at = datetime.fromtimestamp(int(found[1]), UTC)
    return at if at < _LATEST else None


def _filled(script: str, deadline: datetime, directory: str, grace: int, tick: int, again: int) -> str:
    values = {
        "@DIRECTORY@": quote(directory),
        "@DEADLINE@": str(_unix(deadline)),
        "@GRACE@": str(grace),
        "@TICK@": str(tick),
        "@AGAIN@": str(again),
    }
    for name, value in values.items():
        script = script.replace(name, value)
    return script


def _unix(deadline: datetime) -> int:
    """Whole seconds, rounded up: the switch must never be earlier than what it stands for."""
    return math.ceil(deadline.timestamp())
