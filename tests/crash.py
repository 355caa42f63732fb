"""The crash test: `python -m tests.crash`. Fifty jobs, a hundred kills, on SQLite and on PostgreSQL; then the proof.

The third part, `pair`, has two managers on one PostgreSQL: either is killed, or stopped and woken, at random moments.

Prints a table and ends with 1 when anything was lost, repeated, left behind, or against the protocol. `--seed` repeats
the choices of a run; what the operating system makes of them differs each time.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.state import Knobs
from tests.acceptance.crash_run import CrashRun, Report, percentile
from tests.acceptance.pair import Pair
from tests.postgres import Databases, server

KINDS = ("sqlite", "postgresql", "pair")


def main() -> int:
    """Run it as the command line says; 0 when nothing was wrong."""
    given = _arguments()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    home = pathlib.Path(tempfile.mkdtemp(prefix="fleet-crash-"))
    reports = {}
    for kind in given.part or KINDS:
        with _database(kind) as url:
            run = _run_pair if kind == "pair" else _run
            reports[kind] = run(home / kind, seed, url, given)
    for kind, report in reports.items():
        _print(kind, report)
    broken = any(report.wrongs for report in reports.values())
    if broken:
        print(f"\nlogs and stores are in {home}; again with: python -m tests.crash --seed {seed}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=50, help="jobs at once")
    parser.add_argument("--follow-kills", type=int, default=5, help="kills for the time until all jobs are followed")
    parser.add_argument("--rounds", type=int, default=30, help="kills and stops of one of the pair")
    parser.add_argument("--part", choices=KINDS, action="append", help="all three, when not given")
    return parser.parse_args()


@contextlib.contextmanager
def _database(kind: str) -> Iterator[str | None]:
    if kind == "sqlite":
        yield None
        return
    with server() as admin:
        databases = Databases(admin)
        name = databases.make()
        try:
            yield databases.url_of(name)
        finally:
            databases.drop(name)


def _run(directory: pathlib.Path, seed: int, url: str | None, given: argparse.Namespace) -> Report:
    directory.mkdir(parents=True)

    def say(text: str) -> None:
        print(f"  {directory.name}: {text}", flush=True)

    with PretendGitLab(threads=200, knobs=Knobs(update_interval_s=1)) as gitlab:
        run = CrashRun(directory, gitlab, seed=seed, database=url, at_once=given.jobs, say=say)
        return run.run(given.kills, follow_kills=given.follow_kills, patience_s=300.0)


def _run_pair(directory: pathlib.Path, seed: int, url: str | None, given: argparse.Namespace) -> Report:
    directory.mkdir(parents=True)
    began, rng = time.monotonic(), random.Random(seed)
    report = Report(seed=seed)
    with PretendGitLab(threads=200, knobs=Knobs(update_interval_s=1)) as gitlab:
        pair = Pair(directory, gitlab, str(url), machines=8, capacity=3, ttl_s=6)
        try:
            pair.start()
            for number in range(1, given.rounds + 1):
                pair.top_up(24)
                time.sleep(rng.uniform(0.0, 4.0))
                what = pair.trouble(rng)
                report.aims[what] += 1
                print(f"  pair: {number}: {what}; {len(pair.known)} jobs in all", flush=True)
            pair.settle(timeout=300)
            report.wrongs += pair.wrongs() + gitlab.violations()
        except (AssertionError, TimeoutError) as exc:
            report.wrongs += [str(exc), *gitlab.violations()]
        finally:
            report.jobs, report.kills = len(pair.known), sum(m.starts - 1 for m in pair.managers.values())
            report.requeued = sum(view.requeued for view in gitlab.jobs())
            report.instances = len(pair.rows("SELECT 1 FROM instances"))
            report.requests = len(pair.rows("SELECT 1 FROM create_requests"))
            pair.close()
    report.took_s = time.monotonic() - began
    return report


def _print(kind: str, report: Report) -> None:
    follow, all_of_them = report.follow_s, report.all_followed_s
    rows = [
        ("kills", f"{report.kills}, of which {report.follow_kills} with every slot busy"),
        ("aimed at", _counts(report.aims)),
        ("found at the kills", _counts(report.states_at_kill)),
        ("jobs", f"{report.jobs}, {report.instances} machines in {report.requests} requests"),
        ("handed out again by GitLab", f"{report.requeued} (never acknowledged)"),
        ("a job is followed again after", f"p50 {percentile(follow, 0.5):.2f} s, p99 {percentile(follow, 0.99):.2f} s"),
        ("all are followed again after", ", ".join(f"{each:.2f} s" for each in all_of_them) or "-"),
        ("took", f"{report.took_s:.0f} s"),
        ("wrong", str(len(report.wrongs))),
    ]
    print(f"\n{kind}, seed {report.seed}")
    for name, value in rows:
        print(f"  {name:<32} {value}")
    for wrong in report.wrongs:
        print(f"  WRONG {wrong}")


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


if __name__ == "__main__":
    sys.exit(main())
