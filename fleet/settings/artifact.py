"""`[runners.artifact]`: how long a machine waits for GitLab when it moves artifacts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import ValidationInfo, field_validator

from fleet.settings.durations import Duration
from fleet.settings.section import Section


class ArtifactTable(Section):
    """`[runners.artifact]`: limits of one upload or download of artifacts."""

    upload_timeout: Duration = timedelta(hours=1)
    """The longest one upload, or one download, may take; 0 or less means 1h."""
    response_header_timeout: Duration = timedelta(minutes=10)
    """The longest wait for GitLab's answer after all was sent; 0 or less means 10m."""

    @field_validator("upload_timeout", "response_header_timeout")
    @classmethod
    def _defaults(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.default_unless_positive(value, info)
