"""The manager's own log: text on a terminal, JSON lines otherwise, and never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from fleet.settings.manager import LogFormat, LogLevel

TOKEN = re.compile(r"\b(gl[a-z]{2,6}-)[0-9A-Za-z_\-.]{8,}")
LEVELS = {
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.TRACE: logging.DEBUG,
}
counts: dict[str, int] = {"warning": 0, "error": 0}


def without_tokens(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Whatever looks like a token keeps its prefix only."""
    for key, value in event.items():
        if isinstance(value, str) and "gl" in value:
            event[key] = TOKEN.sub(r"\1[MASKED]", value)
    if method in ("exception", "critical"):
        method = "error"
    if method in counts:
        counts[method] += 1
    return event


def configure(level: LogLevel, form: LogFormat, stream: Any = None) -> None:
    """Log to `stream` (standard error) from now on."""
    stream = stream or sys.stderr
    as_text = form is LogFormat.TEXT or (form is LogFormat.RUNNER and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # as text here, for both forms: the renderer's own tracebacks show local variables, and those hold secrets
        structlog.processors.format_exc_info,
        without_tokens,
    ]
    if as_text:
        renderers: list[Any] = [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    else:
        renderers = [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    # libraries speak through the standard library: only what is wrong is worth a line
    logging.basicConfig(level=logging.WARNING, stream=stream, format="%(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
