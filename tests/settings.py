"""The product's settings with a database in memory, fixed secrets, and a broker that only remembers."""

import os
import tempfile

for name in [name for name in os.environ if name.startswith(("VASTAI_", "TENSORDOCK_"))]:
    del os.environ[name]
os.environ.update(
    DATA_DIR=tempfile.mkdtemp(prefix="gpu-shopper-tests-"),
    DATABASE_URL=os.environ.get("TEST_DATABASE_URL", "sqlite://:memory:"),
    CELERY_BROKER_URL="memory://",
    SECRET_KEY="a secret only for the tests, long enough to be taken for one",
    FIELD_ENCRYPTION_KEYS="dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
    TAG_KEY="a tag key only for the tests",
    DEPLOYMENT_ID="tests1",
    LOG_FORMAT="text",
)

from gpushopper.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if DATABASES["default"]["ENGINE"] == "gpushopper.sqlite":  # noqa: F405
    # Said, since a runner in several processes takes it for granted of Django's own backend only. A file of
    # a relative name would be another one as soon as a test changes the directory.
    DATABASES["default"]["TEST"] = {"NAME": ":memory:"}  # noqa: F405
