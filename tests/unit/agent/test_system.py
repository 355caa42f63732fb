"""What the agent asks of the operating system, on this one."""

from __future__ import annotations

import os
import select
import subprocess

from fleet.agent import system
from fleet.agent.home import read_json, write_json


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        started = system.start_time(process.pid)
        assert system.is_alive(process.pid, started)
        assert not system.is_alive(process.pid, started + 1)
        process.kill()
        select.select([], [], [], 0)
        process.wait()
        assert not system.is_alive(process.pid, started)


def test_a_zombie_is_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert system.start_time(pid) == 0
    os.waitpid(pid, 0)


def test_the_end_of_a_process_can_be_waited_for() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        number = system.watch(process.pid)
        assert number is not None
        assert not select.select([number], [], [], 0)[0]
        process.kill()
        assert select.select([number], [], [], 10)[0]
        os.close(number)


def test_a_nameless_file_is_read_from_its_start_and_has_no_name(tmp_path) -> None:
    number = system.nameless_file(b"echo hi\n", str(tmp_path))
    assert os.read(number, 100) == b"echo hi\n"
    assert os.readlink(f"/proc/self/fd/{number}").endswith("(deleted)")
    os.close(number)
    assert list(tmp_path.iterdir()) == []


def test_processes_are_found_by_their_environment_and_their_descent() -> None:
    mark = os.urandom(6).hex()
    command = ["bash", "-c", "sleep 60 & wait"]
    with subprocess.Popen(command, env={**os.environ, "FLEET_TEST": mark}) as process:
        while len(found := system.processes_with("FLEET_TEST", mark)) < 2:
            assert process.poll() is None
        assert set(system.descendants(process.pid)) | {process.pid} >= set(found)
        for pid in found:
            system.send(pid, 9)


def test_the_bytes_that_wait_in_a_pipe_are_counted() -> None:
    reading, writing = system.big_pipe()
    assert system.waiting_bytes(reading) == 0
    os.write(writing, b"x" * 100_000)
    assert system.waiting_bytes(reading) == 100_000
    os.close(reading)
    os.close(writing)


def test_a_program_is_found_by_a_search_path(tmp_path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    assert system.find_program("tool", str(tmp_path)) is None
    (tmp_path / "tool").chmod(0o755)
    assert system.find_program("tool", f"/nowhere:{tmp_path}") == str(tmp_path / "tool")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = str(tmp_path / "state.json")
    assert read_json(path) == {}
    write_json(path, {"a": 1}, durable=True)
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]
    (tmp_path / "state.json").write_text('{"a": ')
    assert read_json(path) == {}
