"""What must never be read in a job's log.

Rule: the job's token and every masked variable, as they are and the longest first, so that a phrase inside a longer
one leaves no rest. A phrase with several lines is one phrase. Beginnings of GitLab's tokens hide what follows them.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping

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


def phrases(payload: JobPayload, expanded: Iterable[Variable]) -> list[str]:
    """The phrases to hide."""
    found = {variable.value for variable in expanded if variable.masked}
    found |= {variable.value for variable in payload.variables if variable.masked}
    found |= {payload.token, urllib.parse.quote(payload.token, safe="")}
    found.discard("")
    return sorted(found, key=lambda phrase: (-len(phrase), phrase))


def prefixes(payload: JobPayload, flags: Mapping[str, bool]) -> list[str]:
    """The beginnings of tokens to hide."""
    known = DEFAULT_PREFIXES if flags["FF_MASK_ALL_DEFAULT_TOKENS"] else ()
    given = (prefix.strip() for prefix in payload.features.token_mask_prefixes)
    return list(dict.fromkeys(prefix for prefix in (ALWAYS_PREFIX, *known, *given) if prefix))
