"""The commands that look: status, pools, instances, jobs, runners, managers, placements, plan."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from fleet.cli.asking import every_item, source
from fleet.cli.exits import Exit
from fleet.cli.invocation import command, invocation
from fleet.cli.printing import shown
from fleet.runtime.clock import Clock
from fleet.runtime.spans import lasted

POOLS = {
    "pool": "POOL",
    "plugin": "PLUGIN",
    "instances": "INSTANCES",
    "used": "USED",
    "free": "FREE",
    "waiting": "WAITING",
    "asking": "POLLS",
    "idle_target": "IDLE TARGET",
    "state": "STATE",
}
INSTANCES = {
    "instance_id": "INSTANCE",
    "pool": "POOL",
    "state": "STATE",
    "for": "FOR",
    "jobs": "JOBS",
    "use_count": "USED",
    "machine_id": "MACHINE",
    "host": "ADDRESS",
    "remark": "REMARK",
}
JOBS = {
    "gitlab_job_id": "JOB",
    "name": "NAME",
    "runner_name": "RUNNER",
    "pool": "POOL",
    "state": "STATE",
    "for": "FOR",
    "instance_id": "INSTANCE",
    "remark": "REMARK",
    "job_key": "KEY",
}
RUNNERS = {
    "name": "RUNNER",
    "url": "URL",
    "pool": "POOL",
    "open": "JOBS",
    "polls": "POLLS",
    "token_expires_at": "TOKEN EXPIRES",
    "state": "STATE",
}
MANAGERS = {
    "manager_id": "MANAGER",
    "host": "HOST",
    "state": "STATE",
    "version": "VERSION",
    "open_jobs": "JOBS",
    "pools": "POOLS",
    "alive_until": "CLAIMS UNTIL",
}
PLACEMENTS = {
    "pool": "POOL",
    "placement": "PLACEMENT",
    "instances": "INSTANCES",
    "max_instances": "MOST",
    "until": "COOLS UNTIL",
    "why": "WHY",
}


def _age(at: str | None) -> str:
    if at is None:
        return "-"
    # the reader's clock, which is near enough to that of the store for a person
    return lasted((Clock().wall() - datetime.fromisoformat(at)).total_seconds())


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{many} {state}" for state, many in counts.items()) or "none"


def _pool_row(pool: dict[str, Any]) -> dict[str, Any]:
    state = "retired" if pool["retired_at"] else pool["problem"] or "ok"
    return {**pool, **pool["slots"], "instances": _counts(pool["instances"]), "state": state}


@command("status")
def status() -> int:
    """Say how the manager and its pools are.

    Ends with 1 when no manager runs, or it takes no jobs.
    """
    asked = invocation()
    with source(asked) as found:
        said = found.get("status")
    manager = said["manager"]
    ready = manager is not None and manager["ready"]
    if asked.printer.as_json:
        asked.printer.value(said)
        return Exit.OK if ready else Exit.NEGATIVE
    if manager is None:
        click.echo("manager     not running")
    else:
        click.echo(f"manager     {manager['id']} is {manager['state']}, {'ready' if ready else 'takes no jobs'}")
        for reason in manager["not_ready"]:
            click.echo(f"            {reason['message']}")
        for runner in manager["stopped_runners"]:
            click.echo(f"            runner {runner['name']} is stopped: {runner['reason']}")
        click.echo(f"configured  {manager['configuration']}")
        if manager["file_problem"]:
            click.echo(f"            the file is not in force, what it said before is: {manager['file_problem']}")
    others = [f"{each['manager_id']} on {each['host']}" for each in said["managers"] if each["alive"]]
    click.echo(f"alive       {', '.join(others) or 'nobody'}")
    click.echo(f"jobs        {_counts(said['jobs'])}")
    if not said["sweeping"]["on"]:
        click.echo(f"sweeping    off: {said['sweeping']['reason']}; confirm with fleetctl store sweep on")
    for each in said["cool_downs"]:
        click.echo(f"cools down  {each['scope']} until {each['until']}: {each['reason']}")
    asked.printer.table([_pool_row(each) for each in said["pools"]], POOLS, empty="there are no pools yet")
    return Exit.OK if ready else Exit.NEGATIVE


@command("pools")
def pools() -> int:
    """List the pools with their instances and slots."""
    asked = invocation()
    with source(asked) as found:
        items = every_item(found, "pools")
    rows = items if asked.printer.as_json else [_pool_row(each) for each in items]
    asked.printer.table(rows, POOLS, empty="there are no pools yet")
    return Exit.OK


@command("instances")
@click.option("--pool", help="Only those of one pool.")
@click.option("--state", help="Only those in one state; `all` also shows those that are gone.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
def instances(pool: str | None, state: str | None, limit: int | None) -> int:
    """List the instances, oldest first."""
    asked = invocation()
    with source(asked) as found:
        items = every_item(found, "instances", limit, pool=pool, state=state)
    rows = items if asked.printer.as_json else [_instance_row(each) for each in items]
    asked.printer.table(rows, INSTANCES, empty="there are no instances")
    return Exit.OK


def _instance_row(each: dict[str, Any]) -> dict[str, Any]:
    remark = each["unhealthy"] or each["no_room"] or each["end_reason"] or each["drain_reason"]
    if remark is None and each["idle_since"] and each["state"] == "ready":
        remark = f"free for {_age(each['idle_since'])}"
    jobs = [str(slot["gitlab_job_id"] or slot["job_key"]) for slot in each["slots"]]
    return {**each, "for": _age(each["state_at"]), "jobs": jobs, "remark": remark}


@command("jobs")
@click.option("--pool", help="Only those of one pool.")
@click.option("--runner", help="Only those of one runner (its id in fleetctl runners --output json).")
@click.option("--state", help="Only those in one state; `all` also shows those that have ended.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
def jobs(pool: str | None, runner: str | None, state: str | None, limit: int | None) -> int:
    """List the jobs, oldest first."""
    asked = invocation()
    with source(asked) as found:
        items = every_item(found, "jobs", limit, pool=pool, runner=runner, state=state)
    rows = items if asked.printer.as_json else [_job_row(each) for each in items]
    asked.printer.table(rows, JOBS, empty="there are no jobs")
    return Exit.OK


def _job_row(each: dict[str, Any]) -> dict[str, Any]:
    remark = each["failure_reason"] or each["result"] or each["stop_reason"]
    return {**each, "for": _age(each["state_at"]), "remark": remark}


@command("runners")
def runners() -> int:
    """List the runners that the store knows, retired ones included."""
    asked = invocation()
    with source(asked) as found:
        items = every_item(found, "runners")
    rows = items if asked.printer.as_json else [_runner_row(each) for each in items]
    asked.printer.table(rows, RUNNERS, empty="there are no runners yet")
    return Exit.OK


def _runner_row(each: dict[str, Any]) -> dict[str, Any]:
    state = "retired" if each["retired_at"] else "ok"
    if each["unhealthy_until"]:
        state = f"refused by GitLab, asks again at {each['unhealthy_until']}"
    return {**each, "open": sum(each["jobs"].values()), "state": state}


@command("managers")
def managers() -> int:
    """List the managers that share the store."""
    asked = invocation()
    with source(asked) as found:
        items = every_item(found, "managers")
    rows = items if asked.printer.as_json else [_manager_row(each) for each in items]
    asked.printer.table(rows, MANAGERS, empty="no manager has run yet")
    return Exit.OK


def _manager_row(each: dict[str, Any]) -> dict[str, Any]:
    silent = not each["alive"] and each["state"] != "stopped"
    return {**each, "state": "silent" if silent else each["state"]}


@command("placements")
@click.option("--pool", help="Only those of one pool.")
def placements(pool: str | None) -> int:
    """List where machines are made, and what is cooling down."""
    asked = invocation()
    with source(asked) as found:
        items = every_item(found, "placements", pool=pool)
    rows = [{**each, "why": [cooled["reason"] for cooled in each["cooling_down"]]} for each in items]
    asked.printer.table(items if asked.printer.as_json else rows, PLACEMENTS, empty="there are no placements")
    return Exit.OK


@command("plan")
@click.argument("pool", required=False)
def plan(pool: str | None) -> int:
    """Show what was planned last, with reasons.

    Without a manager it shows what would be planned now; nothing of it is done.
    """
    asked = invocation()
    with source(asked) as found:
        said = found.get("plan", pool=pool)
    if asked.printer.as_json:
        asked.printer.value(said)
        return Exit.OK
    for each in said["items"]:
        _print_plan(each)
    return Exit.OK


def _print_plan(each: dict[str, Any]) -> None:
    inputs = each["inputs"]
    most = inputs["max_instance_count"] or "no limit"
    policy = "none" if each["policy"] is None else f"number {each['policy'] + 1}"
    click.echo(f"pool {each['pool']}" + (f", planned at {each['planned_at']}" if each["planned_at"] else ""))
    click.echo(f"  instances  {inputs['instance_count']} of {most}, wanted {each['desired_instances']}")
    click.echo(
        f"  slots      {inputs['acquired']} used, {inputs['idle']} free, {inputs['pending']} coming, "
        f"{inputs['waiting']} jobs wait, {inputs['asking']} polls"
    )
    preemptive = ", jobs are asked for only where a ready slot is free" if each["preemptive"] else ""
    click.echo(f"  policy     {policy}, idle target {each['idle_target']} slots{preemptive}")
    for create in each["creates"]:
        click.echo(f"  create     {create['count']} in {create['placement']}: {create['reason']}")
    for assign in each["assigns"]:
        click.echo(f"  assign     {assign['job']} to {assign['instance_id']}: {assign['reason']}")
    for drain in each["drains"]:
        click.echo(f"  drain      {drain['instance_id']}: {drain['reason']}")
    for delete in each["deletes"]:
        click.echo(f"  delete     {delete['instance_id']}: {delete['reason']}")
    for wait in each["waits"]:
        until = f", until {wait['until']}" if wait["until"] else ""
        click.echo(f"  waits      {wait['job']}: {wait['reason']} ({wait['slug']}{until})")
    click.echo(f"  next       {shown(each['next_at'])}")
