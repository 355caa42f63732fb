"""How one piece of GitLab's JSON is read: the manner shared by the payload and its secrets.

Rule: generous. Unknown keys are ignored, null is the same as absent, numbers and text stand for each other, a null
in a list of texts is an empty text and in a list of objects is left out. No error text repeats the input.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

T = TypeVar("T")


class Part(BaseModel):
    """A piece of GitLab's JSON."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", coerce_numbers_to_str=True, hide_input_in_errors=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: object) -> object:
        if isinstance(given, dict) and None in given.values():
            return {key: value for key, value in given.items() if value is not None}
        return given


def _texts(given: object) -> object:
    if isinstance(given, list):
        return ["" if item is None else item for item in given]
    return [given] if isinstance(given, str) else given


def _present(given: object) -> object:
    return [item for item in given if item is not None] if isinstance(given, list) else given


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Many = Annotated[tuple[T, ...], BeforeValidator(_present)]
