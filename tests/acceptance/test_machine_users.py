"""What a job can reach on its machine: with a user of its own neither the agent's files nor another job's (law 9).

Root makes the user. Without root agent and job are one user: then only what holds for every user is asked for.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.given_host import GivenHost, static_pool
from tests.acceptance.manager import Manager, wait_until
from tests.acceptance.reasons import started
from tests.acceptance.standing import settled

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def ci():
    """The job's user."""
    if not IS_ROOT:
        yield getpass.getuser()
        return
    name = f"fleetjob{os.getpid() % 100000}"
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", "-r", name], check=False, capture_output=True)


@pytest.fixture
def place():
    """A folder that every user may enter."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fleet-place-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def manager(gitlab, place, ci):
    """A manager whose given host runs jobs as `ci`, two at once."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(GivenHost(place / "host"))
        keys = f'user = "{ci}"'
        made = Manager(place / "m", gitlab, pool=static_pool(host.entry(), capacity=2), runner_keys=keys)
        stack.callback(made.clear)
        yield started(made)


def test_law_9_a_job_runs_as_its_user_and_reads_nothing_of_the_agent(gitlab, manager, ci):
    agent = manager.directory.parent / "host" / "home" / ".fleet-agent"
    script = [
        "echo I am $(id -un)",
        f"for f in $(find {agent} /dev/shm/fleet-* -type f 2>/dev/null); do cat $f && echo READ $f; done || true",
        f"ls {agent} >/dev/null 2>&1 && echo LISTED || true",
    ]
    job = gitlab.enqueue(make_job(script=script, variables={"SECRET_WORD": secrets.token_hex(8)}))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    lines = output_lines(gitlab.trace(job))
    assert f"I am {ci}" in lines
    if IS_ROOT:
        assert not [line for line in lines if line.startswith(("READ", "LISTED"))]
    settled(gitlab, manager)


def test_law_9_another_jobs_variables_are_in_no_argument_list_and_in_no_file_of_the_agent(gitlab, manager, place):
    """Two jobs of one user at once; what a process has in its own memory, its user may read, and nothing else."""
    word, file_word = f"word{secrets.token_hex(8)}", f"file{secrets.token_hex(8)}"
    variables = [{"key": "SECRET_WORD", "value": word}, {"key": "SECRET_FILE", "value": file_word, "file": True}]
    first = gitlab.enqueue(make_job(script=["echo begun", "sleep 5"], variables=variables))
    gitlab.wait_for_trace(first, "begun", timeout=60)
    # the words are put together on the machine and given to grep in a pipe, so that the search finds not itself
    assemble = f"w={word[:8]}; w=${{w}}{word[8:]}; f={file_word[:8]}; f=${{f}}{file_word[8:]}"
    arguments = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c -f <(printf '%s\\n' $w $f) || true"
    agent = place / "host" / "home" / ".fleet-agent"
    files = f"grep -rls -e $w -e $f {agent} /dev/shm 2>/dev/null | wc -l"
    look = [assemble, f"echo arguments=$({arguments})", f"echo files=$({files})"]
    second = gitlab.enqueue(make_job(script=look))
    one, two = gitlab.wait_for(first, second, timeout=60)
    assert (one.state, two.state) == ("success", "success")
    lines = output_lines(gitlab.trace(second))
    assert "arguments=0" in lines, "\n".join(lines)
    assert not IS_ROOT or "files=0" in lines
    settled(gitlab, manager)


def test_law_9_a_later_job_finds_nothing_of_an_earlier_one(gitlab, manager, place):
    word = f"file{secrets.token_hex(8)}"
    variables = [{"key": "SECRET_FILE", "value": word, "file": True}]
    first = gitlab.enqueue(make_job(script=["cat $SECRET_FILE > /dev/null"], variables=variables))
    gitlab.wait_for(first, timeout=60)
    settled(gitlab, manager)
    look = [
        f"w={word[:8]}; w=${{w}}{word[8:]}",
        f"echo files=$(grep -rls $w {place / 'host'} /dev/shm ~ 2>/dev/null | wc -l)",
    ]
    second = gitlab.enqueue(make_job(script=look))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    assert "files=0" in output_lines(gitlab.trace(second))
    settled(gitlab, manager)


def test_a_job_of_another_user_cannot_end_its_supervisor(gitlab, manager):
    job = gitlab.enqueue(make_job(script=["echo begun", "kill -9 $PPID || echo refused", "echo after"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    if IS_ROOT:
        assert view.state == "success"
        lines = output_lines(gitlab.trace(job))
        assert "refused" in lines
        assert "after" in lines
    else:
        assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    settled(gitlab, manager)


def test_daemons_of_the_jobs_user_are_gone_after_the_job(gitlab, manager, ci):
    script = [
        "setsid nohup sleep 98761 >/dev/null 2>&1 & env -i setsid sleep 98762 </dev/null >/dev/null 2>&1 &",
        "sleep 0.3",
    ]
    job = gitlab.enqueue(make_job(script=script))
    gitlab.wait_for(job, timeout=60)
    settled(gitlab, manager)

    def left() -> str:
        return subprocess.run(
            ["pgrep", "-u", ci, "-fx", "sleep 9876[12]"], capture_output=True, text=True, check=False
        ).stdout

    wait_until(lambda: not left(), 20, "the end of the daemons")


def test_a_user_that_is_not_there_is_named(gitlab, make_manager, tmp_path):
    with GivenHost(tmp_path / "host") as host:
        manager = started(make_manager(pool=static_pool(host.entry()), runner_keys='user = "nobody-of-that-name"'))
        job = gitlab.enqueue(make_job(script=["true"]))
        (view,) = gitlab.wait_for(job, timeout=60)
        assert view.state == "failed"
        assert "nobody-of-that-name" in gitlab.trace(job).decode()
        settled(gitlab, manager)
