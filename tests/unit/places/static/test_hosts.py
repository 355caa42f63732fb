from __future__ import annotations

import pytest

from fleet.machine.keys import make_key_pair
from fleet.places.static.hosts import read_hosts
from fleet.sdk import BadParameters


def one(**config):
    return read_hosts(config, "p")[0]


def test_a_host_is_an_address_or_a_whole_login() -> None:
    hosts = read_hosts({"hosts": ["10.0.0.4", "build@10.0.0.5:2222", "ci@[fe80::1]:24"]}, "p")
    assert [(host.endpoint.user, host.endpoint.host, host.endpoint.port) for host in hosts] == [
        (None, "10.0.0.4", 22),
        ("build", "10.0.0.5", 2222),
        ("ci", "fe80::1", 24),
    ]


def test_names_are_stable_and_default_to_the_address() -> None:
    config = {"hosts": [{"name": "mac", "address": "10.0.0.6"}, "u@10.0.0.7", "u@10.0.0.7:2200"]}
    assert [host.name for host in read_hosts(config, "p")] == ["mac", "10.0.0.7", "10.0.0.7:2200"]


def test_what_a_host_does_not_say_is_said_for_all() -> None:
    host = one(user="ci", key_path="/k", known_hosts_file="/known", jump="ops@gate", hosts=["10.0.0.4"])
    assert host.endpoint.user == "ci"
    assert host.endpoint.key_path == "/k"
    assert host.endpoint.known_hosts_file == "/known"
    assert [(hop.user, hop.host, hop.key_path) for hop in host.endpoint.jump] == [("ops", "gate", "/k")]


def test_a_host_with_a_password_does_not_get_the_key_of_all() -> None:
    host = one(key_path="/k", hosts=[{"address": "10.0.0.4", "password": "not-a-secret"}])
    assert (host.endpoint.key_path, host.endpoint.password) == (None, "not-a-secret")
    assert "not-a-secret" not in repr(host)


def test_jump_hosts_have_keys_of_their_own() -> None:
    key = make_key_pair().public
    host = one(hosts=[{"address": "10.0.0.4", "jump": ["a@outer", {"address": "inner", "port": 23, "host_key": key}]}])
    assert [(hop.host, hop.port, hop.host_keys) for hop in host.endpoint.jump] == [
        ("outer", 22, ()),
        ("inner", 23, (key,)),
    ]


def test_an_empty_jump_of_a_host_beats_the_one_of_all() -> None:
    assert one(jump="gate", hosts=[{"address": "10.0.0.4", "jump": []}]).endpoint.jump == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "hosts must be a list of at least one host"),
        ({"hosts": []}, "hosts must be a list of at least one host"),
        ({"hosts": [7]}, r"hosts\[0\] must be text"),
        ({"hosts": ["a", "a"]}, "two hosts are named 'a'"),
        ({"hosts": ["a"], "usr": "x"}, r"plugin_config.usr .* did you mean 'user'"),
        ({"hosts": [{"address": "a", "prot": 22}]}, r"hosts\[0\]\.prot .* did you mean 'port'"),
        ({"hosts": [{"name": "a"}]}, r"hosts\[0\]\.address is missing"),
        ({"hosts": [{"address": "a", "port": "22"}]}, r"hosts\[0\]\.port must be a number from 1 to 65535"),
        ({"hosts": [{"address": "a", "port": True}]}, r"hosts\[0\]\.port must be a number"),
        ({"hosts": ["a:99999"]}, r"hosts\[0\]\.port must be a number from 1 to 65535"),
        ({"hosts": ["a:ssh"]}, r"hosts\[0\]\.port must be a number"),
        ({"hosts": ["ci@"]}, "names no host"),
        ({"hosts": [{"address": "a", "user": 5}]}, r"hosts\[0\]\.user must be text"),
        ({"hosts": [{"address": "a", "host_key": "AAAA"}]}, r"host_key must be a public key line"),
        ({"hosts": [{"address": "a", "trust_on_first_use": "yes"}]}, "trust_on_first_use must be true or false"),
        ({"hosts": [{"address": "a", "jump": [5]}]}, r"hosts\[0\]\.jump\[0\] must be text"),
        ({"hosts": [{"address": "a", "jump": [{"address": "b", "jump": "c"}]}]}, r"jump\[0\]\.jump is no setting"),
    ],
)
def test_what_is_wrong_is_named(config: dict, message: str) -> None:
    with pytest.raises(BadParameters, match=message) as caught:
        read_hosts(config, "p")
    assert "pool 'p': plugin_config" in str(caught.value)
