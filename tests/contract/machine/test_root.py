"""Becoming root through `sudo -n` where the login may: id and sudo are played, the shell and the agent are real."""

from __future__ import annotations

import pathlib

import pytest

from fleet.machine.bootstrap import AgentOptions
from fleet.machine.channel import AgentChannel
from fleet.machine.ssh import connect
from tests.contract.machine.openssh import OpenSsh
from tests.contract.machine.stand_in import stand_in_bundle


def hello_home(tmp_path: pathlib.Path, sudo: str, **options: bool) -> str:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("id", "echo 1000"), ("sudo", sudo)):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    forced = f'ForceCommand PATH={tools}:$PATH; eval "$SSH_ORIGINAL_COMMAND"'
    with (
        OpenSsh(tmp_path / "sshd", forced) as sshd,
        connect(sshd.target) as connection,
        AgentChannel.over_ssh(connection, bundle=stand_in_bundle(), options=AgentOptions(**options)) as channel,
    ):
        return str(pathlib.Path(channel.hello["home"]).relative_to(tmp_path))


@pytest.fixture
def sudo(tmp_path: pathlib.Path) -> str:
    (tmp_path / "root").mkdir()
    return f'[ "$1$2" = -n-H ] || exit 9; shift 2; HOME={tmp_path}/root exec "$@"'


def test_the_agent_is_roots_where_sudo_lets_us(tmp_path: pathlib.Path, sudo: str) -> None:
    assert hello_home(tmp_path, sudo) == "root"


def test_without_the_right_it_is_the_login_users(tmp_path: pathlib.Path) -> None:
    assert hello_home(tmp_path, "echo 'sudo: a password is required' >&2; exit 1") == "sshd/home"


def test_a_sudo_that_runs_only_other_programs_is_none(tmp_path: pathlib.Path) -> None:
    assert hello_home(tmp_path, '[ "$3" = true ] && exit 0; exit 1') == "sshd/home"


def test_it_stays_the_login_users_when_root_is_not_wanted(tmp_path: pathlib.Path, sudo: str) -> None:
    assert hello_home(tmp_path, sudo, become_root=False) == "sshd/home"
