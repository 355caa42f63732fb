"""A lease is started at most once, whoever asks, and what became of it is told for ever."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import random
import select
import signal

from fleet.agent import home, leases, system

from .channel import eventually


def body(machine, *scripts: str, **fields) -> bytes:
    return json.dumps(machine.job(*scripts, **fields)).encode()


def view(machine, lease: str):
    return leases.Lease(home.Home(str(machine.folder)), lease).view()


def test_a_known_lease_answers_with_its_state_at_any_epoch_and_starts_nothing(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("echo ran"), epoch=5)
    channel.exit_of(lease)
    for epoch in (4, 5, 6):
        reply = channel.ask("start", body(machine, "echo again"), lease=lease, epoch=epoch, remaining_s=9)
        assert (reply["ok"], reply["state"]) == (True, "exited")
    assert channel.log(lease) == b"ran\n"


def test_an_older_epoch_may_not_command_and_a_newer_one_takes_over(machine) -> None:
    old, new = machine.connect(), machine.connect()
    lease = machine.start(old, machine.job("sleep 60"), epoch=5)
    assert new.ask("follow", lease=lease, epoch=6, offset=0)["ok"]
    for kind, more in [("cancel", {}), ("abort", {"reason": "x"}), ("ack", {"offset": 0}), ("clean", {})]:
        assert old.ask(kind, lease=lease, epoch=5, **more)["error"] == "stale_epoch"
    assert new.ask("abort", lease=lease, epoch=6, reason="job_canceled")["ok"]
    assert new.exit_of(lease)["result"]["outcome"] == "aborted"


def test_a_lease_that_is_not_known_is_not_commanded(machine) -> None:
    channel = machine.connect()
    for kind, more in [("follow", {"offset": 0}), ("cancel", {}), ("abort", {}), ("ack", {"offset": 0})]:
        assert channel.ask(kind, lease="nobody", epoch=1, **more)["error"] == "unknown_lease"


def test_two_channels_that_start_one_lease_together_start_one_job(machine) -> None:
    mark = machine.home / "mark"
    first, second = machine.connect(), machine.connect()
    text = body(machine, f"echo x >>{mark}; sleep 0.2")
    for _ in range(10):
        mark.write_text("")
        lease = machine.lease()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(one.ask, "start", text, lease=lease, epoch=1, remaining_s=60) for one in (first, second)
            ]
            replies = [one.result() for one in asked]
        assert [reply["state"] for reply in replies] == ["running", "running"]
        assert first.ask("follow", lease=lease, epoch=1, offset=0)["ok"]
        first.exit_of(lease)
        assert mark.read_text() == "x\n"


def test_after_a_reboot_a_lease_is_lost_and_stays_so(machine) -> None:
    before = machine.connect(FLEET_BOOT_ID="boot-1")
    lease = machine.start(before, machine.job("echo hi; sleep 60"))
    before.expect(lambda head: head["type"] == "data")
    before.close()
    after = machine.connect(FLEET_BOOT_ID="boot-2")
    assert after.hello["boot_id"] == "boot-2"
    assert [(one["lease"], one["state"]) for one in after.hello["leases"]] == [(lease, "lost")]
    reply = after.ask("start", body(machine, "echo again"), lease=lease, epoch=2, remaining_s=9)
    assert (reply["ok"], reply["state"]) == (True, "lost")
    assert after.ask("follow", lease=lease, epoch=2, offset=0)["ok"]
    result = after.exit_of(lease)["result"]
    assert (result["outcome"], result["reason"]) == ("lost", "runner_system_failure")
    assert "restarted" in result["message"]
    assert after.log(lease) == b"hi\n"


def test_after_clean_nothing_is_left_but_a_tombstone_and_a_start_is_refused(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("echo hi"))
    channel.exit_of(lease)
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert list((machine.folder / "jobs").iterdir()) == []
    assert [one.name for one in (machine.folder / "tombstones").iterdir()] == [lease]
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert channel.ask("start", body(machine, "echo"), lease=lease, epoch=9, remaining_s=9)["state"] == "cleaned"
    assert channel.ask("follow", lease=lease, epoch=9, offset=0)["error"] == "cleaned"


def test_a_lease_that_was_cleaned_before_it_came_never_starts(machine) -> None:
    channel = machine.connect()
    assert channel.ask("clean", lease="late", epoch=3)["ok"]
    assert channel.ask("start", body(machine, "echo"), lease="late", epoch=2, remaining_s=9)["state"] == "cleaned"


def test_the_promise_is_on_disk_before_the_first_effect(machine) -> None:
    """The supervisor's first effect can see the promise, whole."""
    jobs = machine.folder / "jobs"
    result, log = machine.run(machine.job(f"cat {jobs}/$FLEET_LEASE/lease.json"), epoch=7)
    assert result["outcome"] == "success"
    assert json.loads(log)["epoch"] == 7
    assert json.loads(log)["boot_id"] == system.boot_id()


