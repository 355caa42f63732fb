"""`[[runners]]`: one GitLab runner, with GitLab Runner's words and defaults.

Rule: a runner's identity is url and id, never the token: a token is renewed, and a pool, a limit or a job must not
lose its owner by that.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from fleet.model.ids import PoolName, RunnerKey
from fleet.settings.artifact import ArtifactTable
from fleet.settings.autoscaler import AutoscalerTable
from fleet.settings.cache import CacheTable
from fleet.settings.docker import DockerTable
from fleet.settings.durations import Duration
from fleet.settings.section import Instant, OptionalSecret, Secret, Section, Text, Texts

PREFIX = re.compile(r"glrt-(?:t[123]_)?|t[123]_|glrtr-|glcbt-|GR[0-9A-Fa-f]{7}")
VARIABLE = re.compile(r"[^=]+=.*", re.DOTALL)


def short_token(token: str) -> str:
    """What may be shown of a token, the same as GitLab Runner shows: the prefix removed, nine characters."""
    return PREFIX.sub("", token, count=1)[:9] if PREFIX.match(token) else token[:9]


class CustomBuildDirTable(Section):
    """`[runners.custom_build_dir]`: may a job set `GIT_CLONE_PATH`?"""

    enabled: bool | None = None
    """Allow `GIT_CLONE_PATH`. Not set: where a machine runs one job at a time."""


class InstanceTable(Section):
    """`[runners.instance]`: keys of the executor `instance`."""

    use_common_build_dir: bool = False
    """Use one build directory per project on a machine that runs one job at a time."""


class SshTable(Section):
    """`[runners.ssh]`: the one host of the executor `ssh`; several hosts are a pool with `plugin = "static"`."""

    host: Text = None
    """Name or address of the host."""
    port: Annotated[int, Field(strict=False, ge=1, le=65535)] = 22
    """SSH port, as a number or a text."""
    user: Text = None
    """User to log in as."""
    password: OptionalSecret = None
    """Password of that user; a key is better."""
    identity_file: Text = None
    """File with the private key on this host."""
    disable_strict_host_key_checking: bool = False
    """Accept the host key that the host shows at first contact; it is remembered and must not change after that."""
    known_hosts_file: Text = None
    """File with known host keys. Not set: `~/.ssh/known_hosts`."""

    @field_validator("port", mode="before")
    @classmethod
    def _port(cls, value: object) -> object:
        if isinstance(value, str) and value and not value.isdecimal():
            raise ValueError("is not a port: write a number from 1 to 65535")
        return 22 if value == "" else value  # an empty text means "not set"


class RunnerEntry(Section):
    """Keys of one `[[runners]]` entry that are about its jobs and its server."""

    name: str = ""
    """For people: shown in logs and lists."""
    url: Annotated[str, Field(min_length=1)]
    """Address of the GitLab server; variables such as `$GITLAB_URL` are filled in."""
    id: int = 0
    """The runner's number on that server; with `url` it is the identity of this entry."""
    token: Secret = SecretStr("")
    """The runner's authentication token; variables such as `$RUNNER_TOKEN` are filled in."""
    token_obtained_at: Instant = None
    """When the token was obtained; kept up to date by the manager."""
    token_expires_at: Instant = None
    """When the token ends. At three quarters of its life the manager renews it and writes it here."""
    tls_ca_file: Annotated[Text, Field(alias="tls-ca-file")] = None
    """File with the certificates (PEM) to trust for this server. Not set: the system's."""
    tls_cert_file: Annotated[Text, Field(alias="tls-cert-file")] = None
    """File with our client certificate (PEM)."""
    tls_key_file: Annotated[Text, Field(alias="tls-key-file")] = None
    """File with the key of our client certificate (PEM, without password)."""
    limit: int = 0
    """Jobs of this runner at once on this manager; 0 is no limit."""
    request_concurrency: int = 1
    """Polls of this runner at once while jobs flow; 0 or less means 1."""
    strict_check_interval: bool = False
    """Wait for `check_interval` also after a poll that brought a job."""
    output_limit: int = 4096
    """The longest log of a job, in KiB; 0 or less means 4096."""
    unhealthy_requests_limit: int = 3
    """Refused polls in a row after which this runner pauses; 0 or less means 3."""
    unhealthy_interval: Duration = timedelta(minutes=60)
    """How long that pause is; 0 or less means 1h."""
    job_status_final_update_retry_limit: int = 10
    """Tries to report a job's end at one go; 0 or less means 10."""
    prepare_timeout: Duration | None = None
    """The longest preparation of a job. Not set: the job's own timeout."""
    get_sources_timeout: Duration | None = None
    """The longest fetching of sources. Not set: the job's own timeout."""
    executor: Annotated[str, Field(min_length=1)]
    """Where and how jobs run: `instance` on a pool of machines, `ssh` on one host, `shell` on this host; in containers
    there: `docker-autoscaler`, `docker-ssh`, `docker`."""
    shell: Text = None
    """`bash`, `sh`, `pwsh` (PowerShell), or `powershell` (what Windows brings along). Not set: `bash` where the machine
    has it, else `sh`, else `pwsh`."""
    user: Text = None
    """User on the machine that runs the scripts. Not set: `user` at the top of the file, else the login user. Ours;
    GitLab Runner has this key at the top only."""
    builds_dir: Text = None
    """Directory on the machine for working copies."""
    cache_dir: Text = None
    """Directory on the machine for caches. Not set: `cache` in the home of the job's user."""
    clone_url: Text = None
    """Address to fetch sources from, where the server's own cannot be reached from the machines."""
    environment: Texts = Field(default=(), repr=False)
    """Variables for all jobs, each as `NAME=value`."""
    pre_get_sources_script: Text = None
    """Commands before the sources are fetched."""
    post_get_sources_script: Text = None
    """Commands after the sources are fetched."""
    pre_build_script: Text = None
    """Commands before a job's script."""
    post_build_script: Text = None
    """Commands after a job's script and before its `after_script`."""
    debug_trace_disabled: bool = False
    """Refuse `CI_DEBUG_TRACE`."""
    clean_git_config: bool | None = None
    """Remove git's configuration, hooks and locks of the working copy before fetching. Not set: true, but false on
    this host (`shell`) as in GitLab Runner."""
    safe_directory_checkout: bool | None = None
    """Mark the working copy as safe for git. Not set: true."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels told to GitLab."""
    feature_flags: dict[str, bool] = Field(default_factory=dict)
    """GitLab Runner's feature flags, `FF_...`; a variable of a job beats them."""
    custom_build_dir: CustomBuildDirTable = Field(default_factory=CustomBuildDirTable)
    """May a job set `GIT_CLONE_PATH`?"""
    artifact: ArtifactTable = Field(default_factory=ArtifactTable)
    """Time limits for artifacts."""
    cache: CacheTable = Field(default_factory=CacheTable)
    """A remote store for job caches; without one, they stay on the machine."""
    docker: DockerTable = Field(default_factory=DockerTable)
    """Keys of the executors that run jobs in containers."""
    instance: InstanceTable = Field(default_factory=InstanceTable)
    """Keys of the executor `instance`."""

    @field_validator("environment")
    @classmethod
    def _environment(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, each in enumerate(value, start=1):
            if not VARIABLE.fullmatch(each):  # the text itself may be a secret
                raise ValueError(f"entry {number} is not a variable: write it as NAME=value")
        return value

    @field_validator("limit")
    @classmethod
    def _limit(cls, value: int) -> int:
        return max(value, 0)

    @field_validator(
        "request_concurrency",
        "output_limit",
        "unhealthy_requests_limit",
        "unhealthy_interval",
        "job_status_final_update_retry_limit",
        "prepare_timeout",
        "get_sources_timeout",
    )
    @classmethod
    def _defaults(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.default_unless_positive(value, info)


class RunnerTable(RunnerEntry):
    """`[[runners]]`: one runner of one GitLab server."""

    autoscaler: AutoscalerTable | None = None
    """The pool of machines."""
    ssh: SshTable | None = None
    """The host of the executor `ssh`."""


class RunnerSettings(RunnerEntry):
    """One runner, ready to be used: variables filled in, pool and identity known."""

    key: RunnerKey
    """Identity: url and id."""
    index: int
    """Place among the `[[runners]]` of the file, from 0."""
    line: int | None
    """Line of its `[[runners]]` in the file."""
    pool: PoolName
    """Where its jobs run."""

    @property
    def output_limit_bytes(self) -> int:
        """The longest log of a job."""
        return self.output_limit * 1024

    @property
    def short_token(self) -> str:
        """What may be shown of the token, and what goes into metric labels and directory names."""
        return short_token(self.token.get_secret_value())

    @property
    def shown_as(self) -> str:
        """How people are told which runner it is."""
        return self.name or self.key

    @property
    def rotate_token_at(self) -> datetime | None:
        """Three quarters into the token's life; None for a token without end or with unknown beginning."""
        if self.token_expires_at is None or self.token_obtained_at is None:
            return None
        return self.token_obtained_at + (self.token_expires_at - self.token_obtained_at) * 0.75
