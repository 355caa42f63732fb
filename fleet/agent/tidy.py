"""Makes room on a machine that lives long: what was used least lately goes first, between two watermarks.

A disk with less room than the low mark gets things removed until it has as much as the high one. Things are project
directories, local cache archives, and what `tidy_engine` finds of a container engine; all kinds on a disk stand in one
queue by their last use, and none that a running job holds is touched (`uses`).

A directory is renamed while nobody can begin to use it, and removed after that, as the user whose it is: so a job that
starts meanwhile waits for a rename at most, and finds no directory rather than half of one. What a killed `tidy` left
renamed is removed by the next. Empty folders above a directory stay: another job may be about to use them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import time

from . import identity, jobfiles, room, system, tidy_engine, uses
from .children import describe
from .errors import Refused
from .home import Home
from .uses import BUILD, CACHE, Thing

GONE = ".fleet-gone"
TMP = ".tmp"
SHARE_OF_TIME = 0.9
MOST_PROBLEMS = 3
TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,20}\Z")
DEEPEST = 12


class Report:
    """What was removed, by kind, and what could not be."""

    def __init__(self) -> None:
        self.removed = {}
        self.freed_bytes = {}
        self.problems = []

    def note(self, kind: str, freed_bytes: int, count: int = 1) -> None:
        """Something is gone."""
        self.removed[kind] = self.removed.get(kind, 0) + count
        self.freed_bytes[kind] = self.freed_bytes.get(kind, 0) + max(0, freed_bytes)

    def fail(self, what: str) -> None:
        """Something is still there."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(what[:300])


def tidy(home: Home, request: dict) -> dict:
    """Make room; the fields of the reply."""
    until = time.monotonic() + float(request["timeout_s"]) * SHARE_OF_TIME
    low, high = room.Mark(request["low"]), room.Mark(request["high"])
    number = os.open(home.uses, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise Refused("failed", "this machine is being tidied already") from None
    system.be_humble()
    report = Report()
    try:
        _Round(home, report, low, high, until, prunes_images=bool(request.get("prune_images"))).run()
    finally:
        os.close(number)
    return {
        "removed": report.removed,
        "freed_bytes": report.freed_bytes,
        "problems": report.problems,
        "disks": room.disks(home),
    }


class _Round:
    """One tidying."""

    def __init__(
        self, home: Home, report: Report, low: room.Mark, high: room.Mark, until: float, *, prunes_images: bool
    ) -> None:
        self._home = home
        self._report = report
        self._low = low
        self._high = high
        self._until = until
        self._prunes_images = prunes_images

    def run(self) -> None:
        records = uses.known(self._home)
        self._finish_removals(records)
        queue = [(used_at, thing, thing.root, None) for used_at, thing in records if thing.kind in {BUILD, CACHE}]
        queue += [(0.0, thing, thing.root, None) for thing in unrecorded_builds(records)]
        for engine in tidy_engine.engines(records):
            if engine.root and self._is_low(engine.root):
                self._sweep(engine)
                things = engine.things(records, images=self._prunes_images)
                queue += [(used_at, thing, engine.root, engine) for used_at, thing in things]
            uses.watch_disk(self._home, engine.root)
        short = {}
        for _, thing, place, engine in sorted(queue, key=lambda each: (each[0], each[1].key)):
            disk = _disk_of(place)
            if disk not in short:
                short[disk] = self._is_low(place)
            if time.monotonic() > self._until:
                return
            if short[disk]:
                self._remove(thing, place, engine)
                short[disk] = self._is_below(place, self._low, self._high)

    def _is_low(self, place: str) -> bool:
        return self._is_below(place, self._low)

    def _is_below(self, place: str, *marks: room.Mark) -> bool:
        look = room.measure(room.standing(place))
        return look is not None and look[0] < max(mark.of(look[1]) for mark in marks)

    def _remove(self, thing: Thing, place: str, engine: tidy_engine.Engine | None) -> None:
        lock = uses.alone(self._home, thing)
        if lock is None:
            return
        before, was_there = _free(place), any(map(os.path.lexists, parts_of(thing)))
        try:
            if engine is not None:
                is_gone = engine.remove(thing)
                problem, was_there = engine.problem, engine.was_there
            else:
                problem = as_user(thing.user, lambda: set_aside(thing))
                is_gone = not problem
        finally:
            os.close(lock)  # from here on a job may begin anew in the place of what was set aside
        if engine is None:
            problem = problem or as_user(thing.user, lambda: remove_aside(thing))
        if problem:
            self._report.fail("%s %s: %s" % (thing.kind, thing.name, problem))
        if is_gone:
            if was_there:
                self._report.note(thing.kind, _free(place) - before)
            self._forget(thing, engine)

    def _forget(self, thing: Thing, engine: tidy_engine.Engine | None) -> None:
        """Forget a thing that is really gone: a job may have made it anew, or a part of it could not be removed."""
        if engine is None and any(os.path.lexists(path) for path in (*parts_of(thing), *aside_of(thing))):
            return
        lock = uses.alone(self._home, thing)
        if lock is not None:
            uses.forget(self._home, thing)
            os.close(lock)

    def _sweep(self, engine: tidy_engine.Engine) -> None:
        """What is of no use to anybody goes first."""
        before = _free(engine.root)
        for kind, count in engine.sweep(self._home):
            after = _free(engine.root)
            self._report.note(kind, after - before, count)
            before = after

    def _finish_removals(self, records: list) -> None:
        for _, thing in records:
            if thing.kind in {BUILD, CACHE} and any(os.path.lexists(path) for path in aside_of(thing)):
                as_user(thing.user, lambda thing=thing: remove_aside(thing))


def parts_of(thing: Thing) -> tuple:
    """The paths of a thing."""
    return (thing.name, thing.name + TMP) if thing.kind == BUILD else (thing.name,)


def aside_of(thing: Thing) -> tuple:
    """Where its parts are while they are being removed."""
    return tuple(path + GONE for path in parts_of(thing))


def set_aside(thing: Thing) -> None:
    """Make a thing vanish at once."""
    for path in parts_of(thing):
        jobfiles.remove(path + GONE)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, path + GONE)


