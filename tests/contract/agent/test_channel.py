"""The channel: every request of the contract that is not about one job's course, and what a bad or slow peer does."""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import time

import pytest

from fleet.agent import home, leases
from fleet.agent.frames import LENGTHS

from .channel import PATIENCE_S, eventually
from .conftest import stage


def test_hello_tells_the_machine(machine) -> None:
    hello = machine.connect().hello
    assert hello["protocol"] == 1
    assert (hello["uid"], hello["root"]) == (os.geteuid(), os.geteuid() == 0)
    assert hello["home"] == str(machine.home)
    assert hello["hostname"] == os.uname().nodename
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    assert hello["git"] in git
    assert "sh" in hello["shells"]
    assert hello["free_bytes"] > 0
    assert hello["leases"] == []
    assert set(hello) >= {"version", "python", "pid", "user", "boot_id", "git_lfs", "docker"}


def test_a_git_that_hangs_does_not_keep_hello_back(machine) -> None:
    programs = machine.home / "bin"
    programs.mkdir()
    for name in ("git", "git-lfs"):
        (programs / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (programs / name).chmod(0o755)
    begun = time.monotonic()
    hello = machine.connect(PATH=f"{programs}:{os.environ['PATH']}").hello
    assert time.monotonic() - begun < PATIENCE_S / 2
    assert (hello["git"], hello["git_lfs"]) == (None, None)


def test_a_machine_without_git_says_so(machine) -> None:
    programs = machine.home / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    hello = machine.connect(PATH=str(programs)).hello
    assert (hello["git"], hello["shells"]) == (None, ["sh"])


def test_the_agent_s_folder_is_nobody_else_s(machine) -> None:
    machine.home.joinpath(".fleet-agent").mkdir(mode=0o755)
    machine.connect()
    assert {path.stat().st_mode & 0o077 for path in [machine.folder, *machine.folder.iterdir()]} == {0}


def test_a_command_gives_its_exit_code_and_the_end_of_its_output(machine) -> None:
    channel = machine.connect()
    reply = channel.ask("run", command="seq 5000; echo bad >&2; exit 4", timeout_s=20, shell="sh")
    assert (reply["ok"], reply["exit_code"]) == (True, 4)
    assert reply["output"].endswith("\n5000\nbad\n")
    assert len(reply["output"]) <= 4096


def test_a_command_that_takes_too_long_has_no_exit_code(machine) -> None:
    reply = machine.connect().ask("run", command="echo begun; sleep 60", timeout_s=0.3, shell="sh")
    assert (reply["ok"], reply["exit_code"], reply["output"]) == (True, None, "begun\n")


def test_a_command_that_leaves_a_daemon_or_closes_its_output_ends_when_it_ends(machine) -> None:
    channel = machine.connect()
    assert channel.ask("run", command="setsid -f sleep 60; echo x", timeout_s=20, shell="sh")["exit_code"] == 0
    assert channel.ask("run", command="exec >&- 2>&-; sleep 0.3; exit 5", timeout_s=20, shell="sh")["exit_code"] == 5


def test_a_command_keeps_no_other_request_waiting(machine) -> None:
    channel = machine.connect()
    slow = channel.send("run", command="sleep 60", timeout_s=60, shell="sh")
    assert channel.ask("ping", agent_timeout_s=60)["ok"]
    assert channel.ask("run", command="echo x", timeout_s=5, shell="nosuchshell")["error"] == "no_shell"
    assert all(head.get("id") != slow for head, _ in channel.frames)


def test_users_are_looked_up(machine) -> None:
    channel = machine.connect()
    own = channel.ask("user", name=None)
    assert (own["exists"], own["home"], own["uid"]) == (True, str(machine.home), os.geteuid())
    root = channel.ask("user", name="root")
    assert (root["exists"], root["uid"]) == (True, 0)
    assert channel.ask("user", name="nobody-of-that-name")["exists"] is False


def test_a_ping_rearms_the_dead_man_and_tells_the_pulse(machine) -> None:
    channel = machine.connect()
    reply = channel.ask("ping", agent_timeout_s=3600)
    assert reply["free_bytes"] > 0
    assert reply["load"] >= 0
    assert reply["leases"] == []
    contact = json.loads((machine.folder / "contact").read_text())
    left = contact["until_boottime_s"] - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 3500 < left <= 3600


def test_a_host_key_is_replaced_by_root_only_and_whole(machine) -> None:
    keys = machine.home / "ssh"
    keys.mkdir()
    channel = machine.connect(FLEET_SSH_DIR=str(keys))
    reply = channel.ask("rekey", private="PRIVATE\n", public="ssh-ed25519 AAAA host")
    if os.geteuid() != 0:
        assert reply["error"] == "not_root"
        return
    assert reply["ok"]
    assert (keys / "ssh_host_ed25519_key").read_text() == "PRIVATE\n"
    assert (keys / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (keys / "ssh_host_ed25519_key.pub").read_text() == "ssh-ed25519 AAAA host\n"
    assert channel.ask("rekey", private="x", public="strange x")["error"] == "bad_frame"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("dance", {}),
        ("follow", {"lease": "x"}),
        ("follow", {"lease": 5, "epoch": 1, "offset": 0}),
        ("start", {"lease": "x", "epoch": "high", "remaining_s": 1}),
        ("run", {"command": 7, "timeout_s": 1}),
        ("ping", {"agent_timeout_s": "long"}),
        ("rekey", {}),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_channel_goes_on(machine, kind, fields) -> None:
    channel = machine.connect()
    reply = channel.ask(kind, **fields)
    assert (reply["ok"], reply["error"]) in {(False, "bad_frame"), (False, "not_root")}
    assert channel.ask("ping", agent_timeout_s=1)["ok"]


def test_bytes_that_are_no_frame_end_the_channel_and_not_the_jobs(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("sleep 0.5; echo done"))
    channel.process.stdin.write(LENGTHS.pack(1 << 31, 0))
    assert channel.process.wait(PATIENCE_S) == 0
    channel.close()
    second = machine.connect()
    assert second.ask("follow", lease=lease, epoch=1, offset=0)["ok"]
    second.exit_of(lease)
    assert second.log(lease) == b"done\n"


def test_the_state_and_the_stage_are_told_as_they_change(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("echo a; sleep 0.2", "echo b; sleep 0.2"))
    channel.exit_of(lease)
    told = [(head["state"], head["stage"]) for head, _ in channel.frames if head["type"] == "state"]
    assert ("running", "step_1") in told
    assert ("running", "step_2") in told
    kinds = [head["type"] for head, _ in channel.frames]
    assert kinds[-1] == "exit"


def test_what_is_not_followed_is_not_sent(machine) -> None:
    channel = machine.connect()
    go = machine.home / "go"
    lease = machine.start(channel, machine.job(f"echo a; until test -e {go}; do sleep 0.02; done; echo b"))
    channel.expect(lambda head: head["type"] == "data")
    assert channel.ask("unfollow", lease=lease)["ok"]
    go.write_text("")
    lease_now = leases.Lease(home.Home(str(machine.folder)), lease)
    eventually(lambda: lease_now.view().state == "exited", "the job ended")
    assert channel.ask("ping", agent_timeout_s=1)["ok"]
    assert channel.log(lease) == b"a\n"
    assert all(head["type"] != "exit" for head, _ in channel.frames)


def test_a_log_may_be_followed_from_the_middle_but_not_from_beyond_its_end(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("echo 0123456789; sleep 60"))
    channel.expect(lambda head: head["type"] == "data")
    assert channel.ask("follow", lease=lease, epoch=1, offset=99)["error"] == "failed"
    second = machine.connect()
    assert second.ask("follow", lease=lease, epoch=1, offset=4)["ok"]
    second.expect(lambda head: head["type"] == "data")
    assert second.log(lease, 4) == b"456789\n"


def test_a_job_whose_log_lost_its_end_with_the_machine_s_power_still_comes_to_its_end(machine) -> None:
    before = machine.connect(FLEET_BOOT_ID="boot-1")
    lease = machine.start(before, machine.job("echo 0123456789; sleep 60"))
    before.expect(lambda head: head["type"] == "data")
    before.close()
    os.truncate(machine.folder / "jobs" / lease / "log", 3)
    after = machine.connect(FLEET_BOOT_ID="boot-2")
    assert after.ask("follow", lease=lease, epoch=1, offset=11)["ok"]
    end = after.exit_of(lease)
    assert (end["result"]["outcome"], end["log_bytes"]) == ("lost", 3)
    assert list(after.data(lease)) == []


def test_an_acknowledged_offset_is_kept(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("echo hi"))
    channel.exit_of(lease)
    assert channel.ask("ack", lease=lease, epoch=1, offset=3)["ok"]
    assert (machine.folder / "jobs" / lease / "acked").read_text() == "3"


def test_the_first_bytes_come_at_once_and_later_ones_together(machine) -> None:
    script = "for n in $(seq 12); do echo $n; sleep 0.1; done; sleep 60"
    channel = machine.connect()
    begun = time.monotonic()
    lease = machine.start(channel, machine.job(script))
    channel.expect(lambda head: head["type"] == "data")
    first = time.monotonic() - begun
    eventually(lambda: channel.receive(0.1) is False and channel.log(lease).endswith(b"\n12\n"), "all came")
    assert first < 1
    assert len(list(channel.data(lease))) <= 4


def test_much_output_comes_in_frames_of_64_kib_at_most(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("seq 200000"))
    channel.exit_of(lease)
    sizes = [len(body) for _, body in channel.data(lease)]
    assert max(sizes) <= 64 * 1024
    assert channel.log(lease) == b"".join(b"%d\n" % n for n in range(1, 200001))


def test_a_manager_that_does_not_read_costs_no_memory_and_no_time_of_the_job(machine) -> None:
    channel = machine.connect()
    job = machine.job("head -c 60000000 /dev/zero | tr '\\0' x")
    job["trace"]["limit_bytes"] = None
    lease = machine.start(channel, job)
    one = leases.Lease(home.Home(str(machine.folder)), lease)
    eventually(lambda: one.view().state == "exited", "the job ended unread")
    status = pathlib.Path(f"/proc/{channel.process.pid}/status").read_text()
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    assert peak_kb < 40_000
    channel.exit_of(lease)
    assert len(channel.log(lease)) == 60_000_000


def test_an_idle_channel_costs_no_time(machine) -> None:
    channel = machine.connect()
    machine.start(channel, machine.job("echo up; sleep 60"))
    channel.expect(lambda head: head["type"] == "data")
    while channel.receive(0.3):
        pass
    before = switches(channel.process.pid)
    assert not select.select([channel.process.stdout], [], [], 1.0)[0]
    assert switches(channel.process.pid) - before <= 1


def switches(pid: int) -> int:
    """How often a process has slept: each wake-up counts."""
    return int(pathlib.Path(f"/proc/{pid}/status").read_text().split("voluntary_ctxt_switches:")[1].split()[0])


def test_a_transfer_asks_for_fresh_urls_and_gets_them(machine) -> None:
    ask = 'echo \'{"file": "a.zip"}\' >&$FLEET_SIGN_ASK; read -r line <&$FLEET_SIGN_ANSWER; echo "got $line"'
    job = machine.job("true")
    job["stages"].append(stage("upload", "upload_artifacts", ask))
    channel = machine.connect()
    lease = machine.start(channel, job)
    asked = channel.expect(lambda head: head["type"] == "sign")
    assert (asked["lease"], asked["what"]) == (lease, {"file": "a.zip"})
    channel.send("sign_reply", lease=lease, sign=asked["sign"], urls=["https://x/y?z=1"])
    assert channel.exit_of(lease)["result"]["outcome"] == "success"
    answer = json.loads(channel.log(lease).decode().split("got ")[1])
    assert answer == {"sign": asked["sign"], "urls": ["https://x/y?z=1"]}


def test_a_question_that_was_not_answered_is_asked_again_on_the_next_channel(machine) -> None:
    ask = "echo '1' >&$FLEET_SIGN_ASK; read -r line <&$FLEET_SIGN_ANSWER"
    job = machine.job("true")
    job["stages"].append(stage("upload", "upload_artifacts", ask))
    first = machine.connect()
    lease = machine.start(first, job)
    first.expect(lambda head: head["type"] == "sign")
    first.kill()
    second = machine.connect()
    assert second.ask("follow", lease=lease, epoch=1, offset=0)["ok"]
    asked = second.expect(lambda head: head["type"] == "sign")
    second.send("sign_reply", lease=lease, sign=asked["sign"], urls=[])
    assert second.exit_of(lease)["result"]["outcome"] == "success"
