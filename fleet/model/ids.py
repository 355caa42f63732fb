"""Identities, one type each, so that a lease is never passed where an instance is meant."""

from __future__ import annotations

from typing import NewType

PoolName = NewType("PoolName", str)
RunnerKey = NewType("RunnerKey", str)  # url + "|" + runner id: survives token rotation
ManagerId = NewType("ManagerId", str)  # the manager's system_id
InstanceId = NewType("InstanceId", str)
RequestId = NewType("RequestId", str)  # also the idempotency token that goes to the provider
ReservationId = NewType("ReservationId", str)
LeaseId = NewType("LeaseId", str)  # the identity of one execution
JobKey = NewType("JobKey", str)  # our row; a job that GitLab hands out again is another row
