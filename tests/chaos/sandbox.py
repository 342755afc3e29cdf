"""The sandbox as a process of its own, with some machines of other people in the accounts.

It prints one JSON line: where it is, and the environment that points the adapters at it. It ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
from collections import Counter
from typing import Any

from providers import clock
from providers.sandbox.server import SandboxServer
from providers.sandbox.world import World as _World

STRANGERS = 5


class World(_World):
    def truth(self) -> dict[str, Any]:
        creates = Counter(call.label for call in self.calls if call.operation == "create")
        return {**super().truth(), "creates": creates}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--boot", default="demo")
    parser.add_argument("--offers", type=int, default=40)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    world = World(clock, random.Random(options.seed), boot=options.boot, offers=options.offers)
    world.user_boxes(STRANGERS)
    server = SandboxServer(world)
    server.start()
    sys.stdout.write(json.dumps({"url": server.url, "environment": server.environment()}) + "\n")
    sys.stdout.flush()
    stop.wait()
    server.stop()


if __name__ == "__main__":
    main()