def test_a_promise_whose_starter_was_killed_is_started_by_the_next_start(machine) -> None:
    channel = machine.connect()
    lease = leases.Lease(home.Home(str(machine.folder)), machine.lease())
    lock = lease.lock(make=True)
    lease.promise(1, machine.job("echo hi"))
    os.close(lock)
    assert channel.ask("follow", lease=lease.name, epoch=1, offset=0)["error"] == "unknown_lease"
    name = machine.start(channel, machine.job("echo hi"), lease=lease.name)
    assert channel.exit_of(name)["result"]["outcome"] == "success"


def test_serve_killed_at_any_moment_of_a_start_leads_to_one_run(machine) -> None:
    mark = machine.home / "mark"
    chance = random.Random(7)
    for _ in range(15):
        mark.write_text("")
        first = machine.connect()
        lease = machine.lease()
        text = body(machine, f"echo x >>{mark}")
        first.send("start", text, lease=lease, epoch=1, remaining_s=60)
        select.select([], [], [], chance.uniform(0, 0.03))
        first.kill()
        second = machine.connect()
        reply = second.ask("start", text, lease=lease, epoch=2, remaining_s=60)
        assert reply["state"] in {"running", "exited"}
        assert second.ask("follow", lease=lease, epoch=2, offset=0)["ok"]
        assert second.exit_of(lease)["result"]["outcome"] == "success"
        assert mark.read_text() == "x\n"


def test_a_start_that_cannot_be_is_refused_and_promises_nothing(machine) -> None:
    channel = machine.connect()
    wrong = [
        ("bad_job_file", b"{"),
        ("bad_job_file", body(machine, "echo", format=2)),
        ("bad_job_file", body(machine, "echo", cwd="here")),
        ("bad_job_file", body(machine, "echo", stages=[{"name": "x", "kind": "dance", "script": "y"}])),
        ("no_user", body(machine, "echo", user="nobody-of-that-name")),
        ("no_shell", body(machine, "echo", environment={"PATH": "/nowhere"})),
    ]
    for slug, text in wrong:
        reply = channel.ask("start", text, lease="wrong", epoch=1, remaining_s=9)
        assert (reply["ok"], reply["error"]) == (False, slug), reply
        assert list((machine.folder / "jobs").iterdir()) == []
    assert channel.ask("start", body(machine, "echo"), lease="../up", epoch=1, remaining_s=9)["error"] == "bad_frame"
    assert channel.ask("start", body(machine, "echo"), lease="x", epoch=1)["error"] == "bad_frame"


def test_a_job_outlives_the_channel_and_is_followed_again_without_gap_or_repetition(machine) -> None:
    go = machine.home / "go"
    script = f"for n in $(seq 1000); do echo line $n; done; until test -e {go}; do sleep 0.02; done; seq 1000"
    first = machine.connect()
    lease = machine.start(first, machine.job(script))
    first.expect(lambda head: head["type"] == "data")
    got = first.log(lease)
    first.kill()
    assert view(machine, lease).state == "running"
    second = machine.connect()
    assert second.ask("follow", lease=lease, epoch=1, offset=len(got))["ok"]
    go.write_text("")
    second.exit_of(lease)
    whole = "".join(f"line {n}\n" for n in range(1, 1001)) + "".join(f"{n}\n" for n in range(1, 1001))
    assert (got + second.log(lease, len(got))).decode() == whole


