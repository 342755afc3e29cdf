"""The API's doors to budgets: check what was sent, call `budgets`, answer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from costs import budgeting, budgets, webhooks
from costs.api_webhooks import checked_url
from costs.budgeting import WHOLE, OnLimit, Period
from costs.budgets import Outlook
from costs.models import Budget, Endpoint
from costs.models.budgets import default_thresholds
from providers import clock
from providers.money import micros
from rest.access import consumer_filter, principal
from rest.doors import NO_STORE, Door
from rest.errors import bad_field, conflict, not_found
from rest.params import Paged, Strict, check_body
from sessions import shapes

MOST_USD = 1_000_000_000
MOST_THRESHOLDS = 10
MOST_BUDGETS = 50


class BudgetQuery(Paged):
    consumer_id = serializers.CharField(required=False, max_length=100)


class BudgetForm(Strict):
    consumer_id = serializers.CharField(required=False, max_length=100, help_text="An operator has to say whose.")
    period = serializers.ChoiceField([period.value for period in Period], help_text="By UTC.")
    limit_usd = serializers.DecimalField(
        max_digits=16, decimal_places=6, min_value=Decimal(0), max_value=Decimal(MOST_USD)
    )
    thresholds = serializers.ListField(
        child=serializers.DecimalField(max_digits=5, decimal_places=4, max_value=Decimal(1)),
        max_length=MOST_THRESHOLDS, required=False, help_text="Parts of the limit, ascending. Default 0.5, 0.8, 1.0.",
    )  # fmt: skip
    on_limit = serializers.ChoiceField(
        [on_limit.value for on_limit in OnLimit], default=OnLimit.BLOCK.value,
        help_text="`alert` tells; `block` refuses what would not fit; `stop` also ends what runs at the limit.",
    )  # fmt: skip
    webhook_url = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=2000)

    def validate_thresholds(self, thresholds: list[Decimal]) -> list[Decimal]:
        if any(threshold <= 0 for threshold in thresholds):
            raise serializers.ValidationError("Each is above 0 and at most 1.")
        if any(later <= earlier for earlier, later in pairwise(thresholds)):
            raise serializers.ValidationError("Each is larger than the one before.")
        return thresholds


class BudgetShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    consumer_id = serializers.CharField()
    period = serializers.ChoiceField([period.value for period in Period])
    limit_usd = serializers.FloatField()
    thresholds = serializers.ListField(child=serializers.FloatField())
    on_limit = serializers.ChoiceField([on_limit.value for on_limit in OnLimit])
    webhook_url = serializers.CharField(allow_null=True, help_text="Shown to those who may change the budget.")
    set_by = serializers.ChoiceField(["operator", "consumer"], help_text="An operator's can't be changed by others.")
    created_at = serializers.DateTimeField()
    period_start = serializers.DateTimeField(allow_null=True, help_text="Null with `total`.")
    period_end = serializers.DateTimeField(allow_null=True)
    spent = serializers.FloatField(help_text="USD in this period.")
    reserved = serializers.FloatField(help_text="USD that what is not over may still cost.")
    remaining = serializers.FloatField(help_text="limit - spent - reserved; below 0 if the limit was lowered since.")
    forecast = serializers.FloatField(help_text="USD spent when each live session runs until its deadline.")
    notice = serializers.CharField(help_text="What this budget does right now; empty if there is room.")


class BudgetAnswer(BudgetShape):
    webhook_secret = serializers.CharField(required=False, help_text="Shown once, when the URL is new.")


class BudgetPage(serializers.Serializer[Any]):
    budgets = BudgetShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


def visible(request: Request) -> QuerySet[Budget]:
    """The budgets that the caller may see. Somebody else's do not exist for it."""
    who = principal(request)
    found = Budget.objects.select_related("endpoint").defer("endpoint__secret", "endpoint__old_secret")
    return found if who.is_operator else found.filter(consumer=who.consumer)


def find(request: Request, pk: UUID) -> Budget:
    budget = visible(request).filter(pk=pk).first()
    if budget is None:
        raise not_found("budget")
    return budget


def may_change(request: Request, budget: Budget) -> bool:
    """What an operator has set binds the consumer: it can be seen, not loosened."""
    return principal(request).is_operator or not budget.by_operator


class Budgets(Door):
    queries = {"GET": BudgetQuery}
    bodies = ("POST",)

    @extend_schema(parameters=[BudgetQuery], responses=BudgetPage)
    def get(self, request: Request) -> Response:
        """One's own budgets (an operator: everybody's), and where each stands."""
        query = self.query
        found = visible(request)
        if (consumer := consumer_filter(request, query.get("consumer_id"))) is not None:
            found = found.filter(consumer=consumer)
        page = list(found[query["offset"] : query["offset"] + query["limit"]])
        shown = budgets_json(request, page, clock.now())
        return Response({"budgets": shown, "count": len(shown), "total": found.count()})

    @extend_schema(request=BudgetForm, responses={201: BudgetAnswer})
    def post(self, request: Request) -> Response:
        """Set a budget. It holds at once, also for what runs already.

        A consumer may set any number for itself, and all of them hold; one that an operator has set can be
        changed by operators only.
        """
        data = check_body(BudgetForm, request)
        consumer = _consumer(request, data)
        if Budget.objects.filter(consumer=consumer).count() >= MOST_BUDGETS:
            raise conflict("too_many", f"{consumer} has {MOST_BUDGETS} budgets already.")
        budget = Budget(consumer=consumer, by_operator=principal(request).is_operator, created_at=clock.now())
        answer = _save(request, budget, data)
        return Response(answer, status=201, headers={**NO_STORE, "Location": f"/api/v1/budgets/{budget.pk}"})


