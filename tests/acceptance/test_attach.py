"""`fleetctl attach`: an operator follows a running job's log, or opens a shell beside the job, on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

BEGUN = 'echo be"gun"; until [ -e {flag} ]; do sleep 0.1; done; echo last-"line"'
# the terminal becomes the program's own, so that Ctrl-C there is a signal
PROGRAM = """
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from fleet.cli.main import main
main()
"""


class Fleetctl:
    """A call of `fleetctl` with a terminal of its own."""

    def __init__(self, manager, *arguments, rows=30, cols=100):
        self.end, theirs = pty.openpty()
        self.resize(rows, cols)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments, "--config", str(manager.config)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def resize(self, rows, cols):
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def say(self, text):
        os.write(self.end, text.encode())

    def sees(self, pattern, timeout=40.0):
        until = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < until, f"no {pattern!r} in {self.seen[-800:]!r}"
            self._read(1.0)
        return found

    def _read(self, timeout):
        if not select.select([self.end], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.end, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def ends(self, timeout=40.0):
        until = time.monotonic() + timeout
        while self._read(0.2) and time.monotonic() < until:
            if self.process.poll() is not None and not select.select([self.end], [], [], 0)[0]:
                break
        return self.process.wait(max(1.0, until - time.monotonic()))

    def close(self):
        self.process.kill()
        self.process.wait(10)
        os.close(self.end)


@pytest.fixture
def fleetctl():
    made = []

    def start(*arguments, **options):
        made.append(Fleetctl(*arguments, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def job(gitlab, make_manager, tmp_path):
    """A manager, a running job of it, and what ends the job."""

    def start(end="true", **options):
        flag = tmp_path / "flag"
        manager = make_manager(**options).start()
        script = [BEGUN.format(flag=flag), end]
        job_id = gitlab.enqueue(make_job(script=script, variables={"GREETING": "hello"}))
        gitlab.wait_for_trace(job_id, "begun\n", timeout=60)
        return manager, job_id, flag.touch

    return start


@pytest.mark.parametrize(("end", "code"), [("true", 0), ("exit 3", 1)])
def test_the_log_is_followed_to_the_end_of_the_job(gitlab, job, fleetctl, end, code):
    manager, job_id, go_on = job(end)
    person = fleetctl(manager, "attach", str(job_id))
    person.sees("begun")
    go_on()
    assert person.ends() == code
    gitlab.wait_for(job_id, timeout=30)
    trace = gitlab.trace(job_id).decode().replace("\n", "\r\n")
    assert person.seen.replace("\r\r\n", "\r\n") == trace.replace("\r\r\n", "\r\n")


def test_following_goes_on_over_a_killed_manager(gitlab, job, fleetctl):
    manager, job_id, go_on = job()
    person = fleetctl(manager, "attach", str(job_id))
    person.sees("begun")
    manager.kill()
    person.sees("the manager has gone")
    manager.start()
    wait_until(lambda: manager.events("job_followed"), 30, "the job's log")
    wait_until(lambda: manager.events("attached")[1:], 30, "the second attachment")
    go_on()
    assert person.ends() == 0
    assert (person.seen.count("begun\r\n"), person.seen.count("last-line\r\n")) == (1, 1)
    gitlab.wait_for(job_id, timeout=30)


def test_ctrl_c_leaves_the_log_and_not_the_job(gitlab, job, fleetctl):
    manager, job_id, go_on = job()
    person = fleetctl(manager, "attach", str(job_id))
    person.sees("begun")
    person.say("\x03")
    assert person.ends() == 130
    go_on()
    assert gitlab.wait_for(job_id, timeout=30)[0].state == "success"


def test_a_shell_beside_a_job(gitlab, job, fleetctl):
    manager, job_id, go_on = job(fleet_keys='api_token = "let me in"')
    person = fleetctl(manager, "attach", "--shell", str(job_id), rows=31, cols=101)
    person.sees(rf"a shell beside job {job_id}; Ctrl-\] leaves it, and the job goes on")
    person.say('echo "<$GREETING>" "<$CI_JOB_ID>"; stty size\r')
    person.sees(rf"<hello> <{job_id}>\s+31 101")
    person.resize(45, 145)
    person.process.send_signal(signal.SIGWINCH)
    person.say("sleep 0.3; stty size\r")
    person.sees("45 145")
    person.say('echo be"ga"n; sleep 600\r')
    person.sees("began")
    person.say("\x03")
    person.sees(r"\^C")
    person.say('echo in"ter"rupted\r')
    person.sees("interrupted")
    person.say("\x1d")
    assert person.ends() == 0
    assert "left; the job goes on" in person.seen
    assert gitlab.job(job_id).state == "running"
    second = fleetctl(manager, "attach", "--shell", str(job_id))
    second.sees("Ctrl-")
    second.say("echo sec'o'nd\r")
    second.sees("second")
    go_on()
    assert second.ends() == 1
    assert "the job is over" in second.seen
    assert gitlab.wait_for(job_id, timeout=30)[0].state == "success"
    assert b"second" not in gitlab.trace(job_id)


def test_the_exit_of_the_shell_leaves_it(gitlab, job, fleetctl):
    manager, job_id, go_on = job()
    person = fleetctl(manager, "attach", "--shell", str(job_id))
    person.sees("Ctrl-")
    person.say("exit 4\r")
    assert person.ends() == 0
    assert "the shell has ended" in person.seen
    go_on()
    gitlab.wait_for(job_id, timeout=30)


def test_what_cannot_be_attached_is_said(gitlab, job, fleetctl):
    manager, job_id, go_on = job()
    unknown = fleetctl(manager, "attach", "4711")
    assert unknown.ends() == 1
    assert "no open job is called 4711: fleetctl jobs lists them" in unknown.seen
    piped = subprocess.run(
        [sys.executable, "-m", "fleet.cli.main", "attach", "--shell", str(job_id), "--config", str(manager.config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (piped.returncode, "--shell needs a terminal" in piped.stderr) == (2, True)
    go_on()
    gitlab.wait_for(job_id, timeout=30)
    manager.stop()
    alone = fleetctl(manager, "attach", str(job_id))
    assert alone.ends() == 4
    assert "only a running one can attach" in alone.seen
