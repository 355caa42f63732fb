"""The feature flags of GitLab Runner: which there are, what they are when nobody says, and what this job makes of them.

Rule: the runner's configuration beats the job's variables, which beat the default. A flag that has no effect here is
still listed, because jobs can read each as a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

DEFAULTS: Mapping[str, bool] = {
    "FF_NETWORK_PER_BUILD": False,
    "FF_USE_DIRECT_DOWNLOAD": True,
    "FF_USE_FASTZIP": True,
    "FF_SCRIPT_SECTIONS": False,
    "FF_ENABLE_JOB_CLEANUP": False,
    "FF_ENABLE_BASH_EXIT_CODE_CHECK": False,
    "FF_TIMESTAMPS": True,
    "FF_MASK_ALL_DEFAULT_TOKENS": True,
    "FF_USE_ADAPTIVE_REQUEST_CONCURRENCY": True,
    "FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL": False,
    "FF_RESOLVE_FULL_TLS_CHAIN": False,
    "FF_USE_DOCKER_AUTOSCALER_DIAL_STDIO": True,
    "FF_USE_FLEETING_ACQUIRE_HEARTBEATS": False,
    "FF_USE_INIT_WITH_DOCKER_EXECUTOR": False,
    "FF_USE_NATIVE_CONTAINER_STOP": False,
    "FF_LOG_IMAGES_CONFIGURED_FOR_JOB": False,
    "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION": False,
    "FF_EXPORT_HIGH_CARDINALITY_METRICS": False,
    "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY": True,
    "FF_SECRET_RESOLVING_FAILS_IF_MISSING": True,
    "FF_HASH_CACHE_KEYS": False,
    "FF_GIT_URLS_WITHOUT_TOKENS": False,
    "FF_USE_GIT_BUNDLE_URIS": True,
    "FF_USE_GIT_NATIVE_CLONE": False,
    "FF_USE_GITALY_CORRELATION_ID": True,
    "FF_CLEAN_UP_FAILED_CACHE_EXTRACT": False,
    "FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR": False,
    "FF_ENABLE_JOB_INPUTS_INTERPOLATION": True,
    "FF_USE_JOB_ROUTER": False,
    "FF_SUSPENDABLE_ENVIRONMENTS": False,
    "FF_CONCRETE": False,
    "FF_SCRIPT_TO_STEP_MIGRATION": False,
    "FF_USE_PARALLEL_CACHE_TRANSFER": False,
    "FF_USE_PARALLEL_ARTIFACT_TRANSFER": False,
}

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def as_bool(text: str) -> bool | None:
    """What GitLab Runner reads as a truth value; None for any other text."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def resolve(configured: Mapping[str, bool], job: Callable[[str], str | None]) -> tuple[dict[str, bool], list[str]]:
    """Every flag's value for this job, and warnings about what the job says and nobody can read."""
    values: dict[str, bool] = {}
    warnings: list[str] = []
    for name, default in DEFAULTS.items():
        said = job(name)
        if name in configured:
            values[name] = configured[name]
        elif said is None:
            values[name] = default
        else:
            read = as_bool(said)
            values[name] = bool(read)
            if read is None and said:
                warnings.append(f"feature flag {name} is neither true nor false in the job's variables: it is off")
    return values, warnings


def changed(values: Mapping[str, bool]) -> list[str]:
    """The flags that differ from their default, as the log shows them."""
    return [f"{name}:{str(on).lower()}" for name, on in values.items() if on is not DEFAULTS[name]]
