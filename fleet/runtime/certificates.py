"""The certificate of the terminal server: made by ourselves, kept, and sent to GitLab with each poll.

Rule: GitLab trusts exactly the certificate that came with the poll which brought a job. So it is kept in the state
directory, readable by its owner alone, for as long as it names the address that is advertised: a manager that was
killed and started again is believed by jobs of before.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import urllib.parse
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = timedelta(days=5 * 365)
AT_LEAST = timedelta(days=180)  # what must be left of it at a start
SKEW = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """A certificate and where it is, together with its key.

    Attributes:
        pem: the certificate alone.
        path: a file with both.
    """

    pem: str
    path: pathlib.Path


def certificate_for(address: str, path: pathlib.Path, now: datetime) -> ServerCertificate:
    """The certificate that is kept at `path`, made anew when it is missing, broken, of another address, or nearly over.

    `address` is `host:port`. Raises OSError when it cannot be kept.
    """
    name = _name_of(address)
    with contextlib.suppress(OSError, ValueError):
        text = path.read_bytes()
        serialization.load_pem_private_key(text, password=None)
        found = x509.load_pem_x509_certificate(text)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if list(names) == [name] and found.not_valid_after_utc - now > AT_LEAST:
            return ServerCertificate(pem=_pem(found), path=path)
    made, key = _made(name, now)
    _keep(path, key + _pem(made).encode())
    return ServerCertificate(pem=_pem(made), path=path)


def _name_of(address: str) -> x509.GeneralName:
    host = urllib.parse.urlsplit(f"//{address}").hostname or ""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _made(name: x509.GeneralName, now: datetime) -> tuple[x509.Certificate, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet session server")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,  # it is its own authority: GitLab is given it as the one to trust
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate, private


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _keep(path: pathlib.Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
