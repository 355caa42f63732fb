"""Every legal change of state of an instance, a lease and a job; nothing else may change one.

A change that is not in a table raises `IllegalTransition` with the object's story. Documents are drawn from these
tables, and tests walk them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class InstanceState(StrEnum):
    REQUESTED = "requested"
    CREATING = "creating"
    BOOTING = "booting"
    PREPARING = "preparing"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    DRAINING = "draining"
    DELETING = "deleting"
    GONE = "gone"


class LeaseState(StrEnum):
    GRANTED = "granted"
    RUNNING = "running"
    CLEANING = "cleaning"
    RELEASED = "released"
    LOST = "lost"


class JobState(StrEnum):
    RECEIVED = "received"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    FINISHING = "finishing"
    FINISHED = "finished"
    ABANDONED = "abandoned"


IS, L, J = InstanceState, LeaseState, JobState

# from -> to -> when
INSTANCE: Mapping[InstanceState, Mapping[InstanceState, str]] = {
    IS.REQUESTED: {
        IS.CREATING: "the provider took the request and named a machine",
        IS.DELETING: "the request failed or is no longer wanted; absence is yet to be confirmed",
    },
    IS.CREATING: {
        IS.BOOTING: "the provider says that it runs and has an address",
        IS.DELETING: "it failed, vanished, or took too long",
    },
    IS.BOOTING: {
        IS.PREPARING: "SSH answered with the expected host key",
        IS.DELETING: "it failed, vanished, or took too long",
    },
    IS.PREPARING: {
        IS.READY: "the agent runs and the ready command succeeded",
        IS.DELETING: "it failed, vanished, or took too long",
    },
    IS.READY: {
        IS.DRAINING: "no new lease: idle, old, used up, outdated, unhealthy, or a person said so",
        IS.STOPPING: "it goes to the stopped tier",
        IS.DELETING: "it vanished, or is unreachable for too long; its leases were ended first",
    },
    IS.STOPPING: {IS.STOPPED: "the provider says so", IS.DELETING: "it failed or took too long"},
    IS.STOPPED: {IS.STARTING: "demand came", IS.DELETING: "it is no longer wanted"},
    IS.STARTING: {IS.PREPARING: "SSH answered", IS.DELETING: "it failed or took too long"},
    IS.DRAINING: {
        IS.READY: "a person said undrain",
        IS.DELETING: "its last lease has ended",
    },
    IS.DELETING: {IS.GONE: "the provider confirms that it is absent"},
    IS.GONE: {},
}

LEASE: Mapping[LeaseState, Mapping[LeaseState, str]] = {
    L.GRANTED: {
        L.RUNNING: "the agent has taken the job file",
        L.CLEANING: "the job was cancelled, or moves to another machine, before the agent had it",
        L.LOST: "the machine is lost",
    },
    L.RUNNING: {
        L.CLEANING: "the job's processes have ended",
        L.LOST: "the machine is lost",
    },
    L.CLEANING: {
        L.RELEASED: "the machine is clean: the slot is free",
        L.LOST: "the machine is lost",
    },
    L.RELEASED: {},
    L.LOST: {},
}

JOB: Mapping[JobState, Mapping[JobState, str]] = {
    J.RECEIVED: {
        J.WAITING: "GitLab was told, or could not be told",
        J.ABANDONED: "GitLab took it away at the acknowledgement",
        J.FINISHING: "the payload cannot be run",
    },
    J.WAITING: {
        J.STARTING: "a slot was leased",
        J.ABANDONED: "GitLab took it away",
        J.FINISHING: "no machine in time, or cancelled",
    },
    J.STARTING: {
        J.RUNNING: "the agent has taken the job file",
        J.WAITING: "the machine was bad; the job looks for another",
        J.ABANDONED: "GitLab took it away",
        J.FINISHING: "it cannot be started, or was cancelled",
    },
    J.RUNNING: {
        J.FINISHING: "its processes have ended, or its machine is lost",
        J.ABANDONED: "GitLab took it away",
    },
    J.FINISHING: {
        J.FINISHED: "GitLab has accepted the final update, or never will",
        J.ABANDONED: "GitLab took it away",
    },
    J.FINISHED: {},
    J.ABANDONED: {},
}

ALIVE_INSTANCE = frozenset(set(IS) - {IS.GONE})
PENDING_INSTANCE = frozenset({IS.REQUESTED, IS.CREATING, IS.BOOTING, IS.PREPARING, IS.STARTING})
ACTIVE_LEASE = frozenset({L.GRANTED, L.RUNNING, L.CLEANING})
OPEN_JOB = frozenset(set(J) - {J.FINISHED, J.ABANDONED})

# Every waiting state has a deadline in seconds; what passes it goes on to `deleting` (or is asked for again there).
INSTANCE_DEADLINES_S: Mapping[InstanceState, int] = {
    IS.REQUESTED: 600,
    IS.CREATING: 600,
    IS.BOOTING: 600,
    IS.PREPARING: 300,
    IS.STARTING: 600,
    IS.STOPPING: 600,
    IS.DELETING: 900,
}


class IllegalTransition(Exception):
    """A change of state that no table allows; the message tells the object's story."""

    def __init__(self, what: str, name: str, old: StrEnum, new: StrEnum, story: str = "") -> None:
        super().__init__(f"{what} {name} may not go from {old} to {new}" + (f"; its story: {story}" if story else ""))


def check_instance(name: str, old: InstanceState, new: InstanceState) -> None:
    """Raise unless an instance may go from `old` to `new`."""
    if new not in INSTANCE[old]:
        raise IllegalTransition("instance", name, old, new)


def check_lease(name: str, old: LeaseState, new: LeaseState) -> None:
    """Raise unless a lease may go from `old` to `new`."""
    if new not in LEASE[old]:
        raise IllegalTransition("lease", name, old, new)


def check_job(name: str, old: JobState, new: JobState) -> None:
    """Raise unless a job may go from `old` to `new`."""
    if new not in JOB[old]:
        raise IllegalTransition("job", name, old, new)
