"""Given hosts that cannot be reached, are cut off, come back or are somebody else: nothing is lost in silence."""

from __future__ import annotations

import socket

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from fleet.machine.keys import fingerprint, make_key_pair
from tests.acceptance.given_host import GivenHost, static_pool
from tests.acceptance.manager import wait_until
from tests.acceptance.reasons import in_state, journal, started
from tests.acceptance.standing import settled

COUNT = "for i in $(seq 1 {n}); do echo line $i; sleep 0.1; done"


@pytest.fixture
def host(tmp_path):
    with GivenHost(tmp_path / "host") as host:
        yield host


def counted(gitlab, job) -> list[str]:
    return [line for line in output_lines(gitlab.trace(job)) if line.startswith("line ")]


def test_a_job_waits_for_a_host_that_refuses_connections_and_runs_when_it_is_back(gitlab, make_manager, host):
    host.power_off()
    manager = started(make_manager(pool=static_pool(host.entry())))
    wait_until(lambda: journal(manager, "not_reached"), 30, "the first try")
    assert "is not reached" in journal(manager, "not_reached")[0]
    host.boot()
    job = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"


def test_a_host_that_accepts_and_says_nothing_holds_up_nobody(gitlab, make_manager, host):
    """The deaf one stands first in the list; jobs run on the other within seconds all the same."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as deaf:
        port = deaf.getsockname()[1]
        key = make_key_pair().public
        entry = f'{{ name = "deaf", address = "127.0.0.1", port = {port}, user = "ci", host_key = "{key}" }}'
        manager = started(make_manager(pool=static_pool(entry, host.entry())))
        wait_until(lambda: in_state(manager, "ready"), 40, "the other host")
        jobs = [gitlab.enqueue(make_job(script=["true"])) for _ in range(3)]
        for view in gitlab.wait_for(*jobs, timeout=40):
            assert view.state == "success"
        wait_until(lambda: journal(manager, "not_reached"), 40, "the end of the first try")
        assert "does not speak SSH in time" in journal(manager, "not_reached")[0]


def test_law_9_a_host_with_another_key_is_refused_and_no_login_is_tried(gitlab, make_manager, host):
    expected = make_key_pair().public
    acquire = 'instance_acquire_timeout = "8s"'
    pool = static_pool(host.entry(host_key=expected), pool_keys=acquire)
    manager = started(make_manager(pool=pool))
    [told] = wait_until(lambda: journal(manager, "host_key_mismatch"), 30, "the refusal")
    assert fingerprint(host.host_key.public) in told
    assert fingerprint(expected) in told
    assert "no login was tried" in told
    assert "Accepted" not in host.log()
    assert "Failed" not in host.log()
    assert in_state(manager, "ready") == []


def test_a_network_that_is_away_for_a_while_costs_the_job_nothing(gitlab, make_manager, host):
    manager = started(make_manager(pool=static_pool(host.entry())))
    job = gitlab.enqueue(make_job(script=[COUNT.format(n=60)]))
    gitlab.wait_for_trace(job, "line 5", timeout=60)
    host.relay.cut()
    wait_until(lambda: journal(manager, "unreachable"), 30, "the manager's notice")
    host.relay.mend()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    assert counted(gitlab, job) == [f"line {n}" for n in range(1, 61)]
    assert wait_until(lambda: journal(manager, "reached"), 30, "the note that it is back")


def test_a_host_that_is_lost_for_ever_loses_its_job_and_comes_back_clean(gitlab, make_manager, host):
    pool = static_pool(host.entry(), fleet_keys='unreachable_timeout = "3s"')
    manager = started(make_manager(pool=pool))
    mark = host.folder / "still-running"
    script = f"echo begun; while sleep 0.2; do date +%s%N > {mark}; done"
    job = gitlab.enqueue(make_job(script=[script]))
    gitlab.wait_for_trace(job, "begun", timeout=60)
    host.relay.cut()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    text = gitlab.trace(job).decode()
    assert "unreachable for 3 s" in text
    assert "the script may still be running there" in text
    [lease] = manager.rows("SELECT state FROM leases")
    assert lease["state"] == "lost"
    before = mark.read_text()
    wait_until(lambda: mark.read_text() != before, 10, "a sign of the script, which nobody could end")

    host.relay.mend()
    second = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    cleaned, ready = manager.events("leftover_cleaned"), manager.events("job_started")
    assert len(cleaned) == 1
    assert cleaned[0]["timestamp"] < ready[-1]["timestamp"], "the old lease was cleaned before the new slot was given"
    now = mark.read_text()
    with pytest.raises(AssertionError):
        wait_until(lambda: mark.read_text() != now, 1)


def test_a_host_that_is_restarted_in_the_middle_of_a_job_says_so(gitlab, make_manager, host):
    manager = started(make_manager(pool=static_pool(host.entry())))
    job = gitlab.enqueue(make_job(script=[COUNT.format(n=600)]))
    gitlab.wait_for_trace(job, "line 5", timeout=60)
    host.reboot()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    assert "the machine was restarted while the job ran" in gitlab.trace(job).decode()
    second = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    settled(gitlab, manager)
    assert {row["state"] for row in manager.rows("SELECT state FROM leases")} == {"released"}
