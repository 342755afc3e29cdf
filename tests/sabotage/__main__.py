"""`python -m tests.sabotage [NAME…]`: make known mistakes one at a time, and see who catches each.

First everything that hunts has to be green without a mistake. A mistake that one of its hunters misses is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.sabotage import hunt
from tests.sabotage.hunt import Hunt

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
AT_ONCE = 2


def main(argv: Sequence[str] | None = None) -> int:
    import django

    options = _parser().parse_args(argv)
    django.setup()
    from tests.sabotage.mistakes import MISTAKES

    if unknown := set(options.names) - set(MISTAKES):
        _say(f"There is no such mistake: {', '.join(sorted(unknown))}. --list shows them.")
        return 2
    chosen = [MISTAKES[name] for name in options.names or MISTAKES]
    if options.list:
        for mistake in chosen:
            _say(f"{mistake.name:<46} {mistake.sentence}")
        return 0
    jobs = [("", hunters) for hunters in control(hunter for mistake in chosen for hunter in mistake.hunters)]
    if not options.control:
        jobs += [(mistake.name, mistake.hunters) for mistake in chosen]
    good = _hunt_all(jobs)
    _say(f"\n{sum(good)} of {len(good)} as they should be.")
    return 0 if all(good) else 1


def control(hunters: Iterable[str]) -> list[tuple[str, ...]]:
    """All that hunts, each once: the tests in one process, beside it the simulations one after the other."""
    distinct = list(dict.fromkeys(hunters))
    tests = " ".join(hunter for hunter in distinct if hunt.is_pytest(hunter))
    simulations = tuple(hunter for hunter in distinct if not hunt.is_pytest(hunter))
    return [group for group in ((tests,) if tests else (), simulations) if group]


def _hunt_all(jobs: Sequence[tuple[str, tuple[str, ...]]]) -> list[bool]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [_shown(found) for found in pool.map(lambda job: hunt.hunt(*job), jobs)]


def _shown(found: Hunt) -> bool:
    """Print a line for each hunter; True if all is as it should be."""
    name = found.mistake or "(no mistake)"
    for line in found.lines():
        _say(f"{name:<46} {line}")
        name = ""
    return found.is_good


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sabotage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all, if none is named")
    parser.add_argument("--control", action="store_true", help="only see that everything is green without a mistake")
    parser.add_argument("--list", action="store_true", help="what the mistakes are")
    return parser


if __name__ == "__main__":
    sys.exit(main())
