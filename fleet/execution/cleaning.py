"""Takes out of a payload what no shell, file or socket can carry, and says so.

Rule: NUL bytes go, half surrogates become U+FFFD, and each place is named in a warning, never its content.
"""

from __future__ import annotations

from typing import TypeVar

from fleet.gitlab.payload import Hook, JobPayload, Step, Variable

Scripted = TypeVar("Scripted", Step, Hook)


def cleaned(payload: JobPayload) -> tuple[JobPayload, list[str]]:
    """The payload without them; the same object when there is nothing to do."""
    warnings: list[str] = []
    changes: dict[str, object] = {}
    variables = tuple(_variable(variable, warnings) for variable in payload.variables)
    steps = tuple(_lines(step, f"step {step.name}", warnings) for step in payload.steps)
    hooks = tuple(_lines(hook, f"hook {hook.name}", warnings) for hook in payload.hooks)
    if any(new is not old for new, old in zip(variables, payload.variables, strict=True)):
        changes["variables"] = variables
    if any(new is not old for new, old in zip(steps, payload.steps, strict=True)):
        changes["steps"] = steps
    if any(new is not old for new, old in zip(hooks, payload.hooks, strict=True)):
        changes["hooks"] = hooks
    return (payload.model_copy(update=changes) if changes else payload), warnings


def clean(text: str) -> str:
    """The text without NUL and half surrogates; the same object when it has none."""
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _variable(variable: Variable, warnings: list[str]) -> Variable:
    key, value = clean(variable.key), clean(variable.value)
    if key is variable.key and value is variable.value:
        return variable
    warnings.append(f"variable {key}: what no shell can hold (NUL bytes, broken Unicode) was taken out")
    return variable.model_copy(update={"key": key, "value": value})


def _lines(part: Scripted, what: str, warnings: list[str]) -> Scripted:
    script = tuple(clean(line) for line in part.script)
    if all(new is old for new, old in zip(script, part.script, strict=True)):
        return part
    warnings.append(f"{what}: what no shell can hold (NUL bytes, broken Unicode) was taken out of its script")
    return part.model_copy(update={"script": script})
