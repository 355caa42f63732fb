"""The benchmark: `make bench`. Prints a table with the aims, and JSON; never fails because something is slow.

Everything runs on this host: the pretend GitLab in a process of its own, the real manager in another, and local
machines. Each figure is the median of `ROUNDS` rounds unless `--quick` asks for one. CPU is the manager's alone.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from fleet.demo.controls import RemoteGitLab
from fleet.demo.payload import make_job
from fleet.model.ids import InstanceId, JobKey, PoolName, RunnerKey
from fleet.model.lifecycle import InstanceState
from fleet.model.policy import Policy, PoolLimits
from fleet.model.snapshot import InstanceView, PoolSnapshot, WaitingJob
from fleet.planning.planner import plan
from tests import bench_artifacts, bench_containers
from tests.acceptance.manager import Manager, wait_until

ROUNDS = 5
SPAN_S = 15
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
AIMS = {
    "latency p50 ms": None,
    "latency p95 ms": 250,
    "no-op jobs/s (50 slots)": -20,
    "no-op CPU ms/job": None,
    "200 loud jobs, CPU ms/job-second": 0.6,
    "200 loud jobs, log delay p99 s": 2,
    "200 silent jobs, CPU ms/job-second": 0.1,
    "500 loud jobs, CPU ms/job-second": 0.6,
    "500 loud jobs, log delay p99 s": 2,
    "200 machines of one slot, CPU ms/job-second": 0.6,
    "memory base MB": 120,
    "memory per running job kB": 150,
    "500 MB of output, memory growth MB": None,
    "500 MB of output, CPU s": None,
    "500 MB against 50 MB, CPU ratio": None,
    "plan() 10k instances, 10k jobs ms": 250,
    "plan() growth 1k to 100k": None,
    "followed again after kill -9, p99 s": 5,
    **bench_artifacts.AIMS,
    **bench_containers.AIMS,
}
PRINTER = (
    "import os,sys,time\n"
    "while not os.path.exists('{go}'): time.sleep(1)\n"
    "end=time.time()+{seconds}\n"
    "while time.time()<end:\n"
    " for _ in range(10): sys.stdout.write('at %.3f some words that a build would print here\\n'%time.time())\n"
    " sys.stdout.flush()\n"
    " time.sleep(0.1)\n"
)


class Rig:
    """A pretend GitLab and a manager, both processes of their own."""

    def __init__(self, directory: pathlib.Path, *, hold_s: float = 0, interval_s: float = 3, **pool: object) -> None:
        command = [sys.executable, "-m", "fleet.demo.gitlab", "--port", "0", "--threads", "160"]
        command += ["--hold-s", str(hold_s), "--update-interval-s", str(interval_s)]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.server.stdout is not None
        self.gitlab = RemoteGitLab(json.loads(self.server.stdout.readline())["url"])
        self.manager = Manager(directory, self.gitlab, idle_time="30m", **pool)
        self.manager.start()

    def ready(self, machines: int) -> None:
        """Wait until so many machines are ready."""
        wait_until(lambda: self.manager.events("manager_started"), 60, "the start")
        count = "SELECT count(*) AS n FROM instances WHERE state = 'ready'"
        wait_until(lambda: self.manager.rows(count)[0]["n"] >= machines, 600, f"{machines} ready machines")

    def cpu_s(self) -> float:
        """CPU seconds that the manager has used."""
        fields = pathlib.Path(f"/proc/{self.manager.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss_mb(self) -> float:
        """Memory of the manager."""
        return int(pathlib.Path(f"/proc/{self.manager.pid}/statm").read_text().split()[1]) * PAGE / 1e6

    def close(self) -> None:
        """End everything that was started here."""
        self.manager.clear()
        self.server.terminate()
        self.server.wait(10)


@contextlib.contextmanager
def rig(**keywords: object) -> Iterator[Rig]:
    """A rig in a directory of its own, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-", ignore_cleanup_errors=True) as directory:
        made = Rig(pathlib.Path(directory), **keywords)  # type: ignore[arg-type]
        try:
            yield made
        finally:
            made.close()


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latency(rounds: int) -> dict[str, float]:
    """Queued -> first byte of the script at GitLab, one job after another on a warm machine."""
    with rig(hold_s=50, machines=2, idle=2) as r:
        r.ready(2)
        for _ in range(3):  # the first poll is not in the air yet
            r.gitlab.wait_for(r.gitlab.enqueue(make_job(script=["true"])), timeout=30)
        p50, p95 = [], []
        for _ in range(rounds):
            seen = []
            for _ in range(20):
                job = r.gitlab.enqueue(make_job(script=["printf 'mar''ker\\n'"]), marker="marker")
                (view,) = r.gitlab.wait_for(job, timeout=30)
                seen.append((view.marker_at - view.queued_at) * 1000)
                time.sleep(0.2)
            p50.append(percentile(seen, 0.5))
            p95.append(percentile(seen, 0.95))
    return {"latency p50 ms": statistics.median(p50), "latency p95 ms": statistics.median(p95)}


