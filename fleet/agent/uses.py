"""When the things that jobs leave for later ones were last used, and which of them are in use now.

A thing is a project directory, a local cache archive, a cache volume or an image. Each has a small file in the folder
`uses`: its content says what the thing is, its time of change when it was last used, and a lock on it that it is in
use. A supervisor shares the lock of each of its job's things from before their first use until it ends, however it
ends; `tidy` takes the lock for itself alone, or leaves the thing be. So nothing is removed under a job, and a job that
starts meanwhile waits until what it finds is whole or gone.

Rule: a record that is lost makes a thing older, and nothing worse.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os

from .home import Home, discard, read_json, write_json

BUILD, CACHE, VOLUME, IMAGE = "build", "cache", "volume", "image"
MOST_DISKS = 16
HUB = ("docker.io/library/", "index.docker.io/library/", "docker.io/")


class Thing:
    """What outlives a job.

    `name` is a path, or a name that the engine knows; `root` the folder whose disk the thing is on, empty for things
    of an engine; `user` whose files they are; `engine` how that engine is reached.
    """

    def __init__(
        self, kind: str, name: str, user: str | None = None, root: str = "", engine: dict | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.user = user
        self.root = root
        self.engine = engine or {}

    @property
    def key(self) -> str:
        """The name of its record."""
        said = "\0".join((self.kind, self.engine.get("host") or "", self.name))
        return "%s-%s" % (self.kind, hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32])

    def record(self) -> bytes:
        """The content of its record."""
        return json.dumps(
            {"kind": self.kind, "name": self.name, "user": self.user, "root": self.root, "engine": self.engine}
        ).encode()


def things_of(job: dict) -> list:
    """What a job uses of what earlier jobs left, and leaves for later ones."""
    containers = job.get("containers")
    if containers:
        return _things_of_engine(containers)
    user = job.get("user")
    found = [Thing(BUILD, each["path"], user, each["root"]) for each in job.get("keeps") or []]
    for stage in job["stages"]:
        found += [Thing(CACHE, path, user, os.path.dirname(path)) for path in _archives(stage.get("transfer") or {})]
    return _once(found)


def _archives(transfer: dict) -> list:
    """The local cache archives that a transfer reads or writes."""
    keys = [key for item in transfer.get("items") or [] for key in item.get("keys") or []]
    return [key["local"] for key in keys if key.get("local")]


def _things_of_engine(containers: dict) -> list:
    engine = {"program": containers.get("program") or "docker", "host": containers.get("host")}
    found = [Thing(VOLUME, each["name"], engine=engine) for each in containers.get("volumes") or [] if each.get("keep")]
    images = [containers.get("image") or {}, containers.get("helper") or {}]
    images += [{**each, "name": each.get("image")} for each in containers.get("services") or []]
    for image in images:
        name = image.get("name") or image.get("image")
        if name:
            found.append(Thing(IMAGE, full_name(name), engine=engine))
    return _once(found)


def _once(found: list) -> list:
    """Each thing once, in one order for all jobs."""
    return sorted({thing.key: thing for thing in found}.values(), key=lambda thing: thing.key)


def full_name(image: str) -> str:
    """One spelling for the names that mean the same image."""
    for prefix in HUB:
        if image.startswith(prefix):
            image = image[len(prefix) :]
            break
    last = image.rsplit("/", 1)[-1]
    return image if "@" in image or ":" in last else image + ":latest"


class Holds:
    """The things that one job holds; they are free again when this process ends."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._locks = []

    def take(self, thing: Thing) -> bool:
        """Share a thing; False while it is being removed. A disk without room for a record is no reason to fail."""
        try:
            number = _locked(self._home, thing.key, fcntl.LOCK_SH)
        except OSError:
            return True
        if number is None:
            return False
        self._locks.append(number)
        with contextlib.suppress(OSError):
            record = thing.record()
            if os.pread(number, len(record) + 1, 0) != record:
                os.pwrite(number, record, 0)
                os.truncate(number, len(record))
            os.utime(number)
        return True

    def close(self) -> None:
        """The job has ended: this was their last use."""
        for number in self._locks:
            with contextlib.suppress(OSError):
                os.utime(number)
            os.close(number)
        self._locks = []


def known(home: Home) -> list:
    """Every recorded thing with the time of its last use, oldest first."""
    found = []
    for key in _names(home.uses):
        path = os.path.join(home.uses, key)
        record = read_json(path)
        with contextlib.suppress(OSError, KeyError, TypeError):
            engine = record.get("engine") or {}
            thing = Thing(record["kind"], record["name"], record.get("user"), record.get("root") or "", engine)
            found.append((os.stat(path).st_mtime, thing))
    return sorted(found, key=lambda each: each[0])


def alone(home: Home, thing: Thing) -> int | None:
    """Keep every job from beginning to use a thing, until the descriptor is closed; None while a job uses it."""
    try:
        return _locked(home, thing.key, fcntl.LOCK_EX)
    except OSError:  # no record, and no room for one
        return None


def forget(home: Home, thing: Thing) -> None:
    """Remove the record of what is gone; only who holds it alone may."""
    discard(os.path.join(home.uses, thing.key))


def _locked(home: Home, key: str, how: int) -> int | None:
    """An open and locked record; None when somebody's lock excludes ours."""
    path = os.path.join(home.uses, key)
    while True:
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600)
        try:
            fcntl.flock(number, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return None
        with contextlib.suppress(FileNotFoundError):
            there, here = os.stat(path), os.fstat(number)
            if (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev):
                return number
        os.close(number)  # removed between the two calls


def watch_disk(home: Home, path: str) -> None:
    """Tell the free room of this path's disk from now on."""
    paths = watched_disks(home)
    if path and path not in paths and len(paths) < MOST_DISKS:
        with contextlib.suppress(OSError):
            write_json(home.disks, {"paths": [*paths, path]})


def watched_disks(home: Home) -> list:
    """The paths whose disks jobs fill."""
    return read_json(home.disks).get("paths") or []


def _names(folder: str) -> list:
    try:
        return os.listdir(folder)
    except OSError:
        return []
