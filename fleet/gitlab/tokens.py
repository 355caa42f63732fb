"""GitLab's tokens by their looks: what kind one is.

Rule: a whole token is never shown; its short form (`fleet.settings.runner.short_token`) goes into logs, metric labels
and names. The runner's identity is never the token, for tokens rotate.
"""

from __future__ import annotations

from enum import StrEnum


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
