"""A job runs its stages as real processes, and its log and result come back."""

from __future__ import annotations

import json
import pathlib
import re
import zlib

import pytest

from fleet.agent.frames import encode

from .channel import eventually
from .conftest import stage

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "


def test_a_job_runs_its_steps_in_order_and_succeeds(machine) -> None:
    result, log = machine.run(machine.job("echo one", "echo two"))
    assert result == {"outcome": "success", "reason": None, "exit_code": 0, "message": "", "stage": "step_2"}
    assert log == "one\ntwo\n"


def test_a_failing_step_gives_its_exit_code_and_keeps_the_next_from_running(machine) -> None:
    result, log = machine.run(machine.job("echo one; exit 3", "echo two"))
    assert result["outcome"] == "failed"
    assert (result["reason"], result["exit_code"], result["message"]) == ("script_failure", 3, "exit code 3")
    assert (result["stage"], log) == ("step_1", "one\n")


def test_a_step_that_is_killed_gives_128_and_the_signal(machine) -> None:
    assert machine.run(machine.job("kill -9 $$"))[0]["exit_code"] == 137


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_script_is_in_no_argument_list_and_in_no_file(machine, shell: str) -> None:
    script = "echo secret-word >/dev/null\ntr '\\0' ' ' </proc/$$/cmdline; echo\nreadlink /proc/$$/fd/0\n"
    _, log = machine.run(machine.job(script, shell=shell))
    arguments, script_file = log.splitlines()
    assert arguments.strip() == shell
    assert script_file.endswith("(deleted)")


def test_a_login_shell_is_one_when_asked_for(machine) -> None:
    assert machine.run(machine.job("shopt -q login_shell; echo $?", login=True))[1] == "0\n"
    assert machine.run(machine.job("shopt -q login_shell; echo $?"))[1] == "1\n"


def test_the_environment_is_that_of_a_login_and_the_job(machine) -> None:
    _, log = machine.run(machine.job("echo $HOME $USER $LOGNAME $SHELL $LANG $PWD; pwd"))
    environment, folder = log.splitlines()
    words = environment.split()
    assert words[0] == str(machine.home)
    assert words[1] == words[2]
    assert words[4:] == ["C.UTF-8", str(machine.work)]
    assert folder == str(machine.work)


def test_signals_that_python_ignores_are_as_usual_in_the_job(machine) -> None:
    assert machine.run(machine.job("yes | head -1; echo ${PIPESTATUS[0]}"))[1] == "y\n141\n"


def test_folders_and_files_are_there_before_the_first_stage_and_gone_after_the_last(machine) -> None:
    place = machine.home / "deep" / "tmp"
    job = machine.job(
        f"cat {place}/CA; stat -c '%a %U' {place} {place}/CA",
        directories=[{"path": str(place), "mode": 0o700}],
        files=[{"path": str(place / "CA"), "mode": 0o400, "text": "c\u20ac\n"}],
        cleanup_paths=[str(place)],
    )
    _, log = machine.run(job)
    assert log.splitlines()[0] == "c\u20ac"
    assert [line.split()[0] for line in log.splitlines()[1:]] == ["700", "400"]
    assert not place.exists()
    assert place.parent.exists()


def test_a_read_only_tree_is_removed_and_what_a_link_points_to_is_not(machine) -> None:
    kept = machine.home / "kept"
    kept.write_text("")
    place = machine.home / "tree"
    script = f"mkdir -p {place}/a/b; ln -s {machine.home} {place}/a/b/link; chmod 500 {place}/a/b {place}/a"
    machine.run(machine.job(script, cleanup_paths=[str(place)]))
    assert not place.exists()
    assert kept.exists()


def test_a_folder_that_cannot_be_made_fails_the_job_and_not_the_user(machine) -> None:
    (machine.home / "file").write_text("")
    result, _ = machine.run(machine.job("echo hi", cwd=str(machine.home / "file" / "x")))
    assert (result["outcome"], result["reason"]) == ("failed", "runner_system_failure")
    assert "file/x" in result["message"]


def test_each_line_says_when_and_from_which_stream(machine) -> None:
    job = machine.job("echo out; sleep 0.1; echo err >&2; printf 'a\\rb'")
    job["trace"].update(timestamps=True, sections=True)
    job["stages"][0].update(section=True, title="Executing")
    _, log = machine.run(job)
    lines = log.split("\n")
    assert re.fullmatch(
        STAMP + r"00O section_start:\d+:step_1\r\x1b\[0K\x1b\[0K\x1b\[36;1mExecuting\x1b\[0;m", lines[0]
    )
    assert re.fullmatch(STAMP + "01O out", lines[1])
    assert sorted(re.sub(STAMP, "", line) for line in lines[2:4]) == ["01E err", "01O a\rb"]
    assert re.fullmatch(STAMP + r"00O section_end:\d+:step_1\r\x1b\[0K", lines[4])
    assert lines[5:] == [""]


