"""Kills a manager again and again while jobs run, and looks for anything that was lost, repeated or left behind.

A kill is aimed: at a random moment, or at the moment something shows from outside: a machine being made, one that has
just come up, a lease arriving on a machine, a job just received or just ended, an update on its way. What is seen of
the store is read through an engine of its own, and only while no manager runs or for reading.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import json
import pathlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet.demo.gitlab import PretendGitLab
from fleet.settings.runner import short_token
from fleet.store.engine import open_engine
from tests.acceptance.crash_jobs import Jobs, Known
from tests.acceptance.manager import Manager, wait_until
from tests.docker.engine import Engine
from tests.docker.images import image

AIMS = ("any", "any", "any", "start-up", "create", "boot", "lease", "job_received", "job_ended", "trace", "final")
POOL_KEYS = """
  max_use_count = 9
  delete_instances_on_shutdown = true
"""
DOCKER_KEYS = """
  host = "{host}"
  image = "{image}"
  pull_policy = "if-not-present"
  volumes = ["/cache", "{evidence}:{evidence}"]
"""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did and found."""

    seed: int
    kills: int = 0
    aims: collections.Counter[str] = field(default_factory=collections.Counter)
    jobs: int = 0
    states_at_kill: collections.Counter[str] = field(default_factory=collections.Counter)
    requeued: int = 0
    requests: int = 0
    instances: int = 0
    follow_kills: int = 0
    follow_s: list[float] = field(default_factory=list)
    all_followed_s: list[float] = field(default_factory=list)
    took_s: float = 0.0
    wrongs: list[str] = field(default_factory=list)


