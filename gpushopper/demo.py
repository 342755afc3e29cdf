"""`python -m gpushopper.demo [--once]`: the whole job on the sandbox, as a person would do it.

It starts the service as a process of its own, and then uses nothing but our command line and the public
API. It never rents anything real: with a provider's key in the environment, or a provider that is no
sandbox, it refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from rich.console import Console
from rich.table import Table

from gpushopper import environment

BASE = Path(__file__).resolve().parent.parent
PROVIDER_KEYS = ("VASTAI_API_KEY", "TENSORDOCK_API_TOKEN", "TENSORDOCK_API_KEY")
FIRST_PORT = 8080
READY_WITHIN, STOP_WITHIN = 30.0, 30.0  # seconds
GPU = "RTX 4090"

# The demo is a world of its own: whatever a real deployment has in its environment stays out of it.
OWN_WORLD = dict.fromkeys(("DATABASE_URL", "DATABASE_PATH", "CELERY_BROKER_URL", "REDIS_URL", "HEARTBEAT_URL"), "")
# The sandbox's listings never lag, so ten seconds of silence prove as much as the usual thirty.
CONFIRM = os.environ.get("DESTROY_CONFIRM") or "10s"

MAKE_ADMIN = """
import os
from django.contrib.auth.models import User
admin, _ = User.objects.get_or_create(username="admin", defaults={"is_staff": True, "is_superuser": True})
admin.set_password(os.environ["DEMO_PASSWORD"])
admin.save(update_fields=["password"])
"""

REFUSED = """\
{names} is set, so this would rent real machines for real money, and a demo never does that.

  To see it on the sandbox, run it without: env {unset} make demo  (and comment it out in .env)

  To rent for real:
    make run
    .venv/bin/python manage.py create_consumer me     shows a key
    .venv/bin/gpu-shopper config set api-key          keeps it
    .venv/bin/gpu-shopper inventory --gpu-type "{gpu}"
    .venv/bin/gpu-shopper provision --gpu-type "{gpu}" --max-price 0.50 --hours 1 --wait
"""

UP = """\
The service is up, on its sandbox: nothing real is rented, nothing costs money.

  Front door    {url}/
  Admin         {url}/admin/         admin / {password}
  API           {url}/api/v1/docs
  Log           {log}
  Command line  export PATH="{bin}:$PATH" GPU_SHOPPER_URL={url}
                export GPU_SHOPPER_API_KEY={key}
                gpu-shopper provision --gpu-type "{gpu}" --wait
  Commands      DATA_DIR={data_dir} {bin}/python manage.py doctor

