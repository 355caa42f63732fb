"""Terminals beside a running job: a shell of the job's own, how it ends, and that neither side can flood the other."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import pwd
import re
import signal
import time

import pytest

from fleet.agent import system
from fleet.agent.terminals import MOST, WINDOW

from .channel import PATIENCE_S, eventually
from .conftest import stage

WAITS = 'until [ -e "$FLAG" ]; do sleep 0.05; done'
NAMES = (f"t{number}" for number in itertools.count())


class Shell:
    """A terminal that was opened on a channel."""

    def __init__(self, on, lease, **fields):
        self.on, self.lease, self.name = on, lease, next(NAMES)
        self.reply = on.ask(
            "terminal", lease=lease, terminal=self.name, **{"epoch": 1, "rows": 24, "cols": 80} | fields
        )
        self.taken = 0

    def type(self, text):
        self.on.send("terminal_data", text.encode(), terminal=self.name)

    def output(self):
        heads = [(head, body) for head, body in self.on.frames if head.get("terminal") == self.name]
        return b"".join(body for head, body in heads if head["type"] == "terminal_data").decode(errors="replace")

    def shows(self, pattern, within_s=PATIENCE_S):
        until = time.monotonic() + within_s
        while not re.search(pattern, self.output()):
            assert time.monotonic() < until, f"no {pattern!r} in {self.output()[-500:]!r}"
            self.on.receive(0.2)
        return re.search(pattern, self.output())

    def runs(self, command, pattern):
        """Type a command; the echo of what was typed holds quotes and does not count."""
        self.type(command + "\n")
        return self.shows(pattern)

    def end(self):
        return self.on.expect(lambda head: head["type"] == "terminal_end" and head["terminal"] == self.name)


@pytest.fixture
def waiting(machine):
    """A channel, a lease whose job waits for a file, and the function that lets it go on."""
    flag = machine.home / "flag"
    on = machine.connect()
    program = f"export SECRET_WORD='of the job'\ncd {machine.work}\n"
    job = machine.job(
        WAITS, environment={"FLAG": str(flag), "PS1": "> "}, terminal={"program": program}, abort_grace_s=0.3
    )
    lease = machine.start(on, job)
    return on, lease, flag.touch


def test_a_shell_beside_a_job_has_its_variables_and_its_folder(machine, waiting):
    on, lease, go_on = waiting
    shell = Shell(on, lease)
    assert shell.reply["ok"], shell.reply
    shell.runs('echo "<$SECRET_WORD>" "<$PWD>" "<$FLEET_LEASE>"', f"<of the job> <{machine.work}> <{lease}>")
    shell.runs("tty; stty size", r"/dev/pts/\d+\r\n24 80")
    go_on()
    assert on.exit_of(lease)["result"]["outcome"] == "success"
    assert "SECRET_WORD" not in on.log(lease).decode(), "what a terminal shows is no part of the job's log"


def test_a_terminal_takes_a_new_size(waiting):
    on, lease, _ = waiting
    shell = Shell(on, lease, rows=10, cols=20)
    shell.runs("stty size", "10 20")
    on.send("terminal_resize", terminal=shell.name, rows=33, cols=132)
    shell.runs("stty size", "33 132")


def is_in_front(seconds):
    """Whether a `sleep` of so long is in the foreground of its terminal."""
    for pid in system.all_processes():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[:2] == [b"sleep", seconds.encode()]:
            return fields[2] == fields[5]  # its process group, and that of the terminal
    return False


def test_keys_are_signals_as_on_any_terminal(waiting):
    on, lease, _ = waiting
    shell = Shell(on, lease)
    shell.runs('echo be"gun"; sleep 612; echo en"ded"', "begun")
    eventually(lambda: is_in_front("612"), "sleep has the terminal: before that the shell itself hears the key")
    shell.type("\x03")
    shell.runs('echo "after-$?"', r"after-130|after-1")
    assert "ended\r" not in shell.output()


def test_the_exit_of_the_shell_is_told_after_its_last_byte(waiting):
    on, lease, _ = waiting
    shell = Shell(on, lease)
    shell.type('echo last-"word"; exit 7\n')
    assert (shell.end()["exit_code"], shell.end()["reason"]) == (7, "the shell has ended")
    assert "last-word" in shell.output()


def test_closing_a_terminal_ends_all_that_it_started(waiting):
    on, lease, _ = waiting
    shell = Shell(on, lease)
    found = shell.runs("set -m; (trap '' HUP; exec sleep 611) & echo \"pid=$!\"", r"pid=(\d+)\r")
    pid = int(found[1])
    started = system.start_time(pid)
    assert started
    on.send("terminal_close", terminal=shell.name)
    eventually(lambda: not system.is_alive(pid, started), "the shell's child has ended")
    assert not any(head["type"] == "terminal_end" for head, _ in on.frames)


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_channel_that_ends_ends_its_terminals_and_not_the_job(machine, waiting, is_killed):
    on, lease, go_on = waiting
    shell = Shell(on, lease)
    pid = int(shell.runs("echo \"pid=$$\"; trap '' HUP", r"pid=(\d+)\r")[1])
    started = system.start_time(pid)
    on.kill() if is_killed else on.close()
    eventually(lambda: not system.is_alive(pid, started), "the shell has ended")
    other = machine.connect()
    assert other.ask("follow", lease=lease, epoch=1, offset=0)["ok"]
    go_on()
    assert other.exit_of(lease)["result"]["outcome"] == "success"


def test_the_end_of_the_job_ends_its_terminals(waiting):
    on, lease, go_on = waiting
    shell = Shell(on, lease)
    pid = int(shell.runs('echo "pid=$$"', r"pid=(\d+)\r")[1])
    started = system.start_time(pid)
    go_on()
    assert shell.end()["reason"] == "the job is over"
    assert on.exit_of(lease)["result"]["outcome"] == "success"
    assert not system.is_alive(pid, started)
    late = Shell(on, lease)
    assert (late.reply["ok"], late.reply["error"]) == (False, "not_running")


def test_a_terminal_may_hold_the_job_until_it_is_closed(waiting):
    on, lease, go_on = waiting
    shell = Shell(on, lease, hold_s=600)
    shell.runs("echo he'll'o", "hello")
    go_on()
    until = time.monotonic() + PATIENCE_S
    while "A terminal is open: the job waits for it, for 10m0s at most" not in on.log(lease).decode():
        assert time.monotonic() < until
        on.receive(0.2)
    shell.runs("echo he're'", "here")
    assert not [head for head, _ in on.frames if head["type"] == "exit"]
    shell.type("exit\n")
    assert on.exit_of(lease)["result"]["outcome"] == "success"


def test_a_terminal_holds_the_job_no_longer_than_it_may(waiting):
    on, lease, go_on = waiting
    shell = Shell(on, lease, hold_s=0.7)
    go_on()
    assert on.exit_of(lease)["result"]["outcome"] == "success"
    assert shell.end()["reason"] == "the job is over"
    assert "The terminal is closed: its time is over" in on.log(lease).decode()


@pytest.mark.parametrize("how", ["cancel", "abort", "time"])
def test_what_ends_a_job_ends_its_waiting_for_a_terminal(machine, how):
    on = machine.connect()
    lease = machine.start(on, machine.job("sleep 1.5"), remaining_s=4.0 if how == "time" else 600)
    shell = Shell(on, lease, hold_s=600)
    assert shell.reply["ok"]
    until = time.monotonic() + PATIENCE_S
    while b"A terminal is open" not in on.log(lease):
        assert time.monotonic() < until
        on.receive(0.2)
    if how != "time":
        on.ask(how, lease=lease, epoch=1, reason="job_canceled")
    outcome = on.exit_of(lease)["result"]["outcome"]
    assert outcome == {"cancel": "success", "abort": "aborted", "time": "success"}[how]


def test_a_shell_that_reads_nothing_does_not_stop_the_channel(waiting):
    on, lease, _ = waiting
    shell = Shell(on, lease)
    shell.runs("stty -icanon -echo; echo re'ady'; sleep 600", "ready")
    piece = "x" * 4096
    for _ in range(WINDOW // 4096 - 1):
        shell.type(piece)
    assert on.ask("ping", agent_timeout_s=600)["ok"]
    taken = sum(head["bytes"] for head, _ in on.frames if head["type"] == "terminal_taken")
    assert taken < WINDOW - 4096
    for _ in range(64):
        shell.type(piece)
    assert shell.end()["reason"] == "more was typed than the terminal may hold"


def test_output_waits_until_it_was_taken_and_nothing_is_lost(waiting):
    on, lease, go_on = waiting
    shell = Shell(on, lease, term="dumb")
    shell.type("stty -opost -echo; seq 1 200000; echo do'ne'\n")
    while on.receive(1.0):
        continue
    assert WINDOW <= len(shell.output()) < WINDOW + 64 * 1024, "no more than the window is on its way"
    assert on.ask("ping", agent_timeout_s=600)["ok"]
    told = 0
    until = time.monotonic() + PATIENCE_S
    while "done" not in shell.output()[-200:]:
        assert time.monotonic() < until
        on.send("terminal_taken", terminal=shell.name, bytes=len(shell.output()) - told)
        told = len(shell.output())
        on.receive(0.5)
    numbers = re.findall(r"^(\d+)\r?$", shell.output(), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 200001)]
    go_on()


def test_only_who_commands_the_job_may_open_a_terminal(machine, waiting):
    on, lease, _ = waiting
    assert Shell(on, "lease-unknown").reply["error"] == "unknown_lease"
    mine = Shell(on, lease)
    other = machine.connect()
    assert other.ask("follow", lease=lease, epoch=2, offset=0)["ok"]
    assert Shell(on, lease).reply["error"] == "stale_epoch"
    mine.runs("echo st'il'l", "still")
    time.sleep(1.1)
    mine.type("echo ne'ver'\n")
    assert mine.end()["reason"] == "another manager commands this job now"


def test_so_many_terminals_and_no_more(waiting):
    on, lease, _ = waiting
    shells = [Shell(on, lease) for _ in range(MOST)]
    assert all(each.reply["ok"] for each in shells)
    refused = Shell(on, lease).reply
    assert (refused["error"], "close one first" in refused["message"]) == ("failed", True)
    on.send("terminal_close", terminal=shells[0].name)
    assert Shell(on, lease).reply["ok"]
    assert on.ask("terminal", lease=lease, terminal="../x", epoch=1)["error"] == "bad_frame"


def test_a_supervisor_that_died_leaves_no_terminal_behind(machine, waiting):
    on, lease, _ = waiting
    shell = Shell(on, lease)
    pid = int(shell.runs('echo "pid=$$"', r"pid=(\d+)\r")[1])
    started = system.start_time(pid)
    supervisor = json.loads((machine.folder / "jobs" / lease / "state.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    assert on.exit_of(lease)["result"]["outcome"] == "lost"
    assert on.ask("clean", lease=lease, epoch=1)["ok"]
    assert not system.is_alive(pid, started)
    shell.end()


def test_as_root_the_shell_is_the_job_s_user_s(machine):
    user = pwd.getpwnam("nobody")
    on = machine.connect()
    machine.home.chmod(0o755)
    for folder in machine.home.parents:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    work = f"/tmp/terminal-{os.getpid()}"
    job = machine.job(
        "sleep 600", user="nobody", cwd=work, cleanup_paths=[work], stages=[stage("s", "step", "sleep 600")]
    )
    lease = machine.start(on, job)
    shell = Shell(on, lease)
    shell.runs('id -un; stat -c %U "$(tty)"; : > /dev/tty && echo o"k"', rf"nobody\r\n{user.pw_name}\r\n.*ok")
    on.ask("abort", lease=lease, epoch=1, reason="x")
    on.exit_of(lease)
