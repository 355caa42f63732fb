from __future__ import annotations

import pathlib
import subprocess

import pytest

from fleet.machine.keys import fingerprint, make_key_pair, public_parts


def test_a_made_key_is_what_openssh_makes_of_it(tmp_path: pathlib.Path) -> None:
    pair = make_key_pair()
    private = tmp_path / "key"
    private.write_text(pair.private)
    private.chmod(0o600)
    told = subprocess.run(["ssh-keygen", "-y", "-f", str(private)], capture_output=True, text=True, check=True).stdout
    assert told.split()[:2] == pair.public.split()
    (tmp_path / "key.pub").write_text(pair.public)
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    ).stdout
    assert fingerprint(pair.public).split()[1] in listed.split()


def test_no_two_keys_are_alike_and_none_shows_its_private_half() -> None:
    first, second = make_key_pair(), make_key_pair()
    assert first.public != second.public
    assert "PRIVATE" not in repr(first)


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-ed25519 !!!"])
def test_what_is_no_public_key_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a public key line"):
        public_parts(line)


def test_a_key_under_another_kinds_name_is_refused() -> None:
    with pytest.raises(ValueError, match="type and its content differ"):
        public_parts("ssh-rsa " + make_key_pair().public.split()[1])
