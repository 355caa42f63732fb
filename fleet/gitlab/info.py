"""What we tell GitLab about ourselves with every request: the `info` object.

Rule: GitLab hands out only jobs whose needs are among the features told here, and believes whichever request came
last. So the whole object goes with every request, and it promises only what is passed in; which features work is
decided elsewhere.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Mapping
from typing import Any

FEATURES = (
    "trace_reset",
    "trace_checksum",
    "trace_size",
    "cancelable",
    "cancel_gracefully",
    "two_phase_job_commit",
    "job_inputs",
    "artifacts",
    "upload_multiple_artifacts",
    "upload_raw_artifacts",
    "artifacts_exclude",
    "cache",
    "fallback_cache_keys",
    "refspecs",
    "raw_variables",
    "multi_build_steps",
    "return_exit_code",
    "vault_secrets",
    "masking",
    "variables",
    "image",
    "services",
    "service_variables",
    "service_multiple_aliases",
    "image_executor_opts",
    "service_executor_opts",
    "session",
    "terminal",
    "native_steps_integration",
    "shared",
    "proxy",
)

_ARCHITECTURES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "arm64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "loongarch64": "loong64",
}


def platform_name(system: str = sys.platform) -> str:
    """The operating system as Go names it."""
    return "windows" if system == "win32" else system.rstrip("0123456789")


def architecture_name(machine: str | None = None) -> str:
    """The processor as Go names it; names not known here are the same in Go (ppc64le, s390x, riscv64)."""
    found = (machine or platform.machine()).lower()
    return _ARCHITECTURES.get(found, found)


def build_info(
    *,
    version: str,
    executor: str,
    shell: str,
    features: Collection[str],
    name: str = "gitlab-runner",
    revision: str = "HEAD",
    labels: Mapping[str, str] | None = None,
    gpus: str = "",
) -> dict[str, Any]:
    """The object to send; a feature that GitLab has no name for is a mistake of the program (`ValueError`)."""
    unknown = sorted(set(features) - set(FEATURES))
    if unknown:
        raise ValueError(f"GitLab knows no feature {', '.join(unknown)}")
    return {
        "name": name,
        "version": version,
        "revision": revision,
        "platform": platform_name(),
        "architecture": architecture_name(),
        "executor": executor,
        "shell": shell,
        "features": {feature: feature in features for feature in FEATURES},
        "config": {"gpus": gpus},
        "labels": dict(labels or {}),
    }
