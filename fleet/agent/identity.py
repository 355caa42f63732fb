"""As whom a job runs: the user, the groups, the environment that belongs to a login.

Rule: rights are dropped in a child, before the first path of the job is touched, and never come back.
"""

from __future__ import annotations

import os
import pwd

from . import system
from .errors import Refused

JOB_UMASK = 0o022


class Identity:
    """A user of the machine, and whether a process must drop rights to become it."""

    def __init__(self, uid: int, gid: int, name: str, home: str, shell: str, *, drops: bool) -> None:
        self.uid = uid
        self.gid = gid
        self.name = name
        self.home = home
        self.shell = shell
        self.drops = drops

    def become(self) -> None:
        """Drop to this user, for good."""
        if self.drops:
            os.initgroups(self.name, self.gid)
            os.setgid(self.gid)
            os.setuid(self.uid)
        os.umask(JOB_UMASK)

    def environment(self) -> dict:
        """What a login of this user would set."""
        own_path = os.environ.get("PATH") if not self.drops else None
        return {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": self.shell,
            "PATH": own_path or system.STANDARD_PATH,
        }


def own() -> Identity:
    """The user that the agent runs as; HOME may differ from the account's, where a machine is a process."""
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, os.getegid(), str(uid), os.environ.get("HOME", "/"), "/bin/sh", drops=False)
    home = os.environ.get("HOME") or entry.pw_dir
    return Identity(uid, entry.pw_gid, entry.pw_name, home, entry.pw_shell or "/bin/sh", drops=False)


def look_up(name: str | None) -> Identity:
    """The user of this name; none: the agent's own."""
    mine = own()
    if name is None or name == mine.name:
        return mine
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError) as exc:
        raise Refused("no_user", "there is no user %r on this machine: create it, or set `user`" % name) from exc
    return Identity(entry.pw_uid, entry.pw_gid, name, entry.pw_dir, entry.pw_shell or "/bin/sh", drops=True)


def of(name: str | None) -> Identity:
    """The user that a job is to run as, if the agent may become it."""
    who = look_up(name)
    if who.drops and os.geteuid() != 0:
        message = "the agent is not root and cannot run jobs as %s: let it log in as root, or drop `user`" % who.name
        raise Refused("not_root", message)
    return who
