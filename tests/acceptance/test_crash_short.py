"""The crash test in short: ten kills at aimed and random moments, and nothing is lost, repeated or left behind."""

from __future__ import annotations

import random

import pytest

from fleet.demo.gitlab import PretendGitLab
from fleet.demo.state import Knobs
from tests.acceptance.crash_run import CrashRun


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "containers"])
def test_law_4_ten_kills_lose_and_repeat_nothing(kind, tmp_path, request):
    database = request.getfixturevalue("empty_postgres_url") if kind == "postgresql" else None
    engine = request.getfixturevalue("docker_engine") if kind == "containers" else None
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    with PretendGitLab(threads=96, knobs=Knobs(update_interval_s=1, ack_within_s=8.0)) as gitlab:
        run = CrashRun(
            tmp_path,
            gitlab,
            seed=seed,
            database=database,
            at_once=12,
            machines=5,
            capacity=3,
            longest_s=6.0,
            aim_s=2.0,
            engine=engine,
        )
        report = run.run(10)
    assert not report.wrongs, "\n".join([f"seed {seed}", *report.wrongs])
    assert report.kills == 10
