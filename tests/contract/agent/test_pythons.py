"""The agent runs on every Python that a machine may have, from 3.8 on; by its source and by running it."""

from __future__ import annotations

import glob
import json
import os
import pathlib
import subprocess
import sys

import pytest

from .channel import AGENT


def pythons() -> list[str]:
    """One interpreter for each version that is installed here, this one included."""
    places = ["/usr/bin/python3*", "/usr/local/bin/python3*", "/root/.pyenv/versions/3.*/bin/python"]
    found = {}
    for path in [sys.executable, *sorted(path for place in places for path in glob.glob(place))]:
        if not os.access(path, os.X_OK) or "config" in path:
            continue
        asked = subprocess.run(
            [path, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, check=False
        )
        if asked.returncode == 0:
            found.setdefault(tuple(map(int, asked.stdout.split())), path)
    return [path for version, path in sorted(found.items()) if version >= (3, 8)]


@pytest.mark.parametrize("python", pythons())
def test_a_job_runs_on_this_python(machine, python: str) -> None:
    channel = machine.connect(python=python)
    job = machine.job("echo one; (setsid -f sleep 400); echo gl-abc >&2", "exit 3")
    job["trace"].update(timestamps=True, sections=True, masks=["secret", "x\u20ac"], mask_prefixes=["gl-"])
    lease = machine.start(channel, job)
    result = channel.exit_of(lease)["result"]
    assert (result["outcome"], result["exit_code"]) == ("failed", 3)
    log = channel.log(lease)
    assert b" 01O one\n" in log
    assert b" 01E gl-[MASKED]\n" in log
    assert channel.ask("run", command="echo hi", timeout_s=5, shell="sh")["output"] == "hi\n"
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]


def test_the_source_needs_no_newer_python_than_3_8() -> None:
    vermin = pathlib.Path(sys.executable).with_name("vermin")
    asked = subprocess.run(
        [str(vermin), "-t=3.8-", "--no-tips", "--violations", str(AGENT)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stdout


def test_the_source_imports_the_standard_library_and_itself_only() -> None:
    for source in AGENT.glob("*.py"):
        for line in source.read_text().splitlines():
            words = line.split()
            if words[:1] == ["import"]:
                assert words[1].split(".")[0] in sys.stdlib_module_names, f"{source.name}: {line}"
            if words[:1] == ["from"] and len(words) > 2 and words[2] == "import":
                assert words[1].startswith(".") or words[1] == "__future__", f"{source.name}: {line}"


def test_the_command_line_tells_version_and_usage(agent: pathlib.Path) -> None:
    def run(*arguments: str, feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(agent), *arguments], input=feed, capture_output=True, check=False
        )

    assert run("version").stdout.startswith(b"fleet-agent ")
    assert run("dance").returncode == 2
    assert b"usage" in run().stderr


def test_a_job_can_be_supervised_by_hand(machine) -> None:
    def run(job: dict) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(machine.agent), "supervise", machine.lease()],
            input=json.dumps(job),
            env={"HOME": str(machine.home), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )

    good = run(machine.job("echo hi"))
    assert (good.returncode, json.loads(good.stdout)["outcome"]) == (0, "success")
    assert run(machine.job("exit 1")).returncode == 1
    assert "job file is wrong" in run(machine.job("x", format=3)).stderr
