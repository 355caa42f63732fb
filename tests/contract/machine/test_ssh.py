"""SSH against a real OpenSSH server, and against what only pretends to be one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from fleet.machine.bootstrap import AgentOptions
from fleet.machine.channel import AgentChannel
from fleet.machine.errors import (
    AuthRefused,
    BadSshKey,
    BootstrapFailed,
    ChannelClosed,
    HostKeyMismatch,
    HostKeyUnknown,
    Unreachable,
)
from fleet.machine.keys import fingerprint, make_key_pair
from fleet.machine.ssh import SshConnection, connect
from fleet.machine.target import SshTarget
from tests.contract.machine.local_machine import until
from tests.contract.machine.openssh import OpenSsh, free_port
from tests.contract.machine.stand_in import stand_in_bundle


def said(connection: SshConnection, command: str) -> str:
    pipe = connection.open_pipe(command)
    parts = []
    while data := pipe.recv(20):
        parts.append(data)
    pipe.close()
    return b"".join(parts).decode()


def test_a_key_lets_us_in_and_the_proved_host_key_is_told(sshd: OpenSsh) -> None:
    with connect(sshd.target) as connection:
        assert said(connection, "echo in") == "in\n"
        assert connection.host_key == sshd.host_key.public
        assert connection.is_open
    assert not connection.is_open


def test_a_key_file_lets_us_in_as_well(sshd: OpenSsh, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key"
    path.write_text(sshd.client.private)
    with connect(dataclasses.replace(sshd.target, private_key=None, key_path=str(path))) as connection:
        assert said(connection, "echo in") == "in\n"


def test_a_wrong_host_key_is_refused_before_any_login(sshd: OpenSsh) -> None:
    other = make_key_pair().public
    with pytest.raises(HostKeyMismatch) as caught:
        connect(dataclasses.replace(sshd.target, host_keys=(other,)))
    assert caught.value.expected == (fingerprint(other),)
    assert caught.value.got == fingerprint(sshd.host_key.public)
    assert f"127.0.0.1:{sshd.port}" in str(caught.value)
    until(lambda: sshd.hits(["Connection", "127.0.0.1"]))
    assert not sshd.hits(["Accepted"])
    assert not sshd.hits(["publickey"])


def test_trusting_on_first_use_never_overrides_a_key_that_is_known(sshd: OpenSsh) -> None:
    with pytest.raises(HostKeyMismatch):
        connect(dataclasses.replace(sshd.target, host_keys=(make_key_pair().public,), trust_on_first_use=True))


def test_any_of_the_known_keys_will_do(sshd: OpenSsh) -> None:
    keys = (make_key_pair().public, sshd.host_key.public)
    with connect(dataclasses.replace(sshd.target, host_keys=keys)) as connection:
        assert connection.host_key == sshd.host_key.public


def test_with_no_key_known_nothing_is_connected_to(sshd: OpenSsh) -> None:
    with pytest.raises(HostKeyUnknown, match="trust_on_first_use"):
        connect(dataclasses.replace(sshd.target, host_keys=()))
    assert not sshd.hits(["Connection from"])


def test_trusting_on_first_use_takes_what_is_shown_and_tells_it(sshd: OpenSsh) -> None:
    with connect(dataclasses.replace(sshd.target, host_keys=(), trust_on_first_use=True)) as connection:
        assert connection.host_key == sshd.host_key.public


def test_a_known_hosts_file_is_enough_and_the_users_own_is_not_read(
    sshd: OpenSsh, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = f"[127.0.0.1]:{sshd.port} {sshd.host_key.public}\n"
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(right)
    monkeypatch.setenv("HOME", str(tmp_path))
    target = dataclasses.replace(sshd.target, host_keys=())
    with pytest.raises(HostKeyUnknown):
        connect(target)
    known = tmp_path / "known"
    known.write_text(right)
    with connect(dataclasses.replace(target, known_hosts_file=str(known))) as connection:
        assert connection.is_open
    known.write_text(f"[127.0.0.1]:{sshd.port} {make_key_pair().public}\n")
    with pytest.raises(HostKeyMismatch):
        connect(dataclasses.replace(target, known_hosts_file=str(known), trust_on_first_use=True))
    with pytest.raises(BadSshKey, match="known_hosts_file cannot be read"):
        connect(dataclasses.replace(target, known_hosts_file=str(tmp_path / "absent")))


def test_the_kind_of_key_we_know_is_asked_for_when_the_server_has_several(tmp_path: pathlib.Path) -> None:
    rsa = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(rsa)], check=True)
    with OpenSsh(tmp_path / "sshd", f"HostKey {rsa}") as sshd:
        public = " ".join(rsa.with_suffix(".pub").read_text().split()[:2])
        for line in (public, sshd.host_key.public):
            with connect(dataclasses.replace(sshd.target, host_keys=(line,))) as connection:
                assert connection.host_key == line


def test_a_server_without_a_key_of_the_known_kind_is_refused(sshd: OpenSsh, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(other)], check=True)
    line = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    with pytest.raises(HostKeyMismatch):
        connect(dataclasses.replace(sshd.target, host_keys=(line,)))


@pytest.mark.parametrize("wrong", ["key", "user"])
def test_a_refused_login_says_whom_and_what_to_do(sshd: OpenSsh, wrong: str) -> None:
    changed = {"private_key": make_key_pair().private} if wrong == "key" else {"user": "nobody-of-this-name"}
    with pytest.raises(AuthRefused, match=r"@127\.0\.0\.1:\d+ refuses our login.*authorized_keys"):
        connect(dataclasses.replace(sshd.target, **changed))


def test_a_password_where_only_keys_are_let_in_is_refused(sshd: OpenSsh) -> None:
    with pytest.raises(AuthRefused, match="allows only publickey"):
        connect(dataclasses.replace(sshd.target, private_key=None, password="of no use"))


def test_a_key_that_is_none_is_our_own_fault(sshd: OpenSsh, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadSshKey, match="no usable"):
        connect(dataclasses.replace(sshd.target, private_key="this is no key"))
    with pytest.raises(BadSshKey, match="cannot be read"):
        connect(dataclasses.replace(sshd.target, private_key=None, key_path=str(tmp_path / "absent")))
    with pytest.raises(BadSshKey, match="of no use"):
        connect(dataclasses.replace(sshd.target, host_keys=("rubbish",)))


def test_a_refused_port_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="whether its SSH server runs"):
        connect(_nowhere(free_port()))


def test_an_unknown_name_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="its name is not known"):
        connect(dataclasses.replace(_nowhere(22), host="no-such-host.invalid"))


def _nowhere(port: int) -> SshTarget:
    pair = make_key_pair()
    return SshTarget(
        host="127.0.0.1",
        port=port,
        user="u",
        private_key=pair.private,
        host_keys=(pair.public,),
        connect_timeout_s=0.5,
    )


@contextlib.contextmanager
def _server(first_words: bytes, *, hang: bool = True) -> Iterator[int]:
    """Accepts, says these words, and hangs (or hangs up)."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock = listener.accept()[0]
                    sock.sendall(first_words)
                    held.append(sock) if hang else sock.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for sock in held:
                sock.close()


