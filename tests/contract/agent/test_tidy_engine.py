"""A container engine's disk fills: volumes and images that jobs used least lately go, and nothing that is in use.

The engine is a real one, whose data are on a small disk of their own.
"""

from __future__ import annotations

import io
import os
import pathlib
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.agent import uses
from fleet.agent.home import Home, write_json
from tests.docker.engine import Engine
from tests.docker.images import image

from .conftest import Machine

MIB = 1 << 20
DISK_MIB = 160
LABELS = ("com.gitlab.gitlab-runner.managed=true", "com.gitlab.gitlab-runner.reusable=true")


@pytest.fixture
def small() -> Iterator[Engine]:
    """An engine on a disk of 160 MiB."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fleet-small-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "fleet-test", str(folder)], check=True)
    (folder / "engine").mkdir()
    engine = Engine.create(folder / "engine")
    try:
        yield engine.start()
    finally:
        engine.discard()
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def used(machine: Machine, small: Engine) -> Used:
    return Used(machine, small)


class Used:
    """Things of the engine, and when jobs of the machine used them last."""

    def __init__(self, machine: Machine, engine: Engine) -> None:
        self.engine = engine
        self.channel = machine.connect()
        self.home = Home(str(machine.folder))
        self.busy = image(engine, "busy")

    def volume(self, name: str, mebibytes: int, *, labels: tuple[str, ...] = LABELS) -> str:
        self.engine.docker("volume", "create", *(word for label in labels for word in ("--label", label)), name)
        script = f"dd if=/dev/zero of=/cache/data bs=1M count={mebibytes}"
        self.engine.docker("run", "--rm", "-v", f"{name}:/cache", self.busy, "sh", "-c", script)
        return name

    def by_jobs(self, *names: tuple[str, str]) -> list[uses.Thing]:
        """Jobs used these one after the other, long ago; the holds are given back."""
        said = {"program": "docker", "host": self.engine.host}
        things = [uses.Thing(kind, name, engine=said) for kind, name in names]
        for number, thing in enumerate(things):
            holds = uses.Holds(self.home)
            assert holds.take(thing)
            holds.close()
            os.utime(os.path.join(self.home.uses, thing.key), (1000 + number, 1000 + number))
        return things

    def tidy(self, **fields: Any) -> dict[str, Any]:
        wanted = {"low": {"percent": 100}, "high": {"percent": 100}, "timeout_s": 120, "prune_images": True, **fields}
        reply = self.channel.ask("tidy", within_s=120, **wanted)
        assert reply["ok"], reply
        assert reply["problems"] == []
        return reply

    def volumes(self) -> set[str]:
        return set(self.engine.docker("volume", "ls", "-q").split())


def test_the_volume_used_least_lately_goes_first_and_no_more_than_is_needed(used) -> None:
    for name in ("one", "two", "three"):
        used.volume(name, 30)
    used.by_jobs(("volume", "three"), ("volume", "one"), ("volume", "two"))
    free = os.statvfs(used.engine.home)
    room = free.f_bavail * free.f_frsize
    reply = used.tidy(low={"bytes": room + MIB}, high={"bytes": room + 20 * MIB})
    assert reply["removed"] == {"volume": 1}
    assert reply["freed_bytes"]["volume"] > 25 * MIB
    assert used.volumes() == {"one", "two"}


def test_volumes_in_use_and_those_of_others_stay(used) -> None:
    used.volume("held", 1)
    used.volume("mounted", 1)
    used.volume("foreign", 1, labels=())
    used.volume("temporary", 1, labels=LABELS[:1])
    used.volume("idle", 1)
    held, *_ = used.by_jobs(("volume", "held"), ("volume", "mounted"), ("volume", "idle"), ("volume", "foreign"))
    used.engine.docker("create", "--name", "stopped", "-v", "mounted:/cache", used.busy, "true")
    holds = uses.Holds(used.home)
    assert holds.take(held)
    assert used.tidy()["removed"] == {"volume": 1}
    assert used.volumes() == {"held", "mounted", "foreign", "temporary"}
    holds.close()
    used.engine.docker("rm", "stopped")
    assert used.tidy()["removed"] == {"volume": 2}
    assert used.volumes() == {"foreign", "temporary"}


def test_images_that_no_job_used_and_images_of_running_containers_stay(used) -> None:
    for name in ("by-a-job", "by-a-person", "running"):
        used.engine.docker("import", "-", f"local/{name}:1", input=tar_of(name))
    used.engine.docker("tag", used.busy, "local/running:1")
    used.by_jobs(("image", "local/by-a-job:1"), ("image", "local/running:1"), ("image", "local/absent:1"))
    used.engine.docker("run", "--detach", "--name", "runs", "local/running:1", "sleep", "600")
    assert used.tidy(prune_images=False)["removed"].get("image") is None
    assert used.tidy()["removed"]["image"] == 1
    left = used.engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert "local/by-a-job:1" not in left
    assert {"local/by-a-person:1", "local/running:1"} <= set(left)
    used.engine.docker("rm", "--force", "runs")


def test_containers_of_jobs_that_are_over_and_layers_without_an_image_go(used) -> None:
    used.by_jobs(("volume", "none"))
    write_json(os.path.join(used.home.tombstones, "over"), {})
    for lease in ("over", "elsewhere"):
        words = ("--label", LABELS[0], "--label", f"fleet.lease={lease}", "--name", f"left-{lease}")
        used.engine.docker("run", *words, used.busy, "true")
    used.engine.docker("import", "-", "local/once:1", input=tar_of("first"))
    used.engine.docker("import", "-", "local/once:1", input=tar_of("second"))
    removed = used.tidy()["removed"]
    assert (removed["container"], removed["layer"]) == (1, 1)
    assert used.engine.docker("ps", "-a", "--format", "{{.Names}}") == "left-elsewhere"
    used.engine.docker("rm", "left-elsewhere")


def test_the_engines_disk_is_told_from_then_on(used) -> None:
    used.by_jobs(("volume", "none"))
    used.tidy()
    disks = used.channel.ask("ping", agent_timeout_s=60)["disks"]
    assert [disk["size_bytes"] for disk in disks if disk["path"].startswith(str(used.engine.home))] == [DISK_MIB * MIB]


def tar_of(text: str) -> bytes:
    """A root file system with one small file."""

    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        about = tarfile.TarInfo("text")
        about.size = len(text)
        archive.addfile(about, io.BytesIO(text.encode()))
    return written.getvalue()
