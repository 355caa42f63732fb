"""What `tidy` may remove of a container engine: cache volumes, images that jobs used, and what is of no use.

Rule: nothing is forced. The engine itself refuses to remove a volume or an image that any container refers to, also
one of another agent or of a person; and only images that a job used on this machine are ever removed, because the
others were put there by somebody who wants them. A stopped container goes when its job is over by this agent's own
word. Engines on other hosts are left alone: their disks are not ours.
"""

from __future__ import annotations

import os
import subprocess

from . import identity, system, uses
from .errors import Refused
from .home import Home
from .leases import Lease
from .uses import IMAGE, VOLUME, Thing

CALL_S = 300.0
QUICK_S = 30.0
MANAGED = "com.gitlab.gitlab-runner.managed=true"
REUSABLE = "com.gitlab.gitlab-runner.reusable=true"
LEASE_LABEL = "fleet.lease"
CONTAINERS, LAYERS = "container", "layer"
ABSENT = ("no such image", "no such volume", "image not known", "no such object", "not found")
OVER = frozenset({"exited", "lost", "cleaned"})


class Engine:
    """One engine, by its command line."""

    def __init__(self, said: dict) -> None:
        self._program = said.get("program") or "docker"
        self._host = said.get("host")
        self._said = said
        self.problem = ""
        self.was_there = True
        self.root = self._find_root()

    def _call(self, *arguments: str, timeout_s: float = CALL_S) -> tuple:
        """(whether it went well, what it printed)."""
        environment = {**os.environ, **identity.own().environment(), "LC_ALL": "C"}
        if self._host:
            environment["DOCKER_HOST"] = self._host
            environment["CONTAINER_HOST"] = self._host
        program = system.find_program(self._program, environment["PATH"])
        if program is None:
            return False, "there is no %s" % self._program
        try:
            done = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            return False, str(exc)
        return done.returncode == 0, done.stdout.decode("utf-8", "replace").strip()

    def _find_root(self) -> str:
        """Where it keeps its data; nothing when it is not there, or not on this machine."""
        if self._host and not self._host.startswith("unix://"):
            return ""
        name = os.path.basename(self._program)
        field = "{{.Store.GraphRoot}}" if name.startswith("podman") else "{{.DockerRootDir}}"
        good, text = self._call("info", "--format", field, timeout_s=QUICK_S)
        path = text.splitlines()[-1] if text else ""
        return path if good and os.path.isdir(path) else ""

    def things(self, records: list, *, images: bool) -> list:
        """(last use, thing) of all that could be removed."""
        used_at = {thing.key: when for when, thing in records}
        good, text = self._call("volume", "ls", "-q", "--filter", "label=" + MANAGED, "--filter", "label=" + REUSABLE)
        found = [Thing(VOLUME, name, engine=self._said) for name in text.splitlines()] if good else []
        if images:
            worn = {uses.full_name(name) for name in self._call("ps", "-a", "--format", "{{.Image}}")[1].split()}
            mine = (thing for _, thing in records if thing.kind == IMAGE and thing.engine == self._said)
            found += [thing for thing in mine if thing.name not in worn]
        return [(used_at.get(thing.key, 0.0), thing) for thing in found]

    def remove(self, thing: Thing) -> bool:
        """Remove a volume or an image; False when it is still there. `was_there` and `problem` tell more."""
        self.problem = ""
        kind = "image" if thing.kind == IMAGE else "volume"
        good, text = self._call(kind, "rm", thing.name)
        self.was_there = not any(word in text.lower() for word in ABSENT)
        if good or not self.was_there:
            return True
        if "in use" not in text and "is using" not in text and "being used" not in text:
            self.problem = text
        return False

    def sweep(self, home: Home):
        """Remove stopped containers of jobs that are over, then layers that no image has; yields (kind, how many)."""
        count = sum(self._call("rm", "-v", name)[0] for name in self._stopped(home))
        if count:
            yield CONTAINERS, count
        good, text = self._call("image", "ls", "-q", "--filter", "dangling=true")
        layers = len(text.split()) if good else 0
        if layers and self._call("image", "prune", "-f")[0]:
            yield LAYERS, layers

    def _stopped(self, home: Home) -> list:
        states = [word for state in ("exited", "created") for word in ("--filter", "status=" + state)]
        shown = '{{.ID}} {{.Label "%s"}}' % LEASE_LABEL
        good, text = self._call("ps", "-a", "--filter", "label=" + MANAGED, *states, "--format", shown)
        lines = [line.split() for line in text.splitlines()] if good else []
        return [words[0] for words in lines if len(words) == 2 and _is_over(home, words[1])]


def _is_over(home: Home, name: str) -> bool:
    try:
        lease = Lease(home, name)
    except Refused:
        return False
    return lease.view().state in OVER


def engines(records: list) -> list:
    """The engines that jobs on this machine used."""
    said = {}
    for _, thing in records:
        if thing.kind in {VOLUME, IMAGE}:
            said[str(sorted(thing.engine.items(), key=str))] = thing.engine
    return [Engine(each) for each in said.values()]
