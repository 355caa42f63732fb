"""What all tables of the configuration share: frozen, strict about types, no unknown keys, secrets masked.

Rule: an empty string means "not set" for optional texts, because GitLab Runner writes many keys so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr, ValidationInfo
from pydantic_core.core_schema import SerializationInfo

MASK = "***"
REVEAL = {"reveal": True}


class Section(BaseModel):
    """One table of the configuration."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    def to_store(self) -> dict[str, Any]:
        """Everything, secrets in clear, as a JSON value: to be encrypted by who keeps it."""
        return self.model_dump(mode="json", by_alias=True, context=REVEAL)

    @classmethod
    def from_store(cls, value: Any) -> Self:
        """What `to_store` made."""
        return cls.model_validate(value)

    @classmethod
    def default_unless_positive(cls, value: Any, info: ValidationInfo) -> Any:
        """GitLab Runner reads 0 and less as "not set" for many keys: then the key's default."""
        if value is not None and value > (timedelta(0) if isinstance(value, timedelta) else 0):
            return value
        return cls.model_fields[str(info.field_name)].default

    @classmethod
    def refuse_unless_positive(cls, value: timedelta | None) -> timedelta | None:
        """For durations that make no sense when they are 0."""
        if value is not None and value <= timedelta(0):
            raise ValueError("must be longer than 0")
        return value


def _dump_secret(value: SecretStr, info: SerializationInfo) -> str:
    if info.context and info.context.get("reveal"):
        return value.get_secret_value()
    return MASK if value.get_secret_value() else ""


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _instant(value: object) -> object:
    """Aware, in UTC; the year 1 is how Go writes "none"."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("is not a date and time: write it as 2025-01-31T12:00:00Z") from None
    if not isinstance(value, datetime):
        return value
    if value.year <= 1:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Secret = Annotated[SecretStr, PlainSerializer(_dump_secret)]
OptionalSecret = Annotated[Secret | None, BeforeValidator(_none_if_empty)]
Text = Annotated[str | None, BeforeValidator(_none_if_empty)]
Instant = Annotated[datetime | None, BeforeValidator(_instant)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]
Count = Annotated[int, Field(ge=0)]