def test_without_stamps_both_streams_keep_their_order(machine) -> None:
    script = "for n in $(seq 200); do echo o$n; echo e$n >&2; done"
    _, log = machine.run(machine.job(script))
    assert log.split() == [f"{stream}{n}" for n in range(1, 201) for stream in "oe"]


def test_secrets_broken_bytes_and_the_limit_are_seen_to_before_the_log(machine) -> None:
    job = machine.job("printf 'my sec'; sleep 0.2; printf 'ret\\xff glpat-abc\\n'; head -c 100 /dev/zero | tr '\\0' x")
    job["trace"].update(limit_bytes=60, limit_notice="too much", masks=["secret"], mask_prefixes=["glpat-"])
    _, log = machine.run(job)
    start = "my [MASKED]\ufffd glpat-[MASKED]\n"
    assert log == start + "x" * (60 - len(start.encode())) + "\ntoo much\n"


def test_the_checksum_is_that_of_the_log(machine) -> None:
    channel = machine.connect()
    lease = machine.start(channel, machine.job("seq 10000"))
    end = channel.exit_of(lease)
    log = channel.log(lease)
    assert (end["log_bytes"], end["crc32"]) == (len(log), zlib.crc32(log))


def test_get_sources_is_tried_again_after_clearing_up(machine) -> None:
    mark = machine.home / "mark"
    job = machine.job("echo built")
    job["stages"].insert(
        0,
        stage(
            "get_sources",
            "get_sources",
            f"echo try; test -e {mark}",
            attempts=3,
            retry_delay_s=0.05,
            before_retry=f"echo clear; touch {mark}",
        ),
    )
    result, log = machine.run(job)
    assert result["outcome"] == "success"
    lines = [line for line in log.splitlines() if "WARNING" not in line]
    assert lines == ["try", "clear", "try", "built"]
    assert "get_sources failed: exit code 1. Attempt 2 of 3 follows" in log


def test_a_whole_job_of_all_kinds_knows_its_status_in_each_stage(machine) -> None:
    say = "echo $FLEET_STAGE $CI_JOB_STATUS"
    kinds = ["prepare", "get_sources", "step", "after_script", "archive_cache", "upload_artifacts", "cleanup"]
    job = machine.job()
    job["stages"] = [stage(kind, kind, say.replace("$FLEET_STAGE", kind), on="failure") for kind in kinds]
    job["stages"][2]["script"] += "; exit 9"
    result, log = machine.run(job)
    assert (result["exit_code"], result["stage"]) == (9, "step")
    assert log.splitlines() == [
        "prepare running",
        "get_sources running",
        "step running",
        "after_script failed",
        "archive_cache failed",
        "upload_artifacts failed",
        "cleanup failed",
    ]


def test_an_ignored_failure_is_told_in_the_log(machine) -> None:
    job = machine.job("true")
    job["stages"].append(stage("after_script", "after_script", "exit 4", ignore_errors=True))
    result, log = machine.run(job)
    assert result["outcome"] == "success"
    assert "after_script failed, the job goes on: exit code 4" in log


def test_an_empty_script_makes_no_stage(machine) -> None:
    job = machine.job("", "echo hi")
    job["trace"]["sections"] = True
    job["stages"][0].update(section=True)
    assert machine.run(job)[1] == "hi\n"


def test_a_job_of_ten_megabytes_comes_in_parts(machine) -> None:
    channel = machine.connect()
    filler = "x" * (10 << 20)
    text = json.dumps(machine.job(f"echo begin\n: '{filler}'\necho end")).encode()
    pieces = [text[at : at + (1 << 20)] for at in range(0, len(text), 1 << 20)]
    lease = machine.lease()
    number = channel.send("start", lease=lease, epoch=1, remaining_s=60, parts=len(pieces))
    for piece in pieces:
        channel.process.stdin.write(channel_part(number, piece))
    assert channel.expect(lambda head: head.get("id") == number)["ok"]
    assert channel.ask("follow", lease=lease, epoch=1, offset=0)["ok"]
    assert channel.exit_of(lease)["result"]["outcome"] == "success"
    assert channel.log(lease) == b"begin\nend\n"


def channel_part(number: int, piece: bytes) -> bytes:
    return encode({"type": "part", "id": number}, piece)


def test_hundreds_of_megabytes_in_one_line_pass_with_flat_memory(machine) -> None:
    size = 200 << 20
    job = machine.job(f"head -c {size} /dev/zero | tr '\\0' x", "grep VmHWM /proc/$PPID/status")
    job["trace"].update(limit_bytes=size * 2, masks=["xxsecret", "abc"], mask_prefixes=["glpat-"], timestamps=True)
    channel = machine.connect()
    lease = machine.lease()
    assert channel.ask("start", json.dumps(job).encode(), lease=lease, epoch=1, remaining_s=600)["ok"]
    log = pathlib.Path(machine.folder, "jobs", lease, "log")
    eventually(lambda: b"VmHWM" in tail(log), "the second step ran", 120)
    assert log.stat().st_size > size
    peak_kb = int(re.findall(rb"VmHWM:\s+(\d+) kB", tail(log))[0])
    assert peak_kb < 60_000


def tail(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read()
