"""The Celery application. `gpushopper.apps` imports it, so that every task finds it as the default."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpushopper.settings")

app = Celery("gpushopper")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks()
