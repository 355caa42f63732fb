"""Removes everything of a job from the engine, found by its label.

Rule: it may be done again and again, by the job's supervisor at its end or by `clean` when the supervisor was killed;
what is absent is fine. It looks until it finds nothing, because an engine may still make what a killed program asked
for.
"""

from __future__ import annotations

import os
import time

from .. import jobfiles
from ..home import read_json
from .confine import Confinement, Place
from .engine import Engine, Failed
from .preparing import HOST, RESULT
from .socket import remove

WITHIN_S = 240.0


def sweep(engine: Engine, within_s: float = WITHIN_S) -> str:
    """Remove the job's containers, networks and temporary volumes; empty, or what could not be removed."""
    if engine.found is None:
        return ""  # nothing was ever made here
    give_up_at = time.monotonic() + within_s
    problem = ""
    clear_looks = 0
    while clear_looks < 2:
        try:
            left, problem = _pass(engine)
        except Failed as exc:
            left, problem = True, exc.message
        clear_looks = 0 if left else clear_looks + 1
        if left and time.monotonic() > give_up_at:
            return problem or "some containers of the job cannot be removed"
        if left and problem:
            time.sleep(1.0)
    return ""


def remove_known(engine: Engine, section: dict, *, has_helper: bool) -> bool:
    """At a job's own end: everything that its job file names, without a look around; False: better `sweep`."""
    specs = [section["image"], *(section.get("services") or []), *([section["helper"]] if has_helper else [])]
    volumes = [volume["name"] for volume in section.get("volumes") or [] if not volume.get("keep")]
    if engine.socket is not None:
        things = [("container", spec["container"]) for spec in specs]
        things += [("network", section["network"]["name"])] if section.get("network") else []
        things += [("volume", name) for name in volumes]
        done = [remove(engine.socket, kind, name) for kind, name in things]  # each is tried
        return all(done)
    # one that is absent makes some engines remove none, so only what is all there counts as done
    is_gone = engine.ask("rm", "--force", "--volumes", *(spec["container"] for spec in specs)).is_good
    if section.get("network"):
        is_gone = engine.ask("network", "rm", section["network"]["name"]).is_good and is_gone
    if volumes:
        is_gone = engine.ask("volume", "rm", "--force", *volumes).is_good and is_gone
    return is_gone


def remove_files(engine: Engine, folder: str, paths: list) -> bool:
    """After a supervisor that was killed: remove these files of the job from volumes that stay; whether that is done.

    A job may have put links anywhere in its volumes, so it is done where a helper stage would run, never by a path of
    the host.
    """
    made = read_json(os.path.join(folder, RESULT))
    if not paths or "helper" not in made:
        return True  # nothing was written yet
    if made["helper"] != HOST:
        mounts = [word for mount in made["lasting"] for word in ("--volume", mount)]
        words = ("run", "--rm", "--user", "0", "--network", "none", *mounts, "--entrypoint", "rm")
        return engine.ask(*words, made["helper_image"], "-rf", "--", *paths).is_good
    places = [Place(path, source) for path, source in made["places"] if os.path.isdir(source)]
    paths = [path for path in paths if any(path.startswith(place.path + "/") for place in places)]
    if not paths:
        return True  # they went with the job's own volumes
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == 0
    code = 1
    try:
        Confinement(folder, places).enter()
        jobfiles.remove_all(paths)
        code = 0
    finally:
        os._exit(code)


def _pass(engine: Engine) -> tuple:
    """One look at everything; whether there was something, and what went wrong."""
    mark = "label=" + engine.label
    containers = _listed(engine, "ps", "--all", "--quiet", "--no-trunc", "--filter", mark)
    problem = ""
    if containers:
        answer = engine.ask("rm", "--force", "--volumes", *containers)
        problem = "" if answer.is_good or answer.is_absent else answer.complaint()
    networks = _listed(engine, "network", "ls", "--quiet", "--filter", mark)
    volumes = _listed(engine, "volume", "ls", "--quiet", "--filter", mark)
    for kind, names in (("network", networks), ("volume", volumes)):
        for name in names:
            answer = engine.ask(kind, "rm", name)
            if not answer.is_good and not answer.is_absent:
                problem = answer.complaint()
    return bool(containers or networks or volumes), problem


def _listed(engine: Engine, *words: str) -> list:
    return engine.must(*words, what="the job's containers cannot be listed").split()
