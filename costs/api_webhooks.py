"""The API's doors to webhooks: check what was sent, call `webhooks`, answer."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from costs import budgets, targets, webhooks
from costs.models import Delivery, Endpoint
from providers import clock
from rest.access import Principal, consumer_filter, principal
from rest.doors import NO_STORE, Door
from rest.errors import bad_field, conflict, not_found
from rest.params import Paged, Strict, check_body
from sessions import shapes

MOST_ENDPOINTS = 20


class WebhookQuery(Paged):
    consumer_id = serializers.CharField(required=False, max_length=100)


class WebhookForm(Strict):
    url = serializers.CharField(max_length=2000, help_text="https://, on the public internet.")
    events = serializers.ListField(
        child=serializers.ChoiceField(webhooks.OPERATOR_EVENTS), required=False, allow_empty=False,
        help_text="Default: all that you may have. `orphan.detected` and `destroy.overdue` are for operators.",
    )  # fmt: skip
    consumer_id = serializers.CharField(
        required=False, max_length=100,
        help_text="An operator may add one for a consumer; without it, the endpoint is the operators' and is told "
        "of every consumer's events.",
    )  # fmt: skip


class WebhookShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    consumer_id = serializers.CharField(allow_null=True, help_text="Null: the operators'.")
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(webhooks.OPERATOR_EVENTS))
    budget_id = serializers.UUIDField(allow_null=True, help_text="It was set as this budget's `webhook_url`.")
    created_at = serializers.DateTimeField()
    disabled_at = serializers.DateTimeField(allow_null=True)
    disabled_because = serializers.CharField()


class NewWebhook(WebhookShape):
    secret = serializers.CharField(help_text="Shown this once.")


class RotatedWebhook(NewWebhook):
    old_secret_until = serializers.DateTimeField(help_text="Until then the old secret signs as well.")


class WebhookPage(serializers.Serializer[Any]):
    webhooks = WebhookShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class AttemptShape(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    status_code = serializers.IntegerField(allow_null=True, help_text="Null: there was no answer.")
    error = serializers.CharField(help_text="Empty: delivered.")
    seconds = serializers.FloatField()


class DeliveryShape(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The `webhook-id` header, the same for every attempt.")
    event = serializers.ChoiceField(webhooks.OPERATOR_EVENTS)
    state = serializers.ChoiceField(["waiting", "delivered", "given up"])
    created_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    attempts = AttemptShape(many=True)


class DeliveryPage(serializers.Serializer[Any]):
    deliveries = DeliveryShape(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


def visible(request: Request) -> QuerySet[Endpoint]:
    """The endpoints that the caller may see. Somebody else's do not exist for it."""
    who = principal(request)
    found = Endpoint.objects.defer("secret", "old_secret")
    return found if who.is_operator else found.filter(consumer=who.consumer)


def find(request: Request, pk: UUID) -> Endpoint:
    endpoint = visible(request).filter(pk=pk).first()
    if endpoint is None:
        raise not_found("webhook")
    return endpoint


