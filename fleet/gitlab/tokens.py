"""GitLab's tokens by their looks: what kind one is, and the short form that may be shown.

Rule: a whole token is never shown; its short form goes into logs, metric labels and names. The runner's identity is
never the token, for tokens rotate.
"""

from __future__ import annotations

import re
from enum import StrEnum

SHORT_LENGTH = 9
_PREFIX = re.compile(r"glrt-(?:t[123]_)?|t[123]_|glrtr-|glcbt-|GR[0-9a-fA-F]{7}")


class TokenKind(StrEnum):
    RUNNER = "runner"  # made in GitLab's pages or API; its settings live there
    REGISTRATION = "registration"  # the old way: registers a runner, and is none itself
    JOB = "job"
    LEGACY_RUNNER = "legacy_runner"  # what the old way of registering returned: no prefix


def kind_of(token: str) -> TokenKind:
    """The kind, from the prefix alone."""
    if token.startswith("glrt-"):
        return TokenKind.RUNNER
    if token.startswith(("glrtr-", "GR1348941")):
        return TokenKind.REGISTRATION
    return TokenKind.JOB if token.startswith("glcbt-") else TokenKind.LEGACY_RUNNER


def short_token(token: str) -> str:
    """The first characters after the prefix: enough to tell runners apart, not enough to be one."""
    return _PREFIX.sub("", token, count=1)[:SHORT_LENGTH] if _PREFIX.match(token) else token[:SHORT_LENGTH]
