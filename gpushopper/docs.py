"""The OpenAPI description, and the page that shows it, with nothing fetched from outside."""

from __future__ import annotations

from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from rest.doors import Door


class Schema(Door, SpectacularAPIView):
    """JSON, as everything here; YAML for who asks for it."""

    renderer_classes = [OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer]


class Docs(Door, SpectacularSwaggerView):
    url_name = "schema"
