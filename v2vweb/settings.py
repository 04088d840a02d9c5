"""Settings: everything from the environment, with defaults that run from a fresh checkout."""

from __future__ import annotations

import socket
from pathlib import Path

import environ
from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(env.str("V2VWEB_VAR", default=str(BASE_DIR / "var")))
environ.Env.read_env(VAR_DIR / "env")  # written by script/setup; optional

# Made by script/setup; the fallback only serves checks and tests.
SECRET_KEY = env.str("SECRET_KEY", default="insecure-only-for-tests-and-checks")
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["*"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# --- Folders -------------------------------------------------------------------------------
UPLOAD_DIR = Path(env.str("V2VWEB_UPLOADS", default=str(VAR_DIR / "uploads")))
WORK_DIR = Path(env.str("V2VWEB_WORK", default=str(VAR_DIR / "work")))
# ISO images and folders with drivers for Windows guests, and virt-tools/ with programs for them.
DRIVERS_DIR = Path(env.str("V2VWEB_DRIVERS", default=str(VAR_DIR / "drivers")))
# VMware's VDDK, unpacked: the only place from where a host's disks may be read with it.
VDDK_DIR = Path(env.str("V2VWEB_VDDK", default=str(VAR_DIR / "vddk")))
IMPORT_DIR = Path(env.str("V2VWEB_IMPORT", default=str(VAR_DIR / "import")))
# Target folders an operator may choose from; the first is the default.  Named targets that are
# folders lie in them or below.
TARGET_DIRS = [Path(p) for p in env.list("V2VWEB_TARGETS", default=[str(VAR_DIR / "results")])]
STATIC_ROOT = VAR_DIR / "static"
# Big bodies go straight to the file system that keeps them.
FILE_UPLOAD_TEMP_DIR = str(UPLOAD_DIR) if UPLOAD_DIR.is_dir() else None
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]

# --- Conversions ---------------------------------------------------------------------------
WORKER_NAME = env.str("V2VWEB_WORKER", default=socket.gethostname())
CONVERSIONS_AT_ONCE = env.int("V2VWEB_CONVERSIONS_AT_ONCE", default=2)
HEARTBEAT_SECONDS = 5
LOST_AFTER_SECONDS = 30
# So long a run goes on without its database, which may be restarted or moved.
DATABASE_AWAY_SECONDS = 600
STOP_GRACE_SECONDS = 30
ENGINE_PYTHON = env.str("V2VWEB_ENGINE_PYTHON", default=str(BASE_DIR / ".venv/bin/python"))
ENGINE_COMMAND = [ENGINE_PYTHON, "-m", "conversions.pipeline", "--job", "-", "--events"]
# Removes what a killed engine made on other hosts; gets the work folder.
CLEAN_UP_COMMAND = [*ENGINE_COMMAND, "--clean-up"]
# How long the converted disks of a copy that failed stay, to go on from there; 0: never.
KEEP_DAYS = env.int("V2VWEB_KEEP_DAYS", default=7)
APPLIANCE_MEMORY_MIB = env.int("V2VWEB_APPLIANCE_MEMORY_MIB", default=0) or None

# --- Libvirt hosts -------------------------------------------------------------------------
HOST_REFRESH_SECONDS = env.int("V2VWEB_HOST_REFRESH_SECONDS", default=120)
HOST_READ_SECONDS = 180  # a thousand domains far away; then the host counts as not answering
HOST_TEST_SECONDS = 8  # somebody waits at the page
HOSTS_AT_ONCE = 2

# --- Django --------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "django_htmx",
    "axes",
    "auditlog",
    "csp",
    "inventory",
    "conversions",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "auditlog.middleware.AuditlogMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "v2vweb.urls"
ASGI_APPLICATION = "v2vweb.asgi.application"
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
            ],
        },
    },
]
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # WAL lets pages read while a supervisor writes; IMMEDIATE makes writers queue, not fail.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English"))]
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True

# --- Redis: channel layer and broker ---------------------------------------------------------
REDIS_URL = env.str("REDIS_URL", default=f"unix://{VAR_DIR / 'run/redis.sock'}")
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # The layer waits 5 s for a message; the client's own limit of 5 s would often come first.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 30}], "capacity": 1000},
    },
}
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False  # conversions last hours; the row holds the lease, not the broker
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_POOL = "threads"  # a task only watches its engine process
# Two for the periodic and checking tasks; hosts that hang must not keep those waiting.
CELERY_WORKER_CONCURRENCY = CONVERSIONS_AT_ONCE + 2 + HOSTS_AT_ONCE
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE = {
    "start-due": {"task": "conversions.tasks.start_due", "schedule": 10},
    "mark-lost": {"task": "conversions.tasks.mark_lost", "schedule": 10},
    "refresh-hosts": {"task": "inventory.tasks.refresh_hosts", "schedule": 15},
    "check-targets": {"task": "conversions.tasks.check_targets", "schedule": 60},
    "tidy-kept": {"task": "conversions.tasks.tidy_kept", "schedule": 60},
    "tidy-uploads": {"task": "inventory.tasks.tidy_uploads", "schedule": 300},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "run/beat-schedule")

# --- Access ----------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_ENABLE_ADMIN = True
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_VERBOSE = False  # no banner with every command
# The audit record's own mask leaves the second half of a password's hash readable.
AUDITLOG_MASK_CALLABLE = "inventory.sealing.masked"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = env.bool("HTTPS", default=False)
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SESSION_COOKIE_SECURE else None
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {"axes": {"level": "WARNING"}},  # a line at info for every sign-in
}
