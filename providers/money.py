"""Money as integers: micro-dollars, written `micros`.

Pure. SQLite adds decimals as floats (a thousand times 0.1 makes 99.9999999999986), so amounts are
integers from the moment they enter until they are shown. One micro-dollar is 0.000001 USD; a rate is
in micros per hour.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

MICROS_PER_USD = 1_000_000
_MICRO = Decimal("0.000001")


def micros(usd: Decimal | str | int) -> int:
    """USD to micro-dollars, rounded half-even. Floats are not taken: parse JSON with Decimal."""
    return int((Decimal(usd) * MICROS_PER_USD).to_integral_value(ROUND_HALF_EVEN))


def usd(amount_micros: int) -> Decimal:
    """Micro-dollars to USD, exact, with six places."""
    return (Decimal(amount_micros) / MICROS_PER_USD).quantize(_MICRO)
