"""What must never be read in a job's log.

Rule: the job's token and every masked variable, as they are and the longest first, so that a phrase inside a longer
one leaves no rest. A value with several lines is hidden as a whole, and line by line too, for a key may be shown so;
short lines are not, being words that any log holds. Beginnings of GitLab's tokens hide what follows them.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Mapping

from fleet.execution.variables import Variable
from fleet.gitlab.payload import JobPayload

ALWAYS_PREFIX = "glpat-"
DEFAULT_PREFIXES = (
    "gloas-", "gldt-", "glrt-", "glcbt-", "glrtr-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-", "glffct-",
    "_gitlab_session=", "gltok-",
)  # fmt: skip
PARAMETERS = (
    "private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential", "x-amz-security-token",
)  # fmt: skip

LINE_FROM = 8  # characters
LINES_AT_MOST = 200  # of one value: each phrase costs time with each byte of the log


def phrases(payload: JobPayload, expanded: Iterable[Variable]) -> list[str]:
    """The phrases to hide."""
    found = {variable.value for variable in expanded if variable.masked}
    found |= {variable.value for variable in payload.variables if variable.masked}
    found |= {line for value in found for line in _lines(value)}
    found |= {payload.token, urllib.parse.quote(payload.token, safe="")}
    found.discard("")
    return sorted(found, key=lambda phrase: (-len(phrase), phrase))


def _lines(value: str) -> Iterator[str]:
    """The lines of a value that has several, and the value without the ends of lines around it."""
    if "\n" not in value and "\r" not in value:
        return
    yield value.strip("\r\n")
    lines = [line.strip() for line in value.splitlines()]
    yield from [line for line in lines if len(line) >= LINE_FROM][:LINES_AT_MOST]


def prefixes(payload: JobPayload, flags: Mapping[str, bool]) -> list[str]:
    """The beginnings of tokens to hide."""
    known = DEFAULT_PREFIXES if flags["FF_MASK_ALL_DEFAULT_TOKENS"] else ()
    given = (prefix.strip() for prefix in payload.features.token_mask_prefixes)
    return list(dict.fromkeys(prefix for prefix in (ALWAYS_PREFIX, *known, *given) if prefix))
