"""Whether our clock may be trusted with deadlines: it is compared with the providers' own, by their answers."""

from __future__ import annotations

from datetime import datetime, timedelta

from providers import clock, registry
from providers.base import ProviderError, Unavailable

# More than a minute is a clock that was set wrong; less moves an end by no more than that.
OFF = timedelta(minutes=2)
# So long deadlines wait for a clock that is ahead, or that could not be compared; then they are kept by it, since an
# orphan costs money too.
HOLD = timedelta(minutes=10)

# A provider that does not answer is not asked at each step.
ASK_AGAIN = timedelta(seconds=30)

_off_since: datetime | None = None
_silent: dict[str, tuple[datetime, datetime]] = {}  # by provider: since when, and when it was asked last


def forget() -> None:
    """As a new process begins: it has compared its clock with nobody's."""
    global _off_since
    _off_since = None
    _silent.clear()
    clock.told.clear()


def compare(provider: str, now: datetime) -> None:
    """Ask a provider that has answered this process nothing yet for anything; with its answer it tells its time.

    A process that has just begun may have begun with any clock.
    """
    adapter = registry.get(provider)
    since, asked = _silent.get(provider, (now, None))
    if adapter is None or provider in clock.told or (asked and now - asked < ASK_AGAIN):
        return
    _silent[provider] = since, now
    try:
        adapter.account()
    except Unavailable:
        return
    except ProviderError:
        pass  # An answer all the same.
    if provider not in clock.told:
        clock.hear(provider, None)  # It answers, and tells no time.


def hold_until(provider: str, now: datetime) -> datetime | None:
    """No deadline falls due at this provider before; None if our clock is not ahead of any provider's."""
    global _off_since
    if any(by > OFF for by in clocks_off().values()):
        _off_since = _off_since or now
        return _off_since + HOLD
    _off_since = None
    unheard = registry.get(provider) is not None and provider not in clock.told
    return _silent.get(provider, (now, now))[0] + HOLD if unheard else None


def clocks_off() -> dict[str, timedelta]:
    """Providers that contradict our clock: by how much it is ahead of theirs. Less than nothing: behind."""
    ahead = {name: clock.ahead_of(name) for name in list(clock.told)}
    return {name: by for name, by in ahead.items() if by is not None and abs(by) > OFF}
