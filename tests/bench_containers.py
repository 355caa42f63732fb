"""What a job in a container costs over `docker run` itself; part of `make bench`.

Both run the same image that is there already, on the same engine, by turns: what else the host does hits both. A job's
time is that on its machine: from the agent's yes to the end of the job, with volumes, files, container and cleaning.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from fleet.demo.payload import make_job
from tests.docker.engine import Engine, running_engine
from tests.docker.images import image

AIMS: dict[str, float | None] = {
    "docker run itself, ms": None,
    "container job on its machine, ms": None,
    "container job over docker run, ms": 150,
}
KEYS = """
  host = "{host}"
  image = "{image}"
  pull_policy = "if-not-present"
"""
JOBS = 12


def overhead(rig: Callable[..., AbstractContextManager[Any]], rounds: int) -> dict[str, float]:
    """Medians of all rounds; `rig` is the benchmark's."""
    with running_engine() as engine:
        name = image(engine, "busy")
        docker = {"executor": "docker-autoscaler", "docker_keys": KEYS.format(host=engine.host, image=name)}
        with rig(hold_s=50, machines=1, idle=1, **docker) as r:
            r.ready(1)
            job_ms(r)  # the first one makes what the later ones find
            pairs = [(run_ms(engine, name), job_ms(r)) for _ in range(JOBS * rounds)]
    run, job = (statistics.median(times) for times in zip(*pairs, strict=True))
    return dict(zip(AIMS, (run, job, job - run), strict=True))


def run_ms(engine: Engine, name: str) -> float:
    """A container with a script on its standard input, from nothing to nothing."""
    began = time.monotonic()
    engine.docker("run", "--rm", "--interactive", name, "sh", input=b"echo hello\n")
    return (time.monotonic() - began) * 1000


def job_ms(r: Any) -> float:
    """A job that does the same."""
    job = r.gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = r.gitlab.wait_for(job, timeout=60)
    assert view.state == "success", (view.state, r.gitlab.trace(job)[-2000:])
    at = {name: instant(r.manager.events(name), job) for name in ("job_started", "job_ended")}
    return (at["job_ended"] - at["job_started"]) * 1000


def instant(events: list[dict[str, Any]], job: int) -> float:
    """When it was logged, in seconds."""
    (found,) = (each for each in events if each["job_id"] == job)
    return datetime.fromisoformat(found["timestamp"]).timestamp()
