"""The keys of the manager itself: those at the top of the file, and ours in `[fleet]`.

Rule: a value here holds for the whole process. What holds for one runner or one pool is elsewhere.
"""

from __future__ import annotations

import os.path
import urllib.parse
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from fleet.settings.addresses import address
from fleet.settings.durations import Duration
from fleet.settings.section import MASK, Count, OptionalSecret, Secret, Section, Text
from fleet.settings.session import SessionServerTable

METRICS_PORT = 9252
API_PORT = 9253


class LogLevel(StrEnum):
    """How much is logged; `warn`, `fatal` and `panic` are accepted and read as the nearest of these."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"


LOG_LEVELS = {
    **{level.value: level for level in LogLevel},
    "warn": LogLevel.WARNING,
    "fatal": LogLevel.ERROR,
    "panic": LogLevel.ERROR,
}


class LogFormat(StrEnum):
    """`runner` is text on a terminal and JSON otherwise."""

    RUNNER = "runner"
    TEXT = "text"
    JSON = "json"


class OnTerm(StrEnum):
    """What SIGTERM and SIGINT do with running jobs."""

    LEAVE = "leave"
    ABORT = "abort"
    DRAIN = "drain"


def log_level(value: str) -> LogLevel:
    """The level that a word names, in any case."""
    found = LOG_LEVELS.get(value.lower())
    if found is None:
        raise ValueError(f"is not a log level: use one of {', '.join(LOG_LEVELS)}")
    return found


class GlobalTable(Section):
    """Keys at the top of the file, outside all tables."""

    concurrent: Annotated[int, Field(ge=1)] = 1
    """Jobs that this manager runs at once, over all runners."""
    check_interval: int = 3
    """Seconds between the beginnings of two polls of one runner while the queue is empty; 0 or less means 3."""
    log_level: Annotated[LogLevel, Field(strict=False)] = LogLevel.INFO
    """How much is logged."""
    log_format: Annotated[LogFormat, Field(strict=False)] = LogFormat.RUNNER
    """`runner` is text on a terminal and JSON otherwise."""
    listen_address: Text = None
    """Where `/metrics` and `/health` are served, as `host:port`, port 9252 when left out; not set: nowhere."""
    shutdown_timeout: int = 30
    """Seconds that stopping may take when jobs are aborted; 0 or less means 30."""
    connection_max_age: Duration = timedelta(minutes=15)
    """How long a kept-alive connection to GitLab is used again; 0 or less means without end."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels told to GitLab for every runner; a runner's own `labels` are laid over them."""
    user: Text = None
    """User on the machine that runs the scripts, for runners without a `user` of their own."""
    session_server: SessionServerTable = Field(default_factory=SessionServerTable)
    """Interactive web terminals of jobs."""

    @field_validator("check_interval", "shutdown_timeout")
    @classmethod
    def _defaults(cls, value: int, info: ValidationInfo) -> Any:
        return cls.default_unless_positive(value, info)

    @field_validator("log_level", mode="before")
    @classmethod
    def _log_level(cls, value: object) -> object:
        return log_level(value) if isinstance(value, str) else value

    @field_validator("listen_address")
    @classmethod
    def _listen_address(cls, value: str | None) -> str | None:
        return None if value is None else address(value, METRICS_PORT)


class FleetTable(Section):
    """`[fleet]`: the manager's state and manners. GitLab Runner has no such table."""

    database: OptionalSecret = None
    """`sqlite:///path`, a plain path, or `postgresql://...`; variables such as `$PGPASSWORD` are filled in. Not set:
    the file `fleet.sqlite` in `state_dir`."""
    state_dir: Text = None
    """Directory of what this manager keeps on this host. Not set: `$STATE_DIRECTORY`, else `/var/lib/fleet` for root
    and `$XDG_STATE_HOME/fleet` for others."""
    spool_dir: Text = None
    """Directory of the traces that GitLab has not accepted yet; on shared storage when managers share a fleet. Not
    set: `spool` in `state_dir`, and on PostgreSQL a slot is then free again only when GitLab has the whole trace."""
    secret_key_file: Text = None
    """File (mode 0600) with the key that encrypts secrets in the database; `$FLEET_SECRET_KEY` beats it. Not set:
    `secret.key` in `state_dir`, made at the first start."""
    api_listen: str = f"127.0.0.1:{API_PORT}"
    """Where `fleetctl` and others reach the manager's API, as `host:port`."""
    api_token: OptionalSecret = None
    """Token that API calls must carry; needed when `api_listen` is not on loopback. Variables are filled in."""
    reserve_free_bytes: Count = 1024**3
    """Free bytes on the disks of `state_dir` and `spool_dir` below which no more jobs are taken."""
    journal_retention: Duration = timedelta(days=30)
    """How long decisions are kept for `fleetctl explain`."""
    finished_retention: Duration = timedelta(days=7)
    """How long finished jobs are kept."""
    gone_retention: Duration = timedelta(days=7)
    """How long instances that are gone are kept."""
    agent_timeout: Duration = timedelta(hours=1)
    """A machine without a job that hears from no manager for so long powers off."""
    unreachable_timeout: Duration = timedelta(minutes=10)
    """A machine that cannot be reached for so long is lost, and so is its job."""
    manager_claim_ttl: Duration = timedelta(seconds=30)
    """A manager that does not renew its claims for so long loses them to another."""
    on_term: Annotated[OnTerm, Field(strict=False)] = OnTerm.LEAVE
    """What SIGTERM and SIGINT do with running jobs: `leave` them for the next start, `abort` them, or `drain`."""
    allow_same_user: bool = False
    """Allow jobs on this host to run as the manager's own user, who can read its secrets."""

    @field_validator("api_listen")
    @classmethod
    def _api_listen(cls, value: str) -> str:
        return address(value, API_PORT)

    @field_validator(
        "journal_retention",
        "finished_retention",
        "gone_retention",
        "agent_timeout",
        "unreachable_timeout",
        "manager_claim_ttl",
    )
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta | None:
        return cls.refuse_unless_positive(value)


class FleetSettings(FleetTable):
    """`[fleet]` with the database and every path resolved."""

    database: Secret
    """SQLAlchemy's address of the database."""
    state_dir: str
    """Absolute path."""
    spool_dir: str
    """Absolute path."""
    secret_key_file: str
    """Absolute path."""
    secret_key: OptionalSecret = None
    """What `$FLEET_SECRET_KEY` holds; it beats the file."""
    secret_key_named: bool = False
    """A person named the file: a missing one is an error and none is made."""


def database_url(value: str, directory: str) -> str:
    """The SQLAlchemy address of `[fleet] database`; raises ValueError for another kind of database."""
    scheme, colon, rest = value.partition("://")
    if not colon:
        path = value
    elif scheme == "sqlite":
        path = rest.removeprefix("/")
    elif scheme in {"postgresql", "postgres", "postgresql+psycopg"}:
        return f"postgresql+psycopg://{rest}"
    else:
        raise ValueError("must be a path, sqlite:///path or postgresql://user@host/name")
    if not path or path == ":memory:":
        raise ValueError("must name a file: a database in memory would forget all machines at the next start")
    return f"sqlite:///{os.path.normpath(os.path.join(directory, path))}"


def without_password(url: str) -> str:
    """A database address that may be shown."""
    parts = urllib.parse.urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", f":{MASK}@")
