"""The one settings file. Everything that differs between machines is read from the environment (see .env.example)."""

import importlib.util
from pathlib import Path
from typing import Any

from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.csp import CSP

from config import embedded, env, pool

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(env.text("VAR", str(BASE_DIR / "var"))).resolve()

# --- Safety ---------------------------------------------------------------------------------------------------
DEBUG = env.boolean("DEBUG", default=False)
SECRET_KEY = env.secret("SECRET_KEY", insecure_default="insecure-development-key", debug=DEBUG)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
BASE_URL = env.text("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
SECURE = BASE_URL.startswith("https://")
CSRF_TRUSTED_ORIGINS = [BASE_URL]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = True
if SECURE:  # no other host of the domain can set these
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
SECURE_SSL_REDIRECT = SECURE
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz)$"]  # asked from inside, without TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if SECURE else None
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

SECURE_CSP: dict[str, Any] = {
    "default-src": [CSP.SELF],
    "script-src": [CSP.SELF, CSP.NONCE],
    "style-src": [CSP.SELF, CSP.NONCE],
    "img-src": [CSP.SELF, "data:"],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
}
# unfold's Alpine evaluates expressions and sets styles; only /admin/ gets this.
ADMIN_CSP: dict[str, Any] = SECURE_CSP | {
    "script-src": [CSP.SELF, CSP.NONCE, CSP.UNSAFE_EVAL],
    "style-src": [CSP.SELF, CSP.UNSAFE_INLINE],
}

# --- Applications ---------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.inlines",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "accounts",
    "billing",
    "dashboard",
]
MIDDLEWARE = [  # what every answer needs; then the API, which needs no more; then what pages need
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "config.middleware.NoStoreMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.common.CommonMiddleware",
    "config.middleware.ApiMiddleware",
    "config.middleware.AdminCspMiddleware",
    "config.middleware.BadDataMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "config.middleware.SignInMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.csp",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- PostgreSQL: two roles ------------------------------------------------------------------------------------
# The application cannot change or delete what is append-only; the owner migrates and makes partitions.
DATABASE_URL = env.text("DATABASE_URL", embedded.database_url(VAR, "headroom_app"))
DATABASE_OWNER_URL = env.text(
    "DATABASE_OWNER_URL",
    DATABASE_URL if env.is_set("DATABASE_URL") else embedded.database_url(VAR, "headroom_owner"),
)
DATABASE_POOL_SIZE = env.integer("DATABASE_POOL_SIZE", 24)
# A prepared statement is planned once: left to itself, the server plans those that take lists anew each time.
SESSION = (
    "-c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s "
    "-c plan_cache_mode=force_generic_plan"
)
DATABASES = {
    "default": env.database(DATABASE_URL, options=SESSION),
    "owner": env.database(DATABASE_OWNER_URL),
}
if DATABASE_POOL_SIZE:
    # `check`: so that nobody is answered by a connection that a restart of the server ended.
    DATABASES["default"]["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": DATABASE_POOL_SIZE,
        "timeout": 10,
        "check": pool.check,
    }
    DATABASES["default"]["OPTIONS"]["prepare_threshold"] = 2  # times that `accounts.prepared` sends a statement whole
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []

# --- Metering -------------------------------------------------------------------------------------------------
# Whole months of raw events before the current one; older ones are detached, counters and money stay.
EVENT_MONTHS_KEPT = env.integer("EVENT_MONTHS_KEPT", 13)
# Values of a dimension that a customer may use in a month, each counted by itself; more count under "(other)".
DIMENSION_VALUES = env.integer("DIMENSION_VALUES", 10_000)
# Requests with events that one web process takes at once. Fewer than its threads, so that pages keep some.
INGEST_AT_ONCE = env.integer("INGEST_AT_ONCE", 18)
# Events that one key may send a second, on average; 0 for any number.
INGEST_EVENTS_PER_SECOND = env.integer("INGEST_EVENTS_PER_SECOND", 0)

# --- Valkey: caches and the message broker; nothing lives only there --------------------------------------------
REDIS_URL = env.text("REDIS_URL", embedded.redis_url(VAR))
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL},
    # For what each process may work out again: no page depends on another server for it.
    "process": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)

# --- Signing in -------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "accounts.adapter.InvitationOnlyAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"  # an invitation proves the address; nobody signs up without one
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = True
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if SECURE else "http"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
# allauth's own limits hold (5 wrong passwords an address, 10 a client, ...); a client may make up X-Forwarded-For.
ALLAUTH_TRUSTED_PROXY_COUNT = env.integer("TRUSTED_PROXY_COUNT", 0)
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Headroom"
MFA_ALLOW_UNVERIFIED_EMAIL = True  # addresses come from invitations and operators only

# --- Mail ---------------------------------------------------------------------------------------------------------
MAILERS = {"default": env.mailer(env.text("MAIL_URL", f"file://{VAR / 'mail'}"))}
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("MAIL_FROM", "Headroom <headroom@localhost.localdomain>")

