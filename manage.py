#!/usr/bin/env python3
"""Django's door to the management commands."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpushopper.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:  # Its sentence is for a person; where it was raised is for nobody.
        if "--traceback" in sys.argv:
            raise
        sys.exit(str(error))
