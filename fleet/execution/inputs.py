"""Puts a job's inputs into its texts: `${{ job.inputs.name }}` and whatever else Moa can say of them.

Rule: pure. Exactly the fields that GitLab Runner fills are filled (`script` and `after_script`, image and services,
artifacts, cache); variables, hooks and other steps stay as they are. A job without inputs keeps every text as it came,
because its author may use the same braces for something else. What cannot be filled is refused with its place: half a
script is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fleet.execution.cleaning import clean
from fleet.execution.moa import OPEN, Scope, SensitiveRead, interpolated
from fleet.execution.moa_values import ExpressionError
from fleet.execution.refused import misconfigured
from fleet.gitlab.parts import Part
from fleet.gitlab.payload import Input, JobPayload, Step

P = TypeVar("P", bound=Part)
Fill = Callable[[str, str], str]  # (text, its place) -> text

STEPS = ("script", "after_script")
IMAGE = ("name", "command", "entrypoint", "pull_policy", "executor_opts")
ARTIFACT = ("name", "paths", "exclude", "when", "expire_in")
CACHE = ("key", "policy", "paths", "when", "fallback_keys")
LIMIT = 64 << 20  # characters of all filled texts together
CONTENT_DEPTH = 50
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "number": (int, float), "boolean": (bool,), "array": (list,), "struct": (dict,),
}  # fmt: skip


def filled(payload: JobPayload, *, is_on: bool) -> tuple[JobPayload, list[str]]:
    """The payload with its inputs put in, and warnings; `is_on` is FF_ENABLE_JOB_INPUTS_INTERPOLATION.

    Raises:
        JobRefused: an input is not of its type, or a text cannot be filled.
    """
    if not payload.inputs:
        return payload, _forgotten(payload) if is_on else []
    if not is_on:
        return payload, []
    scope = _scope(payload.inputs)
    left = [LIMIT]

    def fill(text: str, place: str) -> str:
        if OPEN not in text:
            return text
        found = _filled(text, place, scope)
        left[0] -= len(found)
        if left[0] < 0:
            raise misconfigured(
                f"the job's texts with its inputs are larger than {LIMIT >> 20} MiB: use shorter inputs"
            )
        return found

    return _each(payload, fill), []


def _filled(text: str, place: str, scope: Scope) -> str:
    try:
        return clean(interpolated(text, scope))
    except SensitiveRead as exc:
        raise misconfigured(
            f"{place}: {exc}: sensitive inputs may not be used in ${{{{ }}}} yet; use a masked variable for it"
        ) from None
    except ExpressionError as exc:
        raise misconfigured(
            f"{place}: ${{{{ }}}} cannot be filled in: {exc}. Mend the expression, or write \\${{{{ to mean the braces"
            " themselves"
        ) from None


def _each(payload: JobPayload, fill: Fill) -> JobPayload:
    """The payload with `fill` done to every text that takes inputs."""
    return payload.model_copy(
        update={
            "steps": tuple(_step(step, fill) for step in payload.steps),
            "image": _fields(payload.image, IMAGE, "image", fill),
            "services": _all(payload.services, IMAGE, "services", fill),
            "artifacts": _all(payload.artifacts, ARTIFACT, "artifacts", fill),
            "cache": _all(payload.cache, CACHE, "cache", fill),
        }
    )


def _step(step: Step, fill: Fill) -> Step:
    if step.name not in STEPS:
        return step
    lines = tuple(fill(line, f"{step.name}, command {number}") for number, line in enumerate(step.script, 1))
    return step.model_copy(update={"script": lines})


def _all(parts: Iterable[P], names: Iterable[str], place: str, fill: Fill) -> tuple[P, ...]:
    return tuple(_fields(part, names, f"{place}[{number}]", fill) for number, part in enumerate(parts))


def _fields(part: P, names: Iterable[str], place: str, fill: Fill) -> P:
    return part.model_copy(update={name: _value(getattr(part, name), f"{place}.{name}", fill) for name in names})


def _value(value: Any, place: str, fill: Fill) -> Any:
    """Every text in a value, however deep; the keys of objects stay."""
    if isinstance(value, str):
        return fill(value, place)
    if isinstance(value, tuple | list):
        return type(value)(_value(item, f"{place}[{number}]", fill) for number, item in enumerate(value))
    if isinstance(value, dict):
        return {key: _value(item, f"{place}.{key}", fill) for key, item in value.items()}
    return value


def _scope(inputs: Iterable[Input]) -> Scope:
    values: dict[str, Any] = {}
    sensitive: set[str] = set()
    for given in inputs:
        values[given.key] = _content(given)
        (sensitive.add if given.value.sensitive else sensitive.discard)(given.key)
    return Scope(inputs=values, sensitive=frozenset(sensitive))


def _content(given: Input) -> Any:
    wanted = _TYPES.get(given.value.type)
    if not given.key:
        raise misconfigured("an input of the job has no key: GitLab sent what its own rules forbid; retry the job")
    if wanted is None:
        known = ", ".join(_TYPES)
        raise misconfigured(f"input {given.key!r} is of type {given.value.type!r}: this runner knows {known}")
    content = given.value.content
    if not isinstance(content, wanted) or isinstance(content, bool) is not (given.value.type == "boolean"):
        raise misconfigured(f"input {given.key!r} is announced as {given.value.type} and is something else")
    return _moa(content, given.key, CONTENT_DEPTH)


def _moa(content: Any, key: str, depth: int) -> Any:
    """A value as the language knows it: every number is a float."""
    if depth < 0:
        raise misconfigured(f"input {key!r} is nested more than {CONTENT_DEPTH} deep")
    if isinstance(content, list):
        return [_moa(item, key, depth - 1) for item in content]
    if isinstance(content, dict):
        return {name: _moa(item, key, depth - 1) for name, item in content.items()}
    if isinstance(content, int) and not isinstance(content, bool):
        return float(content) if abs(content) < 1 << 1000 else float("inf")
    return content


def _forgotten(payload: JobPayload) -> list[str]:
    """A job that speaks of inputs and has none is as its author left it; the log says why nothing was put in."""
    places: list[str] = []

    def look(text: str, place: str) -> str:
        if OPEN in text and "job.inputs." in text:
            places.append(place)
        return text

    _each(payload, look)
    if not places:
        return []
    return [f"{places[0]} speaks of job.inputs, and this job has no inputs: its texts stay as they are"]
