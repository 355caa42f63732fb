"""What a person at a terminal sees: questions, tables, and no traceback."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import select
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator

import pytest

# the terminal becomes the program's own, so that Ctrl-C there is a signal
PROGRAM = """
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has inherited "ignored"
from fleet.cli.main import main
main()
"""


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self._end, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "COLUMNS": "200", **environment},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def see(self, text: str, timeout: float = 20.0) -> None:
        """Read until a text has appeared."""
        until = time.monotonic() + timeout
        while text not in self.seen:
            assert time.monotonic() < until, f"{text!r} did not appear in {self.seen!r}"
            assert self._read(), f"{text!r} did not appear in {self.seen!r}"

    def _read(self) -> bool:
        ready, _, _ = select.select([self._end], [], [], 1.0)
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._end, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += data.decode()
        return bool(data)

    def say(self, text: str) -> None:
        os.write(self._end, text.encode())

    def end(self) -> int:
        with contextlib.suppress(AssertionError):
            while self._read():
                pass
        return self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._end)


@pytest.fixture
def terminal(tmp_path: pathlib.Path) -> Iterator:
    made: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        made.append(
            Terminal(*(str(each) for each in arguments), environment={"STATE_DIRECTORY": str(tmp_path / "state")})
        )
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_what_no_option_says_is_asked(terminal, config, gitlab) -> None:
    runner = gitlab.create_runner()
    program = terminal("register", "-c", config)
    program.see("GitLab's address")
    program.say(f"{gitlab.url}\n")
    program.see("token")
    program.say(f"{runner['token']}\n")
    program.see("name")
    program.say("typed\n")
    program.see("executor")
    program.say("ssh\n")
    program.see("host")
    program.say("192.0.2.9\n")
    program.see("user")
    program.say("\n")
    assert program.end() == 0, program.seen
    assert runner["token"] not in program.seen
    [entry] = tomllib.loads(config.read_text())["runners"]
    assert (entry["name"], entry["executor"], entry["ssh"]) == ("typed", "ssh", {"host": "192.0.2.9", "user": "root"})


def test_ctrl_c_ends_quietly(terminal, config) -> None:
    program = terminal("register", "-c", config)
    program.see("GitLab's address")
    program.say("\x03")
    assert program.end() == 130
    assert "Traceback" not in program.seen
    assert not config.exists()


def test_a_table_on_a_terminal_has_its_headings(terminal, config) -> None:
    config.write_text('[[runners]]\n  name = "one"\n  url = "https://gitlab.example"\n  executor = "shell"\n')
    program = terminal("list", "-c", config)
    assert program.end() == 0
    assert "EXECUTOR" in program.seen
    assert "https://gitlab.example" in program.seen
