"""How lines are logged: one handler on stderr, structlog's rendering for our own and for foreign loggers alike."""

import logging
import sys
import traceback
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Any

from django.conf import settings
from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter

from algotrader.without import without
from risk.config import MASK

with without(
    "rich", "twisted"
):  # for tracebacks in colour and another framework's logs; a tenth of a second each start
    import structlog

# Below INFO these write whole frames and requests, which carry the broker's keys, or a line for every query.
QUIET_LOGGERS = ("websockets", "urllib3", "asyncio", "daphne", "twisted", "django.db.backends", "django.template")


def configure(*, level: str, style: str, secrets: Iterable[str]) -> dict[str, Any]:
    """Set up structlog, and return Django's LOGGING for it.

    Args:
        level: Least level that is logged; the root logger's, so it can be changed while running.
        style: `console` for people, `json` for one object a line.
        secrets: Texts that never appear in a line, wherever they come from.
    """
    before_rendering: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before_rendering,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    secrets = tuple(sorted({secret for secret in secrets if secret}, key=len, reverse=True))
    sys.excepthook = partial(_report_crash, secrets)
    # A plain traceback: the pretty one shows local variables, and wraps lines so that a secret could slip through.
    render: list[Any] = [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    ]
    if style == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structlog": {
                "()": MaskingFormatter,
                "secrets": secrets,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
                "foreign_pre_chain": before_rendering,
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structlog"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django": {"handlers": [], "propagate": True},
            "django.server": {"handlers": [], "propagate": True},
            "psycopg.pool": {"level": "ERROR"},  # whoever asked for the connection says that there is none
            **{name: {"level": max("INFO", level, key=logging.getLevelName)} for name in QUIET_LOGGERS},
        },
    }


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """The text with asterisks in place of every secret."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


class MaskingReporter(ExceptionReporter):
    """Django's debug page, whose local variables and settings would show secrets."""

    def get_traceback_html(self) -> SafeString:
        """The page for the browser."""
        return mark_safe(mask_secrets(super().get_traceback_html(), settings.SECRETS))  # safe before, safe after

    def get_traceback_text(self) -> SafeString:
        """The page for programs."""
        return mark_safe(mask_secrets(super().get_traceback_text(), settings.SECRETS))


class MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    """Replaces secrets in the finished line: keys, and tracebacks or foreign messages that quote them."""

    def __init__(self, *args: Any, secrets: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(super().format(record), self._secrets)


def _report_crash(
    secrets: tuple[str, ...], kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What Python prints of an error that nobody caught, without secrets."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(mask_secrets(text, secrets))
