"""Operators' pages about money."""

from costs import admin_budgets  # noqa: F401 - Django looks for pages here