def throughput(rounds: int) -> dict[str, float]:
    """No-op jobs on 50 slots of 10 machines."""
    rates, costs = [], []
    with rig(hold_s=50, machines=10, capacity=5, idle=50, concurrent=50) as r:
        r.ready(10)
        for _ in range(rounds):
            cpu = r.cpu_s()
            jobs = [r.gitlab.enqueue(make_job(script=["true"])) for _ in range(200)]
            views = r.gitlab.wait_for(*jobs, timeout=300)
            took = max(v.ended_at for v in views) - min(v.queued_at for v in views)
            rates.append(len(jobs) / took)
            costs.append((r.cpu_s() - cpu) * 1000 / len(jobs))
    return {"no-op jobs/s (50 slots)": statistics.median(rates), "no-op CPU ms/job": statistics.median(costs)}


def running_jobs(r: Rig, count: int, script: list[str]) -> list[int]:
    """Queue `count` jobs and wait until all run."""
    jobs = [r.gitlab.enqueue(make_job(script=script)) for _ in range(count)]
    running = "SELECT count(*) AS n FROM jobs WHERE state = 'running'"
    wait_until(lambda: r.manager.rows(running)[0]["n"] >= count, 300, f"{count} running jobs")
    return jobs


def loud(count: int, *, machines: int, capacity: int, name: str, rounds: int) -> dict[str, float]:
    """Jobs that print 100 lines a second each; a round is a span of their run."""
    with rig(machines=machines, capacity=capacity, idle=count, concurrent=count) as r:
        r.ready(machines)
        go = r.manager.directory / "go"  # else the first would be done before the last has begun
        program = PRINTER.format(seconds=SPAN_S * rounds + 60, go=go)
        jobs = running_jobs(r, count, [f"exec {sys.executable} -c '{program.replace(chr(39), chr(34))}'"])
        go.touch()
        time.sleep(5)
        cost = cost_of_running(r, count, rounds)
        late = [each for job in jobs[:20] for each in delays(r, job)]
    return {f"{name}, CPU ms/job-second": cost, f"{name}, log delay p99 s": percentile(late, 0.99)}


def cost_of_running(r: Rig, count: int, rounds: int) -> float:
    """CPU milliseconds of the manager per job and second, while `count` jobs run."""
    costs = []
    for _ in range(rounds):
        cpu, began = r.cpu_s(), time.monotonic()
        time.sleep(SPAN_S)
        costs.append((r.cpu_s() - cpu) * 1000 / ((time.monotonic() - began) * count))
    return statistics.median(costs)


def delays(r: Rig, job: int) -> list[float]:
    """How long after its printing and GitLab's own interval of 3 s each sampled line was at GitLab."""
    trace = r.gitlab.trace(job)
    patches = [
        (when, int(detail.split()[-1]))
        for when, what, detail in r.gitlab.job(job).events
        if what in ("first_trace", "trace")
    ]
    ends = [end for _, end in patches]
    found, at = [], 0
    for number, line in enumerate(trace.split(b"\n")):
        at += len(line) + 1
        place = bisect.bisect_left(ends, at)
        if number % 50 == 0 and b" at 1" in line and place < len(patches):
            printed = float(line.partition(b" at ")[2].split()[0])
            found.append(max(0.0, patches[place][0] - printed - 3.0))
    return found


