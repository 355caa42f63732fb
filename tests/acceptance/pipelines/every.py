"""All cases of the conformance pipeline."""

from __future__ import annotations

from tests.acceptance.pipelines import (
    artifacts,
    caches,
    containers,
    elsewhere,
    ends,
    inputs,
    log,
    payload,
    scripts,
    services,
    sources,
    variables,
)
from tests.acceptance.pipelines.case import BOTH, Case

RUN_ON = BOTH  # whose jobs are run; of any other executor nothing is shown yet
CASES: tuple[Case, ...] = (
    *ends.CASES,
    *scripts.CASES,
    *sources.CASES,
    *variables.CASES,
    *log.CASES,
    *inputs.CASES,
    *payload.CASES,
    *containers.CASES,
    *services.CASES,
    *caches.CASES,
    *artifacts.CASES,
    *elsewhere.CASES,
)
