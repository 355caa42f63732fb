"""The manager's own log holds no secret, on a terminal as in JSON."""

from __future__ import annotations

import io
import secrets

import pytest
import structlog

from fleet.runtime import logs
from fleet.settings.manager import LogFormat, LogLevel


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def refuse(token: str) -> None:
    raise RuntimeError("refused " + token)


@pytest.mark.parametrize(("form", "stream"), [(LogFormat.RUNNER, Screen()), (LogFormat.JSON, io.StringIO())])
def test_law_9_a_traceback_shows_neither_local_variables_nor_tokens(form: LogFormat, stream: io.StringIO):
    logs.configure(LogLevel.INFO, form, stream)
    hidden = secrets.token_hex(12)
    token = "glrt-" + secrets.token_hex(12)
    try:
        refuse(token)
    except RuntimeError:
        structlog.get_logger("x").exception("thing_broke")
    said = stream.getvalue()
    assert "thing_broke" in said
    assert "RuntimeError: refused glrt-[MASKED]" in said
    assert hidden not in said
    assert token not in said
