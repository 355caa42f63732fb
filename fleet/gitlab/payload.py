"""The description of a job as GitLab sends it.

Rule: read it generously, as GitLab Runner does, because it grows with every release of GitLab (`fleet.gitlab.parts`
says how; broken UTF-8 becomes U+FFFD). Only what nobody could do without is demanded: id and token. What the fields
mean is for `execution`: nothing is expanded, weighed or defaulted here beyond what an absent field means.

Values that are or may hold secrets are in no `repr`.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, ValidationError

from fleet.gitlab.errors import PayloadError
from fleet.gitlab.parts import Many, Part, Texts
from fleet.gitlab.secrets import Secret

DEFAULT_TIMEOUT_S = 7200


class JobInfo(Part):
    name: str = ""
    stage: str = ""
    pipeline_id: int = 0
    project_id: int = 0
    project_name: str = ""
    project_full_path: str = ""
    namespace_id: int = 0
    root_namespace_id: int = 0
    organization_id: int = 0
    user_id: int = 0
    scoped_user_id: int | None = None
    instance_id: str = ""
    instance_uuid: str = ""
    time_in_queue_seconds: float = 0.0
    project_jobs_running_on_instance_runners_count: str = ""  # a text: "0", "3", "+Inf"
    queue_size: int = 0
    queue_depth: int = 0


class GitInfo(Part):
    repo_url: str = Field(default="", repr=False)  # holds the job token
    repo_object_format: str = "sha1"
    ref: str = ""
    sha: str = ""
    before_sha: str = ""
    ref_type: str = ""
    refspecs: Texts = ()
    depth: int = 0
    protected: bool | None = None


class RunnerInfo(Part):
    uuid: str = ""
    timeout: int = 0

    @property
    def timeout_s(self) -> int:
        """The job's time, where nothing or less means two hours."""
        return self.timeout if self.timeout > 0 else DEFAULT_TIMEOUT_S


class InputValue(Part):
    type: str
    content: Any = Field(repr=False)
    sensitive: bool = False


class Input(Part):
    key: str
    value: InputValue


class Variable(Part):
    key: str
    value: str = Field(default="", repr=False)
    public: bool = False
    file: bool = False
    masked: bool = False
    raw: bool = False


class Step(Part):
    name: str = ""
    script: Texts = ()
    timeout: int = 0
    when: str = "on_success"
    allow_failure: bool = False


class Port(Part):
    number: int = 0
    protocol: str = ""
    name: str = ""


class Image(Part):
    """The build image, or a service. `executor_opts` stays as it came, for unknown keys in it fail the job."""

    name: str = ""
    alias: str = ""
    command: Texts = ()
    entrypoint: Texts = ()
    ports: Many[Port] = ()
    variables: Many[Variable] = ()
    pull_policy: Texts = ()
    executor_opts: dict[str, Any] = Field(default_factory=dict)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The names in `alias`, which are parted by spaces or commas."""
        return tuple(self.alias.replace(",", " ").split())


class Artifact(Part):
    name: str = ""
    untracked: bool = False
    paths: Texts = ()
    exclude: Texts = ()
    when: str = "on_success"
    artifact_type: str = ""
    artifact_format: str = ""
    expire_in: str = ""


class Cache(Part):
    key: str = ""
    untracked: bool = False
    policy: str = ""
    paths: Texts = ()
    when: str = "on_success"
    fallback_keys: Texts = ()


class Credentials(Part):
    type: str = ""
    url: str = ""
    username: str = ""
    password: str = Field(default="", repr=False)


class ArtifactsFile(Part):
    filename: str = ""
    size: int = 0


class Dependency(Part):
    id: int
    token: str = Field(default="", repr=False)
    name: str = ""
    artifacts_file: ArtifactsFile = ArtifactsFile()


class Features(Part):
    trace_sections: bool = False
    token_mask_prefixes: Texts = ()
    failure_reasons: Texts = ()
    tracing: dict[str, Any] | None = None


class Hook(Part):
    name: str
    script: Texts = ()


class PolicyOptions(Part):
    execution_policy_job: bool = False
    policy_name: str = ""
    policy_variables_override_allowed: bool | None = None
    policy_variables_override_exceptions: Texts = ()


class SuspendOptions(Part):
    suspend_on_success: bool = False
    suspend_on_failure: bool = False
    runtime_environment_key: str = ""


class JobPayload(Part):
    """A job. `JobPayload.parse` is the way in."""

    id: int = Field(gt=0)
    token: str = Field(min_length=1, repr=False)
    allow_git_fetch: bool = False
    job_info: JobInfo = JobInfo()
    git_info: GitInfo = GitInfo()
    runner_info: RunnerInfo = RunnerInfo()
    inputs: Many[Input] = Field(default=(), repr=False)
    variables: Many[Variable] = Field(default=(), repr=False)
    steps: Many[Step] = Field(default=(), repr=False)
    image: Image = Image()
    services: Many[Image] = ()
    artifacts: Many[Artifact] = ()
    cache: Many[Cache] = ()
    credentials: Many[Credentials] = ()
    dependencies: Many[Dependency] = ()
    features: Features = Features()
    secrets: dict[str, Secret] = Field(default_factory=dict)
    hooks: Many[Hook] = Field(default=(), repr=False)
    run: str = Field(default="", repr=False)  # JSON in a text
    policy_options: PolicyOptions | None = None
    suspend_options: SuspendOptions | None = None

    @classmethod
    def parse(cls, raw: bytes) -> JobPayload:
        """Read the body of a 201; raises `PayloadError`, which names the field and carries id and token if found."""
        text = raw.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as exc:
            job_id, token = _identity(_members(text))
            where = f"byte {exc.pos}" if isinstance(exc, json.JSONDecodeError) else "the whole"
            # not chained: that error carries the text, secrets and all
            raise PayloadError(where, "it is not whole JSON", job_id=job_id, token=token) from None
        if not isinstance(found, dict):
            raise PayloadError("the whole", "it is not a JSON object")
        if "\\ud" in text or "\\uD" in text:
            found = _mended(found)
        try:
            return cls.model_validate(found)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(str(step) for step in first["loc"])
            job_id, token = _identity(found)
            raise PayloadError(field, first["msg"], job_id=job_id, token=token) from exc

    @staticmethod
    def identity(raw: bytes) -> tuple[int | None, str | None]:
        """Id and token of a job from as much of its description as there is."""
        return _identity(_members(raw.decode("utf-8", "replace")))


def _identity(found: dict[str, Any]) -> tuple[int | None, str | None]:
    """Id and token from what there is."""
    job_id, token = found.get("id"), found.get("token")
    if isinstance(job_id, str) and job_id.isascii() and job_id.isdigit():
        job_id = int(job_id)
    is_id = isinstance(job_id, int) and not isinstance(job_id, bool) and job_id > 0
    return (job_id if is_id else None), (token if isinstance(token, str) and token else None)


def _members(text: str) -> dict[str, Any]:
    """The members of a JSON object that are whole before it breaks off."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] = {}
    at = text.find("{") + 1
    try:
        while at:
            key, at = decoder.raw_decode(text, _past(text, at, ", \t\r\n"))
            value, at = decoder.raw_decode(text, _past(text, at, ": \t\r\n"))
            if isinstance(key, str):
                found[key] = value
    except (ValueError, RecursionError):
        return found
    return found


def _past(text: str, at: int, skipped: str) -> int:
    while at < len(text) and text[at] in skipped:
        at += 1
    return at


def _mended(value: Any) -> Any:
    """Half surrogates, which JSON can escape and no file or socket can carry, become U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value
