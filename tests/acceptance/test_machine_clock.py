"""A machine whose clock is an hour off: limits count the seconds that pass, and nothing else minds."""

from __future__ import annotations

import pathlib
import sys

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.given_host import GivenHost, static_pool
from tests.acceptance.reasons import started
from tests.acceptance.standing import settled

# A Python whose clock is off, for the agent: it does with its arguments what the agent's way to life asks of a Python.
PYTHON = """#!{python}
import runpy, sys, time
real, sys.executable = time.time, {me!r}
time.time = lambda: real() + {offset}
arguments = [each for each in sys.argv[1:] if each not in ("-I", "-S")]
if arguments[0] == "-c":
    sys.argv = ["-c", *arguments[2:]]
    exec(compile(arguments[1], "-c", "exec"), {{"__name__": "__main__"}})
else:
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""


def skewed_python(path: pathlib.Path, offset: int) -> pathlib.Path:
    path.write_text(PYTHON.format(python=sys.executable, me=str(path), offset=offset))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("offset", [3600, -3600])
def test_limits_and_jobs_do_not_mind_a_clock_an_hour_off(gitlab, make_manager, tmp_path, offset):
    python = skewed_python(tmp_path / "python3", offset)
    with GivenHost(tmp_path / "host") as host:
        keys = f'agent_python = "{python}"'
        manager = started(make_manager(pool=static_pool(host.entry(), capacity=3, fleet_keys=keys)))
        fine = gitlab.enqueue(make_job(script=["sleep 2", "echo fine"], timeout=600))
        late = gitlab.enqueue(make_job(script=["echo begun", "sleep 600"], timeout=6))
        clock = gitlab.enqueue(make_job(script=[f"{python} -c 'import time; print(int(time.time()))'; date +%s"]))
        one, two, three = gitlab.wait_for(fine, late, clock, timeout=60)
        assert one.state == "success"
        assert (two.state, two.failure_reason) == ("failed", "job_execution_timeout")
        assert 5 < two.ended_at - two.acknowledged_at < 30
        assert three.state == "success"
        theirs, ours = (int(line) for line in output_lines(gitlab.trace(clock)) if line.isdigit())
        assert abs(theirs - ours - offset) < 60, "the machine's clock is off"
        canceled = gitlab.enqueue(make_job(script=["echo begun; while sleep 0.3; do echo tick; done"]))
        gitlab.wait_for_trace(canceled, "begun", timeout=60)
        gitlab.cancel(canceled)
        (view,) = gitlab.wait_for(canceled, timeout=60)
        assert view.state == "canceled"
        settled(gitlab, manager)
