"""Keys that GitLab Runner knows and this program does not cover (yet), so that they are not mistaken for typing errors.

Rule: a key that is read anywhere in `manager`, `runner` or `autoscaler` is not listed here. The names are those of
GitLab Runner 19.4; `None` as the keys of a table means that anything may stand in it.
"""

from __future__ import annotations

from collections.abc import Mapping

WINDOWS = "only containers of Windows have it"
NEVER = "there is no such part in this program"

NOT_COVERED: Mapping[tuple[str, ...], Mapping[str, str]] = {
    (): {
        "sentry_dsn": "errors are not sent to Sentry; they are in the log",
        "experimental": "the usage log is not covered yet",
        "machine": "Docker Machine is not supported; use [runners.autoscaler]",
        "metrics_server": "use listen_address",
        "metrics_server_address": "use listen_address",
    },
    ("runners",): {
        "custom": "executor custom is not supported",
        "experimental": "the boot check is not covered; machines are checked before they get jobs",
        "kubernetes": "executor kubernetes is not supported",
        "machine": "Docker Machine is not supported; use [runners.autoscaler]",
        "monitoring": "queuing-time metrics are not covered yet",
        "parallels": "executor parallels is not supported",
        "post_clone_script": "GitLab Runner renamed it to post_get_sources_script",
        "pre_clone_script": "GitLab Runner renamed it to pre_get_sources_script",
        "proxy_exec": NEVER,
        "referees": "referees are not covered",
        "slot_cgroup_template": "control groups per slot are not covered yet",
        "step_runner_image": "native steps are not covered yet",
        "use_slot_cgroups": "control groups per slot are not covered yet",
        "virtualbox": "executor virtualbox is not supported",
    },
    ("runners", "docker"): {
        "isolation": WINDOWS,
        "service_slot_cgroup_template": "control groups per slot are not covered yet",
        "tls_cert_path": "the engine is reached on its machine, through its socket",
        "tls_verify": "the engine is reached on its machine, through its socket",
    },
    ("runners", "instance"): {"allowed_images": "only nested machines (vm_isolation) have images"},
    ("runners", "autoscaler"): {"vm_isolation": "nested machines are not covered"},
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What may stand inside the tables above, so that a typing error in them is found, too.
INSIDE: Mapping[tuple[str, ...], frozenset[str] | None] = {
    ("experimental",): None,
    ("machine",): None,
    ("runners", "custom"): None,
    ("runners", "kubernetes"): None,
    ("runners", "virtualbox"): None,
    ("runners", "parallels"): None,
}
