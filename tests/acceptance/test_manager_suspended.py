"""A manager that stood still for longer than its claims hold wakes up, takes its work up again and does no harm."""

from __future__ import annotations

import signal
import time

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.test_signals import counted, counting, lines

TTL = 'manager_claim_ttl = "2s"'


def stand_still(manager, seconds: float) -> None:
    manager.send(signal.SIGSTOP)
    time.sleep(seconds)
    manager.gitlab.manager_restarted()  # on PostgreSQL it goes on from what the rows say, as after a restart
    manager.send(signal.SIGCONT)


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgresql"])
def test_a_stopped_manager_recovers_its_claims_and_its_jobs(request, gitlab, make_manager, shared):
    database = request.getfixturevalue("empty_postgres_url") if shared else None
    manager = make_manager(idle=1, idle_time="10m", fleet_keys=TTL, database=database).start()
    job = gitlab.enqueue(counting(14))
    ends_meanwhile = gitlab.enqueue(counting(3))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    gitlab.wait_for_trace(ends_meanwhile, "line 3", timeout=60)
    wait_until(lambda: len(manager.machines()) == 2, 30, "the machines")
    machines = manager.machines()
    stand_still(manager, 7)
    if shared:
        wait_until(lambda: manager.events("claims_lost"), 20, "the word that the claims were lost")
    late = gitlab.enqueue(make_job(script=["true"]))
    views = gitlab.wait_for(job, ends_meanwhile, late, timeout=60)
    assert [(view.state, view.attempts) for view in views] == [("success", 1)] * 3
    assert counted(gitlab, job) == lines(14)
    assert counted(gitlab, ends_meanwhile) == lines(3)
    assert set(machines) <= set(manager.machines())
    assert "Traceback" not in manager.log()


def test_on_sqlite_nobody_can_have_taken_anything_so_nothing_is_lost(gitlab, make_manager):
    manager = make_manager(fleet_keys=TTL).start()
    job = gitlab.enqueue(counting(10))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    epochs = "SELECT epoch FROM jobs"
    before = manager.rows(epochs)
    stand_still(manager, 5)
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    assert manager.events("claims_lost") == []
    assert manager.rows(epochs) == before
