"""How the stages of a job are run: here, in shells on the machine, as the job's user. The other way is containers.

Rule: a manner prepares, starts the child of a stage, judges how it ended, and puts in order; waiting, the stage matrix
and the log are the supervisor's.
"""

from __future__ import annotations

import os

from . import jobfiles, shells, stages, system
from .children import Child, Launcher
from .identity import Identity
from .leases import Lease
from .running import Running
from .stages import Ending
from .trace import Trace

PREPARING = {"kind": stages.PREPARE, "name": "prepare"}


class ShellManner:
    """Stages are shells of the job's user."""

    def __init__(self, job: dict, lease: Lease, identity: Identity, launcher: Launcher, running: Running) -> None:
        self._job = job
        self._lease = lease
        self._identity = identity
        self._launcher = launcher
        self._running = running

    def prepare(self) -> Ending:
        """Make the job's folders and files."""
        folder = self._job["cwd"]
        directories = self._job.get("directories") or []
        caches = [stage["transfer"].get("folder") for stage in self._job["stages"] if stage.get("transfer")]
        for path in [folder, *(directory["path"] for directory in directories), *filter(None, caches)]:
            try:
                jobfiles.grant_folder(path, self._identity)
            except OSError:  # the user's own attempt tells what is wrong
                continue
        files = self._job.get("files") or []
        child = self._launcher.function(lambda: jobfiles.prepare(folder, directories, files))
        return self._running.wait_for(child, PREPARING)

    def start(self, stage: dict, script: str, environment: dict, extra: tuple) -> Child:  # noqa: ARG002  one shape
        """Start a script of a stage; `environment` is what the supervisor says of the stage."""
        arguments = shells.reading(self._job["shell"], login=bool(self._job.get("login")))
        own = {**self._identity.environment(), **(self._job.get("environment") or {}), **environment}
        number = system.nameless_file(encoded(script), self._lease.folder)
        try:
            return self._launcher.shell(arguments, number, own, self._job["cwd"], extra)
        finally:
            os.close(number)

    def enter(self, stage: dict):  # noqa: ARG002  one shape
        """In a forked child: go where a transfer of this stage finds the job's files; or a tree of them."""
        return None  # noqa: RET501  other manners have one

    def judge(self, stage: dict, ending: Ending) -> Ending:  # noqa: ARG002  one shape
        """How a stage really ended."""
        return ending

    def repeats(self, stage: dict, ending: Ending) -> bool:  # noqa: ARG002  one shape
        """Whether the stage is to be run again, because what it ran in has gone."""
        return False

    def open_shell(self, slave: int, environment: dict) -> Child:
        """Start a shell of the job on an open terminal; Refused when there can be none now."""
        about = self._job.get("terminal") or {}
        own = {**self._identity.environment(), **(self._job.get("environment") or {}), **environment}
        own["PWD"] = self._job["cwd"]
        number = system.nameless_file(encoded(about.get("program") or ""), self._lease.folder)
        words = shells.on_terminal(self._job["shell"])
        try:
            return self._launcher.on_terminal(words, number, own, self._job["cwd"], slave)
        finally:
            os.close(number)

    def keep(self, seconds: float) -> None:
        """The scripts are over, and a terminal is open: what its shell runs in is to stay for so long."""

    def end_shell(self, name: str) -> None:
        """A terminal is closed: end what of it is not below the supervisor."""

    def remove(self, paths: list) -> Child:
        """Start to remove files of the job."""
        return self._launcher.function(lambda: jobfiles.remove_all(paths))

    def finish(self) -> bool:
        """The job is over; False when something is left that `clean` has to see to."""
        return True


def manner_of(  # noqa: PLR0917  they are the parts of a supervisor
    job: dict, lease: Lease, identity: Identity, launcher: Launcher, running: Running, trace: Trace
) -> ShellManner:
    """The manner that the job file asks for."""
    if not job.get("containers"):
        return ShellManner(job, lease, identity, launcher, running)
    from .docker.manner import ContainerManner  # noqa: PLC0415  shell jobs start sooner without it

    return ContainerManner(job, lease, identity, launcher, running, trace)


def encoded(script: str) -> bytes:
    """A script as bytes; what cannot be written as UTF-8 is replaced."""
    try:
        return script.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return script.encode("utf-8", "replace")
