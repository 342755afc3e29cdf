"""Every route. Both spellings of an API path answer; the slashless one is the canonical one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.urls import URLPattern, include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

import costs.urls
import inventory.urls
import sessions.urls
from gpushopper import signals

API = "api/v1/"


def routes(*apps: list[tuple[str, Callable[..., Any], str]]) -> list[URLPattern]:
    """`(regular expression under /api/v1, view, name)` of each app, with an optional trailing slash."""
    return [re_path(rf"^{API}{route}/?$", view, name=name) for app in apps for route, view, name in app]


urlpatterns = [
    *routes(inventory.urls.ROUTES, sessions.urls.ROUTES, costs.urls.ROUTES, signals.ROUTES),
    path(f"{API}schema", SpectacularAPIView.as_view(), name="schema"),
    path(f"{API}docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
    re_path(r"^health/?$", signals.health, name="health"),
    re_path(r"^ready/?$", signals.ready, name="ready"),
    re_path(r"^metrics/?$", signals.metrics, name="metrics"),
    path("", signals.front_door),
    path("admin/", admin.site.urls),
    path("api-auth/", include("rest_framework.urls")),
]

handler400 = "rest.errors.bad_request"
handler403 = "rest.errors.permission_denied"
handler404 = "rest.errors.page_not_found"
handler500 = "rest.errors.server_error"
