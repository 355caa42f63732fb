"""Which control groups a job gets is read from the mounts."""

from __future__ import annotations

import pathlib

from fleet.agent.cgroup import JobGroup, mounts, sweep

UNIFIED = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
HYBRID = (
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    "cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n"
    "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n"
)
LEGACY = (
    "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
    "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    "cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0\n"
)


def test_a_job_s_group_is_in_the_unified_hierarchy_where_there_is_one() -> None:
    assert mounts(UNIFIED) == ["/sys/fs/cgroup"]
    assert mounts(HYBRID) == ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"]


def test_of_the_old_hierarchies_one_that_limits_nothing_is_taken() -> None:
    assert mounts(LEGACY) == ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup/systemd"]


def test_without_hierarchies_or_without_root_there_is_no_group() -> None:
    assert mounts("tmpfs /tmp tmpfs rw 0 0\n") == []
    assert JobGroup("x", is_root=False, mount_text=UNIFIED).path is None


def test_a_group_that_cannot_be_made_is_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fleet").write_text("")
    group = JobGroup("x", is_root=True, mount_text=f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    group.make()
    group.join()
    assert group.path is None
    assert group.members() == []
    assert group.remove(0.1)


def test_empty_groups_are_swept_away_and_others_stay(tmp_path: pathlib.Path) -> None:
    for name in ("empty", "busy/inner"):
        (tmp_path / "fleet" / name).mkdir(parents=True)
    (tmp_path / "fleet" / "cgroup.procs").write_text("")
    sweep(is_root=True, mount_text=f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    assert sorted(path.name for path in (tmp_path / "fleet").iterdir()) == ["busy", "cgroup.procs"]
