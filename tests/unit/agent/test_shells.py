"""Each shell is started so that it reads its program on standard input, and nothing of a person's profile."""

from __future__ import annotations

from fleet.agent import shells


def test_a_posix_shell_is_a_login_shell_where_that_is_wanted() -> None:
    assert shells.reading("bash", login=True) == ["bash", "-l"]
    assert shells.reading("sh", login=False) == ["sh"]


def test_powershell_reads_commands_and_asks_nobody() -> None:
    words = shells.reading("pwsh", login=True)
    assert words[0] == "pwsh"
    assert words[-2:] == ["-Command", "-"]
    assert {"-NoProfile", "-NonInteractive"} <= set(words)
    assert "-ExecutionPolicy" not in words  # there is none outside of Windows


def test_windows_powershell_runs_unsigned_programs() -> None:
    words = shells.reading("powershell", login=False)
    assert words[words.index("-ExecutionPolicy") + 1] == "Bypass"
    assert words[-2:] == ["-Command", "-"]


def test_a_terminal_first_reads_what_is_open_for_it() -> None:
    assert "/dev/fd/9" in shells.on_terminal("bash")[-1]
    assert shells.on_terminal("pwsh")[1:4] == ["-NoLogo", "-NoProfile", "-NoExit"]
    assert "/dev/fd/9" in shells.on_terminal("pwsh")[-1]
