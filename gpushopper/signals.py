"""What monitors ask: is it healthy, is it ready, and the figures.

Figures that have to be right across processes and restarts are read from rows at each scrape.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from gpushopper import figures
from gpushopper.celery import app
from inventory.models import Source
from providers import clock, registry
from rest.access import principal
from rest.doors import Door
from rest.errors import envelope
from rest.negotiation import TheOneFormat
from sessions.models import Account, Heartbeat
from sessions.shapes import instant

OK = "ok"
MISSED_TICKS = 3
BROKER_TIMEOUT = 2  # seconds


# --- Health ---------------------------------------------------------------------------------------------


class HealthServices(serializers.Serializer[Any]):
    """`ok`, or what is wrong and what to do."""

    database = serializers.CharField()
    broker = serializers.CharField()
    lifecycle = serializers.CharField()
    inventory = serializers.CharField()
    ready = serializers.CharField()


class HealthShape(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["ok", "degraded", "unhealthy"])
    timestamp = serializers.DateTimeField()
    services = HealthServices()


class ReadyShape(serializers.Serializer[Any]):
    ready = serializers.BooleanField()
    timestamp = serializers.DateTimeField()


class Open(Door):
    """For monitors: nobody is asked for a key, and one that can't be checked is no hindrance."""

    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = TheOneFormat


class Health(Open):
    @extend_schema(responses={200: HealthShape, 503: HealthShape}, auth=[])
    def get(self, request: Request) -> HttpResponse:
        """503 when the service can't keep its promises: no database, or nobody looks after what is due."""
        now = clock.now()
        services = _services(now)
        vital = services["database"] == OK and services["lifecycle"] == OK
        status = "unhealthy" if not vital else OK if all(word == OK for word in services.values()) else "degraded"
        body = {"status": status, "timestamp": instant(now), "services": services}
        return _not_cached(Response(body, status=200 if vital else 503), vital)


class Ready(Open):
    @extend_schema(responses={200: ReadyShape, 503: ReadyShape}, auth=[])
    def get(self, request: Request) -> HttpResponse:
        """Whether the service can take what it is asked."""
        now = clock.now()
        is_ready = database() == OK and lifecycle(now) == OK
        body = {"ready": is_ready, "timestamp": instant(now)}
        return _not_cached(Response(body, status=200 if is_ready else 503), is_ready)


def _not_cached(response: HttpResponse, fine: bool) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    if not fine:
        response["Retry-After"] = "5"
    return response


def _services(now: datetime) -> dict[str, str]:
    if (told := database()) != OK:
        unknown = "unknown without the database"
        return {"database": told, "broker": broker(), "lifecycle": unknown, "inventory": unknown, "ready": "no"}
    services = {
        "database": OK,
        "broker": broker(),
        "lifecycle": lifecycle(now),
        "inventory": inventory(now),
    }
    services["ready"] = OK if services["lifecycle"] == OK else "no"
    return services


_migrated = False


def database() -> str:
    global _migrated
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not _migrated:
            executor = MigrationExecutor(connection)
            _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Exception as error:  # Whatever a driver raises: it is not there.
        return f"does not answer ({type(error).__name__}); check DATABASE_URL"
    return OK if _migrated else "not migrated; run: python manage.py migrate"


def broker() -> str:
    if settings.EMBEDDED:
        return OK
    try:
        with app.connection_for_write(connect_timeout=BROKER_TIMEOUT) as line:
            line.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT)
    except Exception as error:  # kombu, redis and sockets each have their own.
        return f"does not answer ({type(error).__name__}); the guardian goes on without it"
    return OK


def lifecycle(now: datetime) -> str:
    """Somebody has looked for due rows within three ticks."""
    return ticking(Heartbeat.objects.filter(name="beat").first(), now)


def ticking(beat: Heartbeat | None, now: datetime) -> str:
    if beat is None:
        return "no tick yet; are beat and a worker running?"
    late = now - beat.at
    if late > MISSED_TICKS * settings.LIFECYCLE_CHECK_INTERVAL:
        return f"no tick for {late.total_seconds():.0f} s; are beat and a worker running?"
    return OK


