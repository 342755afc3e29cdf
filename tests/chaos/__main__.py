"""`python -m tests.chaos --minutes N --seed S --engine celery|guardian|both`: kill everything, and count.

Prints one JSON object. Exit code 1: a promise was broken; then what the processes said last goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys

from tests.chaos import campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of harm; then everything comes to rest")
    parser.add_argument("--seed", type=int, default=None, help="of the harm, the weather and the wishes")
    parser.add_argument("--engine", choices=["celery", "guardian", "both"], default="both")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    figures, violations, story = campaign.run(options.engine, options.minutes, seed)
    sys.stdout.write(json.dumps(figures, indent=2, default=str) + "\n")
    if violations:
        sys.stderr.write(story)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
