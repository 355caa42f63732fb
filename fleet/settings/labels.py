"""The labels that a runner tells GitLab: what GitLab takes, looked at before it is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping

AT_MOST = 32
KEY = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{2,64}")
VALUE = re.compile(r"[a-zA-Z0-9._-]{1,256}")


def problem_with(labels: Mapping[str, str]) -> str | None:
    """Why GitLab would refuse these labels; None when it takes them."""
    if len(labels) > AT_MOST:
        return f"are {len(labels)}, and GitLab takes {AT_MOST} at most: remove some"
    for key, value in labels.items():
        if not KEY.fullmatch(key):
            return f"{key!r}: a key is 3 to 65 letters, digits, '.', '_' or '-', not led by '.' or '-'"
        if not VALUE.fullmatch(value):
            return f"{key!r}: a value is 1 to 256 letters, digits, '.', '_' or '-'"
    return None