def checked_url(field: str, url: str) -> str:
    """The URL, if something may be sent there now; else a 400 that names the field."""
    try:
        targets.check(url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    except (targets.Forbidden, targets.Unresolved) as error:
        raise bad_field(field, str(error)) from error
    return url


class Webhooks(Door):
    queries = {"GET": WebhookQuery}
    bodies = ("POST",)

    @extend_schema(parameters=[WebhookQuery], responses=WebhookPage)
    def get(self, request: Request) -> Response:
        """One's own endpoints (an operator: everybody's), without their secrets."""
        query = self.query
        found = visible(request)
        if (consumer := consumer_filter(request, query.get("consumer_id"))) is not None:
            found = found.filter(consumer=consumer)
        page = [webhook_json(row) for row in found[query["offset"] : query["offset"] + query["limit"]]]
        return Response({"webhooks": page, "count": len(page), "total": found.count()})

    @extend_schema(request=WebhookForm, responses={201: NewWebhook})
    def post(self, request: Request) -> Response:
        """Be told of events, signed after the Standard Webhooks specification. The secret is in this answer only."""
        data = check_body(WebhookForm, request)
        owner = _owner(principal(request), data)
        events = _events(owner, data)
        if Endpoint.objects.filter(consumer=owner).count() >= MOST_ENDPOINTS:
            raise conflict("too_many", f"There are {MOST_ENDPOINTS} endpoints already.")
        endpoint = webhooks.add(checked_url("url", data["url"]), consumer=owner, events=events)
        shown = {**webhook_json(endpoint), "secret": endpoint.secret}
        return Response(shown, status=201, headers={"Location": f"/api/v1/webhooks/{endpoint.pk}", **NO_STORE})


def _owner(who: Principal, data: dict[str, Any]) -> str:
    asked = data.get("consumer_id")
    if who.is_operator:
        if asked and not budgets.is_consumer(asked):
            raise bad_field("consumer_id", "There is no such consumer.")
        return asked or ""
    if asked and asked != who.consumer:
        raise exceptions.PermissionDenied("Your key belongs to another consumer.")
    return who.consumer


def _events(owner: str, data: dict[str, Any]) -> list[str]:
    allowed = webhooks.CONSUMER_EVENTS if owner else webhooks.OPERATOR_EVENTS
    asked = data.get("events", allowed)
    if beyond := sorted(set(asked) - set(allowed)):
        raise bad_field("events", f"{', '.join(beyond)}: only operators are told of that.")
    return [event for event in allowed if event in asked]


class OneWebhook(Door):
    @extend_schema(responses=WebhookShape)
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(webhook_json(find(request, pk)))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: UUID) -> Response:
        """Nothing is sent there any more; what waits is dropped."""
        find(request, pk).delete()
        return Response(status=204)


class Rotate(Door):
    @extend_schema(request=None, responses=RotatedWebhook)
    def post(self, request: Request, pk: UUID) -> Response:
        """A new secret, shown this once. The old one signs as well for 24 hours."""
        endpoint = find(request, pk)
        webhooks.rotate(endpoint, clock.now())
        shown = {
            **webhook_json(endpoint), "secret": endpoint.secret,
            "old_secret_until": shapes.instant(endpoint.old_secret_until),
        }  # fmt: skip
        return Response(shown, headers=NO_STORE)


class Deliveries(Door):
    queries = {"GET": Paged}

    @extend_schema(parameters=[Paged], responses=DeliveryPage)
    def get(self, request: Request, pk: UUID) -> Response:
        """What was sent, or waits to be, newest first, with every attempt. Kept for 30 days."""
        query = self.query
        found = Delivery.objects.filter(endpoint=find(request, pk))
        rows = found.prefetch_related("attempts")[query["offset"] : query["offset"] + query["limit"]]
        page = [delivery_json(row) for row in rows]
        return Response({"deliveries": page, "count": len(page), "total": found.count()})


def webhook_json(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": str(endpoint.pk),
        "consumer_id": endpoint.consumer or None,
        "url": endpoint.url,
        "events": endpoint.events,
        "budget_id": str(endpoint.budget_id) if endpoint.budget_id else None,
        "created_at": shapes.instant(endpoint.created_at),
        "disabled_at": shapes.instant(endpoint.disabled_at),
        "disabled_because": endpoint.disabled_because,
    }


def delivery_json(row: Delivery) -> dict[str, Any]:
    return {
        "id": row.message_id,
        "event": row.kind,
        "state": row.state,
        "created_at": shapes.instant(row.created_at),
        "delivered_at": shapes.instant(row.delivered_at),
        "next_attempt_at": shapes.instant(row.due_at),
        "attempts": [
            {"at": shapes.instant(each.at), "status_code": each.status_code, "error": each.error,
             "seconds": each.seconds}
            for each in row.attempts.all()
        ],
    }  # fmt: skip
