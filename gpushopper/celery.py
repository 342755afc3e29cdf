"""The Celery application. `gpushopper.apps` imports it, so that every task finds it as the default."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpushopper.settings")

app = Celery("gpushopper")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks()


@worker_init.connect
@beat_init.connect
def refuse_bad_settings(**kwargs: Any) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from gpushopper import serving

    try:
        serving.refuse_bad_settings()
    except ImproperlyConfigured as error:
        raise SystemExit(str(error)) from error  # Celery would only log any other exception of a signal.