Ctrl-C stops it. `make demo` starts it again on the same data.
"""


class DidNotHold(Exception):
    """A step of the tour; the text says what was expected."""


console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options().parse_args(arguments)
    given = environment.load(BASE).values
    if real := [name for name in PROVIDER_KEYS if given.get(name, "").strip()]:
        unset = " ".join(f"-u {name}" for name in real)
        sys.stderr.write(REFUSED.format(names=" and ".join(real), unset=unset, gpu=GPU))
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that both leave no process behind
    try:
        with service(options.data_dir) as running:
            Tour(running).go()
            if not options.once:
                running.stay()
    except KeyboardInterrupt:
        return 0 if not options.once else 130
    except DidNotHold as failure:
        sys.stderr.write(f"\nThis did not hold: {failure}\n")
        return 1
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description="The whole job on the sandbox; costs nothing.")
    parser.add_argument("--once", action="store_true", help="end after the tour (make demo ONCE=1)")
    parser.add_argument("--data-dir", type=Path, default=BASE / "data" / "demo", help="default: data/demo")
    return parser


# --- The service -----------------------------------------------------------------------------------------


class Service:
    def __init__(self, process: subprocess.Popen[bytes], data_dir: Path, port: int, log: Path) -> None:
        self.process, self.data_dir, self.log = process, data_dir, log
        self.url = f"http://127.0.0.1:{port}"
        self.key = self.password = ""

    def wait_until_ready(self) -> None:
        end = time.monotonic() + READY_WITHIN
        while not self._is_ready():
            if self.process.poll() is not None:
                raise DidNotHold(f"the service starts. It said: {self._last_words()}")
            if time.monotonic() > end:
                raise DidNotHold(f"the service is ready within {READY_WITHIN:.0f} s; see {self.log}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        """Whether our own child is: somebody else may have taken the port a moment before it."""
        if f"is at {self.url}/" not in self.log.read_text(errors="replace"):
            return False
        # Whatever proxy the environment names is not between us and our own child.
        with contextlib.suppress(URLError, OSError), build_opener(ProxyHandler({})).open(f"{self.url}/ready") as answer:
            return bool(answer.status == 200)
        return False

    def _last_words(self) -> str:
        return "\n  ".join(["", *self.log.read_text(errors="replace").splitlines()[-5:]])

    def admit(self) -> None:
        """A consumer with a key, and an administrator with a password of today."""
        made = self._manage("create_consumer", "demo", "--json")
        self.key, self.password = json.loads(made)["api_key"], secrets.token_urlsafe(9)
        self._manage("shell", "--no-imports", "-c", MAKE_ADMIN, DEMO_PASSWORD=self.password)

    def _manage(self, *command: str, **more: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, "manage.py", *command], cwd=BASE, env={**surroundings(self.data_dir), **more},
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise DidNotHold(f"`manage.py {command[0]}` works. It said: {done.stderr.strip()[-500:]}")
        return done.stdout

    def stay(self) -> None:
        """Until somebody interrupts, or it ends by itself."""
        console.print(
            UP.format(url=self.url, password=self.password, log=self.log, bin=Path(sys.executable).parent,
                      key=self.key, gpu=GPU, data_dir=self.data_dir),
            markup=False, soft_wrap=True,
        )  # fmt: skip
        self.process.wait()
        raise DidNotHold(f"the service stays up. It said: {self._last_words()}")


@contextlib.contextmanager
def service(data_dir: Path) -> Iterator[Service]:
    """The embedded service in a process of its own, and no process left behind."""
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), data_dir / "service.log"
    environ = {**surroundings(data_dir), "SERVER_HOST": "127.0.0.1", "SERVER_PORT": str(port)}
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C is for us, and we end it in order.
        process = subprocess.Popen(
            [sys.executable, "manage.py", "run"], cwd=BASE, env=environ, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield Service(process, data_dir, port, log)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def surroundings(data_dir: Path) -> dict[str, str]:
    return {**os.environ, **OWN_WORLD, "DESTROY_CONFIRM": CONFIRM, "DATA_DIR": str(data_dir)}


def free_port() -> int:
    """The first port that nobody has, from SERVER_PORT on; said if it is not that one."""
    first = int(os.environ.get("SERVER_PORT") or FIRST_PORT)
    ports = range(first, min(first + 100, 65536))
    for port in ports:
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                attempt.bind(("127.0.0.1", port))
                if port != first:
                    console.print(f"Port {first} is taken by another program; this takes {port}.\n")
                return port
    raise DidNotHold(f"one of the ports {first} to {ports[-1]} is free")


# --- The tour --------------------------------------------------------------------------------------------


class Tour:
    """Step after step, each timed; the first one that does not hold ends it."""

    def __init__(self, running: Service) -> None:
        self.service = running
        self.times: list[tuple[str, float]] = []
        self.session_id = ""

    def go(self) -> None:
        console.print("[bold]GPU Shopper[/], the whole job, on a sandbox: nothing real is rented.\n")
        steps: list[tuple[str, Callable[[], None]]] = [
            ("Start the service", self.start),
            ("Read the menu", self.menu),
            (f"Rent the cheapest {GPU}, and wait until it runs", self.rent),
            ("Log in with the handed-over key and the pinned host key", self.log_in),
            ("Say done, and wait for the proof that it is gone", self.end),
            ("Look at the timeline", self.timeline),
            ("Look at the cost", self.cost),
        ]
        for number, (title, step) in enumerate(steps, 1):
            console.print(f"[bold cyan]{number}  {title}[/]")
            begun = time.monotonic()
            step()
            self.times.append((title, time.monotonic() - begun))
            console.print(f"[dim]   {self.times[-1][1]:.1f} s[/]\n")
        self._sum_up()

    def start(self) -> None:
        self.service.wait_until_ready()
        console.print(f"   {self.service.url} is ready; its data is in {self.service.data_dir}")
        self.service.admit()

    def menu(self) -> None:
        self._wait_for_the_menu()
        self.gpu_shopper("inventory", "--gpu-type", GPU, "--limit", "5")

    def _wait_for_the_menu(self) -> None:
        """A service that has just started for the first time is still reading it."""
        end = time.monotonic() + READY_WITHIN
        while not _is_complete(self.ask("inventory", "--gpu-type", GPU)):
            if time.monotonic() > end:
                raise DidNotHold(f"every provider's menu is read within {READY_WITHIN:.0f} s, and has an {GPU}")
            time.sleep(0.2)

    def rent(self) -> None:
        if any(not offer.get("sandbox") for offer in self.ask("inventory", "--limit", "500")["offers"]):
            raise DidNotHold("every offer is of the sandbox. Something real is on the menu, so nothing is rented")
        before = self._ids()
        self.gpu_shopper("provision", "--gpu-type", GPU, "--hours", "1", "--wait")
        (self.session_id,) = self._ids() - before
        self._expect("running")

    def log_in(self) -> None:
        shown = self.gpu_shopper("sessions", "ssh", self.session_id[:8], "--", "nvidia-smi", keep=True)
        if GPU not in shown:
            raise DidNotHold(f"nvidia-smi on the machine names an {GPU}")

    def end(self) -> None:
        console.print(
            f"[dim]   Proof: the provider's listings are silent for {CONFIRM} "
            "(DESTROY_CONFIRM; 30s unless set), and then it denies the machine by its id.[/]", soft_wrap=True
        )  # fmt: skip
        self.gpu_shopper("sessions", "done", self.session_id[:8], "--wait")
        session = self._expect("stopped")
        if not session["verified_gone_at"]:
            raise DidNotHold("the machine is proven gone")

    def timeline(self) -> None:
        self.gpu_shopper("sessions", "events", self.session_id[:8])

    def cost(self) -> None:
        self.gpu_shopper("costs", "--session-id", self.session_id[:8])
        cost = self.ask("costs", "--session-id", self.session_id)
        if not 0 < cost["total_cost"] < 1:
            raise DidNotHold(f"some minutes cost some cents, and not {cost['total_cost']} USD")

    def _ids(self) -> set[str]:
        return {session["id"] for session in self.ask("sessions", "list", "--all", "--limit", "500")["sessions"]}

    def _expect(self, status: str) -> Mapping[str, Any]:
        session = self.ask("sessions", "get", self.session_id)
        if session["status"] != status:
            raise DidNotHold(f"the session is {status}. It is {session['status']}: {session['status_reason']}")
        return session

    def _sum_up(self) -> None:
        table = Table.grid(padding=(0, 2))
        for title, seconds in self.times:
            table.add_row(f"   {title}", f"{seconds:6.1f} s")
        table.add_row("   [bold]In all[/]", f"[bold]{sum(seconds for _, seconds in self.times):6.1f} s[/]")
        console.print("[bold green]Every step held.[/]", table, "", sep="\n")

    # --- Our own command line ----------------------------------------------------------------------------

    def gpu_shopper(self, *arguments: str, keep: bool = False) -> str:
        """Run a command in front of the person's eyes; with `keep`, what it printed is returned."""
        console.print(f"   [bold]$ gpu-shopper {shlex.join(arguments)}[/]", soft_wrap=True)
        done = self._run(arguments, stdout=subprocess.PIPE if keep else None)
        shown = done.stdout or ""
        sys.stdout.write(shown)
        sys.stdout.flush()
        if done.returncode:
            raise DidNotHold(
                f"`gpu-shopper {shlex.join(arguments)}` works (exit code {done.returncode}). "
                f"The service's log: {self.service.log}"
            )
        return shown

    def ask(self, *arguments: str) -> Mapping[str, Any]:
        """The JSON that a command answers, for our own eyes."""
        done = self._run([*arguments, "--output", "json"], stdout=subprocess.PIPE)
        if done.returncode:
            raise DidNotHold(f"`gpu-shopper {shlex.join(arguments)}` answers")
        answer: Mapping[str, Any] = json.loads(done.stdout)
        return answer

    def _run(self, arguments: Sequence[str], stdout: int | None) -> subprocess.CompletedProcess[str]:
        home = self.service.data_dir / "home"
        environ = {
            **os.environ, "GPU_SHOPPER_URL": self.service.url, "GPU_SHOPPER_API_KEY": self.service.key,
            "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data"),
        }  # fmt: skip
        program = "import sys; from gpushopper.cli import main; sys.exit(main())"
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", program, *arguments], cwd=BASE, env=environ, stdin=subprocess.DEVNULL,
            stdout=stdout, text=True,
        )  # fmt: skip


def _is_complete(menu: Mapping[str, Any]) -> bool:
    return bool(menu["offers"]) and not any(source["stale"] for source in menu["as_of"].values())


if __name__ == "__main__":
    sys.exit(main())
