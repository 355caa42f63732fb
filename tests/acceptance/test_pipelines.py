"""The conformance pipeline: what GitLab Runner does, job by job, through the real program."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.acceptance.pipelines.case import BOTH, DOCKER, SECTIONS
from tests.acceptance.pipelines.every import CASES, RUN_ON
from tests.acceptance.pipelines.running import run_cases
from tests.acceptance.pipelines.table import PAGE, page
from tests.acceptance.pipelines.world import running_world
from tests.acceptance.standing import settled

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", RUN_ON)
def test_jobs_behave_as_on_gitlab_runner(executor, tmp_path, request):
    engine = request.getfixturevalue("docker_engine") if executor == DOCKER else None
    registry = request.getfixturevalue("docker_registry") if executor == DOCKER else None
    cases = [each for each in CASES if each.runs_on(executor)]
    with running_world(tmp_path / "m", executor, engine=engine, registry=registry) as world:
        found = run_cases(world, cases)
        settled(world.gitlab, world.manager)
        assert world.left_over() == {"containers": [], "networks": []}
    wrong = {name: wrongs for name, wrongs in found.items() if wrongs}
    told = "\n".join(f"{name}:\n    " + "\n    ".join(wrongs) for name, wrongs in wrong.items())
    assert not wrong, f"{len(wrong)} of {len(cases)} cases\n{told}"


def test_the_page_of_compatibility_is_drawn_from_the_cases():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        f"draw it anew: python -m tests.acceptance.pipelines.table > {PAGE}"
    )


def test_every_case_is_told_once_and_shown_by_a_job_or_a_test_that_is_there():
    names = [each.id for each in CASES]
    assert sorted(names) == sorted(set(names))
    for each in CASES:
        assert each.section in SECTIONS, each.id
        assert set(each.on) <= set(BOTH), each.id
        assert each.jobs or each.proof or set(each.not_yet) >= set(each.on), f"{each.id} is shown by nothing"
        if each.proof:
            path, _, test = each.proof.partition("::")
            assert re.search(rf"^def {test}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), each.proof
