"""What the agent refuses, and why.

Rule: a refusal carries one of the slugs of docs/reference/agent-frames.md and a sentence for a person.
"""

from __future__ import annotations


class Refused(Exception):
    """A request that the agent does not carry out."""

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(message)
        self.slug = slug
        self.message = message


class BrokenFrame(Exception):
    """Bytes on the channel that are no frame; the channel ends."""


class StageNotStarted(Exception):
    """The shell of a stage could not be started; the message says what stood in the way."""
