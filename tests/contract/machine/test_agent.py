"""The agent of this version, installed on a local machine by the channel: a job starts, is followed, and is cleaned."""

from __future__ import annotations

import json
import threading

from fleet.machine.bundle import agent_bundle
from fleet.machine.channel import AgentChannel
from fleet.machine.ssh import connect
from tests.contract.machine.local_machine import LocalMachine


def job_file(machine: LocalMachine, script: str) -> bytes:
    stage = {
        "name": "step",
        "kind": "step",
        "script": script,
        "attempts": 1,
        "before_retry": "",
        "timeout_s": None,
        "section": False,
        "title": "",
        "ignore_errors": False,
        "exit_reason": "script_failure",
    }
    trace = {
        "limit_bytes": 4_194_304,
        "limit_notice": "",
        "timestamps": False,
        "sections": False,
        "masks": [],
        "mask_prefixes": [],
        "mask_parameters": [],
    }
    job = {
        "format": 1,
        "lease": "lease-1",
        "job_id": 1,
        "user": None,
        "shell": "sh",
        "login": False,
        "cwd": str(machine.home / "work"),
        "environment": {},
        "directories": [],
        "files": [],
        "script_timeout_s": None,
        "abort_grace_s": 1,
        "cleanup_paths": [],
        "trace": trace,
        "stages": [stage],
    }
    return json.dumps(job).encode()


def test_a_job_is_started_over_one_channel_and_followed_over_the_next(machine: LocalMachine) -> None:
    with connect(machine.target) as connection, AgentChannel.over_ssh(connection) as channel:
        assert channel.uploaded
        assert channel.hello["home"] == str(machine.home)
        # Larger than one frame: the job file travels in parts.
        body = job_file(machine, f"echo hello from the machine; : {'x' * 1_500_000}")
        state = channel.request("start", 30, lease="lease-1", epoch=1, remaining_s=60, body=body)
        assert state["state"] in {"running", "exited"}
    log: list[bytes] = []
    exits: list[dict] = []
    ended = threading.Event()

    def take(head: dict, data: bytes) -> None:
        if head["type"] == "data":
            log.append(data)
        if head["type"] == "exit":
            exits.append(head)
            ended.set()

    with connect(machine.target) as connection, AgentChannel.over_ssh(connection, on_frame=take) as channel:
        assert not channel.uploaded
        assert [lease["lease"] for lease in channel.hello["leases"]] == ["lease-1"]
        channel.request("follow", 30, lease="lease-1", epoch=1, offset=0)
        assert ended.wait(30)
        assert b"".join(log) == b"hello from the machine\n"
        assert exits[0]["result"]["outcome"] == "success"
        channel.request("clean", 30, lease="lease-1", epoch=1)
    assert (machine.home / ".fleet-agent" / "agents" / f"{agent_bundle().sha256}.pyz").is_file()
