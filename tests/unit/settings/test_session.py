"""`[session_server]`: where terminals are served, and what GitLab is told of it."""

from __future__ import annotations

import pytest

from fleet.settings.changes import diff
from fleet.settings.loading import loads


def load(text):
    loaded = loads(
        f'concurrent = 4\n{text}\n[[runners]]\nname = "r"\nurl = "https://gitlab.example"\n'.encode()
        + b'id = 1\ntoken = "t"\nexecutor = "shell"\nuser = "ci"\n',
        "/etc/x.toml",
        {},
    )
    return loaded, None if loaded.settings is None else loaded.settings.global_.session_server


@pytest.mark.parametrize(
    ("listen", "advertise", "told"),
    [
        ("0.0.0.0:8093", "runner.example:443", "runner.example:443"),
        ("[::]:8093", "runner.example", "runner.example:8093"),
        ("10.0.0.7:9000", "", "10.0.0.7:9000"),
        ("[2001:db8::1]", "", "[2001:db8::1]:8093"),
    ],
)
def test_the_address_that_gitlab_is_told(listen, advertise, told):
    loaded, table = load(f'[session_server]\nlisten_address = "{listen}"\nadvertise_address = "{advertise}"')
    assert table.advertised == told
    assert not [each for each in loaded.warnings if "session" in (each.key or "")]


def test_a_time_out_alone_serves_nothing_and_is_no_mistake():
    loaded, table = load("[session_server]\nsession_timeout = 600")
    assert (table.advertised, table.session_timeout) == (None, 600)
    assert not [each for each in loaded.warnings if "session" in (each.key or "")]


def test_a_time_out_of_nothing_is_the_usual_one():
    assert load("[session_server]\nsession_timeout = 0")[1].session_timeout == 1800


def test_an_address_that_nobody_can_reach_is_warned_of():
    loaded, table = load('[session_server]\nlisten_address = "[::]:8093"')
    assert table.advertised is None
    assert any("set advertise_address" in each.message for each in loaded.warnings)


@pytest.mark.parametrize("address", ["https://runner.example", "runner.example:x", "a/b"])
def test_what_is_no_address_is_an_error(address):
    loaded, _ = load(f'[session_server]\nlisten_address = "127.0.0.1:1"\nadvertise_address = "{address}"')
    assert [each.key for each in loaded.errors] == ["session_server.advertise_address"]


def test_a_change_takes_effect_at_the_next_start():
    before, after = load(""), load('[session_server]\nlisten_address = "127.0.0.1:8093"')
    assert diff(before[0].settings, after[0].settings).keys_at_start == ("session_server",)
