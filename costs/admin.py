"""Operators' pages about money; Django looks for them here."""

from costs import admin_bills, admin_budgets, admin_spending  # noqa: F401