@pytest.mark.parametrize(
    ("words", "hang"),
    [(b"", True), (b"SSH-2.0-Slow\r\n", True), (b"HTTP/1.1 400 Bad Request\r\n\r\n", True), (b"", False)],
    ids=["silent", "banner-only", "another-protocol", "hangs-up"],
)
def test_what_accepts_and_does_not_speak_ssh_is_unreachable_in_time(words: bytes, hang: bool) -> None:
    before = set(os.listdir("/proc/self/task"))
    with _server(words, hang=hang) as port:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="not reached: something accepts there"):
            connect(_nowhere(port))
        assert time.monotonic() - begun < 5
    until(lambda: set(os.listdir("/proc/self/task")) <= before)


def test_a_jump_host_leads_to_a_second_server(sshd: OpenSsh, tmp_path: pathlib.Path) -> None:
    with OpenSsh(tmp_path / "inner") as inner:
        target = dataclasses.replace(inner.target, jump=(sshd.target,))
        with connect(target) as connection:
            assert said(connection, "echo through") == "through\n"
            assert connection.host_key == inner.host_key.public
            with AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
                assert channel.request("echo", 20, body=b"x" * 3_000_000)["bytes"] == 3_000_000
        until(lambda: sshd.hits(["Disconnected from"]) + sshd.hits(["Connection closed"]))


def test_two_jump_hosts_lead_to_a_third_server(sshd: OpenSsh, tmp_path: pathlib.Path) -> None:
    with OpenSsh(tmp_path / "second") as second, OpenSsh(tmp_path / "third") as third:
        target = dataclasses.replace(third.target, jump=(sshd.target, second.target))
        with connect(target) as connection:
            assert connection.host_key == third.host_key.public
        assert sshd.hits(["Accepted publickey"]) == second.hits(["Accepted publickey"]) == 1