class OneBudget(Door):
    bodies = ("PUT",)

    @extend_schema(responses=BudgetShape)
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(budgets_json(request, [find(request, pk)], clock.now())[0])

    @extend_schema(request=BudgetForm, responses=BudgetAnswer)
    def put(self, request: Request, pk: UUID) -> Response:
        """Replace it: what is not sent gets its default. A limit below what is spent is taken, and acts at once."""
        budget = self._changeable(request, pk)
        data = check_body(BudgetForm, request)
        if data.get("consumer_id", budget.consumer) != budget.consumer:
            raise bad_field("consumer_id", "A budget stays its consumer's; set another one.")
        budget.by_operator = principal(request).is_operator
        return Response(_save(request, budget, data), headers=NO_STORE)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        self._changeable(request, pk).delete()
        return Response(status=204)

    def _changeable(self, request: Request, pk: UUID) -> Budget:
        budget = find(request, pk)
        if not may_change(request, budget):
            raise exceptions.PermissionDenied("An operator has set this budget; only an operator can change it.")
        return budget


def _consumer(request: Request, data: dict[str, Any]) -> str:
    who, asked = principal(request), data.get("consumer_id")
    if not who.is_operator:
        if asked and asked != who.consumer:
            raise exceptions.PermissionDenied("Your key belongs to another consumer.")
        return who.consumer
    if not asked:
        raise bad_field("consumer_id", "An operator has to say for whom.")
    if not budgets.is_consumer(asked):
        raise bad_field("consumer_id", "There is no such consumer.")
    return str(asked)


def _save(request: Request, budget: Budget, data: dict[str, Any]) -> dict[str, Any]:
    """Write it with its webhook, let it act, and say where it stands."""
    now = clock.now()
    url = data.get("webhook_url") or ""
    endpoint = getattr(budget, "endpoint", None)
    fresh = bool(url) and (endpoint is None or (endpoint.url, endpoint.consumer) != (url, _owner(request)))
    if fresh:
        checked_url("webhook_url", url)
    budget.period, budget.on_limit, budget.due_at = data["period"], data["on_limit"], now
    budget.limit = micros(data["limit_usd"])
    asked = data.get("thresholds")
    budget.thresholds = default_thresholds() if asked is None else [int(part * WHOLE) for part in asked]
    with transaction.atomic():
        budgets.write(budget, now)
        secret = _set_endpoint(request, budget, url, now) if fresh or not url else ""
    budgets.look(budget, now)
    [answer] = budgets_json(request, [find(request, budget.pk)], now)
    return {**answer, "webhook_secret": secret} if secret else answer


def _set_endpoint(request: Request, budget: Budget, url: str, now: datetime) -> str:
    """Replace the budget's own endpoint. The new secret, which is shown once."""
    Endpoint.objects.filter(budget=budget).delete()
    if not url:
        return ""
    endpoint = webhooks.add(url, consumer=_owner(request), events=list(webhooks.BUDGET_EVENTS), budget=budget)
    return str(endpoint.secret)


def _owner(request: Request) -> str:
    """Whose an endpoint is that the caller sets; "" is the operators'."""
    who = principal(request)
    return "" if who.is_operator else who.consumer


def budgets_json(request: Request, page: list[Budget], now: datetime) -> list[dict[str, Any]]:
    return [_budget_json(request, outlook, now) for outlook in budgets.outlooks(page, now)]


def _budget_json(request: Request, outlook: Outlook, now: datetime) -> dict[str, Any]:
    budget, stands = outlook.budget, outlook.standing
    start, end = budgeting.window(Period(budget.period), now)
    endless = budget.period == Period.TOTAL
    endpoint = getattr(budget, "endpoint", None)
    return {
        "id": str(budget.pk),
        "consumer_id": budget.consumer,
        "period": budget.period,
        "limit_usd": shapes.money(budget.limit),
        "thresholds": [threshold / WHOLE for threshold in budget.thresholds],
        "on_limit": budget.on_limit,
        "webhook_url": endpoint.url if endpoint and may_change(request, budget) else None,
        "set_by": "operator" if budget.by_operator else "consumer",
        "created_at": shapes.instant(budget.created_at),
        "period_start": None if endless else shapes.instant(start),
        "period_end": None if endless else shapes.instant(end),
        "spent": shapes.money(stands.spent),
        "reserved": shapes.money(stands.reserved),
        "remaining": shapes.money(stands.remaining),
        "forecast": shapes.money(outlook.forecast),
        "notice": outlook.notice,
    }
