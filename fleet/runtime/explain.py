"""Why a job waits, why a machine went: the rows, the journal and the last plan in sentences.

Rule: everything said here rests on a row or a plan; nothing is guessed. The newest truth comes first, then the story
from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from fleet.model.plan import Plan
from fleet.runtime.orders import NotFound
from fleet.runtime.rows import instance_id_of
from fleet.runtime.spans import at_time, lasted
from fleet.store import stories
from fleet.store.database import Tx
from fleet.store.listings import ListedInstance
from fleet.store.stories import ListedJob, Story, StoryLine

Plans = Callable[[Tx, str], Plan | None]


def explain(tx: Tx, name: str, plans: Plans) -> dict[str, Any]:
    """Explain a job (key, lease or GitLab's number), an instance (id or machine), or whatever has a story.

    `plans` gives the plan of a pool: the last one, or what would be planned now.

    Raises:
        NotFound: nothing has this name.
    """
    story = stories.explain(tx, name)
    if story is None:
        instance_id = instance_id_of(tx, name)  # as the provider calls it
        story = None if instance_id is None else stories.explain(tx, instance_id)
    if story is None:
        raise NotFound(
            f"nothing is called {name}: give a job's key or GitLab's number of it, an instance or its machine, "
            "a pool, a runner; what is older than [fleet] journal_retention is forgotten"
        )
    return {
        "kind": story.kind,
        "id": story.object_id,
        "answer": _answer(tx, story, plans),
        "job": None if story.job is None else asdict(story.job),
        "instance": None if story.instance is None else asdict(story.instance),
        "others": list(story.others),
        "story": [{**asdict(line), "sentence": sentence(line)} for line in story.lines],
    }


def _answer(tx: Tx, story: Story, plans: Plans) -> list[str]:
    if story.job is not None:
        why = _why(plans(tx, story.job.pool), story.job.job_key) if story.job.state == "waiting" else ""
        return _of_job(story.job, story, why, tx.now)
    if story.instance is not None:
        return _of_instance(story.instance, story, tx.now)
    return [sentence(story.lines[-1])]


def sentence(line: StoryLine) -> str:
    """A line of the journal as a person reads it."""
    change = f"{line.old} -> {line.new}" if line.old and line.new else (line.new or line.stimulus)
    return f"{line.kind} {line.object_id}: {change}: {line.reason}"


def _since(at: str | None, now: datetime) -> str:
    if at is None:
        return "since an unknown time"
    then = datetime.fromisoformat(at)
    return f"since {at_time(then)} ({lasted((now - then) / timedelta(seconds=1))})"


def _of_job(job: ListedJob, story: Story, why: str, now: datetime) -> list[str]:
    who = f"job {job.gitlab_job_id} ({job.name}) of {job.runner_name or job.runner_key}"
    since = _since(job.state_at, now)
    match job.state:
        case "received":
            said = [f"{who} was received {since}: GitLab is being told that we have it."]
        case "waiting":
            said = [
                f"{who} waits for a slot of pool {job.pool} {since}.",
                why,
                f"Its own timeout ends at {at_time(job.deadline_at)}.",
            ]
        case "starting":
            said = [f"{who} is being started in slot {job.slot} of {job.instance_id} {since}."]
        case "running":
            said = [f"{who} runs in slot {job.slot} of {job.instance_id} {since}."]
        case "finishing":
            said = [f"{who} has ended and is being reported to GitLab {since}: {_outcome(job)}."]
        case "finished":
            said = [f"{who} is over {since}: {_outcome(job)}."]
        case _:
            why = story.lines[-1].reason if story.lines else "no reason is kept"
            said = [f"{who} was taken away by GitLab {since}: {why}."]
    if job.stop:
        said.append(f"It is to stop ({job.stop}): {job.stop_reason}.")
    if job.moves:
        said.append(f"It had to change its machine {job.moves} time(s): see the story.")
    if story.others:
        said.append(f"GitLab's number means {len(story.others)} more job(s): {', '.join(story.others)}.")
    return said


def _why(plan: Plan | None, job_key: str) -> str:
    wait = None if plan is None else next((each for each in plan.waits if each.job == job_key), None)
    if wait is not None:
        until = "" if wait.until is None else f" That may change at {at_time(wait.until)}."
        return f"Why: {wait.reason} ({wait.slug.value}).{until}"
    given = None if plan is None else next((each for each in plan.assigns if each.job == job_key), None)
    if given is not None:
        return f"Why: nothing is in its way: the plan gives it slot {given.slot} of {given.instance_id}."
    return "No plan has looked at it yet: the next one, within seconds, does."


def _outcome(job: ListedJob) -> str:
    if job.result is None:
        return "no outcome is kept"
    if job.result == "success":
        return "it succeeded"
    code = f", exit code {job.exit_code}" if job.exit_code else ""
    return f"it failed with {job.failure_reason}{code}; {job.message or 'nothing more was said'}"


def _of_instance(listed: ListedInstance, story: Story, now: datetime) -> list[str]:
    said = [f"instance {listed.instance_id} of pool {listed.pool} {_state(listed, now)}."]
    if listed.state in {"gone", "deleting"}:
        said += _end(listed, story)
    if listed.unhealthy:
        said.append(f"It is unhealthy: {listed.unhealthy}.")
    if listed.no_room:
        said.append(f"It gets no further job for now: {listed.no_room}.")
    if listed.unreachable_since:
        said.append(f"It cannot be reached {_since(listed.unreachable_since, now)}.")
    return said


def _state(listed: ListedInstance, now: datetime) -> str:
    since = _since(listed.state_at, now)
    match listed.state:
        case "gone":
            return f"is gone {since}"
        case "deleting":
            return f"is being deleted {since}"
        case "draining":
            return f"gets no more jobs {since}: {listed.drain_reason}"
        case "ready" if listed.slots:
            jobs = ", ".join(str(slot.gitlab_job_id or slot.job_key) for slot in listed.slots)
            return f"is ready {since} and runs {len(listed.slots)} job(s): {jobs}"
        case "ready":
            return f"is ready and free {_since(listed.idle_since, now)}"
        case _:
            deadline = f"; it has until {at_time(listed.state_by)}" if listed.state_by else ""
            return f"is {listed.state} {since}{deadline}"


def _end(listed: ListedInstance, story: Story) -> list[str]:
    own = [line for line in story.lines if line.kind == "instance"]
    left = next((line for line in own if line.new == "deleting"), None)
    drained = next((line for line in reversed(own) if line.new == "draining"), None)
    said = []
    if drained is not None:
        said.append(f"Draining began at {at_time(drained.at)}: {drained.reason}.")
    if left is not None:
        said.append(f"It was removed at {at_time(left.at)}: {left.reason}.")
    else:
        said.append(f"It was removed: {listed.end_reason or 'the reason is not kept any more'}.")
    return said
