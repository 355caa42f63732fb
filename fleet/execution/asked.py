"""Answers a running job that asks for fresh addresses of its cached archives (the `sign` frame).

Rule: what the machine says picks one of the job's own caches and nothing else: the job's description is rendered again
and the names come from there. An answer is sent also when there is no address, so that the job need not wait. A
question that is not answered, because this manager dies, is asked again when the job is followed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from fleet.execution import ending, signing
from fleet.execution.desk import Desk, lease_facts
from fleet.execution.follows import Follow
from fleet.execution.jobfile import render
from fleet.execution.refused import JobRefused
from fleet.gitlab.payload import JobPayload
from fleet.machine.channel import AgentChannel
from fleet.machine.errors import MachineError
from fleet.model.job import Job, Lease
from fleet.store import leases
from fleet.store.payloads import unpack

log = structlog.get_logger(__name__)
SEND_S = 30.0


def answer(desk: Desk, follow: Follow, frame: Mapping[str, Any]) -> None:
    """Send the addresses, or why there are none."""
    found = ending.load_with_payload(desk, follow.key)
    channel = desk.channels.get(follow.instance)
    lease = desk.store.read(lambda tx: leases.lease(tx, follow.lease))
    if found is None or found[0].epoch != follow.epoch or channel is None or lease is None:
        return  # it is another manager's by now, or its channel has ended: the question comes again
    job, packed = found
    what = frame.get("what")
    try:
        urls = _urls(desk, job, lease, packed=packed, channel=channel, what=what)
        channel.send("sign_reply", SEND_S, lease=follow.lease, sign=frame.get("sign"), urls=urls)
    except MachineError as exc:
        log.info("sign_postponed", job_key=follow.key, instance=follow.instance, error=str(exc))
        return
    log.info("sign_answered", job_id=job.gitlab_job_id, instance=follow.instance, refused="error" in urls)


def _urls(desk: Desk, job: Job, lease: Lease, *, packed: bytes, channel: AgentChannel, what: Any) -> signing.Signed:
    raw, beside = unpack(packed)
    runner, pool = desk.book.runners.get(job.runner), desk.book.pools.get(job.pool)
    if runner is None or pool is None:
        return {"for": what, "error": "its runner is not known here any more"}
    facts = desk.runner_facts(runner, beside)
    try:
        rendered = render(
            payload=JobPayload.parse(raw),
            runner=facts,
            machine=desk.machine_facts(channel, lease.instance, facts.user),
            lease=lease_facts(lease, pool, beside),
        )
    except JobRefused as exc:
        return {"for": what, "error": exc.message}
    return signing.answer(what, rendered.caches, lambda: desk.cache_store(runner), now=desk.now())
