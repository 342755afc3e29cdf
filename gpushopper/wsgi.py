"""The web application, for any WSGI server."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpushopper.settings")

application = get_wsgi_application()

from gpushopper import serving  # noqa: E402 - needs the applications that the line above loads

serving.refuse_bad_settings()
