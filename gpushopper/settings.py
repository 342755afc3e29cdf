"""Django's settings, and ours. Every value a person may set is read from the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import environ
import structlog
from celery.schedules import schedule
from django.core.exceptions import ImproperlyConfigured

from gpushopper import environment, keyfile, logs

BASE_DIR = Path(__file__).resolve().parent.parent

env = environment.load(BASE_DIR)
SETTING_PROBLEMS = env.problems

# --- What this is --------------------------------------------------------------------------------------

_BROKERS = ("redis", "rediss", "redis+socket", "sentinel", "memory")
CELERY_BROKER_URL = env.url("CELERY_BROKER_URL", *_BROKERS) or env.url("REDIS_URL", *_BROKERS) or "memory://localhost/"
EMBEDDED = CELERY_BROKER_URL.startswith("memory:")  # everything in one process
PRODUCTION = not EMBEDDED
PROVIDER_ENV = env.values  # The adapters read their own keys and addresses (`providers.registry`).
# Without any key the embedded service brings the sandbox's stand-ins, and says so wherever they show.
SANDBOX = EMBEDDED and not any(
    PROVIDER_ENV.get(name) for name in ("VASTAI_API_KEY", "TENSORDOCK_API_TOKEN", "TENSORDOCK_API_KEY")
)

# --- Where things are ---------------------------------------------------------------------------------

DATA_DIR = Path(env.text("DATA_DIR", str(BASE_DIR / "data")))
SERVER_HOST = env.text("SERVER_HOST", "127.0.0.1")
SERVER_PORT = env.integer("SERVER_PORT", 8080, most=65535)

_database_url = env.url("DATABASE_URL", "sqlite", "postgres", "postgresql", "psql", "pgsql")
# Stand-ins bear the providers' names, and deny every machine that was really rented: their rows stay apart, so that a
# start without keys (another shell, a lost .env) tells nothing about real ones.
_database_file = "sandbox.db" if SANDBOX else "gpu-shopper.db"
_database_path = env.text("DATABASE_PATH") or str(DATA_DIR / _database_file)
DATABASES = {"default": environ.Env.db_url_config(_database_url or f"sqlite:///{Path(_database_path).absolute()}")}
_database = DATABASES["default"]
if _database["ENGINE"].endswith("sqlite3"):
    _database["ENGINE"] = "gpushopper.sqlite"
    _database["CONN_MAX_AGE"] = None  # Opening the file anew for each request costs more than most requests.
    _database["OPTIONS"] = {
        # Writers queue up instead of failing: without IMMEDIATE, 6 in 10 contended writes end in
        # "database is locked". FULL, since a power cut must not lose the intent to rent a machine.
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
    }
    if not _database_url or ":memory:" not in _database_url:
        _folder = Path(_database["NAME"]).parent
        _named_by = "DATABASE_URL" if _database_url else "DATABASE_PATH" if env.text("DATABASE_PATH") else "DATA_DIR"
        with environment.needed(_folder, _named_by):
            _folder.mkdir(parents=True, exist_ok=True)
else:
    # Each thread of a web or worker process keeps its connection for a minute, and looks whether it still
    # lives before it uses it again: a database that restarts costs the work of that moment only.
    _database["CONN_MAX_AGE"] = 60
    _database["CONN_HEALTH_CHECKS"] = True
    # Nothing waits for ever: whatever the database does not do in time comes back as a due row.
    _limits = {
        "statement_timeout": env.duration("DATABASE_STATEMENT_TIMEOUT", "30s", most="1d"),  # 0: none, to migrate
        "lock_timeout": timedelta(seconds=10),
        "idle_in_transaction_session_timeout": timedelta(seconds=60),
    }
    _database["OPTIONS"] = {
        "connect_timeout": 5,
        "application_name": "gpu-shopper",
        "options": " ".join(f"-c {name}={round(span.total_seconds() * 1000)}" for name, span in _limits.items()),
        # A host that vanished is noticed within 25 s instead of two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
        **_database.get("OPTIONS", {}),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- The deployment's own secrets -----------------------------------------------------------------------

_given = {name: env.text(name) for name in keyfile.MADE}
MADE_UP_SECRETS = sorted(name for name, value in _given.items() if not value)
with environment.needed(DATA_DIR, "DATA_DIR"):
    _secrets = keyfile.load_or_make(DATA_DIR) if MADE_UP_SECRETS else {}
SECRET_KEY = _given["SECRET_KEY"] or _secrets["SECRET_KEY"]
FIELD_ENCRYPTION_KEYS = (_given["FIELD_ENCRYPTION_KEYS"] or _secrets["FIELD_ENCRYPTION_KEYS"]).split(",")
TAG_KEYS = env.signing_keys("TAG_KEY", _secrets.get("TAG_KEY", ""))
DEPLOYMENT_ID = _given["DEPLOYMENT_ID"] or _secrets["DEPLOYMENT_ID"]

# --- What a person may tune -------------------------------------------------------------------------------

HARD_MAX = env.hours("HARD_MAX_HOURS", 12, most=24 * 30)
LIFECYCLE_CHECK_INTERVAL = env.duration("LIFECYCLE_CHECK_INTERVAL", "5s", least="1s", most="5m")
RECONCILIATION_INTERVAL = env.duration("RECONCILIATION_INTERVAL", "5m", least="2s", most="1h")
ORPHAN_GRACE_PERIOD = env.duration("ORPHAN_GRACE_PERIOD", "2m", most="1h")
ORPHAN_AUTO_DESTROY = env.boolean("ORPHAN_AUTO_DESTROY", True)
DESTROY_CONFIRM = env.duration("DESTROY_CONFIRM", "30s", most="1h")
CREATE_SETTLE = env.duration("CREATE_SETTLE", "0s", most="1d")  # 0: each provider's own, 10 or 15 min
PROVISION_TIMEOUT = env.duration("PROVISION_TIMEOUT", "15m", least="1s", most="2h")
SSH_VERIFY_TIMEOUT = env.duration("SSH_VERIFY_TIMEOUT", "8m", least="1s", most="2h")
SSH_CHECK_INTERVAL = env.duration("SSH_CHECK_INTERVAL", "0s", most="5m")  # 0: adaptive, 1 s to 15 s
INVENTORY_CACHE_TTL = env.duration("INVENTORY_CACHE_TTL", "60s", least="1s", most="1h")
INVENTORY_BACKOFF_TTL = env.duration("INVENTORY_BACKOFF_TTL", "300s", least="1s", most="1d")
GUARDIAN = env.boolean("GUARDIAN", True)
METRICS_TOKEN = env.text("METRICS_TOKEN")
WEBHOOK_ALLOW_PRIVATE = env.boolean("WEBHOOK_ALLOW_PRIVATE", False)
HEARTBEAT_URL = env.url("HEARTBEAT_URL", "https", "http")
# Budget alerts also go out by mail if both are set: the mail server, and who wants to know.
_mail_url = env.text("EMAIL_URL")
ALERT_EMAILS = [address.strip() for address in env.text("ALERT_EMAIL").split(",") if address.strip() and _mail_url]
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "gpu-shopper@localhost")
EMAIL_TIMEOUT = 15
try:
    _mail = environ.Env.email_url_config(_mail_url or "dummymail://")
except (ImproperlyConfigured, ValueError):  # It may hold a password, so it is not repeated.
    _mail = {}
    env.problems["EMAIL_URL"] = "write a mail server's URL such as smtp+tls://user:password@host:587"
globals().update(_mail)
LOG_LEVEL = env.text("LOG_LEVEL", "INFO", one_of=("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env.text("LOG_FORMAT", "text" if EMBEDDED else "json", one_of=("json", "text"))
for _name in ("VASTAI_BASE_URL", "TENSORDOCK_BASE_URL"):
    env.url(_name, "https", "http")

# --- Django -------------------------------------------------------------------------------------------------

DEBUG = False
ALLOWED_HOSTS = env.text("ALLOWED_HOSTS", "*" if EMBEDDED else "localhost,127.0.0.1,web").split(",")
CSRF_TRUSTED_ORIGINS = [origin for origin in env.text("CSRF_TRUSTED_ORIGINS").split(",") if origin]
ROOT_URLCONF = "gpushopper.urls"
WSGI_APPLICATION = "gpushopper.wsgi.application"
APPEND_SLASH = False  # A redirect would drop the body of a POST; both spellings are routed.
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False
FORMAT_MODULE_PATH = "gpushopper.formats"  # dates as operators read them, in UTC
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
STATIC_URL = "/static/"
# No STATIC_ROOT: WhiteNoise serves the files from the packages that bring them, so there is no step of
# collecting that could be forgotten, and nothing is written.
STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
WHITENOISE_USE_FINDERS = True
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
# Behind a proxy that ends TLS and sets X-Forwarded-Proto itself (docs/operating.md).
HTTPS = env.boolean("HTTPS", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^health/?$", r"^ready/?$", r"^metrics/?$"]  # Monitors come from inside, past the proxy.
SECURE_HSTS_SECONDS = round(env.duration("HSTS", "30d", most="730d").total_seconds()) if HTTPS else 0
# What holds for the other names of the domain, and for browsers' preload lists, its owner decides.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
CSRF_FAILURE_VIEW = "rest.errors.csrf_failure"
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "django_prometheus",
    "inventory",
    "sessions",
    "costs",
    "gpushopper",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "rest.head.middleware",
    "rest.request_id.middleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "rest.size_limit.middleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
UNFOLD = {
    "SITE_TITLE": "GPU Shopper",
    "SITE_HEADER": "GPU Shopper",
    "SITE_SYMBOL": "shopping_cart",
    "DASHBOARD_CALLBACK": "gpushopper.dashboard.context",
    "GLOBAL_CALLBACK": "gpushopper.dashboard.every_page",
    "SIDEBAR": {"navigation": "gpushopper.dashboard.navigation"},
}

# --- The API -----------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "gpushopper.authentication.KeyAuthentication",
        "gpushopper.authentication.AdminAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest.access.IsKnown"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": ["rest.bodies.StrictJSON"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "rest.negotiation.Negotiation",
    "DEFAULT_SCHEMA_CLASS": "gpushopper.schema.Operation",
    "EXCEPTION_HANDLER": "rest.errors.exception_handler",
    "COERCE_DECIMAL_TO_STRING": False,
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%SZ",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "GPU Shopper",
    "DESCRIPTION": "One menu for the GPU offers of marketplaces. It rents, proves, hands over, and makes "
    "sure that it ends.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "PREPROCESSING_HOOKS": ["gpushopper.schema.without_slash"],
    "POSTPROCESSING_HOOKS": ["gpushopper.schema.with_errors"],
}

# --- Celery: messages only wake somebody; what has to happen is in rows (docs/architecture.md) ----------

CELERY_BROKER_TRANSPORT_OPTIONS = (
    {"polling_interval": 0.05}
    if EMBEDDED
    else {"socket_timeout": 10, "socket_connect_timeout": 5, "health_check_interval": 25}
)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_PUBLISH_RETRY = False  # A dead broker must not hold up a request.
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

# A due row is looked for five times within the interval in which it is promised to be acted upon.
TICK = max(timedelta(seconds=1), LIFECYCLE_CHECK_INTERVAL / 5)


def _every(interval: timedelta) -> schedule:
    return schedule(run_every=max(1, round(interval.total_seconds())))


# The one list of periodic work. A tick that nobody took before the next one is worthless: it expires.
BEAT = {
    "wake whatever is due": ("sessions.tasks.tick", TICK),
    "refresh the menu": ("inventory.tasks.tick", timedelta(seconds=5)),
    "count and watch the money": ("costs.tasks.tick", timedelta(seconds=15)),
    "ring and end the alarms": ("gpushopper.tasks.tick", timedelta(seconds=10)),
}
CELERY_BEAT_SCHEDULE = {
    name: {"task": task, "schedule": _every(interval), "options": {"expires": interval.total_seconds()}}
    for name, (task, interval) in BEAT.items()
}
# Ends have a queue of their own: a worker that serves nothing else takes them, whatever else is going on.
QUEUES = ("ending", "clock", "living", "listing", "menu", "misc")
CELERY_TASK_DEFAULT_QUEUE = "misc"
# Celery opens a connection for each task unless told otherwise. Opening SQLite's file costs more than a step.
CELERY_DB_REUSE_MAX = 10_000 if EMBEDDED else None
CELERY_TASK_ROUTES = {
    "sessions.tasks.tick": {"queue": "clock"},
    "inventory.*": {"queue": "menu"},
    "costs.*": {"queue": "misc"},
}

# --- Logs ----------------------------------------------------------------------------------------------------

# The service's own secrets and the providers' keys; made-up ones included.
_never_logged = logs.secrets_in({**PROVIDER_ENV, **_secrets}.items())
_shared_processors = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "gpushopper.logs.Formatter",
            "secrets": _never_logged,
            "foreign_pre_chain": _shared_processors,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        },
        "text": {
            "()": "gpushopper.logs.Formatter",
            "secrets": _never_logged,
            "foreign_pre_chain": _shared_processors,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
            ],
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "django_celery_beat": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
        "paramiko": {"level": "CRITICAL"},  # Refused connections are part of every boot,
        "providers.sandbox.ssh": {"level": "CRITICAL"},  # and of the other end of it.
        "django.request": {"level": "ERROR"},
        "django.security": {"level": "ERROR"},
        "waitress.queue": {"level": "ERROR"},
    },
}
