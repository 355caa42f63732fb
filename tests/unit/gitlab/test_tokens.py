"""Tokens by their looks."""

import secrets

import pytest

from fleet.gitlab.tokens import TokenKind, kind_of

REST = secrets.token_hex(10)


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        ("glrt-", TokenKind.RUNNER),
        ("glrt-t1_", TokenKind.RUNNER),
        ("glrtr-", TokenKind.REGISTRATION),
        ("GR1348941", TokenKind.REGISTRATION),
        ("glcbt-", TokenKind.JOB),
        ("", TokenKind.LEGACY_RUNNER),
    ],
)
def test_the_prefix_tells_the_kind(prefix, kind):
    assert kind_of(prefix + REST) is kind
