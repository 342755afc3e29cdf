"""No eyes, no hands: whether anything may be created at an account now."""

from __future__ import annotations

from datetime import datetime, timedelta

from sessions import lifecycle, trust
from sessions.lifecycle import State
from sessions.models import Account, Instance


def closed(provider: str, now: datetime) -> str:
    """Why nothing may be created at this account now; "" if it may."""
    account = Account.objects.filter(provider=provider).first()
    rows = Instance.objects.filter(provider=provider)
    oldest = rows.filter(state=State.DESTROYING).order_by("state_since").first()
    return lifecycle.closed_gate(
        lifecycle.AccountView(
            looked_at=account.looked_at if account else None,
            braked=account.brake if account else "",
            unresolved_creates=rows.filter(state__in=(State.LAUNCHING, State.DESTROYING), machine_id="",
                                           launched_at__isnull=False, refused_at=None).count(),
            oldest_destroy=oldest.state_since if oldest else None,
            clock_off=next(iter(trust.clocks_off().values()), timedelta(0)),
        ),
        now,
    )  # fmt: skip
