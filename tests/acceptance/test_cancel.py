"""A job that is canceled, taken away or disowned, in each moment of its life."""

from __future__ import annotations

import pathlib

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.standing import ended_of, settled, standing

TICK = "while true; do echo tick; sleep 0.3; done"
CANCELED = ("canceled", "unknown_failure", 0)  # this GitLab does not list job_canceled among its reasons


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("cancel") / "m") as made:
        yield made


def processes_with(mark):
    """The processes of this host whose command line holds this word."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended while we looked
            continue
    return found


def last_calls(gitlab, job):
    """What GitLab heard of the job after its end."""
    view = gitlab.job(job)
    return [name for at, name, _ in view.events if at > view.ended_at and name != "ended"]


def test_a_cancel_in_the_script_ends_it_and_after_script_runs_and_knows(place):
    job = place.enqueue(
        "echo begun", TICK, "echo never", after_script=["echo status is $CI_JOB_STATUS", "sleep 1", "echo cleaned"]
    )  # fmt: skip
    place.gitlab.wait_for_trace(job, "begun")
    assert place.gitlab.cancel(job) == "canceling"
    ended = place.ended(job)
    assert ended.end == CANCELED
    assert {"status is canceled", "cleaned"} <= set(ended.lines)
    assert "never" not in ended.lines
    assert ended.lines[-1].startswith("ERROR: Job failed: canceled")


def test_the_script_of_a_canceled_job_leaves_no_process(place):
    job = place.enqueue(
        "echo begun; sleep 31415926 & setsid sleep 31415926 & (trap '' TERM INT HUP; sleep 31415926) &", TICK
    )
    place.gitlab.wait_for_trace(job, "begun")
    place.gitlab.cancel(job)
    place.ended(job)
    assert processes_with("31415926") == []


def test_a_cancel_of_a_chatty_job_is_noticed_at_the_next_piece(place):
    job = place.enqueue(TICK)
    place.gitlab.wait_for_trace(job, "tick")
    place.gitlab.cancel(job)
    assert place.ended(job, timeout=20).end == CANCELED


def test_a_cancel_in_get_sources_runs_no_script(place):
    hooks = [{"name": "pre_get_sources_script", "script": ["echo hooked", TICK]}]
    source = place.gitlab.commit("demo/slow", {"README": "hello\n"})
    job = place.enqueue("echo never", after_script=["echo after"], git=source, hooks=hooks)
    place.gitlab.wait_for_trace(job, "tick")
    place.gitlab.cancel(job)
    ended = place.ended(job, timeout=20)
    assert ended.end == CANCELED
    assert not {"never", "after"} & set(ended.lines)
    assert not ended.has("Fetching changes")


def test_a_cancel_that_comes_with_the_acknowledgement_ends_the_job_before_it_begins(place):
    fault = place.gitlab.add_fault("delay", "ack", seconds=1.5)
    job = place.enqueue("echo never")
    wait_until(lambda: place.gitlab.fault_struck(fault), 20, "the acknowledgement")
    place.gitlab.cancel(job, force=True)
    place.settled()
    assert place.gitlab.trace(job) == b""
    row = place.manager.rows("SELECT state FROM jobs WHERE gitlab_job_id = ?", job)
    assert row == [{"state": "abandoned"}]


def test_an_abort_ends_everything_and_nothing_more_is_said(place):
    job = place.enqueue(
        "echo begun", TICK, after_script=["touch /tmp/never-$CI_JOB_ID"]
    )  # fmt: skip
    place.gitlab.wait_for_trace(job, "tick")
    assert place.gitlab.cancel(job, force=True) == "canceled"
    place.settled()
    assert place.manager.rows("SELECT state, stop FROM jobs WHERE gitlab_job_id = ?", job) == [
        {"state": "abandoned", "stop": "abort"}
    ]
    assert last_calls(place.gitlab, job) == []
    assert not pathlib.Path(f"/tmp/never-{job}").exists()
    # the machine is clean: the next job finds nothing of this one
    ended = place.run("ls -A $CI_BUILDS_DIR", "pgrep -f '[e]cho tick' || echo nobody")
    assert ended.end == ("success", "", 0)
    assert "nobody" in ended.lines


def test_a_job_that_the_server_fails_by_itself_is_aborted(place):
    job = place.enqueue(TICK)
    place.gitlab.wait_for_trace(job, "tick")
    place.gitlab.drop(job)
    ended = place.ended(job)
    assert ended.end == ("failed", "stuck_or_timeout_failure", 0)
    assert last_calls(place.gitlab, job) == []


def test_a_job_token_that_is_revoked_in_the_middle_aborts_the_job(place):
    job = place.enqueue(TICK)
    place.gitlab.wait_for_trace(job, "tick")
    refused = place.gitlab.add_fault("status", "trace", status=403, count=None)
    wait_until(lambda: place.gitlab.fault_struck(refused), 20, "the refusal")
    place.settled()
    assert place.gitlab.fault_struck(refused) == 1
    place.gitlab.lift_fault(refused)
    place.gitlab.cancel(job, force=True)


def test_a_job_that_is_erased_is_aborted_when_its_end_finds_nothing(place):
    job = place.enqueue("echo begun", "sleep 2")
    place.gitlab.wait_for_trace(job, "begun")
    place.gitlab.erase(job)
    place.settled()
    place.gitlab.cancel(job, force=True)


@pytest.mark.slow
def test_a_job_canceled_while_it_waits_for_a_machine_gets_none(gitlab, make_manager, tmp_path):
    # its machines are made and never become ready, until the ready command is let go
    gate = tmp_path / "gate"
    manager = make_manager(pool_keys=f'instance_ready_command = "while ! test -e {gate}; do sleep 0.2; done"').start()
    job = gitlab.enqueue(make_job(script=["echo never"]))
    gitlab.wait_for(job, states=["running"], timeout=30)
    waiting = "SELECT 1 FROM jobs WHERE state = 'waiting'"
    wait_until(lambda: manager.rows(waiting), 20, "the wait")
    gitlab.cancel(job)
    (view,) = gitlab.wait_for(job, timeout=50)  # a touch each 30 s notices it
    gate.touch()
    ended = ended_of(gitlab, view)
    assert ended.end == CANCELED
    assert ended.has("canceled before it began")
    assert "never" not in ended.lines
    settled(gitlab, manager)
    assert manager.rows("SELECT reservation_id FROM reservations WHERE state = 'owed'") == []
