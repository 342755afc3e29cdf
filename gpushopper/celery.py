"""The Celery application. `gpushopper.apps` imports it, so that every task finds it as the default."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import import_modules

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpushopper.settings")

app = Celery("gpushopper")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks()


@import_modules.connect
def refuse_bad_settings(**kwargs: Any) -> None:
    """Workers and beat send this signal before anything else; unlike others it lets an exception through."""
    from gpushopper import serving

    serving.refuse_bad_settings()