def inventory(now: datetime) -> str:
    enabled = registry.all()
    if not enabled:
        return "no provider is configured; set VASTAI_API_KEY or TENSORDOCK_API_TOKEN"
    rejected = Account.objects.filter(unauthorized=True, provider__in=list(enabled)).values_list("provider", flat=True)
    if rejected:
        return f"credentials rejected by {', '.join(sorted(rejected))}; mend the key. Sessions are kept as they are"
    sources = {source.provider: source for source in Source.objects.all()}
    old = [name for name in enabled if name not in sources or sources[name].is_stale(now)]
    return f"old offers: {', '.join(sorted(old))}" if old else OK


# --- Metrics ----------------------------------------------------------------------------------------------


_MAYBE_A_TOKEN: Any = [{}, {"metricsToken": []}]


class Metrics(Open):
    @extend_schema(responses={(200, "text/plain"): str}, auth=_MAYBE_A_TOKEN)
    def get(self, request: Request) -> HttpResponse:
        """The figures, for Prometheus. Open unless METRICS_TOKEN is set."""
        if settings.METRICS_TOKEN and not _may_read(request):
            answer = Response(envelope("not_authenticated", "Send METRICS_TOKEN as a bearer token."), status=401)
            answer["WWW-Authenticate"] = 'Bearer realm="metrics"'
            return answer
        ours = CollectorRegistry()
        ours.register(figures.Figures(clock.now()))
        return HttpResponse(generate_latest(ours) + generate_latest(_requests()), content_type=CONTENT_TYPE_LATEST)


def _requests() -> CollectorRegistry:
    """The figures of requests: this process's, or those of all web processes that share a folder for them."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together


def _may_read(request: Request) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), settings.METRICS_TOKEN.encode())


# --- Providers --------------------------------------------------------------------------------------------


class ProviderShape(serializers.Serializer[Any]):
    name = serializers.CharField()
    enabled = serializers.BooleanField()
    sandbox = serializers.BooleanField(help_text="A stand-in: nothing real is rented.")
    last_complete_listing = serializers.DateTimeField(allow_null=True)
    machines_listed = serializers.IntegerField()
    rate_limited_until = serializers.DateTimeField(allow_null=True)
    creates_stopped = serializers.CharField(help_text="Why nothing may be created there now; empty: it may.")
    last_error = serializers.CharField(help_text="To operators in the provider's own words.")


class ProviderList(serializers.Serializer[Any]):
    providers = ProviderShape(many=True)
    count = serializers.IntegerField()


class Providers(Door):
    @extend_schema(responses=ProviderList)
    def get(self, request: Request) -> Response:
        """The providers, and how well we see their accounts."""
        shown = list(_providers(clock.now(), to_operator=principal(request).is_operator))
        return Response({"providers": shown, "count": len(shown)})


NOT_SEEN = "The provider did not answer as it should the last time; it is asked again."


def _providers(now: datetime, *, to_operator: bool) -> Iterator[dict[str, Any]]:
    from sessions import gates

    accounts = {account.provider: account for account in Account.objects.all()}
    sources = {source.provider: source for source in Source.objects.all()}
    enabled = registry.all()
    for name in sorted({*enabled, *accounts}):
        account, source = accounts.get(name), sources.get(name)
        error = (account.error if account else "") or (source.error if source else "")
        limited = account.due_at if account and account.failures and account.due_at else None
        yield {
            "name": name,
            "enabled": name in enabled,
            "sandbox": settings.SANDBOX and name in enabled,
            "last_complete_listing": instant(account.looked_at if account else None),
            "machines_listed": account.listed if account else 0,
            "rate_limited_until": instant(limited),
            "creates_stopped": gates.closed(name, now) if name in enabled else "no key is configured",
            "last_error": error if to_operator or not error else NOT_SEEN,
        }


ROUTES = [(r"providers", Providers.as_view(), "providers")]


# --- The front door -----------------------------------------------------------------------------------------


def front_door(request: HttpRequest) -> HttpResponse:
    return render(request, "front_door.html", {"sandbox": settings.SANDBOX})
