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


def written(amount_micros: int) -> str:
    """As a person reads it, without a sign of currency: cents, or more digits where cents would be nothing."""
    amount = usd(amount_micros)
    return f"{amount:,.2f}" if abs(amount) >= 1 or not amount else f"{amount:,.4f}"


def dollars(amount_micros: int) -> str:
    """The same as dollars: `$0.3718`, `-$12.00`."""
    return f"{'-' if amount_micros < 0 else ''}${written(abs(amount_micros))}"