def silent(count: int, rounds: int) -> dict[str, float]:
    """Jobs that say nothing, and what memory they take."""
    with rig(machines=20, capacity=count // 20, idle=0, concurrent=count) as r:
        r.ready(0)
        time.sleep(2)
        bare = r.rss_mb()
    with rig(machines=20, capacity=count // 20, idle=count, concurrent=count) as r:
        r.ready(20)
        time.sleep(5)
        base = r.rss_mb()
        running_jobs(r, count, [f"sleep {SPAN_S * rounds + 90}"])
        time.sleep(5)
        cost = cost_of_running(r, count, rounds)
        memory = r.rss_mb()
    return {
        f"{count} silent jobs, CPU ms/job-second": cost,
        "memory base MB": bare,
        "memory per running job kB": (memory - base) * 1000 / count,
    }


def flood(rounds: int) -> dict[str, float]:
    """One job that prints 50 MB and one that prints 500 MB."""
    costs: dict[int, list[float]] = {50: [], 500: []}
    growths = []
    with rig(machines=1, idle=1, runner_keys="output_limit = 1000000", interval_s=1) as r:
        r.ready(1)
        for size in (50, 500) * rounds:
            before, cpu = r.rss_mb(), r.cpu_s()
            job = r.gitlab.enqueue(
                make_job(
                    script=[
                        f"yes 'sixty-three letters and an end of line make up a whole line here' | head -c {size}000000"
                    ]
                )
            )
            peak = before
            until = time.monotonic() + 600
            while not r.gitlab.job(job).is_ended and time.monotonic() < until:
                peak = max(peak, r.rss_mb())
                time.sleep(0.2)
            costs[size].append(r.cpu_s() - cpu)
            growths.append(peak - before)
    cost = {size: statistics.median(each) for size, each in costs.items()}
    return {
        "500 MB of output, memory growth MB": max(growths),
        "500 MB of output, CPU s": cost[500],
        "500 MB against 50 MB, CPU ratio": cost[500] / cost[50],
    }


def follow_again(rounds: int) -> dict[str, float]:
    """kill -9 while 50 jobs run; how long after the start the last is followed again."""
    with rig(machines=10, capacity=5, idle=50, concurrent=50) as r:
        r.ready(10)
        running_jobs(r, 50, ["for i in $(seq 600); do echo $i; sleep 0.5; done"])
        seen = []
        for _ in range(rounds):
            r.manager.kill()
            before = len(r.manager.events("job_followed"))
            began = time.time()
            r.manager.start()
            wait_until(lambda n=before: len(r.manager.events("job_followed")) >= n + 50, 120, "following again")
            times = [datetime.fromisoformat(e["timestamp"]).timestamp() for e in r.manager.events("job_followed")]
            seen.append(percentile([each - began for each in times[before:]], 0.99))
    return {"followed again after kill -9, p99 s": statistics.median(seen)}


def snapshot(size: int) -> PoolSnapshot:
    """A pool with `size` instances, half of them busy, and `size` waiting jobs."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    instances = tuple(
        InstanceView(
            instance_id=InstanceId(f"i-{n:06}"),
            placement="default",
            state=InstanceState.READY,
            state_at=now,
            state_by=None,
            created_at=now - timedelta(hours=1),
            idle_since=None if n % 2 else now - timedelta(minutes=5),
            used_slots=(0,) if n % 2 else (),
            use_count=1,
            settings_version=1,
        )
        for n in range(size)
    )
    waiting = tuple(
        WaitingJob(job=JobKey(f"j-{n:06}"), runner=RunnerKey("r"), gitlab_job_id=n, received_at=now)
        for n in range(size)
    )
    limits = PoolLimits(
        name=PoolName("p"), max_instances=size * 2, policies=(Policy(idle_count=10, idle_time=timedelta(minutes=1)),)
    )
    return PoolSnapshot(pool=PoolName("p"), now=now, limits=limits, instances=instances, waiting=waiting)


def planning(rounds: int) -> dict[str, float]:
    """plan() alone."""

    def took(size: int) -> float:
        shot, seen = snapshot(size), []
        for _ in range(rounds):
            began = time.perf_counter()
            plan(shot)
            seen.append((time.perf_counter() - began) * 1000)
        return statistics.median(seen)

    return {
        "plan() 10k instances, 10k jobs ms": took(10_000),
        "plan() growth 1k to 100k": took(100_000) / took(1_000),
    }


def measures(rounds: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Every measurement by name."""
    return {
        "plan": lambda: planning(rounds),
        "latency": lambda: latency(rounds),
        "artifacts": lambda: bench_artifacts.uploads(rounds),
        "containers": lambda: bench_containers.overhead(rig, rounds),
        "throughput": lambda: throughput(rounds),
        "silent": lambda: silent(200, rounds),
        "loud": lambda: loud(200, machines=20, capacity=10, name="200 loud jobs", rounds=rounds),
        "loud500": lambda: loud(500, machines=50, capacity=10, name="500 loud jobs", rounds=rounds),
        "machines": lambda: loud(200, machines=200, capacity=1, name="200 machines of one slot", rounds=rounds),
        "flood": lambda: flood(rounds),
        "follow": lambda: follow_again(rounds),
    }


def main() -> int:
    """Measure what was asked for, print it, and write bench-results.json."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("only", nargs="*", help="names of measurements; all without")
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    given = parser.parse_args()
    known = measures(1 if given.quick else ROUNDS)
    unknown = set(given.only) - set(known)
    if unknown:
        print(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    found: dict[str, float] = {}
    for name, measure in known.items():
        if not given.only or name in given.only:
            print(f"measuring {name} ...", file=sys.stderr)
            seen = measure()
            print(json.dumps(seen), file=sys.stderr)
            found |= seen
    show(found)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "load": os.getloadavg()[0], "figures": found}
    pathlib.Path("bench-results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


def show(found: dict[str, float]) -> None:
    """The table, with the aims where there are some."""
    table = Table("figure", "measured", "aim", "")
    for name, value in found.items():
        aim = AIMS.get(name)
        if aim is None:
            table.add_row(name, f"{value:.2f}", "", "")
        elif aim < 0:
            table.add_row(name, f"{value:.2f}", f">= {-aim}", "met" if value >= -aim else "missed")
        else:
            table.add_row(name, f"{value:.2f}", f"<= {aim}", "met" if value <= aim else "missed")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
