"""What this program can do for jobs, in GitLab's words: the `features` of the `info` object.

Rule: only what works. GitLab hands out only jobs whose needs are named here; a word too few leaves jobs waiting, a word
too many breaks them. Not here, because not built: native steps, terminals.
"""

from __future__ import annotations

CLIENT = frozenset((
    "trace_reset", "trace_checksum", "trace_size", "cancelable", "cancel_gracefully", "two_phase_job_commit",
))  # fmt: skip
SHELL = frozenset(("variables", "raw_variables", "refspecs", "masking", "multi_build_steps", "return_exit_code"))
ARTIFACTS = frozenset(("artifacts", "upload_multiple_artifacts", "upload_raw_artifacts", "artifacts_exclude"))
CACHE = frozenset(("cache", "fallback_cache_keys"))
PAYLOAD = frozenset(("vault_secrets", "job_inputs"))  # what the manager does with a payload, whatever the executor
CONTAINERS = frozenset((
    "image", "services", "service_variables", "service_multiple_aliases", "image_executor_opts",
    "service_executor_opts",
))  # fmt: skip
TERMINALS = frozenset(("session", "terminal"))
SHELL_EXECUTORS = frozenset(("instance", "shell", "ssh"))
CONTAINER_EXECUTORS = frozenset(("docker", "docker-autoscaler", "docker-ssh"))


def features_of(executor: str, *, terminals: bool = False) -> frozenset[str]:
    """What a runner of this executor advertises; `terminals`: GitLab can reach those of its jobs."""
    if executor in CONTAINER_EXECUTORS:
        return features_of("instance", terminals=terminals) | CONTAINERS
    if executor not in SHELL_EXECUTORS:
        return frozenset()
    return CLIENT | PAYLOAD | SHELL | ARTIFACTS | CACHE | {"shared"} | (TERMINALS if terminals else frozenset())
