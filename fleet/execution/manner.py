"""What every way of writing programs for a shell can do; the stages are written in these words alone.

Rule: what a job wants is data (`Exports`, `GitWishes`, `Layout`, a user's commands); a manner turns it into the text of
its shell. `scripts` writes for bash and sh, `powershell` for PowerShell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from fleet.execution.git_wishes import GitWishes
from fleet.execution.layout import Layout


class Manner(Protocol):
    """How the programs of one job are written."""

    @property
    def shell(self) -> str:
        """The shell's name, as the job file has it."""

    @property
    def is_traced(self) -> bool:
        """Whether the shell shows each command itself."""

    def program(self, body: Sequence[str], *, with_variables: bool = True) -> str:
        """The program that runs `body`; nothing when the body is empty."""

    def prelude(self, folder: str) -> str:
        """What a shell on a terminal reads first: the job's variables, and its folder once that is there."""

    def commands(self, script: Iterable[str], *, prefix: str) -> list[str]:
        """A user's commands, each shown before it runs; `prefix` names their sections."""

    def enter(self, folder: str) -> str:
        """Go into a folder that is there."""

    def say(self, text: str) -> str:
        """Print one line of our own."""

    def say_where(self, via: str) -> str:
        """Print on which machine this runs."""

    def source_lines(self, wishes: GitWishes, layout: Layout) -> list[str]:
        """Bring the job's sources; after them the shell stands in the project directory."""

    def clear_worktree_lines(self, layout: Layout) -> list[str]:
        """Remove everything but the repository itself, before sources are brought once more."""

    def cleanup_lines(self, wishes: GitWishes, layout: Layout, *, thorough: bool) -> list[str]:
        """Remove what goes with the job; thorough: what FF_ENABLE_JOB_CLEANUP asks for, too."""
