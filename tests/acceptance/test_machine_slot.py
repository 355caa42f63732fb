"""Law 7: a slot is free when its machine is clean, whether or not GitLab can be told; and not before."""

from __future__ import annotations

from fleet.demo.payload import make_job
from tests.acceptance.given_host import GivenHost, static_pool
from tests.acceptance.manager import wait_until
from tests.acceptance.reasons import in_state, journal, started
from tests.acceptance.standing import settled

LEASES = "SELECT state FROM leases ORDER BY granted_at"


def lease_states(manager) -> list[str]:
    return [row["state"] for row in manager.rows(LEASES)]


def test_law_7_a_gitlab_that_is_away_pins_no_machine(gitlab, make_manager):
    manager = started(make_manager(machines=1, idle_time="1s"))
    job = gitlab.enqueue(make_job(script=["echo begun", "sleep 3", "echo ended"]))
    gitlab.wait_for_trace(job, "begun", timeout=60)
    gitlab.outage()
    wait_until(lambda: lease_states(manager) == ["released"], 60, "the release of the slot")
    wait_until(lambda: in_state(manager) == [] and manager.machines() == [], 60, "the end of the machine")
    assert gitlab.job(job).state == "running", "GitLab could not be told"
    gitlab.end_outage()
    (view,) = gitlab.wait_for(job, timeout=90)
    assert (view.state, view.attempts) == ("success", 1)
    assert b"ended" in gitlab.trace(job)
    settled(gitlab, manager)


def test_law_7_a_given_host_that_cannot_be_cleaned_gets_no_job_until_it_is_clean(gitlab, make_manager, tmp_path):
    with GivenHost(tmp_path / "host") as host:
        pool = static_pool(host.entry(), capacity=2, fleet_keys='cleaning_timeout = "2s"')
        manager = started(make_manager(pool=pool))
        tombstones = host.home / ".fleet-agent" / "tombstones"
        job = gitlab.enqueue(make_job(script=["echo begun", "sleep 2"]))
        gitlab.wait_for_trace(job, "begun", timeout=60)
        moved = tombstones.with_name("moved")
        if tombstones.exists():
            tombstones.rename(moved)
        tombstones.write_text("in the way")
        (view,) = gitlab.wait_for(job, timeout=60)
        assert view.state == "success", "the job is over, whatever becomes of its machine"
        assert "could not be cleaned" in wait_until(lambda: journal(manager, "unhealthy"), 60)[0]
        second = gitlab.enqueue(make_job(script=["echo hello"]))
        wait_until(lambda: manager.events("clean_failed"), 30, "another try")
        wait_until(lambda: len(manager.events("clean_failed")) > 3, 60, "more tries")
        assert lease_states(manager) == ["cleaning"]
        assert b"hello" not in gitlab.trace(second)
        tombstones.unlink()
        if moved.exists():
            moved.rename(tombstones)
        (view,) = gitlab.wait_for(second, timeout=60)
        assert view.state == "success"
        assert lease_states(manager)[0] == "released"
        settled(gitlab, manager)
