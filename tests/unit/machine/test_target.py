from __future__ import annotations

import pytest

from fleet.machine.target import SshTarget, parse_address, target_of
from fleet.sdk import Machine, MachineState, PipeEndpoint, SshEndpoint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("host", (None, "host", None)),
        ("ci@host", ("ci", "host", None)),
        ("ci@host:2222", ("ci", "host", 2222)),
        ("fe80::1", (None, "fe80::1", None)),
        ("ci@[fe80::1]:22", ("ci", "fe80::1", 22)),
        ("[fe80::1]", (None, "fe80::1", None)),
        ("a@b@host", ("a@b", "host", None)),
    ],
)
def test_an_address_has_three_parts(text: str, parts: tuple) -> None:
    assert parse_address(text) == parts


@pytest.mark.parametrize("text", ["", "ci@", ":22", "host:0", "host:65536", "host:ssh", "[fe80::1", "[fe80::1]x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an address|no host|not a port"):
        parse_address(text)


POOL = SshTarget(host="", user="pooluser", private_key="pool key", host_keys=("ssh-ed25519 POOL",))


def machine(**more) -> Machine:
    return Machine(machine_id="m", state=MachineState.RUNNING, tags={}, **more)


def test_a_listed_machine_is_reached_by_its_address_and_any_of_the_known_keys() -> None:
    listed = machine(address_internal="10.0.0.1", address_external="1.1.1.1", port=24, host_key="ssh-ed25519 TOLD")
    target = target_of(listed, POOL)
    assert (target.host, target.port, target.user) == ("10.0.0.1", 24, "pooluser")
    assert target.host_keys == ("ssh-ed25519 POOL", "ssh-ed25519 TOLD")
    assert target_of(listed, POOL, use_external=True).host == "1.1.1.1"


def test_a_machine_without_address_is_not_reached() -> None:
    with pytest.raises(ValueError, match="no internal address"):
        target_of(machine(), POOL)
    with pytest.raises(ValueError, match="over a pipe"):
        target_of(machine(endpoint=PipeEndpoint(home="/h")), POOL)


def test_an_endpoint_says_it_all_and_its_hops_get_none_of_the_machines_host_keys() -> None:
    hop = SshEndpoint(host="gate", user="ops", host_keys=("ssh-ed25519 GATE",))
    plain = SshEndpoint(host="second")
    endpoint = SshEndpoint(host="10.0.0.9", key_path="/key", host_keys=("ssh-ed25519 OWN",), jump=(hop, plain))
    target = target_of(machine(endpoint=endpoint, address_internal="ignored"), POOL)
    assert (target.host, target.user, target.private_key, target.key_path) == ("10.0.0.9", "pooluser", None, "/key")
    assert target.host_keys == ("ssh-ed25519 OWN",)
    assert [(each.host, each.user, each.host_keys) for each in target.jump] == [
        ("gate", "ops", ("ssh-ed25519 GATE",)),
        ("second", "pooluser", ()),
    ]
    assert target.jump[0].private_key == "pool key"


def test_secrets_do_not_show() -> None:
    shown = repr(SshTarget(host="h", user="u", private_key="hidden1", password="hidden2", passphrase="hidden3"))
    assert "hidden" not in shown
