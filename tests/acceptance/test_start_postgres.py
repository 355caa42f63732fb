"""PostgreSQL that is not there at the start, goes away in the middle, stands still, or holds another with our id."""

from __future__ import annotations

import signal
import time

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until
from tests.acceptance.test_signals import counted, counting, lines, stop_in_time


@pytest.fixture
def on_postgres(make_manager, postgres_server_url):
    """Makes managers on one database of a server that the test may stop."""

    def make(name="m", ttl="6s", **keywords):
        keywords["fleet_keys"] = f'manager_claim_ttl = "{ttl}"\n' + keywords.get("fleet_keys", "")
        return make_manager(name, database=postgres_server_url, **keywords)

    return make


def started(manager) -> None:
    manager.start()
    wait_until(lambda: manager.events("manager_started"), 60, "the start")


def said(manager, name: str):
    return wait_until(lambda: manager.events(name), 40, name)


def test_a_server_that_is_down_at_the_start_is_awaited_and_said_so(gitlab, on_postgres, postgres_server):
    postgres_server.stop()
    manager = on_postgres().start()
    wait_until(lambda: len(manager.events("database_unavailable")) >= 2, 40, "two tries")
    waits = [each["again_in_s"] for each in manager.events("database_unavailable")]
    assert waits[:2] == [1.0, 2.0]
    assert postgres_server.password not in manager.log()
    postgres_server.start()
    job = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    assert "Traceback" not in manager.log()


def test_a_server_that_goes_away_in_the_middle_stops_intake_alone_and_all_resumes(gitlab, on_postgres, postgres_server):
    manager = on_postgres(idle=1, idle_time="10m").start()
    job = gitlab.enqueue(counting(12))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    postgres_server.stop(immediate=True)
    said(manager, "claims_not_renewed")
    late = gitlab.enqueue(make_job(script=["true"]))
    time.sleep(8)  # longer than the claims hold: what is held up, is held up by now
    assert gitlab.job(late).state == "pending", "no job is taken that could not be kept"
    assert gitlab.job(job).state == "running", "its end cannot be kept, so it is not told"
    assert len(manager.machines()) == 2
    postgres_server.start()
    views = gitlab.wait_for(job, late, timeout=60)
    assert [(view.state, view.attempts) for view in views] == [("success", 1)] * 2
    assert counted(gitlab, job) == lines(12)
    assert "Traceback" not in manager.log()


@pytest.mark.parametrize("ttl", ["4s", "60s"])
def test_a_job_that_ends_while_the_database_is_away_is_reported_afterwards(gitlab, on_postgres, postgres_server, ttl):
    manager = on_postgres(ttl=ttl).start()
    job = gitlab.enqueue(counting(3))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    postgres_server.stop(immediate=True)
    wait_until(lambda: manager.events("work_postponed"), 40, "the missed end")
    postgres_server.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.exit_code, view.attempts) == ("success", 0, 1)
    assert counted(gitlab, job) == lines(3)


def test_a_manager_whose_database_stands_still_stops_at_once(gitlab, on_postgres, postgres_server):
    manager = on_postgres().start()
    job = gitlab.enqueue(counting(10))
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    postgres_server.pause()
    time.sleep(1)  # calls are in the air
    assert stop_in_time(manager, signal.SIGTERM) == 0
    postgres_server.resume()
    gitlab.manager_restarted()
    manager.start()
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.attempts) == ("success", 1)
    assert counted(gitlab, job) == lines(10)


def test_a_second_manager_with_the_id_of_one_that_lives_is_refused(gitlab, on_postgres):
    first = on_postgres("first")
    started(first)
    second = on_postgres("second", runner=first.runner, fleet_keys=f'secret_key_file = "{first.state}/secret.key"')
    (second.directory / ".runner_system_id").write_text((first.directory / ".runner_system_id").read_text())
    second.start()
    assert second.wait(40) == 1
    (told,) = second.events("manager_not_started")
    assert ".runner_system_id" in told["error"]
    assert str(second.directory) in told["error"]
    assert first.events("claims_lost") == [], "the one that lives has noticed nothing"
    job = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(job, timeout=40)
    assert view.state == "success"
    assert "hello" in output_lines(gitlab.trace(job))


def test_the_id_of_a_dead_manager_is_taken_once_its_claims_have_run_out(gitlab, on_postgres):
    first = on_postgres("first")
    started(first)
    first.kill()
    began = time.monotonic()
    first.start()  # our own last session: no waiting
    wait_until(lambda: len(first.events("manager_started")) == 2, 40, "the second start")
    assert first.events("id_watched") == []
    first.kill()
    (first.state / "session").unlink()  # as on another host that took the place of this one
    first.start()
    wait_until(lambda: len(first.events("manager_started")) == 3, 40, "the third start")
    assert len(first.events("id_watched")) == 1
    assert time.monotonic() - began < 60
