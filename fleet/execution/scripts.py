"""Writes the program of one stage for bash or sh.

Theory. A program comes to the shell on its standard input, and has two parts. The first, read line by line, sets
options and variables. The second is one `eval` of one quoted text in a subshell whose standard input is empty: so the
user's commands cannot eat the program, and an open quote in them is an error of that `eval`, after the commands
before it have run. Nothing calls `exit` at the top: a login shell would run `.bash_logout`, whose failure would
become the job's. The shell ends with the status of its last command.

Variables with secrets are set before tracing (`CI_DEBUG_TRACE`) begins: a traced line shows a value in quotes of the
shell's own choice, in which masking might not find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.execution import sources
from fleet.execution.exports import Exports
from fleet.execution.git_wishes import GitWishes
from fleet.execution.layout import Layout
from fleet.execution.shell_text import GREEN, RESET, quote, say

_TERM = "trap 'exit 1' TERM"
_CHECK = "_fleet_status=$?; if [ $_fleet_status -ne 0 ]; then exit $_fleet_status; fi"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellManner:
    """How the programs of one job are written."""

    shell: str
    exports: Exports
    env_file: str
    is_traced: bool = False
    checks_each_command: bool = False
    has_sections: bool = False

    def program(self, body: Sequence[str], *, with_variables: bool = True) -> str:
        """The program that runs `body`; nothing when the body is empty."""
        if not body:
            return ""
        before, after = (self.exports.masked_lines, self.exports.open_lines) if with_variables else ("", "")
        commands = [
            *(self._sourced() if with_variables else ()),
            *(["set -o xtrace"] if self.is_traced else ()),
            *body,
        ]
        return "".join(
            (
                f"{_TERM}\nset +o noclobber\nset -o errexit\n{self._pipefail()}\n",
                before,
                "set -o xtrace\n" if self.is_traced else "",
                after,
                f"(\n{_TERM}\neval ",
                quote("\n".join(commands) + "\n"),
                "\n) </dev/null\n",
            )
        )

    def prelude(self, folder: str) -> str:
        """What a shell on a terminal reads first: the job's variables, and its folder once that is there."""
        lines = [*self._sourced(), f"cd {quote(folder)} 2>/dev/null || :"]
        return "".join((self.exports.masked_lines, self.exports.open_lines, "\n".join(lines), "\n"))

    def commands(self, script: Iterable[str], *, prefix: str) -> list[str]:
        """A user's commands, each shown before it runs; `prefix` names their sections."""
        lines: list[str] = []
        for index, text in enumerate(script):
            command = text.strip()
            lines += self._shown(command, f"section_{prefix}_{index}")
            lines.append(command)
            if self.checks_each_command:
                lines.append(_CHECK)
        return lines

    def enter(self, folder: str) -> str:
        """Go into a folder that is there."""
        return f"cd {quote(folder)}"

    def say(self, text: str) -> str:
        """Print one line of our own."""
        return say(text)

    def say_where(self, via: str) -> str:
        """Print on which machine this runs."""
        return f"printf 'Running on %s%s...\\n' \"$(uname -n)\" {quote(via)}"

    def source_lines(self, wishes: GitWishes, layout: Layout) -> list[str]:
        """Bring the job's sources; after them the shell stands in the project directory."""
        return sources.source_lines(wishes, layout)

    def clear_worktree_lines(self, layout: Layout) -> list[str]:
        """Remove everything but the repository itself, before sources are brought once more."""
        return sources.clear_worktree_lines(layout)

    def cleanup_lines(self, wishes: GitWishes, layout: Layout, *, thorough: bool) -> list[str]:
        """Remove what goes with the job; thorough: what FF_ENABLE_JOB_CLEANUP asks for, too."""
        lines = [f"rm -rf -- {quote(layout.tmp)}"]
        if thorough:
            lines += [f"if [ -d {quote(layout.project)} ]; then", *sources.cleanup_lines(wishes, layout), "fi"]
        return lines

    def _shown(self, command: str, section: str) -> list[str]:
        first, is_multi_line, _ = command.partition("\n")
        if not command:
            return ["echo"]
        if not is_multi_line:
            return [say(f"$ {first}")]
        if self.has_sections:
            return _collapsed(command, section)
        return [say(f"$ {first} # collapsed multi-line command")]

    def _pipefail(self) -> str:
        if self.shell == "bash":
            return "set -o pipefail"
        return "if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi"

    def _sourced(self) -> list[str]:
        """What earlier stages left in the environment file."""
        path = quote(self.env_file)
        assign = 'case $_fleet_line in [A-Za-z_]*=*) export "$_fleet_line" ;; esac'
        loop = f'while IFS= read -r _fleet_line || [ -n "$_fleet_line" ]; do {assign}; done <{path}'
        return [f"if [ -r {path} ]; then {loop}; fi"]


def _collapsed(command: str, section: str) -> list[str]:
    """The whole text of the command, folded under its first line in GitLab's log."""
    first, _, rest = command.partition("\n")
    head = "printf 'section_start:%s:%s[hide_duration=true,collapsed=true]\\r\\033[0K%s\\n' \"$(date +%s)\""
    return [
        f"{head} {quote(section)} {quote(f'{GREEN}$ {first}{RESET}')}",
        *(say(line) for line in rest.split("\n")),
        f"printf 'section_end:%s:%s\\r\\033[0K\\n' \"$(date +%s)\" {quote(section)}",
    ]
