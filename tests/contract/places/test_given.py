"""The places `static` and `host`: what is given is listed, and neither made nor removed; `host` needs no SSH."""

from __future__ import annotations

import os
import pathlib

import pluggy
import pytest

from fleet.machine.bootstrap import AgentOptions
from fleet.machine.channel import AgentChannel
from fleet.machine.errors import BootstrapFailed, ChannelClosed, NoPython, NoSpace
from fleet.machine.ssh import connect
from fleet.machine.target import SshTarget, target_of
from fleet.sdk import (
    TAG_POOL,
    TAG_STORE,
    BadParameters,
    CreateRequest,
    MachineState,
    PipeEndpoint,
    Provider,
    ProviderSetting,
    hookspecs,
)
from tests.contract.machine.local_machine import LocalMachine, process_is_gone, until
from tests.contract.machine.stand_in import stand_in_bundle


def provider_of(plugin: str, tmp_path: pathlib.Path, **config: object) -> Provider:
    """As the manager finds it: by the installed entry points."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints(hookspecs.ENTRY_POINTS)
    setting = ProviderSetting(
        pool="p", plugin_config=config, placements=({},), state_dir=str(tmp_path / "state"), store_id="s"
    )
    provider = manager.hook.fleet_provider(plugin=plugin, setting=setting)
    assert isinstance(provider, Provider)
    return provider


ASKED = CreateRequest(token="t", count=1, tags={}, placement={})


def test_given_hosts_are_always_all_there(tmp_path: pathlib.Path) -> None:
    provider = provider_of("static", tmp_path, hosts=["ci@10.0.0.4", {"name": "mac", "address": "10.0.0.5"}])
    assert provider.info().abilities.fixed_inventory
    assert not provider.info().abilities.survives_dead_man
    with pytest.raises(BadParameters, match="none can be created"):
        provider.create(ASKED)
    provider.delete(["mac"])
    provider.close()
    listed = list(provider.list())
    assert [each.machine_id for each in listed] == ["10.0.0.4", "mac"]
    assert {each.state for each in listed} == {MachineState.RUNNING}
    assert all(each.tags == {TAG_STORE: "s", TAG_POOL: "p"} for each in listed)


def test_a_given_host_is_entered_as_the_configuration_says(tmp_path: pathlib.Path, machine: LocalMachine) -> None:
    key = tmp_path / "key"
    key.write_text(machine.client.private)
    provider = provider_of(
        "static",
        tmp_path,
        key_path=str(key),
        hosts=[
            {
                "name": "one",
                "address": "127.0.0.1",
                "port": machine.machine.port,
                "user": machine.machine.user,
                "host_key": machine.host_key.public,
            }
        ],
    )
    (listed,) = provider.list()
    with connect(target_of(listed, SshTarget(host="", user="nobody"))) as connection:
        assert connection.host_key == machine.host_key.public


def test_this_host_is_one_machine_reached_over_a_pipe(tmp_path: pathlib.Path) -> None:
    provider = provider_of("host", tmp_path)
    (listed,) = provider.list()
    assert listed.machine_id == "host"
    assert listed.state is MachineState.RUNNING
    assert provider.info().abilities.fixed_inventory
    assert isinstance(listed.endpoint, PipeEndpoint)
    with AgentChannel.over_process(pathlib.Path(listed.endpoint.home), bundle=stand_in_bundle()) as channel:
        assert channel.hello["home"] == str(tmp_path / "state" / "host")
        assert channel.request("echo", 20, body=b"x" * 3_000_000)["bytes"] == 3_000_000
        pid = channel.hello["pid"]
    until(lambda: process_is_gone(pid))
    provider.delete(["host"])
    provider.close()
    with pytest.raises(BadParameters, match="no other can be created"):
        provider.create(ASKED)
    with pytest.raises(BadParameters, match=r"plugin_config\.cpus is no setting"):
        provider_of("host", tmp_path, cpus=1)


def test_the_agent_on_this_host_gets_nothing_of_the_managers_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SECRET_KEY", "not for jobs")
    with AgentChannel.over_process(tmp_path / "home", bundle=stand_in_bundle()) as channel:
        environment = pathlib.Path(f"/proc/{channel.hello['pid']}/environ").read_bytes()
    assert b"not for jobs" not in environment


def test_an_agent_on_this_host_that_dies_is_noticed_with_its_words(tmp_path: pathlib.Path) -> None:
    with (
        AgentChannel.over_process(tmp_path / "home", bundle=stand_in_bundle()) as channel,
        pytest.raises(ChannelClosed, match=r"exit status 3.*wrong"),
    ):
        channel.request("die", 20, words="something is wrong", code=3)


def test_a_home_on_this_host_that_cannot_be_written_is_said(tmp_path: pathlib.Path) -> None:
    # /sys takes no directories, not even from root.
    with pytest.raises(NoSpace, match=r"cannot be installed.*/sys/\.fleet-agent"):
        AgentChannel.over_process(pathlib.Path("/sys"), bundle=stand_in_bundle())
    (tmp_path / "file").write_text("")
    with pytest.raises(BootstrapFailed, match="cannot be started on this host"):
        AgentChannel.over_process(tmp_path / "file" / "home", bundle=stand_in_bundle())


def test_no_python_on_this_host_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NoPython, match="/nonexistent"):
        AgentChannel.over_process(
            tmp_path / "home", bundle=stand_in_bundle(), options=AgentOptions(python="/nonexistent")
        )


def test_channels_leave_no_descriptor_and_no_thread_behind(tmp_path: pathlib.Path) -> None:
    def once() -> None:
        with AgentChannel.over_process(tmp_path / "home", bundle=stand_in_bundle()) as channel:
            channel.request("ping", 20)

    once()
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(5):
        once()
    until(lambda: (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) <= before)
