"""The API's paths, under `/api/v1/`."""

from costs import api_budgets, api_costs, api_report, api_webhooks

_ID = r"(?P<pk>[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})"

ROUTES = [
    (r"costs", api_costs.Costs.as_view(), "costs"),
    (r"costs/summary", api_costs.Summary.as_view(), "costs-summary"),
    (r"costs/report", api_report.Report.as_view(), "costs-report"),
    (r"budgets", api_budgets.Budgets.as_view(), "budgets"),
    (rf"budgets/{_ID}", api_budgets.OneBudget.as_view(), "budget"),
    (r"webhooks", api_webhooks.Webhooks.as_view(), "webhooks"),
    (rf"webhooks/{_ID}", api_webhooks.OneWebhook.as_view(), "webhook"),
    (rf"webhooks/{_ID}/rotate", api_webhooks.Rotate.as_view(), "webhook-rotate"),
    (rf"webhooks/{_ID}/deliveries", api_webhooks.Deliveries.as_view(), "webhook-deliveries"),
]
