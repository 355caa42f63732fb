"""The disk of a machine's jobs fills up: what was used least lately goes, and jobs go on."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.manager import wait_until

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path) -> Iterator[pathlib.Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=0755", "none", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def free(disk: pathlib.Path) -> int:
    room = os.statvfs(disk)
    return room.f_bavail * room.f_frsize


def project_job(project: str, script: list[str]) -> dict:
    job = make_job(script=script)
    job["job_info"] |= {"project_full_path": f"group/{project}"}
    job["git_info"] |= {"repo_url": job["git_info"]["repo_url"]}
    return job


def test_projects_used_least_lately_make_room_and_the_story_is_told(gitlab, make_manager, disk):
    manager = make_manager(
        machines=1,
        idle=1,
        runner_keys=f'builds_dir = "{disk}/builds"',
        pool_keys='fleet = { disk_low_watermark = "14 MiB", disk_high_watermark = "22 MiB", disk_reserve = "2 MiB" }',
    )
    manager.start()
    for project in ("one", "two"):
        job = gitlab.enqueue(project_job(project, ["head -c 14M /dev/zero >left"]))
        (view,) = gitlab.wait_for(job, timeout=60)
        assert view.state == "success"
    (tidied,) = wait_until(lambda: manager.events("machine_tidied"), 30, "the tidying")
    assert tidied["removed"] == {"build": 1}
    assert free(disk) >= 22 * MIB
    left = {path.parent.name for path in disk.rglob("left")}
    assert left == {"two"}
    job = gitlab.enqueue(project_job("one", ["test ! -e left"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    (line,) = manager.rows("SELECT * FROM journal WHERE stimulus = 'tidied'")
    assert "project directories: 1" in line["reason"]
    assert manager.events("machine_full") == []
