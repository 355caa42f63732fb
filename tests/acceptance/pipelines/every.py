"""All cases of the conformance pipeline."""

from __future__ import annotations

from tests.acceptance.pipelines import containers, ends, inputs, log, scripts, services, sources, variables
from tests.acceptance.pipelines.case import BOTH, Case

RUN_ON = BOTH  # whose jobs are run; of any other executor nothing is shown yet
CASES: tuple[Case, ...] = (
    *ends.CASES,
    *scripts.CASES,
    *sources.CASES,
    *variables.CASES,
    *log.CASES,
    *inputs.CASES,
    *containers.CASES,
    *services.CASES,
)
