"""What `manage.py check` says of the settings, by name and with what to do."""

from __future__ import annotations

from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from gpushopper import keyfile
from providers import registry


@register()
def environment_is_readable(**kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{name}: {problem}.", hint=f"Mend {name} in the environment or in .env.", id="gpushopper.E001")
        for name, problem in settings.SETTING_PROBLEMS.items()
    ]


@register()
def field_keys_are_keys(**kwargs: Any) -> list[CheckMessage]:
    try:
        for key in settings.FIELD_ENCRYPTION_KEYS:
            Fernet(key)
    except ValueError:
        return [
            Error(
                "FIELD_ENCRYPTION_KEYS: each key is 32 bytes in url-safe base64.",
                hint="Make one: python -c 'from cryptography.fernet import Fernet; "
                "print(Fernet.generate_key().decode())'",
                id="gpushopper.E002",
            )
        ]
    return []


@register()
def production_has_its_own_secrets(**kwargs: Any) -> list[CheckMessage]:
    if not (settings.PRODUCTION and settings.MADE_UP_SECRETS):
        return []
    names = ", ".join(settings.MADE_UP_SECRETS)
    return [
        Error(
            f"With a broker of its own the service needs secrets of its own: {names} not set.",
            hint="Every process must share them, and a lost one makes our machines unrecognisable. "
            "`manage.py make_secrets` prints a set for .env.",
            id="gpushopper.E003",
        )
    ]


@register()
def deployment_id_fits_a_tag(**kwargs: Any) -> list[CheckMessage]:
    deployment = settings.DEPLOYMENT_ID
    if deployment.isascii() and deployment.isalnum() and deployment.islower() and len(deployment) <= 12:
        return []
    return [
        Error(
            "DEPLOYMENT_ID: lower-case letters and digits, 1 to 12, with at least one letter.",
            hint="It becomes part of every machine's label.",
            id="gpushopper.E004",
        )
    ]


@register()
def the_key_file_is_private(**kwargs: Any) -> list[CheckMessage]:
    path = settings.DATA_DIR / keyfile.FILE_NAME
    if not path.exists() or keyfile.is_private(path):
        return []
    return [
        Error(
            f"{path} can be read by others; whoever has it can act for this deployment.",
            hint=f"chmod 600 {path}",
            id="gpushopper.E005",
        )
    ]


@register()
def provider_keys_are_usable(**kwargs: Any) -> list[CheckMessage]:
    problems = registry.load(settings.PROVIDER_ENV).problems
    return [Warning(f"{name}: {problem}", id="gpushopper.W001") for name, problem in problems.items()]
