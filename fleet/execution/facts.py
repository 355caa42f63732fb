"""What the pure part of execution is told: about the runner, the machine and the lease.

Rule: facts are plain values, gathered by whoever calls `render`; nothing here looks anything up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fleet.execution.containers.registries import Login
from fleet.settings.docker import DockerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFacts:
    """The runner's remote store of caches, as far as names and sizes go.

    Attributes:
        path: what the names of all objects begin with.
        shared: with other runners.
        max_bytes: of an archive that is uploaded; 0 is no limit.
    """

    path: str = ""
    shared: bool = False
    max_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFacts:
    """One `[[runners]]` entry, as far as a job can feel it.

    Attributes:
        shell: one of `jobfile.SHELLS`; None takes the first of them that the machine has.
        user: who runs the scripts; None is the agent's own user.
        reads_secrets: whoever runs its scripts could read the manager's secrets, and no person allowed that.
        login: start the shell as a login shell, as GitLab Runner does for its shell-like executors.
        builds_dir: relative paths, and None, are below the home of the job's user.
        clean_git_config: None lets the executor and the git strategy decide.
        use_common_build_dir: set it only where a machine serves one job in its life.
        docker: jobs run in containers, by these settings; None: in shells on the machine.
        seccomp_profiles: the texts of the files that its security options name.
        registry_logins: of the manager's own user.
        tls_ca: PEM text, as are `tls_cert` and `tls_key`; empty where there is nothing to say.
    """

    name: str
    short_token: str
    runner_id: int
    system_id: str
    version: str
    server_url: str
    revision: str = ""
    executable_arch: str = "linux/amd64"
    manager_host: str = ""
    executor: str = "instance"
    shell: str | None = None
    user: str | None = None
    reads_secrets: bool = False
    login: bool = True
    builds_dir: str | None = None
    cache_dir: str | None = None
    cache: CacheFacts = CacheFacts()
    clone_url: str | None = None
    environment: tuple[str, ...] = field(default=(), repr=False)
    feature_flags: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    pre_get_sources_script: str = field(default="", repr=False)
    post_get_sources_script: str = field(default="", repr=False)
    pre_build_script: str = field(default="", repr=False)
    post_build_script: str = field(default="", repr=False)
    custom_build_dir: bool = False
    output_limit_kib: int = 4096
    debug_trace_disabled: bool = False
    clean_git_config: bool | None = None
    safe_directory_checkout: bool = False
    get_sources_timeout_s: float | None = None
    prepare_timeout_s: float | None = None
    artifact_upload_timeout_s: float = 3600.0
    artifact_header_timeout_s: float = 600.0
    use_common_build_dir: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = field(default="", repr=False)
    docker: DockerTable | None = None
    seccomp_profiles: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    registry_logins: tuple[Login, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """The machine of the lease, mostly from the agent's `hello` and `user`.

    Attributes:
        home: of the job's user.
        user: the agent's own user.
        shells: names or paths.
        git: its version, None where there is no git.
        arch: of its processor, as `uname -m` says it.
    """

    instance_id: str
    home: str
    user: str = ""
    is_root: bool = False
    git: str | None = None
    git_lfs: bool = False
    shells: tuple[str, ...] = ("bash", "sh")
    arch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """The slot that the job holds.

    Attributes:
        disposable: the machine is deleted after this job.
        correlation_id: of the request that brought the job; git passes it on to Gitaly.
    """

    lease_id: str
    concurrent_id: int
    project_concurrent_id: int
    disposable: bool = False
    correlation_id: str = ""