# --- Payments: Stripe where its key is set, else operators take the money ------------------------------------------
STRIPE_API_KEY = env.text("STRIPE_API_KEY", "")
STRIPE_WEBHOOK_SECRET = env.text("STRIPE_WEBHOOK_SECRET", "")
STRIPE_API_BASE = env.text("STRIPE_API_BASE", "https://api.stripe.com")

# --- Pages --------------------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
USE_I18N = True
FORMAT_MODULE_PATH = ["config.formats"]
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"
STATICFILES_DIRS = [
    BASE_DIR / "static",
    ("plotly", Path(str(importlib.util.find_spec("plotly").origin)).parent / "package_data"),  # type: ignore[union-attr]
]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- API ------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.auth.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.auth.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "billing.http.schema.Schema",
    "EXCEPTION_HANDLER": "billing.http.problem_details",
    "COERCE_DECIMAL_TO_STRING": True,
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Headroom",
    "DESCRIPTION": "Send usage, ask what it costs, hold budgets.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "COMPONENT_SPLIT_REQUEST": True,  # what is sent has no other fields, what is answered may get more
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "DenialReason": "billing.authorizations.decision.REASONS",
        "UnmatchedReason": "billing.metering.models.UnmatchedReason",
    },
}

# --- Logs -----------------------------------------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
}


def _section(title: str, *pages: tuple[str, ...]) -> dict[str, Any]:
    """A part of the operator's sidebar: (title, page, icon), and who knows how much waits there."""
    return {"title": title, "separator": True, "items": [_page(*page) for page in pages]}


def _page(title: str, name: str, icon: str, badge: str = "") -> dict[str, Any]:
    """`name`: of a model, whose list it is, or of a page with a dot in front."""
    view = name.removeprefix(".") if name.startswith(".") else f"{name}_changelist"
    link = {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{view}")}
    return link | {"badge": badge} if badge else link


UNFOLD = {
    "SITE_TITLE": "Headroom",
    "SITE_HEADER": "Headroom operator",
    "SITE_URL": "/",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("img/mark.svg")}],
    "SHOW_HISTORY": True,
    "STYLES": [lambda request: static("css/admin.css")],
    "DASHBOARD_CALLBACK": "billing.cycle.attention.front_page",
    "COLORS": {
        "primary": {
            "50": "#eef6fb",
            "100": "#d8eaf5",
            "200": "#b3d5ec",
            "300": "#82badd",
            "400": "#4b9aca",
            "500": "#1f7fb8",
            "600": "#0072b2",
            "700": "#075d91",
            "800": "#0b4c75",
            "900": "#0d3f60",
            "950": "#092a41",
        }
    },
    "SIDEBAR": {
        "show_search": True,
        "navigation": [
            _section(
                "Customers",
                ("Customers", "accounts_customer", "domain"),
                ("Subscriptions", "billing_subscription", "event_repeat"),
                ("People", "accounts_user", "person"),
                ("Invitations", "accounts_invitation", "mail"),
            ),
            _section(
                "Catalog",
                ("Plans", "billing_plan", "sell"),
                ("Plan versions", "billing_planversion", "history_edu"),
                ("Customer prices", "billing_priceoverride", "handshake"),
                ("Coupons", "billing_coupon", "loyalty"),
                ("Meters", "billing_meter", "speed"),
                ("Unit costs", "billing_unitcost", "payments"),
            ),
            _section(
                "Money",
                ("Credit grants", "billing_creditgrant", "redeem"),
                ("Margin", ".billing_margin", "trending_up"),
                ("Ledger", "billing_ledgertransaction", "receipt_long"),
                ("Settlement", "billing_settlement", "balance"),
                ("Checks of the books", "billing_bookscheck", "fact_check"),
                ("Credit liability", ".billing_creditgrant_liability", "account_balance"),
                ("Top-ups", "billing_topup", "add_card"),
                ("Automatic top-ups", "billing_automatictopup", "autorenew"),
                ("Top-up prices", "billing_topupprice", "price_change"),
                ("Payment notices", "billing_paymentnotice", "campaign", "billing.topups.admin.number_to_do"),
                ("Billed to nobody", ".billing_billedline_to_nobody", "money_off"),
            ),
            _section(
                "Budgets",
                ("Budgets", "billing_budget", "savings"),
                ("Alerts", "billing_alert", "notifications"),
                ("Outbox", "billing_outboxmessage", "outbox"),
            ),
            _section(
                "Intake",
                ("What comes in", ".billing_intake", "monitor_heart"),
                ("Unmatched events", "billing_unmatchedevent", "help"),
                ("Refused items", "billing_refuseditems", "block"),
                ("Corrections", "billing_eventcorrection", "edit_note"),
                ("Dimension use", "billing_dimensionuse", "stacked_bar_chart"),
                ("Imports", "billing_importrun", "upload_file"),
                ("API keys", "accounts_apikey", "key"),
            ),
        ],
    },
}
