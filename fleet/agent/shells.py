"""The shells that run jobs, and how each is started so that it reads its program on standard input.

Rule: a shell is known by its name in the job file; whether a machine has it is the search path's to say.
"""

from __future__ import annotations

POSIX = ("bash", "sh")
POWERSHELLS = ("pwsh", "powershell")  # `powershell` is what Windows brings along
SHELLS = POSIX + POWERSHELLS
ON_TERMINAL = '. /dev/fd/9; exec 9<&-; exec "$0" -i'  # what it reads first sets the job's variables
POWERSHELL_ON_TERMINAL = "Invoke-Expression ([System.IO.File]::ReadAllText('/dev/fd/9'))"


def reading(shell: str, *, login: bool) -> list:
    """The words that start a shell which runs the program on its standard input."""
    if shell in POWERSHELLS:
        words = [shell, "-NoLogo", "-NoProfile", "-NonInteractive", "-InputFormat", "Text", "-OutputFormat", "Text"]
        policy = ["-ExecutionPolicy", "Bypass"] if shell == "powershell" else []
        return [*words, *policy, "-Command", "-"]
    return [shell, "-l"] if login else [shell]


def on_terminal(shell: str) -> list:
    """The words that start a shell for a person, which first reads what is open as descriptor 9."""
    if shell in POWERSHELLS:
        return [shell, "-NoLogo", "-NoProfile", "-NoExit", "-Command", POWERSHELL_ON_TERMINAL]
    return [shell, "-c", ON_TERMINAL]
