"""Every route. Both spellings of an API path answer; the slashless one is the canonical one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin
from django.urls import URLPattern, include, path, re_path

import costs.urls
import inventory.urls
import sessions.urls
from gpushopper import docs, signals

API = "api/v1/"


def routes(*apps: Sequence[tuple[str, Callable[..., Any], str]]) -> list[URLPattern]:
    """`(regular expression under /api/v1, view, name)` of each app."""
    return [both(f"{API}{route}", view, name) for app in apps for route, view, name in app]


def both(route: str, view: Callable[..., Any], name: str) -> URLPattern:
    """With and without a slash at its end; a redirect from one to the other would drop a body."""
    return re_path(rf"^{route}/?\Z", view, name=name)


urlpatterns = [
    *routes(inventory.urls.ROUTES, sessions.urls.ROUTES, costs.urls.ROUTES, signals.ROUTES),
    both(f"{API}schema", docs.Schema.as_view(), "schema"),
    both(f"{API}docs", docs.Docs.as_view(), "docs"),
    both("health", signals.Health.as_view(), "health"),
    both("ready", signals.Ready.as_view(), "ready"),
    both("metrics", signals.Metrics.as_view(), "metrics"),
    path("", signals.front_door),
    path("admin/", admin.site.urls),
    path("api-auth/", include("rest_framework.urls")),
]

handler400 = "rest.errors.bad_request"
handler403 = "rest.errors.permission_denied"
handler404 = "rest.errors.page_not_found"
handler500 = "rest.errors.server_error"
