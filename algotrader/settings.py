"""Django's settings. Everything a user may change comes from `ALGO`, see `risk/config.py`."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import environ

from algotrader import config, log
from algotrader.keys import kept_key
from risk.config import Config, ConfigError, is_loopback

ROOT = config.ROOT
ALGO: Config = config.load()

DATA_DIR: Path = ROOT / ALGO["data_dir"]
try:
    DATA_DIR.mkdir(parents=True, exist_ok=True)
except OSError as error:
    raise ConfigError(f"ALGO_DATA_DIR={ALGO['data_dir']!r} cannot be made: {error}") from error

DEBUG: bool = ALGO["debug"]
SECRET_KEY: str = ALGO["secret_key"] or kept_key(DATA_DIR / "secret_key")
API_TOKEN: str = ALGO["web.api_token"] or kept_key(DATA_DIR / "api_token")

INSTALLED_APPS = [
    "algotrader.apps.Daphne",
    "algotrader.apps.Admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "algotrader.apps.Axes",
    "channels",
    "django_htmx",
    "orders",
    "risk",
    "trading",
    "backtests",
    "dashboard",
    "django_q",  # after ours, whose qcluster command comes before its own
]

# Django Ninja as an installed app would be loaded by every command; all it is needed for are the files of `/api/docs`.
NINJA_FILES = Path(find_spec("ninja").origin).parent  # type: ignore[union-attr, arg-type]  # it is installed

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "algotrader.middleware.SecurityHeaders",
    "algotrader.middleware.RequestId",
    "algotrader.static.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "dashboard.relogin.htmx_to_login",
    "axes.middleware.AxesMiddleware",  # the last one: it answers for a login that is locked out
]

ROOT_URLCONF = "algotrader.urls"
ASGI_APPLICATION = "algotrader.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates", NINJA_FILES / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dashboard.context.roles",
            ]
        },
    }
]

# --- who may connect --------------------------------------------------------------------------------------------------

WEB_HOST: str = ALGO["web.host"]
WEB_PORT: int = ALGO["web.port"]
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *ALGO["web.allowed_hosts"]]
if WEB_HOST not in ("0.0.0.0", "::"):
    ALLOWED_HOSTS.append(f"[{WEB_HOST}]" if ":" in WEB_HOST else WEB_HOST)
# A page from the same host and port needs no mention; these are for names served by a proxy that speaks TLS.
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in ALLOWED_HOSTS if not is_loopback(host)]
# Cookies do not tell ports apart: a name of our own keeps other programs on localhost from ending the session.
SESSION_COOKIE_NAME = "algotrader_session"
CSRF_COOKIE_NAME = "algotrader_csrf"
SESSION_COOKIE_AGE = 12 * 60 * 60  # a trading day
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True  # the pages carry the token themselves
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
if ALGO["web.https"]:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_REDIRECT_EXEMPT = [r"^api/health"]  # asked from inside the container, without the proxy
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# Who guesses passwords is locked out, by name and address together: nobody can lock others out from elsewhere.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "lockout.html"
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False

# --- database ---------------------------------------------------------------------------------------------------------


def database_at(url: str, *, busy_timeout_ms: int) -> dict[str, Any]:
    """Django's entry for the database at the URL; an empty one is the SQLite file in the data folder."""
    database: dict[str, Any] = environ.Env.db_url_config(url or f"sqlite:///{DATA_DIR / 'trading.db'}")
    options = database.setdefault("OPTIONS", {})
    if database["ENGINE"] == "django.db.backends.postgresql":
        # While the server is away an attempt to connect is repeated after 1, 2, 4, ... s until it is given up, and
        # its successor begins anew: with the pool's own 300 s its return would not be noticed for minutes.
        options["pool"] = {"min_size": 1, "max_size": 10, "timeout": 5, "reconnect_timeout": 5}
        options["options"] = f"-c lock_timeout={busy_timeout_ms}"
        database["CONN_HEALTH_CHECKS"] = (
            True  # a connection that a restart of the server cut is replaced, not handed out
        )
        return database
    database["NAME"] = str(ROOT / database["NAME"])
    options |= {
        "timeout": busy_timeout_ms / 1000,
        # A transaction that starts reading and then writes fails at once when another wrote meanwhile; IMMEDIATE waits.
        "transaction_mode": "IMMEDIATE",
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
            f"PRAGMA busy_timeout={busy_timeout_ms}; PRAGMA foreign_keys=ON"
        ),
    }
    return database


DATABASES = {"default": database_at(ALGO["database_url"], busy_timeout_ms=ALGO["db_busy_timeout_ms"])}

# --- channel layer and worker -----------------------------------------------------------------------------------------

REDIS_URL: str = ALGO["redis_url"]
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if REDIS_URL:
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }

Q_CLUSTER: dict[str, Any] = {
    "name": "algotrader",
    "label": "Background tasks",
    "workers": 2,
    "timeout": ALGO["worker.timeout_seconds"],
    "retry": ALGO["worker.retry_seconds"],
    "max_attempts": 3,
    "catch_up": False,
    "poll": 1,
    "save_limit": 1000,
    "orm": "default",  # also with Redis, whose queue forgets what a killed worker was doing
}

# --- time, static files, logging --------------------------------------------------------------------------------------

TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
LANGUAGE_CODE = "en-us"

STATIC_URL = "/static/"
STATICFILES_DIRS = [ROOT / "static", NINJA_FILES / "static"]
# Served straight from where they lie: no copy that could be older than the code.
WHITENOISE_USE_FINDERS = True
WHITENOISE_ALLOW_ALL_ORIGINS = False

SECRETS = [SECRET_KEY, API_TOKEN, *ALGO.secrets()]
LOGGING = log.configure(level=ALGO["log_level"], style=ALGO["log_format"], secrets=SECRETS)
DEFAULT_EXCEPTION_REPORTER = "algotrader.log.MaskingReporter"
