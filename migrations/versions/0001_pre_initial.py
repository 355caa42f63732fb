"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "cool_downs",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_cool_downs")),
    )
    op.create_table(
        "jobs",
        sa.Column("job_key", sa.Text(), nullable=False),
        sa.Column("runner_key", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("gitlab_job_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("deadline_at", sa.Double(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=True),
        sa.Column("moves", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("avoid", sa.Text(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("stop", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("prologue", sa.LargeBinary(), nullable=True),
        sa.Column("epilogue", sa.LargeBinary(), nullable=True),
        sa.Column("log_bytes", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("sent_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sent_crc", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("job_key", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"], unique=False)
    op.create_index("ix_jobs_gitlab_job_id", "jobs", ["gitlab_job_id"], unique=False)
    op.create_index(
        "ix_jobs_open",
        "jobs",
        ["owner"],
        unique=False,
        sqlite_where=sa.text("state NOT IN ('finished', 'abandoned')"),
        postgresql_where=sa.text("state NOT IN ('finished', 'abandoned')"),
    )
    op.create_table(
        "journal",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("stimulus", sa.Text(), nullable=False),
        sa.Column("old", sa.Text(), nullable=True),
        sa.Column("new", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=True),
        sa.Column("job_key", sa.Text(), nullable=True),
        sa.Column("instance_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_journal")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_journal_at", "journal", ["at"], unique=False)
    op.create_index("ix_journal_instance_id", "journal", ["instance_id"], unique=False)
    op.create_index("ix_journal_job_key", "journal", ["job_key"], unique=False)
    op.create_index("ix_journal_object_id", "journal", ["object_id"], unique=False)
    op.create_table(
        "managers",
        sa.Column("manager_id", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("api", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("alive_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("manager_id", name=op.f("pk_managers")),
    )
    op.create_table(
        "pools",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("settings", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("settings_version", sa.Integer(), nullable=False),
        sa.Column("client_key", sa.LargeBinary(), nullable=False),
        sa.Column("client_public_key", sa.Text(), nullable=False),
        sa.Column("ask_limit", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=True),
        sa.Column("tokens_at", sa.Double(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retired_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_pools")),
    )
    op.create_table(
        "reservations",
        sa.Column("reservation_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("runner_key", sa.Text(), nullable=False),
        sa.Column("manager_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("job_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_reservations")),
    )
    op.create_index("ix_reservations_pool", "reservations", ["pool"], unique=False)
    op.create_table(
        "runners",
        sa.Column("runner_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("settings", sa.LargeBinary(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("token_obtained_at", sa.Double(), nullable=True),
        sa.Column("token_expires_at", sa.Double(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retired_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("runner_key", name=op.f("pk_runners")),
    )
    op.create_table(
        "stores",
        sa.Column("store_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("sweeping", sa.Boolean(), nullable=False),
        sa.Column("sweeping_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("store_id", name=op.f("pk_stores")),
    )
    op.create_table(
        "create_requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("placement", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["pool"], ["pools.pool"], name=op.f("fk_create_requests_pool")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_create_requests")),
    )
    op.create_index(
        "ix_create_requests_open",
        "create_requests",
        ["pool"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "instances",
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("placement", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("state_by", sa.Double(), nullable=True),
        sa.Column("machine_id", sa.Text(), nullable=True),
        sa.Column("observed", sa.Text(), nullable=True),
        sa.Column("observed_at", sa.Double(), nullable=True),
        sa.Column("missed_listings", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("host_keys", sa.Text(), nullable=True),
        sa.Column("facts", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=True),
        sa.Column("idle_since", sa.Double(), nullable=True),
        sa.Column("gone_at", sa.Double(), nullable=True),
        sa.Column("use_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("settings_version", sa.Integer(), nullable=False),
        sa.Column("unhealthy", sa.Text(), nullable=True),
        sa.Column("drain_reason", sa.Text(), nullable=True),
        sa.Column("no_room", sa.Text(), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.Column("unreachable_since", sa.Double(), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.pool"], name=op.f("fk_instances_pool")),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instances")),
    )
    op.create_index(
        "ix_instances_alive",
        "instances",
        ["pool"],
        unique=False,
        sqlite_where=sa.text("state <> 'gone'"),
        postgresql_where=sa.text("state <> 'gone'"),
    )
    op.create_index("ix_instances_request_id", "instances", ["request_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Text(), nullable=False),
        sa.Column("job_key", sa.Text(), nullable=False),
        sa.Column("runner_key", sa.Text(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("concurrent_id", sa.Integer(), nullable=False),
        sa.Column("project_concurrent_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("granted_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.instance_id"], name=op.f("fk_leases_instance_id")),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_instance_id", "leases", ["instance_id"], unique=False)
    op.create_index("ix_leases_job_key", "leases", ["job_key"], unique=False)
    op.create_index(
        "uq_leases_concurrent",
        "leases",
        ["runner_key", "concurrent_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
        postgresql_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
    )
    op.create_index(
        "uq_leases_job",
        "leases",
        ["job_key"],
        unique=True,
        sqlite_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
        postgresql_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
    )
    op.create_index(
        "uq_leases_project",
        "leases",
        ["runner_key", "project_id", "project_concurrent_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
        postgresql_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
    )
    op.create_index(
        "uq_leases_slot",
        "leases",
        ["instance_id", "slot"],
        unique=True,
        sqlite_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
        postgresql_where=sa.text("state IN ('granted', 'running', 'cleaning')"),
    )
