"""What is wrong with a configuration, said so that a person can mend it: file, line, key, what to do.

Rule: a problem never holds the value of a secret. An `error` makes the whole file unusable; an `entry_error` stops
one `[[runners]]` entry while the others run; a `warning` stops nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from fleet.settings.positions import Path

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


class Severity(StrEnum):
    """How far a problem reaches."""

    ERROR = "error"
    ENTRY_ERROR = "entry_error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to tell the person who wrote the file.

    Attributes:
        key: dotted path of the key, e.g. `runners[0].autoscaler.max_instances`; empty for the file as a whole.
        line: counted from 1; None when nothing of it stands in the file.
        column: only where the TOML itself cannot be read.
        runner: index of the `[[runners]]` entry it is about.
    """

    severity: Severity
    message: str
    key: str = ""
    line: int | None = None
    column: int | None = None
    runner: int | None = None

    def render(self, file: str) -> str:
        """One line of `fleetctl config lint`: `file:line: severity: message`."""
        place = ":".join(str(each) for each in (file, self.line, self.column) if each is not None)
        kind = "error (this runner is stopped)" if self.severity is Severity.ENTRY_ERROR else self.severity.value
        key = f"{self.key}: " if self.key else ""
        return f"{place}: {kind}: {key}{self.message}"


def render(problems: Iterable[Problem], file: str) -> list[str]:
    """All problems in the order of the file, as lines."""
    return [each.render(file) for each in sorted(problems, key=lambda each: (each.line or 0, each.column or 0))]


def key_text(path: Path) -> str:
    """A path as people read it: `runners[0].autoscaler."odd key"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if BARE_KEY.match(part) else json.dumps(part, ensure_ascii=False)
        text += f".{name}" if text else name
    return text
