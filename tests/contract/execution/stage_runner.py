"""Runs a job file as the agent would, in thirty lines: each stage's program on the standard input of a real shell."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any

STEPS_NEED_SUCCESS = {"get_sources", "step", "restore_cache", "download_artifacts"}


@dataclasses.dataclass
class Run:
    """What came of a job: exit code and output of each stage that ran."""

    codes: dict[str, int]
    outputs: dict[str, str]

    @property
    def log(self) -> str:
        return "".join(self.outputs.values())


def place_files(job_file: dict[str, Any]) -> None:
    """Make the directories and files that the job file names."""
    pathlib.Path(job_file["cwd"]).mkdir(parents=True, exist_ok=True)
    for directory in job_file["directories"]:
        pathlib.Path(directory["path"]).mkdir(parents=True, exist_ok=True)
        os.chmod(directory["path"], directory["mode"])
    for file in job_file["files"]:
        path = pathlib.Path(file["path"])
        path.write_text(file["text"], encoding="utf-8", newline="")
        path.chmod(file["mode"])


def run_program(job_file: dict[str, Any], program: str, environment: dict[str, str]) -> tuple[int, str]:
    """One program in the job's shell; its exit code and output."""
    with tempfile.TemporaryFile() as script:
        script.write(program.encode("utf-8"))
        script.seek(0)
        command = [job_file["shell"], *(["-l"] if job_file["login"] else [])]
        done = subprocess.run(
            command, stdin=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=job_file["cwd"],
            env=environment, check=False, timeout=60,
        )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace")


def run_job(job_file: dict[str, Any], environment: dict[str, str], *, cleans_up: bool = True) -> Run:
    """All stages in order, with the part of the stage matrix that matters here."""
    place_files(job_file)
    run, status, reached_steps = Run({}, {}), "running", False
    for stage in job_file["stages"]:
        kind = stage["kind"]
        if not stage["script"] or (kind == "cleanup" and not cleans_up):
            continue
        if (kind in STEPS_NEED_SUCCESS and status == "failed") or (kind == "after_script" and not reached_steps):
            continue
        reached_steps = reached_steps or kind == "step"
        shown = "success" if kind == "after_script" and status == "running" else status
        for attempt in range(stage["attempts"]):
            if attempt and stage["before_retry"]:
                code, output = run_program(job_file, stage["before_retry"], environment)
                run.outputs[f"{stage['name']} before retry"] = output
            code, output = run_program(job_file, stage["script"], environment | {"CI_JOB_STATUS": shown})
            run.outputs[stage["name"]] = run.outputs.get(stage["name"], "") + output
            if code == 0:
                break
        run.codes[stage["name"]] = code
        if code and kind in STEPS_NEED_SUCCESS | {"prepare"}:
            status = "failed"
    if cleans_up:
        for path in job_file["cleanup_paths"]:
            shutil.rmtree(path, ignore_errors=True)
    return run
