"""What is kept of money: what was used, what was billed, budgets and their alerts, endpoints and what they are told."""

from costs.models.bills import Balance, Bill, BilledCharge
from costs.models.budgets import Alert, Budget, Mail
from costs.models.usage import Spending, UsageInterval
from costs.models.webhooks import Delivery, DeliveryAttempt, Endpoint

__all__ = [
    "Alert", "Balance", "Bill", "BilledCharge", "Budget", "Delivery", "DeliveryAttempt", "Endpoint", "Mail",
    "Spending", "UsageInterval",
]  # fmt: skip
