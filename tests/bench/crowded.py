"""The embedded service, process and all, over a provider in memory with 10,000 offers and 1,000 machines."""

from __future__ import annotations

import os
import threading

OFFERS, SESSIONS = 10_000, 1_000


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "gpushopper.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from gpushopper import embedded
    from providers import clock, registry
    from sessions import ssh
    from tests.bench import crowd
    from tests.fakes import FakeGuests, FakeProvider

    call_command("migrate", interactive=False, verbosity=0)
    settings.SANDBOX = False
    provider = FakeProvider(quotes=crowd.quotes(OFFERS))
    machines = crowd.running(SESSIONS, clock.now(), settings.DEPLOYMENT_ID, settings.TAG_KEYS[0])
    provider.listed = {machine.id: machine for machine in machines}
    registry.use({"fake": provider})
    ssh.use(FakeGuests())
    stop = threading.Event()
    embedded.stop_on_signals(stop)
    embedded.serve(stop)


if __name__ == "__main__":
    main()
