"""Writes the program of one stage for PowerShell: `pwsh` on any system, `powershell` where Windows has only that.

Theory. PowerShell reads a program on standard input like a person's typing, line by line, with rules of its own for
what ends a statement, and Windows PowerShell in the code page of the console. So the program is one line of ASCII: the
real text in base64, turned into a script block and run. Nothing follows on standard input that a command could eat.

A cmdlet that fails ends the stage by `$ErrorActionPreference`; after each command of the user's and of ours the exit
code of a native program is looked at, and becomes that of the stage. A mistake in the text of one command shows before
the first runs, because a script block is read as a whole.

A variable is there under both names that people use, `$env:NAME` and `$NAME`; where PowerShell keeps the second to
itself, only as the first. Variables with secrets are set before tracing begins.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet.execution import powershell_sources
from fleet.execution.exports import Exports, Word
from fleet.execution.git_wishes import GitWishes
from fleet.execution.layout import Layout
from fleet.execution.powershell_text import CHECK, enter, quote, remove, say
from fleet.execution.shell_text import GREEN, RESET

_KEPT = (
    "_ args consolefilename enabledexperimentalfeatures erroractionpreference error event eventargs eventsubscriber"
    " executioncontext false foreach home host input iscoreclr islinux ismacos iswindows lastexitcode matches"
    " myinvocation nestedpromptlevel null ofs outputencoding pid profile psboundparameters pscmdlet pscommandpath"
    " psculture psdebugcontext psedition pshome psitem psscriptroot pssenderinfo psuiculture psversiontable pwd"
    " sender shellid stacktrace switch this true psnativecommanduseerroractionpreference"
)
_OWN_NAMES = frozenset(_KEPT.split())  # what PowerShell keeps to itself, in small letters
_BEGIN = (
    "$ErrorActionPreference = 'Stop'",
    "$PSNativeCommandUseErrorActionPreference = $false",  # the codes are looked at here, in every version alike
    "$OutputEncoding = New-Object System.Text.UTF8Encoding $false",
    "try { [Console]::OutputEncoding = $OutputEncoding } catch { }",  # without a console there is none to set
)
_TRACE = "Set-PSDebug -Trace 2"
_NOW = "[DateTimeOffset]::UtcNow.ToUnixTimeSeconds()"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerShellManner:
    """How the programs of one job are written."""

    shell: str
    exports: Exports
    env_file: str
    is_traced: bool = False
    has_sections: bool = False

    def program(self, body: Sequence[str], *, with_variables: bool = True) -> str:
        """The program that runs `body`; nothing when the body is empty."""
        return on_one_line(self.text(body, with_variables=with_variables)) if body else ""

    def text(self, body: Sequence[str], *, with_variables: bool = True) -> str:
        """The same as a person would read it."""
        words = self.exports.words if with_variables else ()
        lines = [
            *_BEGIN,
            *(line for word in words if word.masked for line in _assigned(word)),
            *((_TRACE,) if self.is_traced else ()),
            *(line for word in words if not word.masked for line in _assigned(word)),
            *(self._sourced() if with_variables else ()),
            *body,
        ]
        return "\n".join(lines) + "\n"

    def prelude(self, folder: str) -> str:
        """What a shell on a terminal reads first: the job's variables, and its folder once that is there."""
        words = (line for word in self.exports.words for line in _assigned(word))
        there = f"if (Test-Path -LiteralPath {quote(folder)}) {{ {enter(folder)} }}"
        return "\n".join((*words, *self._sourced(), there)) + "\n"

    def commands(self, script: Iterable[str], *, prefix: str) -> list[str]:
        """A user's commands, each shown before it runs and looked at after it."""
        lines: list[str] = []
        for index, text in enumerate(script):
            command = text.strip()
            lines += self._shown(command, f"section_{prefix}_{index}")
            lines += [command, CHECK] if command else []
        return lines

    def enter(self, folder: str) -> str:
        """Go into a folder that is there."""
        return enter(folder)

    def say(self, text: str) -> str:
        """Print one line of our own."""
        return say(text)

    def say_where(self, via: str) -> str:
        """Print on which machine this runs."""
        return f"Write-Output ('Running on ' + [Environment]::MachineName + {quote(f'{via}...')})"

    def source_lines(self, wishes: GitWishes, layout: Layout) -> list[str]:
        """Bring the job's sources; after them the shell stands in the project directory."""
        return powershell_sources.source_lines(wishes, layout)

    def clear_worktree_lines(self, layout: Layout) -> list[str]:
        """Remove everything but the repository itself, before sources are brought once more."""
        return powershell_sources.clear_worktree_lines(layout)

    def cleanup_lines(self, wishes: GitWishes, layout: Layout, *, thorough: bool) -> list[str]:
        """Remove what goes with the job; thorough: what FF_ENABLE_JOB_CLEANUP asks for, too."""
        lines = [remove(layout.tmp)]
        if thorough:
            inner = "\n".join(powershell_sources.cleanup_lines(wishes, layout))
            lines.append(f"if (Test-Path -LiteralPath {quote(layout.project)}) {{\n{inner}\n}}")
        return lines

    def _shown(self, command: str, section: str) -> list[str]:
        first, is_multi_line, _ = command.partition("\n")
        if not command:
            return ["Write-Output ''"]
        if not is_multi_line:
            return [say(f"$ {first}")]
        if self.has_sections:
            return _collapsed(command, section)
        return [say(f"$ {first} # collapsed multi-line command")]

    def _sourced(self) -> list[str]:
        """What earlier stages left in the environment file."""
        at = quote(self.env_file)
        keep = "Set-Item -LiteralPath ('Env:' + $Matches[1]) -Value $Matches[2]"
        own = "Set-Variable -Name $Matches[1] -Value $Matches[2] -ErrorAction SilentlyContinue"
        each = f"if ($fleet_line -match '^([A-Za-z_][A-Za-z0-9_]*)=(.*)$') {{ {keep}; {own} }}"
        read = f"foreach ($fleet_line in Get-Content -LiteralPath {at} -Encoding UTF8) {{ {each} }}"
        return [f"if (Test-Path -LiteralPath {at}) {{ {read} }}"]


def on_one_line(text: str) -> str:
    """The program as one line of ASCII that reads and runs the text."""
    packed = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")
    unpacked = f"[System.Text.Encoding]::UTF8.GetString([System.Convert]::FromBase64String('{packed}'))"
    failed = "[Console]::Error.WriteLine(($_ | Out-String)); exit 1"
    return f"try {{ . ([scriptblock]::Create({unpacked})) }} catch {{ {failed} }}; exit 0\n\n"


def _assigned(word: Word) -> list[str]:
    value = quote(word.value)
    lines = [] if word.key.lower() in _OWN_NAMES else [f"${{{word.key}}} = {value}"]
    return [*lines, f"${{env:{word.key}}} = {value}"] if word.is_exported else lines


def _collapsed(command: str, section: str) -> list[str]:
    """The whole text of the command, folded under its first line in GitLab's log."""
    first, _, rest = command.partition("\n")
    options = f":{section}[hide_duration=true,collapsed=true]\r\x1b[0K{GREEN}$ {first}{RESET}"
    return [
        f"Write-Output ('section_start:' + {_NOW} + {quote(options)})",
        *(say(line) for line in rest.split("\n")),
        f"Write-Output ('section_end:' + {_NOW} + {quote(f':{section}' + chr(13) + chr(27) + '[0K')})",
    ]
