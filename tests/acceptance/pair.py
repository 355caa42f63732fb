"""Two managers on one PostgreSQL store that share a pool of local machines, as two hosts would share a cloud."""

from __future__ import annotations

import pathlib
import random
import secrets
import signal
import time
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import Fernet

from fleet.demo.gitlab import PretendGitLab
from fleet.store.engine import open_engine
from tests.acceptance.crash_jobs import Jobs, Known
from tests.acceptance.crash_run import LEFT, processes_below
from tests.acceptance.manager import Manager, end_machines, wait_until

TTL_S = 4
NAMES = ("a", "b")


class Pair:
    """Managers `a` and `b`, their common store and machines, and jobs whose end is known."""

    def __init__(
        self,
        directory: pathlib.Path,
        gitlab: PretendGitLab,
        url: str,
        *,
        machines: int = 3,
        capacity: int = 2,
        pool_keys: str = "",
        ttl_s: float = TTL_S,
    ) -> None:
        self.gitlab = gitlab
        self.shared = directory / "shared"
        self.machines = machines
        self.ttl_s = ttl_s
        self.engine = open_engine(url)
        self.jobs = Jobs(directory / "evidence", random.Random(1))
        self.known: dict[int, Known] = {}
        key = Fernet.generate_key().decode()
        runner = gitlab.create_runner(description="shared")
        keys = f"""
  delete_instances_on_shutdown = true
  {pool_keys}
  [runners.autoscaler.plugin_config]
  root = "{self.shared / "local"}"
"""
        self.managers: dict[str, Manager] = {}
        for name in NAMES:
            manager = Manager(
                directory / name,
                gitlab,
                machines=machines,
                capacity=capacity,
                idle_time="20s",
                pool_keys=keys,
                fleet_keys=f'manager_claim_ttl = "{ttl_s}s"',
                database=url,
                runner=runner,
            )
            manager.environment["FLEET_SECRET_KEY"] = key
            (manager.directory / ".runner_system_id").write_text(f"r_{secrets.token_hex(6)}", encoding="ascii")
            self.managers[name] = manager
        self.a, self.b = self.managers.values()

    def close(self) -> None:
        """End both, and every machine."""
        for manager in self.managers.values():
            if manager.process is not None and manager.process.poll() is None:
                manager.send(signal.SIGCONT)
            manager.clear()
        end_machines(self.shared)
        self.engine.dispose()

    def start(self, *names: str) -> None:
        """Start these, one after the other, or both; each runs on return."""
        for name in names or NAMES:
            manager = self.managers[name].start()
            wait_until(lambda m=manager: len(m.events("manager_started")) == m.starts, 60, f"the start of {name}")

    def rows(self, sql: str, **values: Any) -> list[Any]:
        """Read the store."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(sql), values))

    def name_of(self, manager_id: str) -> str:
        """`a` or `b`."""
        ids = {
            (m.directory / ".runner_system_id").read_text(encoding="ascii"): name for name, m in self.managers.items()
        }
        return ids[manager_id]

    def owners(self, *states: str) -> dict[str, int]:
        """How many jobs each manager has in these states."""
        listed = ", ".join(f"'{state}'" for state in states)
        found = self.rows(f"SELECT owner, count(*) AS n FROM jobs WHERE state IN ({listed}) GROUP BY owner")
        return {self.name_of(row.owner): row.n for row in found}

    def pool_owner(self) -> str | None:
        """Whose hands the pool is in, as the row says."""
        (row,) = self.rows("SELECT owner FROM pools")
        return None if row.owner is None else self.name_of(row.owner)

    def enqueue(self, count: int, kind: str = "slow", seconds: float = 8.0) -> list[int]:
        """Queue known jobs."""
        made = [self.jobs.make(kind, seconds) for _ in range(count)]
        new = {self.gitlab.enqueue(each.payload): each for each in made}
        self.known |= new
        return list(new)

    def top_up(self, at_once: int) -> None:
        """As many jobs of all kinds are open as said."""
        counts = self.gitlab.counts()
        ended = sum(counts.get(state, 0) for state in ("success", "failed", "canceled"))
        made = [self.jobs.random(longest_s=15.0) for _ in range(at_once - (sum(counts.values()) - ended))]
        self.known |= {self.gitlab.enqueue(each.payload): each for each in made}

    def trouble(self, rng: random.Random) -> str:
        """Kill one and start it again, or stop one and wake it; the time between is shorter or longer than a claim."""
        name, how = rng.choice(NAMES), rng.choice(("kill", "pause"))
        away_s = rng.choice((rng.uniform(0.0, 1.0), rng.uniform(1.5, 3.0) * self.ttl_s))
        if how == "kill":
            self.kill(name)
            time.sleep(away_s)
            self.managers[name].start()
        else:
            self.pause(name)
            time.sleep(away_s)
            self.resume(name)
        return f"{how}, {'short' if away_s < self.ttl_s else 'long'}"

    def await_running(self, count: int) -> dict[str, int]:
        """Once so many jobs run: how many each manager has."""
        wait_until(lambda: sum(self.owners("running").values()) >= count, 60, f"{count} running jobs")
        return self.owners("running")

    def kill(self, name: str) -> None:
        """`kill -9`; the other may step in from now on."""
        self.managers[name].kill()
        self.gitlab.manager_takeover()

    def pause(self, name: str) -> None:
        """Stop the process where it stands; the other may step in from now on."""
        self.managers[name].send(signal.SIGSTOP)
        self.gitlab.manager_takeover()

    def resume(self, name: str) -> None:
        """It goes on as if nothing had happened."""
        self.managers[name].send(signal.SIGCONT)

    def await_takeover(self, name: str) -> None:
        """Until `name` owns the pool and every open job."""
        other = next(each for each in NAMES if each != name)

        def taken() -> bool:
            open_states = ("received", "waiting", "starting", "running", "finishing")
            return self.pool_owner() == name and not self.owners(*open_states).get(other)

        wait_until(taken, 60, f"the take-over by {name}")

    def settle(self, timeout: float = 90.0) -> None:
        """All known jobs come to their end; then everybody who runs stops, and the last one deletes the machines."""
        self.gitlab.wait_for(*self.known, timeout=timeout)
        living = [m for m in self.managers.values() if m.process is not None and m.process.poll() is None]
        for manager in living[:-1]:
            assert manager.stop(signal.SIGTERM, timeout=60) == 0
        assert living[-1].stop(signal.SIGQUIT, timeout=90) == 0

    def wrongs(self) -> list[str]:
        """Everything that is not as it must be, after `settle`."""
        wrongs = self.jobs.wrongs(self.gitlab, self.known)
        for what, sql in LEFT.items():
            wrongs += [f"{what}: {tuple(row)}" for row in self.rows(sql)]
        wrongs += self._machine_wrongs()
        wrongs += [f"a process is left: {line}" for line in processes_below(self.shared)]
        for name, manager in self.managers.items():
            for event in ("work_failed", "controller_failed", "provider_broke", "work_hung"):
                wrongs += [
                    f"{name} broke: {event}: {each.get('exception', '')[-1500:]}" for each in manager.events(event)
                ]
        return wrongs

    def _machine_wrongs(self) -> list[str]:
        """Each intent made its machines once, and never were there more than the pool may have."""
        root = self.shared / "local"
        asked = {row.request_id: row.n for row in self.rows("SELECT request_id, count AS n FROM create_requests")}
        made = list((root / "tokens").glob("*/request.json"))
        wrongs = [f"a machine is left: {path.name}" for path in (root / "machines").glob("[!.]*")]
        if len(made) > len(asked):
            wrongs.append(f"{len(made)} requests reached the provider, {len(asked)} were intended")
        machines = [
            row.machine_id for row in self.rows("SELECT machine_id FROM instances WHERE machine_id IS NOT NULL")
        ]
        gone = {path.stem for path in (root / "tokens").glob("*/*.gone")}
        if sorted(machines) != sorted(gone):
            wrongs.append(f"machines that were: {sorted(gone)}, machines of rows: {sorted(machines)}")
        if self.most_at_once() > self.machines:
            wrongs.append(f"{self.most_at_once()} instances at once, max_instances is {self.machines}")
        return wrongs

    def most_at_once(self) -> int:
        """The most instances that were not gone at one moment, by the rows."""
        spans = self.rows("SELECT created_at, gone_at FROM instances")
        edges = [(row.created_at, 1) for row in spans] + [(row.gone_at, -1) for row in spans if row.gone_at is not None]
        most = now = 0
        for _, step in sorted(edges):
            now += step
            most = max(most, now)
        return most

    def ran(self, name: str) -> list[int]:
        """The jobs that this manager brought onto a machine."""
        return [entry["job_id"] for entry in self.managers[name].events("job_started")]
