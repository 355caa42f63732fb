"""The agent channel over real SSH to a local machine."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import sys
import threading
import time
import zipfile
import zlib

import pytest

from fleet.machine.bootstrap import AgentOptions
from fleet.machine.channel import AgentChannel
from fleet.machine.errors import AgentError, BootstrapFailed, ChannelClosed, ChannelTimeout, NoPython, NoSpace
from fleet.machine.ssh import SshConnection, connect
from tests.contract.machine.local_machine import LocalMachine, until
from tests.contract.machine.stand_in import stand_in_bundle


@pytest.fixture
def channel(connection: SshConnection):
    with AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as opened:
        yield opened


def test_the_agent_says_hello_from_the_machine(channel: AgentChannel, machine: LocalMachine) -> None:
    assert channel.hello["version"] == "stand-in"
    assert channel.hello["home"] == str(machine.home)
    assert channel.hello["boot_id"]
    assert channel.hello["argv"][-1] == "serve"


def test_the_agent_is_sent_once_and_found_again(machine: LocalMachine) -> None:
    sent = []
    for _ in range(3):
        with (
            connect(machine.target) as connection,
            AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel,
        ):
            sent.append(channel.uploaded)
    assert sent == [True, False, False]
    installed = list((machine.home / ".fleet-agent" / "agents").iterdir())
    assert [path.name for path in installed] == [f"{stand_in_bundle().sha256}.pyz"]
    with zipfile.ZipFile(installed[0]) as there, zipfile.ZipFile(io.BytesIO(stand_in_bundle().data)) as sent_file:
        names = sent_file.namelist()
        assert {name: there.read(name) for name in names} == {name: sent_file.read(name) for name in names}
        assert set(there.namelist()) == {*names, *(f"{name}c" for name in names)}


def test_an_agent_compiled_for_another_python_runs_from_its_source(machine: LocalMachine, connection) -> None:
    options = AgentOptions(python=sys.executable)
    with AgentChannel.over_ssh(connection, bundle=stand_in_bundle(), options=options):
        pass
    path = machine.home / ".fleet-agent" / "agents" / f"{stand_in_bundle().sha256}.pyz"
    data = path.read_bytes()
    assert importlib.util.MAGIC_NUMBER in data
    path.write_bytes(data.replace(importlib.util.MAGIC_NUMBER + b"\1", b"\0\0\r\n\1"))
    with AgentChannel.over_ssh(connection, bundle=stand_in_bundle(), options=options) as channel:
        assert not channel.uploaded
        assert channel.request("ping", 20)["ok"]


def test_an_installed_agent_that_was_cut_short_is_sent_again(machine: LocalMachine, connection: SshConnection) -> None:
    folder = machine.home / ".fleet-agent" / "agents"
    folder.mkdir(parents=True)
    (folder / f"{stand_in_bundle().sha256}.pyz").write_bytes(stand_in_bundle().data[:100])
    with AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
        assert channel.uploaded


def test_requests_from_many_threads_each_get_their_own_answer(channel: AgentChannel) -> None:
    wrong = []

    def ask(number: int) -> None:
        for turn in range(20):
            body = b"%d" % number * (turn + 1)
            if channel.request("echo", 20, body=body)["crc32"] != zlib.crc32(body):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_large_body_arrives_in_parts(channel: AgentChannel) -> None:
    body = bytes(range(256)) * 40_000
    reply = channel.request("echo", 60, body=body)
    assert (reply["bytes"], reply["crc32"]) == (len(body), zlib.crc32(body))


def test_what_the_agent_refuses_keeps_its_slug(channel: AgentChannel) -> None:
    with pytest.raises(AgentError, match="epoch 3 is over") as caught:
        channel.request("refuse", 20, slug="stale_epoch", message="epoch 3 is over")
    assert caught.value.slug_of_agent == "stale_epoch"


def test_no_answer_in_time_leaves_the_channel_standing(channel: AgentChannel) -> None:
    with pytest.raises(ChannelTimeout, match=r"'silence' within 0\.2 s"):
        channel.request("silence", 0.2)
    assert channel.request("ping", 20)["ok"]
    assert channel.closed is None


def test_an_agent_that_dies_ends_every_waiting_request_with_its_last_words(channel: AgentChannel) -> None:
    reasons: list[str] = []
    channel.on_closed(reasons.append)
    with pytest.raises(ChannelClosed, match=r"exit status 7.*out of cheese"):
        channel.request("die", 20, words="out of cheese", code=7)
    assert len(reasons) == 1
    assert "out of cheese" in reasons[0]
    with pytest.raises(ChannelClosed):
        channel.request("ping", 20)


def test_a_killed_machine_is_noticed_at_once(channel: AgentChannel, machine: LocalMachine) -> None:
    ended = threading.Event()
    channel.on_closed(lambda _: ended.set())
    machine.kill()
    assert ended.wait(5)
    assert channel.closed


def test_a_closed_callback_that_comes_late_is_called_at_once(channel: AgentChannel) -> None:
    channel.close()
    reasons: list[str] = []
    channel.on_closed(reasons.append)
    assert reasons == ["closed by the manager"]


def test_bytes_that_are_no_frame_end_the_channel(channel: AgentChannel) -> None:
    with pytest.raises(ChannelClosed, match="stream broke"):
        channel.request("babble", 20)


def test_frames_come_in_order_and_whole(channel: AgentChannel) -> None:
    offsets: list[int] = []
    done = threading.Event()

    def take(head: dict, body: bytes) -> None:
        if head["type"] == "exit":
            done.set()
        else:
            offsets.append(head["offset"])
            assert body == b"x" * 1000

    channel.on_frame(take)
    channel.request("flood", 20, bytes=2_000_000, piece=1000)
    assert done.wait(60)
    assert offsets == list(range(0, 2_000_000, 1000))


def test_standard_error_never_fills_the_channel(machine: LocalMachine) -> None:
    target = dataclasses.replace(machine.target, send_timeout_s=0.5)
    with connect(target) as connection, AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
        assert channel.request("chatter", 60, lines=6000)["ok"]


def test_a_machine_that_takes_no_data_holds_nobody_for_ever(machine: LocalMachine) -> None:
    target = dataclasses.replace(machine.target, send_timeout_s=0.5)
    with connect(target) as connection, AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
        channel.request("deaf", 20)
        begun = time.monotonic()
        with pytest.raises(ChannelClosed, match=r"took no data for 0\.5 s"):
            channel.request("echo", 60, body=b"x" * 50_000_000)
        assert time.monotonic() - begun < 10
        assert channel.closed


def test_no_python_is_said_with_the_setting_to_correct(connection: SshConnection) -> None:
    with pytest.raises(NoPython, match=r"no Python 3.8 or newer at /nonexistent.*agent_python"):
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle(), options=AgentOptions(python="/nonexistent"))


def test_a_home_that_cannot_be_written_is_said(machine: LocalMachine, connection: SshConnection) -> None:
    (machine.home / ".fleet-agent").write_text("in the way")
    with pytest.raises(NoSpace, match=r"cannot be installed.*\.fleet-agent"):
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle())


def test_another_protocol_is_refused(machine: LocalMachine, connection: SshConnection) -> None:
    wrapper = machine.home / "python"
    wrapper.write_text('#!/bin/sh\nSTAND_IN_PROTOCOL=2 exec python3 "$@"\n')
    wrapper.chmod(0o755)
    with pytest.raises(BootstrapFailed, match="speaks protocol 2, we speak 1"):
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle(), options=AgentOptions(python=str(wrapper)))


def test_an_agent_that_hangs_at_its_start_ends_by_the_deadline(machine: LocalMachine, connection) -> None:
    wrapper = machine.home / "python"
    wrapper.write_text("#!/bin/sh\nexec sleep 600\n")
    wrapper.chmod(0o755)
    begun = time.monotonic()
    with pytest.raises(BootstrapFailed, match="in time"):
        AgentChannel.over_ssh(
            connection, bundle=stand_in_bundle(), options=AgentOptions(python=str(wrapper), deadline_s=1.0)
        )
    assert time.monotonic() - begun < 5


def test_last_heard_moves_with_what_comes(channel: AgentChannel) -> None:
    channel.request("beat", 20, every_s=0.02)
    before = channel.last_heard
    assert until(lambda: channel.last_heard > before)
