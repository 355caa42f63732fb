"""The terminal server's certificate: made once, kept, and made anew only when it does not fit any more."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from fleet.runtime.certificates import AT_LEAST, SKEW, VALID_FOR, certificate_for

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def names_in(pem):
    found = x509.load_pem_x509_certificate(pem.encode())
    return list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value), found


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("runner.example:8093", x509.DNSName("runner.example")),
        ("10.0.0.7:8093", x509.IPAddress(ipaddress.ip_address("10.0.0.7"))),
        ("[2001:db8::1]:8093", x509.IPAddress(ipaddress.ip_address("2001:db8::1"))),
    ],
)
def test_it_names_the_address_and_is_its_own_authority(tmp_path, address, name):
    made = certificate_for(address, tmp_path / "session.pem", NOW)
    names, found = names_in(made.pem)
    assert names == [name]
    assert (found.not_valid_before_utc, found.not_valid_after_utc) == (NOW - SKEW, NOW + VALID_FOR)
    assert "PRIVATE" not in made.pem
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    ssl.create_default_context(cadata=made.pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.path)


def test_it_is_kept_from_start_to_start(tmp_path):
    path = tmp_path / "session.pem"
    first = certificate_for("a.example:1", path, NOW)
    assert certificate_for("a.example:2", path, NOW + timedelta(days=400)).pem == first.pem


def test_another_name_a_broken_file_and_old_age_make_a_new_one(tmp_path):
    path = tmp_path / "session.pem"
    first = certificate_for("a.example:1", path, NOW)
    second = certificate_for("b.example:1", path, NOW)
    assert second.pem != first.pem
    path.write_bytes(b"not a certificate")
    third = certificate_for("b.example:1", path, NOW)
    assert third.pem not in {first.pem, second.pem}
    later = NOW + VALID_FOR - AT_LEAST + timedelta(days=1)
    assert certificate_for("b.example:1", path, later).pem != third.pem
    assert [each.name for each in tmp_path.iterdir()] == ["session.pem"]
