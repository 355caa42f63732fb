"""The tables, and nothing but the tables. Instants are seconds since 1970 in UTC, seen as aware datetimes.

A change here needs a migration in `migrations/`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import BigInteger
from typing_extensions import override

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)


class Instant(TypeDecorator[datetime]):
    """An aware instant kept as a number: one form on every database, and quick to compare."""

    impl = Double
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        return None if value is None else value.timestamp()

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)


# SQLite counts only INTEGER PRIMARY KEY by itself
Serial = BigInteger().with_variant(Integer, "sqlite")

stores = Table(
    "stores",
    metadata,
    Column("store_id", Text, primary_key=True),
    Column("created_at", Instant, nullable=False),
    # orphan sweeping; off after a restored database until a person confirms
    Column("sweeping", Boolean, nullable=False),
    Column("sweeping_reason", Text),
)

managers = Table(
    "managers",
    metadata,
    Column("manager_id", Text, primary_key=True),
    Column("session", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("api", Text),
    Column("state", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    # every claim of this manager ends here; one heartbeat renews them all
    Column("alive_until", Instant, nullable=False),
)

runners = Table(
    "runners",
    metadata,
    Column("runner_key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("settings", LargeBinary, nullable=False),  # sealed JSON
    Column("token", LargeBinary, nullable=False),  # sealed
    Column("token_obtained_at", Instant),
    Column("token_expires_at", Instant),
    Column("owner", Text),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("retired_at", Instant),
)

pools = Table(
    "pools",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("settings", LargeBinary, nullable=False),  # sealed JSON
    Column("fingerprint", Text, nullable=False),
    Column("settings_version", Integer, nullable=False),
    Column("client_key", LargeBinary, nullable=False),  # sealed private key
    Column("client_public_key", Text, nullable=False),
    Column("ask_limit", Integer, nullable=False, server_default=text("0")),
    Column("tokens", Double),
    Column("tokens_at", Instant),
    Column("owner", Text),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("retired_at", Instant),
)

cool_downs = Table(
    "cool_downs",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("until", Instant, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)

create_requests = Table(
    "create_requests",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("pool", Text, ForeignKey("pools.pool"), nullable=False),
    Column("placement", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("parameters", LargeBinary, nullable=False),  # sealed JSON: exactly what the provider is asked
    Column("state", Text, nullable=False),  # open -> filled | failed
    Column("created_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Instant, nullable=False),
    Column("error", Text),
    Index(
        "ix_create_requests_open", "pool", sqlite_where=text("state = 'open'"), postgresql_where=text("state = 'open'")
    ),
)

instances = Table(
    "instances",
    metadata,
    Column("instance_id", Text, primary_key=True),
    Column("pool", Text, ForeignKey("pools.pool"), nullable=False),
    Column("request_id", Text, nullable=False),
    Column("placement", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_at", Instant, nullable=False),
    Column("state_by", Instant),
    Column("machine_id", Text),
    Column("observed", Text),  # what the provider last said
    Column("observed_at", Instant),
    Column("missed_listings", Integer, nullable=False, server_default=text("0")),
    Column("address", Text),  # JSON: how it is reached
    Column("host_keys", Text),  # JSON list of public keys that are accepted
    Column("facts", Text),  # JSON: what the agent said of itself
    Column("created_at", Instant, nullable=False),
    Column("ready_at", Instant),
    Column("idle_since", Instant),
    Column("gone_at", Instant),
    Column("use_count", Integer, nullable=False, server_default=text("0")),
    Column("settings_version", Integer, nullable=False),
    Column("unhealthy", Text),
    Column("drain_reason", Text),
    Column("no_room", Text),  # why it gets no further job until there is room on its disks
    Column("end_reason", Text),
    Column("unreachable_since", Instant),
    Column("due_at", Instant),  # when a hand should try again
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Index("ix_instances_alive", "pool", sqlite_where=text("state <> 'gone'"), postgresql_where=text("state <> 'gone'")),
    Index("ix_instances_request_id", "request_id"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("reservation_id", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("runner_key", Text, nullable=False),
    Column("manager_id", Text, nullable=False),
    Column("state", Text, nullable=False),  # asking | owed
    Column("job_key", Text),
    Column("created_at", Instant, nullable=False),
    Index("ix_reservations_pool", "pool"),
)

ACTIVE = text("state IN ('granted', 'running', 'cleaning')")
leases = Table(
    "leases",
    metadata,
    Column("lease_id", Text, primary_key=True),
    Column("instance_id", Text, ForeignKey("instances.instance_id"), nullable=False),
    Column("job_key", Text, nullable=False),
    Column("runner_key", Text, nullable=False),
    Column("project_id", BigInteger, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("concurrent_id", Integer, nullable=False),
    Column("project_concurrent_id", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_at", Instant, nullable=False),
    Column("granted_at", Instant, nullable=False),
    Column("ended_at", Instant),
    # whole ones beside the partial ones below: the story of a machine, and retention, look for ended leases too
    Index("ix_leases_instance_id", "instance_id"),
    Index("ix_leases_job_key", "job_key"),
    # one job in a slot, one number per runner and per project, one machine per job: whatever the code does
    Index("uq_leases_slot", "instance_id", "slot", unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE),
    Index(
        "uq_leases_concurrent", "runner_key", "concurrent_id", unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE
    ),
    Index(
        "uq_leases_project",
        "runner_key",
        "project_id",
        "project_concurrent_id",
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    ),
    Index("uq_leases_job", "job_key", unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE),
)

OPEN = text("state NOT IN ('finished', 'abandoned')")  # bare, as an index wants it: not for joins
jobs = Table(
    "jobs",
    metadata,
    Column("job_key", Text, primary_key=True),
    Column("runner_key", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("gitlab_job_id", BigInteger, nullable=False),
    Column("project_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("token", LargeBinary, nullable=False),  # sealed; emptied when the job has ended
    Column("payload", LargeBinary, nullable=False),  # sealed; emptied when the job has ended
    Column("state", Text, nullable=False),
    Column("state_at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("deadline_at", Instant, nullable=False),
    Column("owner", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("lease_id", Text),
    Column("moves", Integer, nullable=False, server_default=text("0")),
    Column("avoid", Text, nullable=False, server_default=text("'[]'")),
    Column("stop", Text),  # cancel | abort, as GitLab or a person asked
    Column("stop_reason", Text),
    Column("prologue", LargeBinary),  # frozen before the start
    Column("epilogue", LargeBinary),  # frozen with the outcome
    Column("log_bytes", BigInteger),  # of the agent's log, once it is complete
    Column("outcome", Text),  # JSON: state, failure_reason, exit_code, message
    Column("sent_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("sent_crc", BigInteger, nullable=False, server_default=text("0")),
    Column("finished_at", Instant),
    Index("ix_jobs_open", "owner", sqlite_where=OPEN, postgresql_where=OPEN),
    Index("ix_jobs_gitlab_job_id", "gitlab_job_id"),
    Index("ix_jobs_finished_at", "finished_at"),
)

journal = Table(
    "journal",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("kind", Text, nullable=False),  # instance | lease | job | pool | runner | manager | request | store
    Column("object_id", Text, nullable=False),
    Column("stimulus", Text, nullable=False),
    Column("old", Text),
    Column("new", Text),
    Column("reason", Text, nullable=False),
    Column("pool", Text),
    Column("job_key", Text),
    Column("instance_id", Text),
    Index("ix_journal_object_id", "object_id"),
    Index("ix_journal_job_key", "job_key"),
    Index("ix_journal_instance_id", "instance_id"),
    Index("ix_journal_at", "at"),
    sqlite_autoincrement=True,
)
