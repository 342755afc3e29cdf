"""What is kept of money: what was used, budgets and their alerts, endpoints and what they are told."""

from costs.models.budgets import Alert, Budget, Mail
from costs.models.usage import UsageInterval
from costs.models.webhooks import Delivery, DeliveryAttempt, Endpoint

__all__ = ["Alert", "Budget", "Delivery", "DeliveryAttempt", "Endpoint", "Mail", "UsageInterval"]
