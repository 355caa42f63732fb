"""Tokens by their looks."""

import secrets

import pytest

from fleet.gitlab.tokens import TokenKind, kind_of, short_token

REST = secrets.token_hex(10)


@pytest.mark.parametrize("prefix", ["glrt-", "glrt-t1_", "glrt-t3_", "t2_", "glrtr-", "glcbt-", "GR1348941", ""])
def test_the_short_form_is_nine_characters_after_the_prefix(prefix):
    assert short_token(prefix + REST) == REST[:9]


def test_a_prefix_inside_is_not_a_prefix():
    assert short_token("ab" + "glrt-" + REST) == ("ab" + "glrt-" + REST)[:9]


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
