"""Uploads of artifacts by the agent against `zip` and `curl` on the same files; part of `make bench`.

Both are processes of their own that send to the same pretend GitLab, one after the other, and the better of some rounds
counts for each: what else the host does hits both. Megabytes are those of the files, not of the archive.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from fleet.demo.controls import RemoteGitLab
from fleet.demo.payload import make_job
from tests.contract.pretend_gitlab.raw_runner import RawJob, RawRunner

AIMS: dict[str, float | None] = {
    "artifacts, MB/s": None,
    "artifacts, MB/s against zip and curl": -0.9,
    "artifacts of 2 GB, MB/s": None,
    "artifacts of 2 GB, peak memory MB": 64,
}
CORPUS_BYTES = 150_000_000
ROOT = pathlib.Path(__file__).resolve().parent.parent
CHILD = """
import json, os, sys
sys.path.insert(0, {root!r})
from fleet.agent import transfer
sys.exit(transfer.run(json.load(sys.stdin)))
"""


def corpus(folder: pathlib.Path) -> int:
    """Real files of a Python environment, large and small; how many bytes."""
    total = 0
    source = pathlib.Path(sys.prefix) / "lib"
    for path in sorted(source.rglob("*")):
        if total >= CORPUS_BYTES:
            break
        if path.is_file() and not path.is_symlink():
            there = folder / path.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, there)
            total += path.stat().st_size
    return total


def by_agent(url: str, job: RawJob, root: pathlib.Path, paths: list[str]) -> tuple[float, float]:
    """Seconds that the agent's own upload takes, and its peak memory in MB."""
    given = {
        "do": "upload_artifacts", "api": f"{url}/api/v4/", "job_id": job.id, "token": job.token, "tls": {},
        "environment": {}, "root": str(root), "items": [{"paths": paths, "format": "zip", "type": "archive"}],
        "level": "default", "metadata": None, "meter_s": 0, "timeout_s": 3600, "header_timeout_s": 600,
    }  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(root=str(ROOT))], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given).encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.monotonic() - began, usage.ru_maxrss / 1000


def by_programs(url: str, job: RawJob, root: pathlib.Path, archive: pathlib.Path) -> float:
    """Seconds that `zip` and then `curl` take."""
    began = time.monotonic()
    subprocess.run(["zip", "-q", "-r", str(archive), "."], cwd=root, check=True)
    address = f"{url}/api/v4/jobs/{job.id}/artifacts?artifact_format=zip&artifact_type=archive"
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-H", f"JOB-TOKEN: {job.token}", "-F", f"file=@{archive}"]
    subprocess.run([*command, address], check=True)
    took = time.monotonic() - began
    archive.unlink()
    return took


def uploads(rounds: int) -> dict[str, float]:
    """All figures."""
    server = subprocess.Popen([sys.executable, "-m", "fleet.demo.gitlab", "--port", "0"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        gitlab = RemoteGitLab(url)
        asked: list[dict[str, Any]] = [{"artifact_type": "archive", "artifact_format": "zip"}]
        gitlab.enqueue(make_job(artifacts=asked))
        runner = RawRunner(url, gitlab.create_runner()["token"])
        job = runner.take_and_acknowledge()
        with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
            figures = _measure(url, job, pathlib.Path(folder), rounds)
        runner.close()
        return figures
    finally:
        server.terminate()
        server.wait(10)


def _measure(url: str, job: RawJob, folder: pathlib.Path, rounds: int) -> dict[str, float]:
    root = folder / "project"
    megabytes = corpus(root) / 1e6
    ours, theirs = [], []
    for _ in range(max(2, rounds)):
        theirs.append(by_programs(url, job, root, folder / "x.zip"))
        ours.append(by_agent(url, job, root, ["."])[0])
    with (folder / "project" / "sparse").open("wb") as file:
        file.truncate(2 << 30)
    large_s, peak_mb = by_agent(url, job, root, ["sparse"])
    return {
        "artifacts, MB/s": megabytes / min(ours),
        "artifacts, MB/s against zip and curl": min(theirs) / min(ours),
        "artifacts of 2 GB, MB/s": (2 << 30) / 1e6 / large_s,
        "artifacts of 2 GB, peak memory MB": peak_mb,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uploads(3), indent=1) + "\n")
