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
