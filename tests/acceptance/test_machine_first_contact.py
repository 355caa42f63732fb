"""Machines that lack something, or cannot be prepared: why is said, and what can run elsewhere does."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import subprocess
import sys

import pytest

from fleet.demo.logview import output_lines
from fleet.demo.payload import make_job
from tests.acceptance.given_host import GivenHost, static_pool
from tests.acceptance.manager import wait_until
from tests.acceptance.reasons import in_state, journal, started
from tests.acceptance.standing import settled

PROGRAMS = (
    "bash sh cat chmod cp cut date dd dirname df env find grep head id ln ls mkdir mktemp mv python3 readlink rm rmdir "
    "sed seq sleep stat tail tee timeout touch tr true uname wc xargs awk basename expr kill ps"
)


def hosted(tmp_path: pathlib.Path, **keywords):
    return GivenHost(tmp_path / "host", **keywords)


def no_machine(gitlab, manager, job: int, words: str) -> None:
    """The job found no machine in time, and its log says where to look."""
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    assert "no machine within instance_acquire_timeout" in gitlab.trace(job).decode()
    assert any(words in each for each in wait_until(lambda: journal(manager, "no_python"), 10))


def test_a_machine_without_python_goes_and_its_placement_is_blamed(gitlab, make_manager):
    keys = 'instance_acquire_timeout = "6s"\n[runners.autoscaler.fleet]\nagent_python = "/opt/nowhere/python3"'
    manager = started(make_manager(pool_keys=keys))
    job = gitlab.enqueue(make_job(script=["true"]))
    no_machine(gitlab, manager, job, "has no Python 3.8 or newer at /opt/nowhere/python3")
    assert any("agent_python" in each for each in journal(manager, "cooled_down"))
    wait_until(lambda: in_state(manager) == [] and manager.machines() == [], 30, "the end of the machine")
    settled(gitlab, manager)


def test_a_given_host_without_python_is_tried_until_it_has_one(gitlab, make_manager, tmp_path):
    python = tmp_path / "python3"
    with hosted(tmp_path) as host:
        manager = started(make_manager(pool=static_pool(host.entry(), fleet_keys=f'agent_python = "{python}"')))
        wait_until(lambda: journal(manager, "no_python"), 30, "the refusal")
        [row] = in_state(manager)
        python.symlink_to("/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable)
        job = gitlab.enqueue(make_job(script=["true"]))
        (view,) = gitlab.wait_for(job, timeout=60)
        assert view.state == "success"
        assert in_state(manager) == [row], "one row, not one for each try"
        settled(gitlab, manager)


def test_without_git_a_job_with_sources_fails_clearly_and_others_run(gitlab, make_manager, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS.split():
        found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
        if found is not None:
            (programs / name).symlink_to(os.path.realpath(found))
    with hosted(tmp_path, environment={"PATH": str(programs)}) as host:
        manager = started(make_manager(pool=static_pool(host.entry())))
        source = gitlab.commit("demo/thing", {"a.txt": "hello\n"})
        first = gitlab.enqueue(make_job(script=["cat a.txt"], git=source))
        second = gitlab.enqueue(make_job(script=["echo runs"]))
        one, two = gitlab.wait_for(first, second, timeout=60)
        assert one.state == "failed"
        assert one.failure_reason in ("runner_system_failure", "runner_configuration_error")
        assert any("git" in line and "install" in line for line in output_lines(gitlab.trace(first)))
        assert two.state == "success"
        settled(gitlab, manager)


def test_a_home_that_cannot_be_written_is_named(gitlab, make_manager, tmp_path):
    with hosted(tmp_path, home=pathlib.Path("/proc/nowhere")) as host:
        keys = 'instance_acquire_timeout = "6s"'
        manager = started(make_manager(pool=static_pool(host.entry(), pool_keys=keys)))
        job = gitlab.enqueue(make_job(script=["true"]))
        wait_until(lambda: journal(manager, "not_reached"), 30, "the refusal")
        [told] = journal(manager, "not_reached")
        assert "the agent cannot be installed" in told
        assert "make the home directory writable" in told
        assert gitlab.job(job).state == "pending", "no capacity, so it was not asked for (law 3)"


@pytest.mark.parametrize("noise", ["heavy", "endless"])
def test_what_a_bashrc_prints_and_costs_is_not_in_the_jobs_log(gitlab, make_manager, tmp_path, noise):
    with hosted(tmp_path) as host:
        lines = [
            "alias echo=false",
            "set +o posix",
            "for i in $(seq 1 5000); do printf 'NOISE %s\\n' $i; done",
            "sleep 1",
        ]
        if noise == "endless":
            lines.append("while :; do printf 'NOISE for ever\\n'; done")
        for name in (".bashrc", ".profile", ".bash_profile"):
            (host.home / name).write_text("\n".join(lines) + "\n")
        manager = started(make_manager(pool=static_pool(host.entry())))
        if noise == "endless" and not _reads_bashrc(host):
            return
        if noise == "endless":
            wait_until(lambda: journal(manager, "not_reached"), 60, "the end of patience")
            assert "its login shell prints without end" in journal(manager, "not_reached")[0]
            return
        job = gitlab.enqueue(make_job(script=["echo hello"]))
        (view,) = gitlab.wait_for(job, timeout=60)
        assert view.state == "success"
        assert "hello" in output_lines(gitlab.trace(job))
        assert b"NOISE" not in gitlab.trace(job)
        settled(gitlab, manager)


def _reads_bashrc(host: GivenHost) -> bool:
    """Whether the login shell of who runs the tests is bash, which reads it in an SSH session."""
    return os.path.realpath(pwd.getpwuid(os.geteuid()).pw_shell).endswith("bash")


def test_a_ready_command_that_succeeds_comes_before_the_first_job(gitlab, make_manager):
    manager = started(make_manager(pool_keys='instance_ready_command = "echo prepared > $HOME/prepared"'))
    job = gitlab.enqueue(make_job(script=["cat $HOME/prepared"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    assert "prepared" in output_lines(gitlab.trace(job))
    settled(gitlab, manager)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo no such mirror >&2; exit 3", "ended with exit code 3: no such mirror"),
        ("echo waits; sleep 600", "did not end within 2 s: waits"),
    ],
)
def test_a_ready_command_that_fails_costs_the_machine_and_no_job(gitlab, make_manager, command, words):
    keys = f'instance_acquire_timeout = "8s"\ninstance_ready_command = "{command}"\n'
    manager = started(make_manager(pool_keys=keys + '[runners.autoscaler.fleet]\npreparing_timeout = "2s"'))
    job = gitlab.enqueue(make_job(script=["true"]))
    told = wait_until(lambda: journal(manager, "ready_command_failed"), 30, "the failure")
    assert words in told[0]
    assert any(words in each for each in journal(manager, "cooled_down"))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.failure_reason) == ("failed", "runner_system_failure")
    wait_until(lambda: manager.machines() == [], 30, "the end of the machine")
    settled(gitlab, manager)


def test_a_small_disk_that_is_full_fails_no_job_that_can_run_elsewhere(gitlab, make_manager, tmp_path):
    """Root gives the host a disk of its own; without root a home that takes no more files stands for it."""
    home = tmp_path / "host" / "home"
    with SmallDisk(home), hosted(tmp_path, home=home) as full, GivenHost(tmp_path / "other") as other:
        manager = started(make_manager(pool=static_pool(full.entry(), other.entry())))
        wait_until(lambda: len(in_state(manager, "ready")) == 2, 40, "both hosts")
        _fill(home)
        jobs = [gitlab.enqueue(make_job(script=["sleep 1"])) for _ in range(3)]
        for view in gitlab.wait_for(*jobs, timeout=90):
            assert view.state == "success"
        refused = manager.events("start_refused")
        assert refused, "the full one was asked first or second"
        assert "disk" in str(refused[0]).lower() or "space" in str(refused[0]).lower()
        assert any("space" in each.lower() or "disk" in each.lower() for each in journal(manager, "unhealthy"))
        _empty(home)
        settled(gitlab, manager)


class SmallDisk:
    """Eight megabytes of memory as a disk."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.path.mkdir(parents=True)
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self.path)], check=True)

    def __exit__(self, *_: object) -> None:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


def _fill(home: pathlib.Path) -> None:
    if os.geteuid() != 0:
        for folder in (home / ".fleet-agent", home / ".fleet-agent" / "jobs"):
            folder.chmod(0o500)
        return
    with open(home / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def _empty(home: pathlib.Path) -> None:
    if os.geteuid() != 0:
        for folder in (home / ".fleet-agent", home / ".fleet-agent" / "jobs"):
            folder.chmod(0o700)
        return
    (home / "ballast").unlink()