def test_a_jump_host_is_verified_as_well(sshd: OpenSsh, tmp_path: pathlib.Path) -> None:
    with OpenSsh(tmp_path / "inner") as inner:
        gate = dataclasses.replace(sshd.target, host_keys=(make_key_pair().public,))
        with pytest.raises(HostKeyMismatch, match=f":{sshd.port}"):
            connect(dataclasses.replace(inner.target, jump=(gate,)))
        with pytest.raises(HostKeyUnknown, match=f":{sshd.port}"):
            connect(dataclasses.replace(inner.target, jump=(dataclasses.replace(gate, host_keys=()),)))


def test_what_the_jump_host_cannot_reach_is_said(sshd: OpenSsh) -> None:
    target = dataclasses.replace(_nowhere(free_port()), jump=(sshd.target,), connect_timeout_s=5)
    with pytest.raises(Unreachable, match="the jump host before it cannot"):
        connect(target)


@pytest.mark.parametrize(
    "bashrc",
    [
        "for i in $(seq 20000); do echo 'Welcome, dear user, to this machine'; done",
        "echo no newline at the end | tr -d '\\n'; echo to the errors >&2",
        "printf '\\000\\377\\033[31m binary \\n'",
        "cat; read -t 0.2 line; stty -a 2>/dev/null",
        "export HISTFILE=/dev/null; set -o vi; alias exec=echo",
    ],
    ids=["chatty", "unfinished-line", "binary", "reads-its-input", "odd-settings"],
)
def test_a_heavy_login_shell_is_no_obstacle(tmp_path: pathlib.Path, bashrc: str) -> None:
    # What bash does with a .bashrc on each exec by sshd, made sure of with a forced command.
    rc = tmp_path / "bashrc"
    rc.write_text(bashrc.replace("cat;", "timeout 0.2 cat;"))
    forced = f"ForceCommand bash -c '. {rc}; eval \"$SSH_ORIGINAL_COMMAND\"'"
    with (
        OpenSsh(tmp_path / "sshd", forced) as sshd,
        connect(sshd.target) as connection,
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel,
    ):
        assert channel.request("ping", 20)["ok"]
        assert channel.hello["home"] == str(sshd.home)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo This account is not available; exit 1", "This account is not available"),
        ("sleep 60", "did not come to our command in time"),
        ("yes", "prints without end"),
    ],
    ids=["no-login", "hangs", "endless"],
)
def test_a_login_shell_that_never_comes_to_our_command_is_said(
    tmp_path: pathlib.Path, command: str, message: str
) -> None:
    with (
        OpenSsh(tmp_path / "sshd", f"ForceCommand {command}") as sshd,
        connect(sshd.target) as connection,
        pytest.raises(BootstrapFailed, match=message),
    ):
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle(), options=AgentOptions(deadline_s=2.0))


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_whatever_shell_reads_the_command(tmp_path: pathlib.Path, shell: str) -> None:
    with (
        OpenSsh(tmp_path / "sshd", f'ForceCommand {shell} -c "$SSH_ORIGINAL_COMMAND"') as sshd,
        connect(sshd.target) as connection,
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel,
    ):
        assert channel.hello["version"] == "stand-in"


def test_a_server_that_dies_ends_the_channel_at_once(sshd: OpenSsh) -> None:
    with connect(sshd.target) as connection, AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
        ended = threading.Event()
        channel.on_closed(lambda _: ended.set())
        sshd.signal_sessions(signal.SIGKILL)
        assert ended.wait(5)
        assert channel.closed


def test_a_connection_that_is_closed_gives_no_session(sshd: OpenSsh) -> None:
    with connect(sshd.target) as connection:
        pass
    with pytest.raises(Unreachable, match="opened no session"):
        connection.open_pipe("true")


def test_a_write_that_hangs_in_the_kernel_comes_back(sshd: OpenSsh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.machine.ssh.IDLE_WAKE_S", 0.2)
    target = dataclasses.replace(sshd.target, send_timeout_s=0.5)
    with connect(target) as connection, AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
        # Far less room than the channel's window: the write cannot get stuck anywhere else.
        connection._hops[-1].transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sshd.signal_sessions(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(ChannelClosed):
                channel.request("echo", 60, body=b"x" * 1_000_000)
            assert time.monotonic() - begun < 10
        finally:
            sshd.signal_sessions(signal.SIGCONT)
