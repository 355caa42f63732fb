"""The host key of the user data is replaced at first contact, and nobody is locked out by a crash in between (law 9).

With root the agent may do it, and it is proved on local machines and on a real OpenSSH server. Without root it may not:
then the machine keeps its key, and says why.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import pathlib

import pytest

from fleet.demo.payload import make_job
from fleet.leasing import rekeying
from fleet.leasing.readiness import Readiness
from fleet.machine.channels import Channels
from fleet.machine.errors import HostKeyMismatch, MachineError
from fleet.machine.reach import target_for
from fleet.machine.ssh import connect
from fleet.model.lifecycle import InstanceState
from fleet.sdk import Abilities
from fleet.sdk.testing import MemoryCloud
from fleet.store import instances
from tests.acceptance.given_host import GivenHost
from tests.acceptance.manager import wait_until
from tests.acceptance.reasons import in_state, journal, started
from tests.acceptance.standing import settled
from tests.scenario.world import ME, World, pool_table

IS_ROOT = os.geteuid() == 0


def shown(target, key: str) -> bool:
    """Whether the server proves that it holds this key."""
    try:
        connect(dataclasses.replace(target, host_keys=(key,))).close()
    except HostKeyMismatch:
        return False
    return True


def test_law_9_a_local_machine_shows_another_key_than_its_user_data_has(gitlab, make_manager):
    manager = started(make_manager(machines=1, idle=1, idle_time="10m"))
    wait_until(lambda: in_state(manager, "ready"), 60, "a machine")
    job = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert view.state == "success"
    [machine] = manager.machines()
    [row] = manager.rows("SELECT host_keys FROM instances WHERE machine_id = ?", machine.name)
    handed_over = json.loads((machine / "run.json").read_text())["host_key"]
    [accepted] = json.loads(row["host_keys"])
    if IS_ROOT:
        assert accepted != handed_over
        assert journal(manager, "host_key_changed")
    else:
        assert accepted == handed_over
        assert "not root" in manager.events("host_key_kept")[0]["reason"]
    manager.kill()
    started(manager)
    second = gitlab.enqueue(make_job(script=["echo hello"]))
    (view,) = gitlab.wait_for(second, timeout=60)
    assert view.state == "success"
    assert len(manager.rows("SELECT instance_id FROM instances")) == 1, "the machine was reached by its new key"
    settled(gitlab, manager)


class KeyedHost(GivenHost):
    """A host whose server reads its key from the folder where the agent puts the new one."""

    def __init__(self, folder: pathlib.Path, *, agent_writes: str = "ssh") -> None:
        self.keys = folder / "ssh"
        (folder / agent_writes).mkdir(parents=True)
        super().__init__(folder, environment={"FLEET_SSH_DIR": str(folder / agent_writes)})

    def __enter__(self):
        self.keys.mkdir(exist_ok=True)
        key = self.keys / "ssh_host_ed25519_key"
        key.write_text(self.host_key.private)
        key.chmod(0o600)
        (self.folder / "host_key").unlink(missing_ok=True)
        return super().__enter__()

    def lines(self) -> tuple[str, ...]:
        return (f"HostKey {self.keys / 'ssh_host_ed25519_key'}", f"PidFile {self.keys / 'sshd.pid'}")


@pytest.fixture
def agent_writes() -> str:
    """The folder in which the agent puts the new key."""
    return "ssh"


@pytest.fixture
def host(tmp_path, agent_writes):
    with KeyedHost(tmp_path / "host", agent_writes=agent_writes) as host:
        yield host


@pytest.fixture
def scene(sqlite_url, host):
    """A manager's rows say that its cloud has made this host with the key of its user data."""
    cloud = MemoryCloud(abilities=Abilities(hands_over_host_key=True))
    world = World(sqlite_url, {"p": cloud}, pool_table())
    world.enqueue()
    world.step()
    [row] = world.rows(InstanceState.BOOTING)
    pool = world.book.pools["p"]
    (host.folder / "authorized_keys").write_text(pool.client_public_key + "\n")
    address = {"internal": "127.0.0.1", "port": host.relay.port, "user": getpass.getuser()}
    world.store.write(
        lambda tx: instances.update(
            tx, row.instance_id, address=json.dumps(address), host_keys=json.dumps([host.host_key.public])
        )
    )
    channels = Channels()
    yield world, channels
    channels.close_all()
    world.close()


