"""`python -m tests.simulation`: try to break the promise, and print what was covered."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.campaign import Plan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")


def prepare() -> None:
    """An empty, migrated database in memory, which every run gets a copy of by being forked."""
    import django

    sys.dont_write_bytecode = True  # What the import system writes in a new checkout is no effect of the service.
    django.setup()
    from django.core.management import call_command

    from tests import sabotage
    from tests.simulation.run import silence_logs

    sabotage.apply_from_environment()
    silence_logs()
    call_command("migrate", verbosity=0, interactive=False)


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    prepare()
    found: dict[str, Any] = options.run(options)
    json.dump(found, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 1 if found.get("failures") or found.get("violations") else 0


def _kill(options: argparse.Namespace) -> dict[str, Any]:
    from tests.simulation.campaign import Plan, campaign, each, every_kill

    due = each(options.every)
    plans = [Plan(name, 0, options.fault, options.how, due, options.seed) for name in options.scenarios]
    plans = plans or every_kill(main_only=not options.all, how=options.how, at=due)
    return campaign(plans, seconds=_seconds(options), progress=True).shown()


def _sample(options: argparse.Namespace) -> dict[str, Any]:
    from tests.simulation.campaign import CORES, campaign, sampled_faults

    plans = sampled_faults(options.number, options.seed, options.kills)
    return campaign(plans, progress=True, at_once=CORES).shown()


def _lives(options: argparse.Namespace) -> dict[str, Any]:
    from tests.simulation.campaign import CORES, campaign, every_life

    plans = every_life(options.fault, options.scenarios, in_turn=options.in_turn)
    return campaign(plans, progress=True, at_once=CORES).shown()


def _random(options: argparse.Namespace) -> dict[str, Any]:
    from tests.simulation.campaign import CORES, campaign, random_lives, smallest

    def lives() -> Iterator[Plan]:
        number = 10**6 if options.wall_hours else options.number
        return random_lives(range(options.seed, options.seed + number), options.hours, options.steps, options.calm)

    seconds = options.wall_hours * 3600 if options.wall_hours else None
    tally = campaign(lives(), seconds=seconds, progress=True, at_once=CORES)
    if tally.failures and options.steps is None:
        failure = tally.failures[0]
        plan = next(plan for plan in lives() if plan.command() == failure["replay"])
        failure["smallest"] = smallest(plan).command()
    return tally.shown()


def _full(options: argparse.Namespace) -> dict[str, Any]:
    from tests.simulation.campaign import CORES, campaign, everything

    return campaign(everything(), seconds=_seconds(options), progress=True, at_once=CORES).shown()


def _seconds(options: argparse.Namespace) -> float | None:
    return options.minutes * 60 if options.minutes else None


def _replay(options: argparse.Namespace) -> dict[str, Any]:
    from tests.simulation.campaign import Plan, replay

    plan = Plan(
        options.scenario, 0, options.fault, options.how, seed=options.seed, workers=options.workers,
        celery=not options.no_celery, guardian=options.guardian,
    )  # fmt: skip
    return replay(plan, options.at)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(required=True)
    lives = commands.add_parser("lives", help="each life once, by Celery, by the guardian, by three workers")
    lives.add_argument("scenarios", nargs="*")
    lives.add_argument("--fault", default="")
    lives.add_argument("--in-turn", action="store_true", help="each by one of the three only")
    lives.set_defaults(run=_lives)
    kill = commands.add_parser("kill", help="die at each boundary of the main lives, or of those named")
    kill.add_argument("scenarios", nargs="*")
    kill.add_argument("--all", action="store_true", help="of all lives")
    kill.add_argument("--fault", default="")
    kill.add_argument("--how", default="kill", choices=["kill", "pair", "pause", "disk"])
    kill.add_argument("--every", type=int, default=1, metavar="N", help="at each Nth boundary only")
    kill.add_argument("--seed", type=int, default=0)
    kill.set_defaults(run=_kill)
    sample = commands.add_parser("sample", help="lives with a fault each, and some kills in each")
    sample.add_argument("--number", type=int, default=100)
    sample.add_argument("--kills", type=int, default=4)
    sample.add_argument("--seed", type=int, default=random.randrange(10**6))
    sample.set_defaults(run=_sample)
    long = commands.add_parser("random", help="long lives by chance, from a seed on")
    long.add_argument("--number", type=int, default=20)
    long.add_argument("--hours", type=float, default=48, help="of virtual time, each")
    long.add_argument("--seed", type=int, default=random.randrange(10**6))
    long.add_argument("--wall-hours", type=float, help="go on with new ones for so long")
    long.add_argument("--steps", type=_numbers, help="only these of its steps: 3,17,18")
    long.add_argument("--calm", action="store_true", help="no deaths, pauses and changes of workers")
    long.set_defaults(run=_random)
    full = commands.add_parser(
        "full", help="every death and pause of all lives; by sample, pairs, and deaths in all weathers"
    )
    full.set_defaults(run=_full)
    for campaign in (kill, full):
        campaign.add_argument("--minutes", type=float, help="begin nothing new after so long; what was found counts")
    again = commands.add_parser("replay", help="one run")
    again.add_argument("scenario")
    again.add_argument("--fault", default="")
    again.add_argument("--how", default="kill", choices=["kill", "pair", "pause", "disk"])
    again.add_argument("--at", type=int)
    again.add_argument("--seed", type=int, default=0)
    again.add_argument("--workers", type=int, default=1)
    again.add_argument("--guardian", action="store_true")
    again.add_argument("--no-celery", action="store_true")
    again.set_defaults(run=_replay)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


if __name__ == "__main__":
    sys.exit(main())
