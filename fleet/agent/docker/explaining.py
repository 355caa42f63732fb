"""What the end of a container means for its stage, in words that say what to do. Pure.

Rule: a container that could not be started is a setting to mend (an image without a shell, an entry point that is not
there), one that vanished or lost its engine is ours, and any other end is the script's, whose exit code is the
container's.
"""

from __future__ import annotations

import re

from .. import stages
from ..stages import Ending

OURS, MISTAKEN = "runner_system_failure", "runner_configuration_error"
NO_PROGRAM = re.compile(
    r'exec: "?(?P<program>[^":]*)"?.*(not found|no such file)|no such file or directory', re.IGNORECASE
)
NO_SHELL_CODES = (126, 127)


def explain(ending: Ending, known: dict | None, section: dict, from_outside: str) -> Ending:
    """The ending of a stage whose container is `known` so; None: there is no such container any more.

    `from_outside` says what ended it, when it was not the script.
    """
    image = section["image"]["image"]
    if known is None:
        return _failed("the job's container vanished: something else removed it", OURS, is_vanished=True)
    if from_outside:
        return _failed(from_outside, OURS)
    state = known["State"]
    error = state.get("Error") or ""
    if error:
        return _failed(_start_problem(error, image), MISTAKEN)
    if state.get("Running"):
        return _failed("the connection to the job's container broke", OURS)
    code = state.get("ExitCode", ending.code)
    if state.get("OOMKilled"):
        limit = (known.get("HostConfig") or {}).get("Memory") or 0
        of = " of %d MiB" % (limit >> 20) if limit else ""
        message = "exit code %d: the container ran out of memory: its limit%s was reached" % (code, of)
        return Ending(stages.EXITED, code or 137, message + "; use less, or raise `memory` in [runners.docker]")
    if code == 0:
        return _failed("the connection to the job's container broke as it ended", OURS)
    return Ending(stages.EXITED, code, "exit code %d" % code)


def _start_problem(error: str, image: str) -> str:
    found = NO_PROGRAM.search(error)
    program = (found and found.groupdict().get("program")) or ""
    if program in {"sh", "/bin/sh", "bash"}:
        advice = "use an image with a shell, or set the image's `entrypoint` to one"
        return "image %s has no shell (%s): a job's script needs one; %s" % (image, program, advice)
    if found:
        return "the container of image %s cannot be started: %s; check its entrypoint" % (image, error)
    return "the container of image %s cannot be started: %s" % (image, error)


def _failed(message: str, reason: str, *, is_vanished: bool = False) -> Ending:
    return Ending(stages.BROKEN, 0, message, reason, is_vanished=is_vanished)