def readiness(world, channels, **changed) -> Readiness:
    shared = {"store": world.store, "book": world.book, "me": ME, "submit": world.submit, "hint": lambda *_: None}
    return Readiness(**{**shared, "channels": channels, **changed})


def keys_of(world) -> list[str]:
    [row] = world.rows()
    return list(row.host_keys)


def reach(world):
    [row] = world.rows()
    return target_for(row, world.book.pools["p"])


def test_law_9_a_real_server_shows_the_new_key_and_the_old_one_is_worthless(scene, host):
    world, channels = scene
    readiness(world, channels).activate()
    [row] = world.rows(InstanceState.READY)
    [key] = row.host_keys
    if not IS_ROOT:
        assert key == host.host_key.public
        return
    assert key != host.host_key.public
    assert shown(reach(world), key)
    assert not shown(reach(world), host.host_key.public)
    assert "host_key_changed" in world.stimuli(row.instance_id)


class Killed(BaseException):
    """The manager is killed here."""


class DeadlyStore:
    """Dies instead of the n-th write, or after it."""

    def __init__(self, store, *, at: int, after: bool) -> None:
        self._store, self._left, self._after = store, at, after

    def __getattr__(self, name):
        return getattr(self._store, name)

    def write(self, work):
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        done = self._store.write(work)
        if self._left == 0:
            raise Killed
        return done


# the writes of a first contact: that it was made, the new key beside the old one, the new key alone, ready
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_law_9_a_kill_at_any_step_locks_nobody_out(scene, host, at, after):
    world, channels = scene
    deadly = DeadlyStore(world.store, at=at, after=after)
    try:
        readiness(world, channels, store=deadly).activate()
    except Killed:
        channels.close_all()
    connect(reach(world)).close()  # whoever comes next is let in by one of the keys that the row accepts
    again = Channels()
    readiness(world, again).activate()
    try:
        [row] = world.rows(InstanceState.READY)
        assert len(row.host_keys) == 1
        assert shown(reach(world), row.host_keys[0])
        if IS_ROOT:
            assert row.host_keys[0] != host.host_key.public
    finally:
        again.close_all()


@pytest.mark.parametrize("agent_writes", ["elsewhere"])
def test_a_key_that_is_never_shown_leaves_both_accepted_and_the_machine_in_use(scene, host, monkeypatch, agent_writes):
    """The server keeps its keys somewhere else."""
    world, channels = scene
    monkeypatch.setattr(rekeying, "PROOF_S", 1.0)
    readiness(world, channels).activate()
    [row] = world.rows(InstanceState.READY)
    assert host.host_key.public in row.host_keys
    assert len(row.host_keys) == (2 if IS_ROOT else 1)
    connect(reach(world)).close()


def test_a_host_whose_key_a_person_named_keeps_it(scene, host, tmp_path):
    world, channels = scene
    pool = world.book.pools["p"]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{host.relay.port} {host.host_key.public}\n")
    named = pool.settings.model_copy(
        update={"fleet": pool.settings.fleet.model_copy(update={"known_hosts_file": str(known)})}
    )
    world.book.replace({"p": dataclasses.replace(pool, settings=named)}, world.book.runners)
    readiness(world, channels).activate()
    assert keys_of(world) == [host.host_key.public]
    with pytest.raises(MachineError):
        connect(dataclasses.replace(reach(world), host_keys=(pool.client_public_key,), known_hosts_file=None))
