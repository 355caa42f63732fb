"""What can be wrong with what we were given to talk to GitLab with.

    GitLabError         (a FleetError)
    +- EndpointError   the configured address or proxy cannot be used
    +- TlsFileError    a CA, certificate or key file cannot be read or understood
    +- LabelError      a runner label that GitLab would refuse
    +- SystemIdError   the file that holds this manager's identity is broken or cannot be written
    +- PayloadError    GitLab assigned a job whose description we cannot read

Rule: these are about settings, files and payloads, and say what to do next. What GitLab or the network answers is
never an exception: it is a value from `fleet.gitlab.outcomes`. No text here holds a secret.
"""

from __future__ import annotations

from typing import ClassVar

from fleet.sdk.errors import FleetError


class GitLabError(FleetError):
    """The root. None of these goes away by asking again: a person changes a setting or a file."""

    slug: ClassVar[str] = "gitlab"


class EndpointError(GitLabError):
    """The server's address, or the proxy on the way to it, cannot be used."""

    slug: ClassVar[str] = "endpoint"


class TlsFileError(GitLabError):
    """A TLS file cannot be used; `path` names it."""

    slug: ClassVar[str] = "tls_file"

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path


class SystemIdError(GitLabError):
    """The system id can be neither read nor kept; the text names the file."""

    slug: ClassVar[str] = "system_id"


class PayloadError(GitLabError):
    """A job's description is unreadable at `field`.

    `job_id` and `token` are what could still be found in it, so that the job can be failed and need not be
    forgotten; either may be None. The token is in no text of this error.
    """

    slug: ClassVar[str] = "payload"

    def __init__(self, field: str, what: str, *, job_id: int | None = None, token: str | None = None) -> None:
        super().__init__(f"the job's description is unreadable at {field!r}: {what}")
        self.field = field
        self.what = what
        self.job_id = job_id
        self.token = token
