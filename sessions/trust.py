"""Whether our clock may be trusted with deadlines: it is compared with the providers' own, by their answers."""

from __future__ import annotations

from datetime import datetime, timedelta

from providers import http

# More than a minute is a clock that was set wrong; less ends a session early by no more than that.
AHEAD = timedelta(minutes=2)
# So long deadlines wait for a clock that is ahead; then they are kept by it, since an orphan costs money too.
HOLD = timedelta(minutes=10)

_doubted_from: datetime | None = None


def hold_until(now: datetime) -> datetime | None:
    """No deadline falls due before; None while our clock agrees with each provider's, or none has answered yet."""
    global _doubted_from
    if not clocks_behind_ours():
        _doubted_from = None
        return None
    _doubted_from = _doubted_from or now
    return _doubted_from + HOLD


def clocks_behind_ours() -> dict[str, timedelta]:
    """Providers by whose answers our clock is ahead, and by how much."""
    ahead = {name: timedelta(seconds=seconds) for name, seconds in dict(http.clock_ahead).items()}
    return {name: by for name, by in ahead.items() if by > AHEAD}