def test_serve_killed_again_and_again_loses_no_byte(machine) -> None:
    job = machine.job(
        "for n in $(seq 3000); do echo line $n; done; sleep 0.3; for n in $(seq 3000); do echo l $n; done"
    )
    channel = machine.connect()
    lease = machine.start(channel, job)
    got = b""
    while True:
        channel.receive(0.05)
        if any(head["type"] == "exit" for head, _ in channel.frames):
            got += channel.log(lease, len(got))
            break
        got += channel.log(lease, len(got))
        channel.kill()
        channel = machine.connect()
        assert channel.ask("follow", lease=lease, epoch=1, offset=len(got))["ok"]
    expected = [f"line {n}" for n in range(1, 3001)] + [f"l {n}" for n in range(1, 3001)]
    assert got.decode().splitlines() == expected


def test_hanging_up_leaves_the_job_alone_and_no_pipe_behind(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("sleep 0.3; echo done"))
    channel.close()
    eventually(lambda: view(machine, lease).state == "exited", "the job ended")
    assert pathlib.Path(machine.folder, "jobs", lease, "log").read_bytes() == b"done\n"
    assert list((machine.folder / "serve").iterdir()) == []


def test_a_supervisor_has_left_the_session_and_holds_nothing_of_the_channel(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("sleep 60"))
    pid = view(machine, lease).pid
    assert os.getsid(pid) not in {os.getsid(0), os.getsid(channel.process.pid), pid}
    targets = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    assert targets == {"/dev/null"}
    os.kill(pid, signal.SIGHUP)
    assert channel.ask("abort", lease=lease, epoch=1, reason="x")["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "aborted"


def test_a_supervisor_that_is_killed_is_noticed_and_what_it_left_is_cleaned(machine) -> None:
    channel = machine.connect()
    mark = machine.home / "pid"
    job = machine.job(f"sleep 300 & echo $! >{mark}; setsid -f sleep 301; echo up; wait")
    job["cleanup_paths"] = [str(mark)]
    lease = machine.start(channel, job)
    channel.expect(lambda head: head["type"] == "data")
    os.kill(view(machine, lease).pid, signal.SIGKILL)
    result = channel.exit_of(lease)["result"]
    assert (result["outcome"], result["reason"], result["stage"]) == ("lost", "runner_system_failure", "step_1")
    assert "supervisor" in result["message"]
    assert channel.log(lease) == b"up\n"
    assert system.processes_with("FLEET_LEASE", lease)
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert system.processes_with("FLEET_LEASE", lease) == []
    assert not mark.exists()


def test_a_job_that_kills_its_parent_is_noticed(machine) -> None:
    result, _ = machine.run(machine.job("kill -9 $PPID; sleep 60"))
    assert (result["outcome"], result["reason"]) == ("lost", "runner_system_failure")


def test_a_supervisor_that_is_told_to_end_says_so(machine) -> None:
    result, _ = machine.run(machine.job("kill -TERM $PPID; sleep 60"))
    assert (result["outcome"], result["reason"]) == ("failed", "runner_system_failure")


def test_a_clean_ends_a_job_that_runs(machine) -> None:
    channel = machine.connect()
    job = machine.job("trap '' TERM; setsid -f env -i sleep 302; echo up; sleep 60")
    lease = machine.start(channel, job)
    channel.expect(lambda head: head["type"] == "data")
    below = system.descendants(view(machine, lease).pid)
    assert len(below) >= 2
    assert channel.ask("clean", lease=lease, epoch=1)["ok"]
    assert [pid for pid in below if system.start_time(pid)] == []


def test_a_start_on_a_kept_channel_reads_its_job_file_in_the_supervisor_s_memory_only(machine) -> None:
    channel = machine.connect()
    secret = "word-" + os.urandom(8).hex()
    job = machine.job(f"echo {secret} >/dev/null; sleep 60")
    job["trace"]["masks"] = [secret]
    machine.start(channel, job)
    for path in machine.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