def remove_aside(thing: Thing) -> None:
    """Remove what was set aside."""
    jobfiles.remove_all(list(aside_of(thing)))


def as_user(name: str | None, run) -> str:
    """Run a function in a child that has become the user; what went wrong, or nothing."""
    try:
        who = identity.of(name)
    except Refused as exc:
        return exc.message
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            who.become()
            run()
            status = 0
        except OSError as exc:
            os.write(writing, describe(exc).encode("utf-8", "replace")[:400])
        finally:
            os._exit(status)
    os.close(writing)
    try:
        said = os.read(reading, 4096)
    finally:
        os.close(reading)
        status = os.waitpid(pid, 0)[1]
    return "" if status == 0 else said.decode("utf-8", "replace") or "the child that removes it failed"


def unrecorded_builds(records: list) -> list:
    """Working copies below the builds directories that no record tells of: `<token>/<number>/<group>/<project>`."""
    roots = {(thing.root, thing.user) for _, thing in records if thing.kind == BUILD}
    told = {thing.name for _, thing in records}
    return [
        Thing(BUILD, path, user, root)
        for root, user in sorted(roots, key=str)
        for path in _working_copies(root)
        if path not in told and _owner_of(path) == identity_uid(user)
    ]


def _working_copies(root: str) -> list:
    found = []
    for token in _folders(root):
        if not TOKEN.match(os.path.basename(token)):
            continue
        queue = [(place, 1) for place in _folders(token) if os.path.basename(place).isdigit()]
        while queue:
            folder, depth = queue.pop()
            if os.path.lexists(os.path.join(folder, ".git")):
                found.append(folder)
            elif depth < DEEPEST:
                queue += [(inner, depth + 1) for inner in _folders(folder)]
    return sorted(found)


def _folders(path: str) -> list:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _owner_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def identity_uid(name: str | None) -> int | None:
    """The number of a user; the agent's own without a name."""
    if name is None:
        return os.geteuid()
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _disk_of(place: str) -> int:
    return os.stat(room.standing(place)).st_dev


def _free(place: str) -> int:
    look = room.measure(room.standing(place))
    return 0 if look is None else look[0]
