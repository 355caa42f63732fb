"""Keys that GitLab Runner knows and this program does not cover (yet), so that they are not mistaken for typing errors.

Rule: a key that is read anywhere in `manager`, `runner` or `autoscaler` is not listed here. The names are those of
GitLab Runner 19.4; `None` as the keys of a table means that anything may stand in it.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTAINERS = "jobs in containers are not covered yet"
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
        "artifact": "transfers of artifacts are not covered yet",
        "custom": "executor custom is not supported",
        "docker": CONTAINERS,
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
    ("runners", "instance"): {"allowed_images": "only nested machines (vm_isolation) have images"},
    ("runners", "autoscaler"): {"vm_isolation": "nested machines are not covered"},
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What may stand inside the tables above, so that a typing error in them is found, too.
INSIDE: Mapping[tuple[str, ...], frozenset[str] | None] = {
    ("experimental",): None,
    ("machine",): None,
    ("runners", "artifact"): _words("upload_timeout response_header_timeout"),
    ("runners", "docker"): _words(
        "host tls_cert_path tls_verify hostname image runtime memory memory_swap memory_reservation cgroup_parent"
        " cpuset_cpus cpuset_mems cpus cpu_shares dns dns_search privileged services_privileged"
        " disable_entrypoint_overwrite user allowed_users group_add userns_mode cap_add cap_drop oom_kill_disable"
        " oom_score_adjust security_opt services_security_opt devices device_cgroup_rules gpus services_devices"
        " disable_cache volumes volume_keep volume_driver volume_driver_ops cache_dir extra_hosts volumes_from"
        " network_mode pid_mode ipcmode mac_address links services services_limit service_memory"
        " service_memory_swap service_memory_reservation service_cgroup_parent service_slot_cgroup_template"
        " service_cpuset_cpus service_cpus service_cpu_shares service_gpus wait_for_services_timeout"
        " allowed_images allowed_privileged_images allowed_privileged_services allowed_pull_policies"
        " allowed_services pull_policy isolation shm_size tmpfs services_tmpfs sysctls helper_image"
        " helper_image_flavor container_labels enable_ipv6 ulimit network_mtu log_options"
    ),
    ("runners", "custom"): None,
    ("runners", "kubernetes"): None,
    ("runners", "virtualbox"): None,
    ("runners", "parallels"): None,
}