class CrashRun:
    """One manager, one pretend GitLab, many kills."""

    def __init__(
        self,
        directory: pathlib.Path,
        gitlab: PretendGitLab,
        *,
        seed: int,
        database: str | None = None,
        at_once: int = 50,
        machines: int = 14,
        capacity: int = 4,
        longest_s: float = 12.0,
        aim_s: float = 4.0,
        engine: Engine | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """With an `engine` the jobs run in containers."""
        self.rng = random.Random(seed)
        self.gitlab = gitlab
        evidence = directory / "evidence"
        self._engine = engine
        self.manager = Manager(
            directory / "m",
            gitlab,
            machines=machines,
            capacity=capacity,
            idle_time="3s",
            concurrent=at_once,
            pool_keys=POOL_KEYS,
            database=database,
            executor="instance" if engine is None else "docker-autoscaler",
            docker_keys=""
            if engine is None
            else DOCKER_KEYS.format(host=engine.host, image=image(engine, "full"), evidence=evidence),
        )
        self.engine = open_engine(database or f"sqlite:///{self.manager.state}/fleet.sqlite")
        self.jobs = Jobs(evidence, self.rng, service="" if engine is None else image(engine, "web"))
        self.known: dict[int, Known] = {}
        self.report = Report(seed=seed)
        self._at_once = at_once
        self._longest_s = longest_s
        self._aim_s = aim_s
        self._say = say
        self._killed: list[tuple[float, set[str]]] = []
        self._log_at = 0

    def run(self, kills: int, *, follow_kills: int = 0, patience_s: float = 120.0) -> Report:
        """Kill the manager so often, let everything come to its end, and tell.

        First come the kills that are for the time until all jobs are followed again, while every slot is busy.
        """
        began = time.monotonic()
        try:
            self.manager.start()
            if follow_kills:
                self.follow(follow_kills, patience_s)
            for _ in range(kills):
                self.top_up()
                self.kill(self.rng.choice(AIMS))
                self.manager.start()
            self.finish(patience_s)
        finally:
            self.manager.clear()
            self.engine.dispose()
        self.report.took_s = time.monotonic() - began
        return self.report

    def follow(self, kills: int, patience_s: float) -> None:
        """Kill with every slot busy, and wait each time until all jobs are followed."""
        busy = [self.jobs.make("slow", 15.0 + 7.0 * kills) for _ in range(self._at_once)]
        self.known |= {self.gitlab.enqueue(each.payload): each for each in busy}
        self._await_start()
        running = "SELECT job_key FROM jobs WHERE state = 'running'"
        wait_until(lambda: len(self.rows(running)) == self._at_once, patience_s, "the start of all jobs")
        for _ in range(kills):
            time.sleep(self.rng.uniform(0.5, 1.5))
            self.manager.kill()
            keys = self._look()
            at = time.time()
            self._killed.append((at, keys))
            self.manager.start()
            wait_until(lambda: keys <= set(self._told(after=at)), patience_s, "all jobs to be followed")  # noqa: B023  used at once
            self.report.all_followed_s.append(max(min(times) for times in self._told(after=at).values()) - at)
            self._say(f"{len(keys)} jobs were followed again after {self.report.all_followed_s[-1]:.2f} s")
        self.report.kills += kills
        self.report.follow_kills = kills

    def top_up(self) -> None:
        """As many jobs as the manager may run are queued or running."""
        counts = self.gitlab.counts()
        ended = sum(counts.get(state, 0) for state in ("success", "failed", "canceled"))
        for _ in range(self._at_once - (sum(counts.values()) - ended)):
            known = self.jobs.random(longest_s=self._longest_s)
            self.known[self.gitlab.enqueue(known.payload)] = known

    def kill(self, aim: str) -> None:
        """Kill at the moment that `aim` names, or, when nothing shows it, at the end of its time."""
        if aim == "start-up":
            time.sleep(self.rng.uniform(0.0, 2.0))
        else:
            self._await_start()
            hit = self._await_aim(aim)
            aim = aim if hit else f"{aim} (missed)"
        self.manager.kill()
        self.report.kills += 1
        self.report.aims[aim] += 1
        running = self._look()
        self._killed.append((time.time(), running))
        self._say(f"kill {self.report.kills}: {aim}; {len(running)} jobs run, {len(self.known)} jobs in all")

    def _await_start(self) -> None:
        wait_until(lambda: "manager_started" in self._new_events(), 60, "the start of the manager")

    def _await_aim(self, aim: str) -> bool:
        if aim == "any":
            time.sleep(self.rng.uniform(0.0, self._aim_s))
            return True
        seen = self._watch(aim)
        until = time.monotonic() + self._aim_s
        while time.monotonic() < until:
            if seen():
                time.sleep(self.rng.choice((0.0, 0.0, self.rng.uniform(0.0, 0.05), self.rng.uniform(0.0, 0.3))))
                return True
            time.sleep(0.002)
        return False

    def _watch(self, aim: str) -> Callable[[], bool]:
        """Tells whether it has happened since now."""
        if aim.startswith("job_"):
            return lambda: aim in self._new_events()
        if aim in {"trace", "final"}:
            return self._fault_watch(aim)
        pattern = {"create": "*", "boot": "*/run.json", "lease": "*/home/.fleet-agent/jobs/*"}[aim]
        folder = self.manager.state / "local" / "machines"
        before = set(folder.glob(pattern))
        return lambda: bool(set(folder.glob(pattern)) - before)

    def _fault_watch(self, endpoint: str) -> Callable[[], bool]:
        """The next calls of this kind are answered late, so that the kill falls between the two ends."""
        number = self.gitlab.add_fault("delay", endpoint, count=1, seconds=self.rng.choice((0.05, 0.3)))
        return lambda: self.gitlab.fault_struck(number) > 0

    def _new_events(self) -> set[str]:
        """The names of what was logged since this was asked last."""
        with (self.manager.directory / "log").open("rb") as file:
            file.seek(self._log_at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._log_at += len(whole)
        return {str(entry.get("event")) for entry in _entries(whole.decode(errors="replace"))}

    def rows(self, sql: str) -> list[Any]:
        """Read the store."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(sql)))

    def _look(self) -> set[str]:
        """What stands in the rows of a manager that is dead; the keys of the jobs that run."""
        self.gitlab.lift_fault()
        if not self._has_store():
            return set()
        found = self.rows("SELECT job_key, state FROM jobs")
        open_states = [row.state for row in found if row.state not in {"finished", "abandoned"}]
        self.report.states_at_kill.update(f"job {state}" for state in open_states)
        states = "'requested', 'creating', 'booting', 'preparing', 'draining', 'deleting'"
        machines = self.rows(f"SELECT state FROM instances WHERE state IN ({states})")
        self.report.states_at_kill.update(f"instance {row.state}" for row in machines)
        return {row.job_key for row in found if row.state == "running"}

    def _has_store(self) -> bool:
        file = self.engine.url.database
        is_there = self.engine.dialect.name != "sqlite" or pathlib.Path(str(file)).exists()
        return is_there and sa.inspect(self.engine).has_table("jobs")

    def finish(self, patience_s: float) -> None:
        """No more kills: everything ends, then the manager drains."""
        try:
            self.gitlab.wait_for(*self.known, timeout=patience_s)
        except TimeoutError as exc:
            self.report.wrongs.append(str(exc))
        self._await_start()  # all may have ended at the last kill, and a signal is heard by who has begun
        code = self.manager.stop(signal.SIGQUIT, timeout=patience_s)
        if code != 0:
            self.report.wrongs.append(f"the manager ended with {code}")
        self.report.jobs = len(self.known)
        self.report.requeued = sum(view.requeued for view in self.gitlab.jobs())
        self.report.follow_s = self.follow_times()
        self.report.wrongs += self.jobs.wrongs(self.gitlab, self.known)
        self.report.wrongs += self.gitlab.violations()
        self.report.wrongs += self._refused_often()
        self.report.wrongs += self.left_behind()
        if self.report.wrongs:
            story = [dataclasses.asdict(view) for view in self.gitlab.jobs()]
            told = {"kills": [at for at, _ in self._killed], "jobs": story}
            (self.manager.directory / "gitlab.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        self.report.instances = len(self.rows("SELECT 1 FROM instances"))
        self.report.requests = len(self.rows("SELECT 1 FROM create_requests"))

    def _refused_often(self) -> list[str]:
        """After a start a manager may not know how much GitLab has of a trace, but it asks wrongly once at most."""
        wrongs = []
        # a call of the killed manager may still be answered; the next one needs longer to its first call
        starts = [0.0, *(at + 0.5 for at, _ in self._killed)]
        for view in self.gitlab.jobs():
            refused = [at for at, name, _ in view.events if name == "range_refused"]
            lives = collections.Counter(bisect.bisect(starts, at) for at in refused)
            wrongs += [f"job {view.id}: GitLab refused {n} ranges of one manager" for n in lives.values() if n > 1]
        return wrongs

    def left_behind(self) -> list[str]:
        """What is still there although everything has ended."""
        wrongs = []
        for what, sql in LEFT.items():
            wrongs += [f"{what}: {tuple(row)}" for row in self.rows(sql)]
        wrongs += [f"a machine is left: {path.name}" for path in self.manager.machines()]
        wrongs += [f"a spool file is left: {path.name}" for path in (self.manager.state / "spool").glob("*")]
        wrongs += [f"a process is left: {line}" for line in processes_below(self.manager.state)]
        wrongs += [f"on the engine is left: {kind} {names}" for kind, names in self._in_containers().items() if names]
        wrongs += [f"the manager broke: {entry}" for entry in self._broken()]
        return wrongs

    def _in_containers(self) -> dict[str, list[str]]:
        """Containers and networks of this run's jobs; volumes may be kept."""
        if self._engine is None:
            return {}
        found = self._engine.found(f"com.gitlab.gitlab-runner.runner.id={short_token(self.manager.runner['token'])}")
        return {kind: names for kind, names in found.items() if kind != "volumes"}

    def _broken(self) -> list[str]:
        names = {"work_failed", "controller_failed", "provider_broke", "work_hung"}
        entries = _entries(self.manager.log())
        return [
            f"{entry['event']}: {str(entry.get('exception'))[-1500:]}" for entry in entries if entry["event"] in names
        ]

    def follow_times(self) -> list[float]:
        """For each kill and each job that ran then: seconds until it was followed again (or had ended)."""
        told = self._told()
        times = []
        ends = [at for at, _ in self._killed[1:]] + [float("inf")]
        for (at, running), end in zip(self._killed, ends, strict=True):
            for key in running:
                times += [follow - at for follow in told.get(key, ()) if at < follow < end][:1]
        return sorted(times)

    def _told(self, after: float = 0.0) -> dict[str, list[float]]:
        """When each job was followed or ended, as the log has it."""
        told: dict[str, list[float]] = collections.defaultdict(list)
        for entry in _entries(self.manager.log()):
            if entry.get("event") in {"job_followed", "job_ended"}:
                at = datetime.fromisoformat(entry["timestamp"]).timestamp()
                if at > after:
                    told[str(entry["job_key"])].append(at)
        return told


LEFT = {
    "an instance is not gone": "SELECT instance_id, state, end_reason FROM instances WHERE state <> 'gone'",
    "a lease is active": "SELECT lease_id, state FROM leases WHERE state IN ('granted', 'running', 'cleaning')",
    "a reservation is held": "SELECT reservation_id, state, job_key FROM reservations",
    "a job is open": "SELECT gitlab_job_id, state FROM jobs WHERE state NOT IN ('finished', 'abandoned')",
    "a request is open": "SELECT request_id, error FROM create_requests WHERE state = 'open'",
    "a job holds secrets": "SELECT gitlab_job_id, state FROM jobs WHERE length(token) + length(payload) > 0",
    "a machine was nobody's": "SELECT instance_id, machine_id FROM instances WHERE end_reason = 'orphan'",
    "two jobs of one hand-over": "SELECT gitlab_job_id, count(*) FROM jobs WHERE state = 'finished' "
    "GROUP BY gitlab_job_id HAVING count(*) > 1",
}  # fmt: skip


def _entries(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "event" in entry:
                yield entry


def processes_below(folder: pathlib.Path) -> list[str]:
    """Processes whose environment or arguments name something below a folder."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes()
            if str(folder).encode() in command + (path / "environ").read_bytes():
                found.append(f"{path.name} {command.replace(bytes(1), b' ').decode(errors='replace')[:200]}")
    return found


def percentile(values: list[float], part: float) -> float:
    """Of sorted values; 0.0 of none."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0
