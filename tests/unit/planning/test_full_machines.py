"""A machine without room on its disks gets no job, and nothing else happens to it."""

from __future__ import annotations

from fleet.model.plan import Because
from fleet.planning.planner import plan

from .rows import created, ids, instance, jobs, pool

FULL = "only 3 MiB are free in /home/ci, less than disk_reserve (256 MiB)"


def test_a_full_machine_gets_no_job_and_another_is_made():
    made = plan(pool(instance("full", no_room=FULL), waiting=jobs(1)))
    assert made.assigns == ()
    assert created(made) == 1


def test_a_full_machine_is_neither_drained_nor_deleted():
    made = plan(pool(instance("full", no_room=FULL), waiting=jobs(1)))
    assert made.drains == ()
    assert made.deletes == ()


def test_with_room_again_it_gets_the_job():
    assert ids(plan(pool(instance("roomy"), waiting=jobs(1))).assigns) == ["roomy"]


def test_a_job_that_waits_for_a_full_given_machine_is_told_so():
    made = plan(pool(instance("full", no_room=FULL), waiting=jobs(1), fixed_inventory=True))
    (wait,) = made.waits
    assert wait.slug is Because.NO_FREE_SLOT
    assert "1 machine with too full a disk" in wait.reason


def test_no_job_is_asked_for_on_a_full_machine():
    assert plan(pool(instance("full", no_room=FULL), fixed_inventory=True)).ask_limit == 0
    assert plan(pool(instance("roomy"), fixed_inventory=True)).ask_limit == 1
