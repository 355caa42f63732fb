"""The clock is set by an hour, either way, while machines wait and jobs run: nothing ends before its time."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from fleet.demo.payload import make_job
from tests import postgres
from tests.acceptance.manager import wait_until
from tests.acceptance.test_signals import counted, counting, lines

HOUR = 3600
LIBRARY = "faketime/libfaketimeMT.so.1"
# the library answers EINVAL to the absolute clock_nanosleep that is Python's sleep, and leaves select alone
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


def faked(clock: pathlib.Path) -> dict[str, str]:
    """The environment of a program whose wall clock is ahead by the seconds in the file; the monotonic one is real."""
    library = next(pathlib.Path("/usr/lib").glob(f"*/{LIBRARY}"), None)
    assert library is not None, "install Debian's faketime"
    clock.write_text("+0\n")
    clock.chmod(0o644)
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def faked_manager(manager, clock: pathlib.Path) -> None:
    (clock.parent / "python").mkdir()
    (clock.parent / "python" / "sitecustomize.py").write_text(SLEEP)
    manager.environment = {**faked(clock), "PYTHONPATH": str(clock.parent / "python")}


def living(manager) -> list[str]:
    return [row["instance_id"] for row in manager.rows("SELECT instance_id FROM instances WHERE state = 'ready'")]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_managers_clock_is_set_by_an_hour(gitlab, make_manager, tmp_path, step):
    manager = make_manager(idle=1, idle_time="5m", machines=3)
    clock = tmp_path / "clock"
    faked_manager(manager, clock)
    manager.start()
    job = gitlab.enqueue(counting(10) | {"runner_info": {"timeout": 600, "uuid": "r"}})
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    second = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(second, timeout=30)
    wait_until(lambda: len(living(manager)) == 3, 30, "the idle machines")
    before = living(manager)
    clock.write_text(f"{step:+d}\n")
    told = wait_until(lambda: manager.events("clock_stepped"), 20, "the word that the clock was set")
    assert abs(told[0]["by_s"] - step) < 30
    third = gitlab.enqueue(make_job(script=["true"]))
    views = gitlab.wait_for(job, third, timeout=40)
    assert [(view.state, view.attempts) for view in views] == [("success", 1)] * 2
    assert counted(gitlab, job) == lines(10)
    assert living(manager) == before, "no machine was idle for an hour, and none is missing"
    assert manager.events("claims_lost") == []
    clock.write_text("+0\n")
    wait_until(lambda: len(manager.events("clock_stepped")) == 2, 20, "the step back")
    manager.kill()
    manager.start()  # its time does not go back before what the store has seen
    last = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(last, timeout=40)
    assert view.state == "success"
    assert living(manager) == before


def test_a_policy_follows_the_calendar_of_people_after_the_clock_was_set(gitlab, make_manager, tmp_path):
    """A host that starts with a wrong clock, as one without a battery does, and gets the right one afterwards."""
    manager = make_manager(idle_time="0s", machines=3)
    text = manager.config.read_text()
    policy = '[[runners.autoscaler.policy]]\nidle_count = 2\nperiods = ["{} * * * *"]\ntimezone = "UTC"\n'
    clock = tmp_path / "clock"
    faked_manager(manager, clock)
    minute = int(subprocess.run(["date", "-u", "+%M"], capture_output=True, text=True, check=True).stdout)
    later = (minute + 30) % 60
    manager.write(text + policy.format(",".join(str((later + each) % 60) for each in range(-5, 6))))
    manager.start()
    wait_until(lambda: manager.events("manager_started"), 40, "the start")
    job = gitlab.enqueue(make_job(script=["true"]))
    gitlab.wait_for(job, timeout=30)
    wait_until(lambda: living(manager) == [], 20, "an empty pool: the policy does not hold yet")
    clock.write_text("+1800\n")
    wait_until(lambda: len(living(manager)) == 2, 30, "the machines that the policy wants at this hour")


class SettableCluster(postgres.Cluster):
    """A server whose clock can be set."""

    def _run(self, program, *arguments, preexec=None):
        clock = self.home / "clock"
        who = postgres._unprivileged()
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [str(postgres.binaries() / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **faked(clock)},
                start_new_session=True,
                user=None if who is None else who.pw_uid,
                group=None if who is None else who.pw_gid,
                extra_groups=None if who is None else [],
                preexec_fn=preexec,  # noqa: PLW1509  as in tests.postgres
            )

    def set_clock(self, ahead_s: int) -> None:
        (self.home / "clock").write_text(f"{ahead_s:+d}\n")


@pytest.fixture
def settable() -> Iterator[SettableCluster]:
    cluster = SettableCluster.create()
    with contextlib.ExitStack() as undo:
        undo.callback(cluster.discard)
        cluster.start()
        yield cluster


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_database_servers_clock_is_set_by_an_hour(gitlab, make_manager, settable, step):
    url = settable.url("postgres")
    manager = make_manager(idle=1, idle_time="5m", machines=2, database=url).start()
    job = gitlab.enqueue(counting(10) | {"runner_info": {"timeout": 600, "uuid": "r"}})
    gitlab.wait_for_trace(job, "line 3", timeout=60)
    wait_until(lambda: len(manager.machines()) == 2, 30, "the idle machine")
    settable.set_clock(step)
    wait_until(lambda: manager.events("clock_stepped"), 20, "the word that the clock was set")
    (view,) = gitlab.wait_for(job, timeout=40)
    assert (view.state, view.attempts) == ("success", 1)
    assert counted(gitlab, job) == lines(10)
    later = gitlab.enqueue(make_job(script=["true"]))
    (view,) = gitlab.wait_for(later, timeout=40)
    assert view.state == "success"
    assert len(manager.machines()) == 2
    states = "SELECT state, count(*) FROM instances GROUP BY state"
    with postgres.psycopg.connect(url) as connection:
        assert connection.execute(states).fetchall() == [("ready", 2)]
        (aged,) = connection.execute(
            "SELECT max(abs(extract(epoch from clock_timestamp()) - idle_since)) FROM instances"
        ).fetchone()
    assert aged < 120, "no machine seems to have been idle for an hour"
