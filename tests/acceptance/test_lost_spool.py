"""The spool is lost while the manager is down: the machine's log makes it anew, or one line tells of the loss."""

from __future__ import annotations

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until


def lose_spool(manager):
    files = list((manager.state / "spool").glob("*.trace"))
    assert files
    for file in files:
        file.unlink()


def test_a_running_jobs_trace_is_made_anew_from_its_machine(gitlab, make_manager):
    manager = make_manager().start()
    job = gitlab.enqueue(make_job(script=["for i in $(seq 1 50); do echo line $i; sleep 0.1; done"]))
    gitlab.wait_for_trace(job, "line 10", timeout=60)
    manager.kill()
    lose_spool(manager)
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.exit_code) == ("success", 0)
    lines = [line for line in output_lines(gitlab.trace(job)) if line.startswith("line ")]
    assert lines == [f"line {n}" for n in range(1, 51)]


def test_a_log_that_is_gone_for_good_is_told_and_the_end_is_still_reported(gitlab, make_manager):
    manager = make_manager().start()
    fault = gitlab.add_fault("status", "final", status=503, count=None)
    job = gitlab.enqueue(make_job(script=["echo begun", "exit 3"]))
    released = "SELECT 1 FROM leases WHERE state = 'released'"
    wait_until(lambda: gitlab.fault_struck(fault) and manager.rows(released), 60, "the clean machine")
    manager.kill()
    lose_spool(manager)
    before = gitlab.trace(job)
    manager.start()
    wait_until(lambda: len(gitlab.trace(job)) > len(before), 60, "the line that tells")
    gitlab.lift_fault(fault)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason, view.exit_code) == ("failed", "script_failure", 3)
    trace = gitlab.trace(job)
    assert trace.startswith(before)
    added = output_lines(trace[len(before) :])
    assert added[0] == "The rest of this log was lost together with its machine."
    assert added[-1].startswith("ERROR: Job failed")
