"""A job's variables: which there are, in what order, and what each is worth.

Rule: the last definition of a key wins. In order: feature flags, the image's name, the runner's `environment`, what
the runner knows about directories and the job, TLS files, the job's own variables, what the runner knows about
itself, the job's secrets. References are expanded once, against the unexpanded values; `raw` values never are. A `file`
variable is worth the path of its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from fleet.execution.expansion import ExpansionTooLarge, expand
from fleet.execution.facts import LeaseFacts, RunnerFacts
from fleet.execution.flags import DEFAULTS, as_bool
from fleet.execution.layout import Layout
from fleet.execution.refused import misconfigured
from fleet.gitlab.payload import JobPayload

EXPANDED_LIMIT = 64 << 20  # characters of all values together


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable."""

    key: str
    value: str = field(default="", repr=False)
    file: bool = False
    masked: bool = False
    raw: bool = False
    public: bool = False


class Variables:
    """The variables of one job, each key once."""

    def __init__(self, definitions: Iterable[Variable], *, tmp: str) -> None:
        self._tmp = tmp
        self._last: dict[str, Variable] = {}
        for variable in definitions:
            self._last.pop(variable.key, None)  # the place in the order is that of the last definition
            self._last[variable.key] = variable

    def __iter__(self) -> Iterator[Variable]:
        return iter(self._last.values())

    def path_of(self, key: str) -> str:
        """Where the content of a file variable lies."""
        return f"{self._tmp}/{key}"

    def get(self, key: str) -> str:
        """What the variable is worth: its expanded value, the path of its file, or nothing."""
        variable = self._last.get(key)
        if variable is None:
            return ""
        return self.path_of(key) if variable.file else self._expanded(variable, EXPANDED_LIMIT).value

    def is_on(self, key: str, *, default: bool) -> bool:
        """A truth value; what nobody can read is the default."""
        read = as_bool(self.get(key).strip())
        return default if read is None else read

    def expand(self, text: str) -> str:
        """A text of the job with the variables put in."""
        return self._in_bounds(text, "a text of the job", EXPANDED_LIMIT)

    def expanded(self) -> tuple[Variable, ...]:
        """All variables with their final values (the content, for files); refuses what grows beyond all bounds."""
        left = EXPANDED_LIMIT
        found = []
        for variable in self._last.values():
            final = self._expanded(variable, left)
            left -= len(final.value)
            found.append(final)
        return tuple(found)

    def _expanded(self, variable: Variable, limit: int) -> Variable:
        if variable.raw or ("$" not in variable.value and "%" not in variable.value):
            return variable
        return replace(variable, value=self._in_bounds(variable.value, f"variable {variable.key}", limit))

    def _in_bounds(self, text: str, what: str, limit: int) -> str:
        try:
            return expand(text, self._lookup, limit=limit)
        except ExpansionTooLarge:
            raise misconfigured(
                f"{what} refers to others so often that the variables would be larger than"
                f" {EXPANDED_LIMIT >> 20} MiB: use fewer references, or a file variable"
            ) from None

    def _lookup(self, key: str) -> str | None:
        variable = self._last.get(key)
        if variable is None:
            return None
        return self.path_of(key) if variable.file else variable.value


def definitions(
    *,
    payload: JobPayload,
    runner: RunnerFacts,
    lease: LeaseFacts,
    layout: Layout,
    flags: Mapping[str, bool],
    secrets: Iterable[Variable] = (),
    network: str = "",
) -> list[Variable]:
    """Every definition in its order; later ones win."""
    named = {name: str(on).lower() for name, on in flags.items()}
    own = {
        "CI_RUNNER_SHORT_TOKEN": runner.short_token,
        "CI_BUILDS_DIR": layout.builds,
        "CI_PROJECT_DIR": layout.project,
        "CI_CONCURRENT_ID": str(lease.concurrent_id),
        "CI_CONCURRENT_PROJECT_ID": str(lease.project_concurrent_id),
        "CI_SERVER": "yes",
        "CI_JOB_STATUS": "running",
        "CI_JOB_TIMEOUT": str(payload.runner_info.timeout_s),
    }
    about = {
        ("CI_DISPOSABLE_ENVIRONMENT" if lease.disposable else "CI_SHARED_ENVIRONMENT"): "true",
        "CI_RUNNER_VERSION": runner.version,
        "CI_RUNNER_REVISION": runner.revision,
        "CI_RUNNER_EXECUTABLE_ARCH": runner.executable_arch,
    }
    last = {"RUNNER_TEMP_PROJECT_DIR": layout.tmp, "GITLAB_ENV": layout.env_file}
    if network:
        last["CI_BUILD_NETWORK_NAME"] = network
    return [
        *_known(named),
        *([Variable(key="CI_JOB_IMAGE", value=payload.image.name, public=True)] if payload.image.name else ()),
        *(Variable(key=key, value=value, public=True) for key, value in pairs(runner.environment)),
        *_known(own),
        *_tls(runner),
        *(
            Variable(
                key=given.key,
                value=given.value,
                file=given.file,
                masked=given.masked,
                raw=given.raw,
                public=given.public,
            )
            for given in payload.variables
            if given.key not in DEFAULTS
        ),
        *_known(about),
        *secrets,
        *_known(last),
    ]


def pairs(environment: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The runner's `environment`, whose entries are KEY=VALUE; any other is passed over."""
    for entry in environment:
        key, found, value = entry.partition("=")
        if found and key.strip():
            yield key.strip(), value


def _known(values: Mapping[str, str]) -> Iterator[Variable]:
    """What the runner itself says: it is never expanded, so a $ in a path stays."""
    return (Variable(key=key, value=value, raw=True, public=True) for key, value in values.items())


def _tls(runner: RunnerFacts) -> Iterator[Variable]:
    for part, text in (("CA", runner.tls_ca), ("CERT", runner.tls_cert), ("KEY", runner.tls_key)):
        if text:
            yield Variable(key=f"CI_SERVER_TLS_{part}_FILE", value=text, file=True, raw=True)
