"""What the pretend GitLab was given as artifacts of a job."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload: `artifact_type`, `artifact_format` and `expire_in` of the call, file name and content."""

    kind: str
    format: str
    expire_in: str
    filename: str
    content: bytes = field(repr=False)


def uploads_of(world: Any, job: int) -> Sequence[Upload]:
    """In the order in which they came."""
    return [
        Upload(
            kind=each["artifact_type"],
            format=each["artifact_format"],
            expire_in=each["expire_in"],
            filename=each["filename"],
            content=pathlib.Path(each["path"]).read_bytes(),
        )
        for each in world.gitlab.artifacts(job)
    ]
