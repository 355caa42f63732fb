"""A control group per job, where the agent is root and the machine has them: no process can leave it unseen.

Rule: every step may fail without harm, because the supervisor also finds what a job left by its parent (see
`leftovers.py`). Moving the supervisor out of its session's group is what keeps it alive when systemd ends that session:
the same effect as a transient scope, without a call over D-Bus for each job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from . import system

PARENT = "fleet"
SUPERVISORS = "supervisors"
PREFERRED_V1 = ("pids", "freezer", "memory")


def mounts(text: str) -> list:
    """Mount points where a job's group is made (cgroup2, else one of version 1), then where systemd keeps sessions."""
    version2, version1 = [], {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[2] == "cgroup2":
            version2.append(fields[1])
        elif len(fields) > 3 and fields[2] == "cgroup":
            version1.update((option, fields[1]) for option in fields[3].split(","))
    sessions = [version1["name=systemd"]] if "name=systemd" in version1 else []
    if version2:
        return version2[:1] + sessions
    jobs = [version1[name] for name in PREFERRED_V1 if name in version1][:1]
    return jobs + [place for place in sessions if jobs]


class JobGroup:
    """The control group of one lease; absent (`path` None) where there can be none."""

    def __init__(self, lease: str, *, is_root: bool, mount_text: str | None = None) -> None:
        text = system.read_text("/proc/self/mounts") if mount_text is None else mount_text
        self._mounts = mounts(text) if is_root else []
        self.path = os.path.join(self._mounts[0], PARENT, lease) if self._mounts else None

    def make(self) -> None:
        """Make the group; without one the job runs all the same."""
        if self.path is None:
            return
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError:
            self.path = None

    def leave_session(self) -> None:
        """Move the calling process out of the session that it was started from."""
        for mount in self._mounts:
            place = os.path.join(mount, PARENT, SUPERVISORS)
            try:
                os.makedirs(place, exist_ok=True)
                _write(os.path.join(place, "cgroup.procs"), b"0")
            except OSError:
                continue

    def join(self) -> None:
        """Move the calling process into the group."""
        self.make()  # between two stages it is empty, and may have been swept away
        if self.path is not None:
            try:
                _write(os.path.join(self.path, "cgroup.procs"), b"0")
            except OSError:
                return

    def members(self) -> list:
        """The processes in the group and in groups below it."""
        found = []
        for folder in self._folders():
            found += [int(word) for word in system.read_text(os.path.join(folder, "cgroup.procs")).split()]
        return found

    def remove(self, within_s: float) -> bool:
        """End every process in the group and remove it; False when something outlived that."""
        give_up_at = time.monotonic() + within_s
        while self.path is not None and os.path.isdir(self.path):
            for pid in self.members():
                system.send(pid, signal.SIGKILL)
            if self._remove_folders():
                break
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.002)
        return True

    def _folders(self) -> list:
        """The group's folders, the innermost first."""
        return [folder for folder, _, _ in os.walk(self.path, topdown=False)] if self.path else []

    def _remove_folders(self) -> bool:
        try:
            for folder in self._folders():
                os.rmdir(folder)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def sweep(*, is_root: bool, mount_text: str | None = None) -> None:
    """Remove groups that are empty: of jobs whose agent was taken away, home and all, before it could clean."""
    text = system.read_text("/proc/self/mounts") if mount_text is None else mount_text
    for mount in mounts(text)[:1] if is_root else []:
        parent = os.path.join(mount, PARENT)
        for name in os.listdir(parent) if os.path.isdir(parent) else []:
            with contextlib.suppress(OSError):  # not empty, or a file of the kernel's
                os.rmdir(os.path.join(parent, name))


def _write(path: str, data: bytes) -> None:
    number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, data)
    finally:
        os.close(number)
