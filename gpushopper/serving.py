"""What every server does first: refuse settings with which it could not keep its promises.

`manage.py` commands run Django's checks by themselves; gunicorn and Celery do not.
"""

from __future__ import annotations

from django.core import checks
from django.core.exceptions import ImproperlyConfigured


def refuse_bad_settings() -> None:
    """Raises ImproperlyConfigured with each error that `manage.py check` would report."""
    errors = [found for found in checks.run_checks() if found.level >= checks.ERROR]
    if errors:
        raise ImproperlyConfigured("The service does not start.\n" + "\n".join(str(error) for error in errors))
