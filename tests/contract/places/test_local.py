"""The place `local` with real processes: made once, found again, gone with everything it started."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fleet.machine.errors import AuthRefused
from fleet.machine.keys import make_key_pair
from fleet.machine.ssh import SshConnection, connect
from fleet.places.local.processes import marked, process
from fleet.places.local.provider import LocalProvider
from fleet.places.local.registry import Record, locked, machine_ids
from fleet.sdk import BadParameters, MachineState, ProviderSetting
from tests.contract.machine.local_machine import LocalMachine, until


@pytest.fixture
def connection(machine: LocalMachine) -> Iterator[SshConnection]:
    with connect(machine.target) as made:
        yield made


def said(connection: SshConnection, command: str) -> tuple[str, str]:
    """What a command printed, and how it ended."""
    pipe = connection.open_pipe(command)
    parts = []
    while data := pipe.recv(30):
        parts.append(data)
    ending = until(pipe.ending)
    pipe.close()
    return b"".join(parts).decode(), ending


def another(machine: LocalMachine) -> LocalProvider:
    """The provider of another manager process on the same directory."""
    state_dir = machine.provider.info().account.removeprefix("local:").removesuffix("/local")
    return LocalProvider(
        ProviderSetting(pool="q", plugin_config={}, placements=({},), state_dir=state_dir, store_id="another")
    )


def test_a_machine_is_made_and_gone_within_about_a_second(tmp_path: pathlib.Path) -> None:
    begun = time.monotonic()
    with LocalMachine(tmp_path):
        made = time.monotonic()
    gone = time.monotonic()
    # The bound is generous for a loaded test host; the usual figures are 0.2 s and 0.02 s.
    assert made - begun < 5
    assert gone - made < 5


def test_it_shows_the_key_that_was_handed_over_and_its_tags(machine: LocalMachine) -> None:
    listed = machine.seen(MachineState.RUNNING)
    assert listed is not None
    assert listed.host_key == machine.host_key.public
    assert listed.tags == machine.request.tags
    assert listed.address_internal == "127.0.0.1"


def test_commands_run_in_its_own_home_with_a_clean_environment(
    machine: LocalMachine, connection: SshConnection
) -> None:
    out, ending = said(connection, "pwd; env; echo oops >&2; exit 5")
    lines = out.splitlines()
    assert lines[0] == str(machine.home)
    assert f"HOME={machine.home}" in lines
    assert f"FLEET_MACHINE={machine.machine_id}" in lines
    assert not [line for line in lines if line.startswith(("PYTEST", "VIRTUAL_ENV"))]
    assert ending == "exit status 5; oops"


def test_a_boot_id_holds_for_the_life_of_a_machine(machine: LocalMachine, tmp_path: pathlib.Path) -> None:
    seen = []
    for _ in range(2):
        with connect(machine.target) as connection:
            seen.append(said(connection, "echo $FLEET_BOOT_ID")[0])
    with LocalMachine(tmp_path / "other") as other, connect(other.target) as connection:
        seen.append(said(connection, "echo $FLEET_BOOT_ID")[0])
    assert seen[0] == seen[1] != seen[2]


def test_several_commands_run_at_once_on_one_connection(connection: SshConnection) -> None:
    first = connection.open_pipe("cat")
    second = connection.open_pipe("cat")
    second.send(b"two")
    assert second.recv(20) == b"two"
    first.send(b"one")
    assert first.recv(20) == b"one"
    first.end_input()
    assert first.recv(20) == b""
    assert until(first.ending) == "exit status 0"
    second.close()


def test_a_command_ended_by_a_signal_says_so(connection: SshConnection) -> None:
    assert said(connection, "kill -9 $$")[1] == "exit status 137"


def test_bytes_pass_both_ways_unharmed(connection: SshConnection) -> None:
    data = bytes(range(256)) * 40_000
    pipe = connection.open_pipe("cat")
    got = []

    def collect() -> None:
        while piece := pipe.recv(30):
            got.append(piece)

    reader = threading.Thread(target=collect)
    reader.start()
    pipe.send(data)
    pipe.end_input()
    reader.join()
    pipe.close()
    assert b"".join(got) == data


def test_output_nobody_reads_stops_the_command_and_not_the_machine(connection: SshConnection) -> None:
    flooded = connection.open_pipe("dd if=/dev/zero bs=65536 count=4096 2>/dev/null")
    assert said(connection, "echo alive")[0] == "alive\n"
    total = 0
    while data := flooded.recv(60):
        total += len(data)
    assert total == 65536 * 4096


def test_only_the_clients_key_and_user_are_let_in(machine: LocalMachine) -> None:
    for wrong in ({"private_key": make_key_pair().private}, {"user": "somebody-else"}):
        with pytest.raises(AuthRefused):
            connect(dataclasses.replace(machine.target, **wrong))


def test_the_same_token_finds_the_same_machine_whoever_asks(machine: LocalMachine) -> None:
    pid = machine.pid
    for provider in (machine.provider, another(machine)):
        assert provider.create(machine.request).machine_ids == (machine.machine_id,)
    assert machine.pid == pid
    assert len(list(machine.provider.list())) == 1


def test_a_token_with_other_parameters_is_refused(machine: LocalMachine) -> None:
    with pytest.raises(BadParameters, match="used with other parameters"):
        machine.provider.create(dataclasses.replace(machine.request, count=2))


def test_a_token_whose_machine_is_gone_makes_no_second_one(tmp_path: pathlib.Path) -> None:
    with LocalMachine(tmp_path) as machine:
        pass
    assert machine.provider.create(machine.request).machine_ids == (machine.machine_id,)
    assert list(machine.provider.list()) == []


def test_a_batch_is_made_together(tmp_path: pathlib.Path) -> None:
    template = LocalMachine(tmp_path)
    made = template.provider.create(dataclasses.replace(template.request, count=3)).machine_ids
    try:
        until(lambda: [each.state for each in template.provider.list()] == [MachineState.RUNNING] * 3)
        assert len({each.port for each in template.provider.list()}) == 3
    finally:
        template.provider.delete(made)
        until(lambda: not list(template.provider.list()))


def test_two_managers_creating_one_token_make_one_machine(tmp_path: pathlib.Path) -> None:
    template = LocalMachine(tmp_path)
    threads = [threading.Thread(target=template.provider.create, args=(template.request,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with template as machine:
        assert len(list(machine.provider.list())) == 1
        assert len(marked_machines(machine)) == 1


def marked_machines(machine: LocalMachine) -> set[int]:
    """Pids of processes that run this machine."""
    found = set()
    for name in os.listdir("/proc"):
        try:
            words = pathlib.Path("/proc", name, "cmdline").read_bytes().split(b"\0") if name.isdigit() else []
        except OSError:
            continue
        if str(machine.folder).encode() in words and b"fleet.places.local" in words:
            found.add(int(name))
    return found


def test_a_crash_between_intent_and_start_is_completed_by_the_next_create(tmp_path: pathlib.Path) -> None:
    template = LocalMachine(tmp_path)
    # What a manager leaves that was killed when the directory was there and the process was not.
    root = tmp_path / "local"
    with locked(root):
        ids = machine_ids(root, template.request.token, 1)
        template.provider._remember(template.request, ids)
        Record(root, ids[0]).make(template.provider._meta(template.request))
    listed = list(template.provider.list())
    assert [each.state for each in listed] == [MachineState.FAILED]
    assert "never came up" in str(listed[0].reason)
    with template as machine:
        assert machine.seen(MachineState.RUNNING)


def test_what_failed_to_start_says_why_and_can_be_deleted(tmp_path: pathlib.Path) -> None:
    template = LocalMachine(tmp_path)
    broken = dataclasses.replace(
        template.request, host_key=dataclasses.replace(template.request.host_key, private="no key at all")
    )
    made = template.provider.create(broken).machine_ids
    failed = until(lambda: [each for each in template.provider.list() if each.state is MachineState.FAILED])
    assert "never came up" in failed[0].reason
    template.provider.delete(made)
    assert list(template.provider.list()) == []


def test_it_outlives_the_process_that_made_it(tmp_path: pathlib.Path) -> None:
    template = LocalMachine(tmp_path)
    program = (
        "import json, os, signal, sys\n"
        "from fleet.places.local.provider import LocalProvider\n"
        "from fleet.sdk import CreateRequest, HostKey, ProviderSetting\n"
        "asked = json.load(sys.stdin)\n"
        "where = {'state_dir': asked.pop('dir'), 'store_id': 's', 'pool': 'p'}\n"
        "setting = ProviderSetting(plugin_config={}, placements=({},), **where)\n"
        "asked['host_key'] = HostKey(**asked['host_key'])\n"
        "LocalProvider(setting).create(CreateRequest(**asked))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    asked = dataclasses.asdict(template.request) | {"dir": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", program], input=json.dumps(asked), text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    with template as machine, connect(machine.target) as connection:
        assert said(connection, "echo still here")[0] == "still here\n"


def test_deleting_takes_along_everything_it_started(machine: LocalMachine, connection: SshConnection) -> None:
    out, _ = said(
        connection,
        "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' >/dev/null 2>&1 & echo $!;"
        "env -i setsid sleep 600 >/dev/null 2>&1 & echo $!;"
        "mkdir -p a/b && touch a/b/c && chmod 500 a/b a",
    )
    pids = [int(word) for word in out.split()]
    assert len(pids) == 2
    machine.provider.delete([machine.machine_id])
    until(lambda: machine.seen() is None)
    assert all(process(pid) is None or process(pid).is_zombie for pid in pids)
    until(lambda: list((machine.folder.parent).iterdir()) == [])


def test_a_killed_machine_is_gone_with_a_reason_and_its_leftovers_end(
    machine: LocalMachine, connection: SshConnection
) -> None:
    out, _ = said(connection, "setsid sleep 600 >/dev/null 2>&1 & echo $!")
    leftover = int(out)
    machine.kill()
    assert not process(leftover).is_zombie
    listed = until(lambda: machine.seen(MachineState.GONE))
    assert listed.reason == "its process was killed"
    assert listed.tags == machine.request.tags
    assert until(lambda: process(leftover) is None or process(leftover).is_zombie)
    assert not marked(machine.machine_id, str(machine.folder))
    machine.provider.delete([machine.machine_id])
    assert machine.seen() is None


def test_a_pid_used_again_by_another_program_is_no_machine(machine: LocalMachine) -> None:
    machine.kill()
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        run = json.loads((machine.folder / "run.json").read_text())
        run["pid"] = innocent.pid
        (machine.folder / "run.json").write_text(json.dumps(run))
        assert until(lambda: machine.seen(MachineState.GONE))
        machine.provider.delete([machine.machine_id])
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_machine_that_does_not_end_is_killed_by_a_later_delete(
    machine: LocalMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(machine.pid, signal.SIGSTOP)
    machine.provider.delete([machine.machine_id])
    assert machine.seen().state is MachineState.DELETING
    monkeypatch.setattr("fleet.places.local.provider.STUBBORN_S", 0.0)
    machine.provider.delete([machine.machine_id])
    assert until(lambda: machine.seen() is None)


def test_deleting_what_is_absent_is_fine(machine: LocalMachine) -> None:
    machine.provider.delete(["local-nobody-0"])
    assert machine.seen(MachineState.RUNNING)


def test_a_machine_deleted_while_it_starts_never_serves(tmp_path: pathlib.Path) -> None:
    template = LocalMachine(tmp_path)
    made = template.provider.create(template.request).machine_ids
    template.provider.delete(made)
    assert until(lambda: not list(template.provider.list()))


def test_a_machine_nobody_talks_to_ends_by_itself(tmp_path: pathlib.Path) -> None:
    with LocalMachine(tmp_path, agent_timeout_s=0.6) as machine:
        with connect(machine.target):
            held_off_by = time.monotonic() + 1.2
            while time.monotonic() < held_off_by:
                assert machine.seen(MachineState.RUNNING)
        gone = until(lambda: machine.seen(MachineState.GONE))
        assert gone.reason == "no contact for 0.6 s"
        assert not machine.home.exists()


def test_the_managers_word_holds_the_dead_man_off(tmp_path: pathlib.Path) -> None:
    with LocalMachine(tmp_path, agent_timeout_s=0.3) as machine:
        with connect(machine.target) as connection:
            boot_id = said(connection, "echo $FLEET_BOOT_ID")[0].strip()
            until_s = time.clock_gettime(time.CLOCK_BOOTTIME) + 1.5
            (machine.home / ".fleet-agent").mkdir()
            contact = {"until_boottime_s": until_s, "until_wall_s": 0, "boot_id": boot_id}
            (machine.home / ".fleet-agent" / "contact").write_text(json.dumps(contact))
        while time.clock_gettime(time.CLOCK_BOOTTIME) < until_s - 0.2:
            assert machine.seen(MachineState.RUNNING)
        assert until(lambda: machine.seen(MachineState.GONE)).reason == "no contact for 0.3 s"


def test_other_stores_machines_are_listed_too(machine: LocalMachine) -> None:
    assert [each.tags for each in another(machine).list()] == [machine.request.tags]


def test_a_named_root_is_one_place_for_several_managers(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "link").symlink_to("shared")
    accounts = set()
    for manager, root in (("a", "shared"), ("b", "shared"), ("c", "link")):
        setting = ProviderSetting(
            pool="p",
            plugin_config={"root": str(tmp_path / root)},
            placements=({},),
            state_dir=str(tmp_path / manager),
            store_id="s",
        )
        accounts.add(LocalProvider(setting).info().account)
    assert accounts == {f"local:{tmp_path / 'shared'}"}


def test_unknown_settings_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    for config, message in (
        ({"cpus": 4}, "plugin_config.cpus is no setting"),
        ({"shell": "/no/sh"}, "/no/sh"),
        ({"root": "machines"}, "is no absolute path"),
    ):
        with pytest.raises(BadParameters, match=message):
            LocalProvider(
                ProviderSetting(pool="p", plugin_config=config, placements=({},), state_dir=str(tmp_path), store_id="s")
            )
