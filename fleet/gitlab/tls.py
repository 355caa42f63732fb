"""TLS towards one GitLab server: which files, the context made of them, and when to make it anew.

Rule: a context is made once per endpoint and shared by all its connections (making one costs 20-30 ms, because it
loads the system's CA certificates), and it is made again before the next request when a file changed, came or went.
What the settings do not name is looked for in a directory as `<host>.crt` (CA), `<host>.auth.crt` and
`<host>.auth.key` (client pair). A file that was named and cannot be used is a `TlsFileError`, never left out in
silence.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl

import httpx

from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.errors import TlsFileError

Mark = tuple[tuple[int, int] | None, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsForJobs:
    """What a job needs to reach GitLab as we do, as PEM texts; empty where there is nothing to say."""

    ca: str = ""
    cert: str = ""
    key: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The paths of one endpoint; those that `may_be_absent` were not named by the settings."""

    ca: str | None
    cert: str | None
    key: str | None
    may_be_absent: frozenset[str]

    @classmethod
    def of(cls, endpoint: Endpoint, directory: pathlib.Path | None) -> TlsFiles:
        """Those the endpoint names, and for the others those that may lie in `directory`."""
        ca, cert, key = endpoint.tls_ca_file, endpoint.tls_cert_file, endpoint.tls_key_file
        if not endpoint.url.startswith("https:") and not (ca or cert or key):
            directory = None
        optional = set()
        if directory and not ca:
            ca = str(directory / f"{endpoint.host}.crt")
            optional.add(ca)
        if directory and not cert and not key:
            cert = str(directory / f"{endpoint.host}.auth.crt")
            key = str(directory / f"{endpoint.host}.auth.key")
            optional |= {cert, key}
        return cls(ca=ca, cert=cert, key=key, may_be_absent=frozenset(optional))

    def mark(self) -> Mark:
        """Differs from an earlier mark when a file changed, came or went."""
        return tuple([_mark(path) for path in (self.ca, self.cert, self.key) if path is not None])

    def present(self, path: str | None) -> str | None:
        """The path, or None when there is none or it lies only where files may lie and does not."""
        if path is None or (path in self.may_be_absent and not os.path.exists(path)):
            return None
        return path


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def default_certificate_directory() -> pathlib.Path:
    """Where GitLab Runner keeps certificates, so that its files keep working."""
    if os.geteuid() == 0:
        return pathlib.Path("/etc/gitlab-runner/certs")
    return pathlib.Path.home() / ".gitlab-runner" / "certs"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """A context and the very texts it was made of."""

    context: ssl.SSLContext
    for_jobs: TlsForJobs
    mark: Mark


def load(files: TlsFiles) -> TlsMaterial:
    """Read the files and make a context of them; raises `TlsFileError`, which names the file."""
    mark = files.mark()  # before reading: a change in between makes one more context, not a stale one
    context = _system_context()
    ca, cert, key = files.present(files.ca), files.present(files.cert), files.present(files.key)
    texts = {"ca": _load_ca(context, ca) if ca else ""}
    if cert and key:
        texts |= {"cert": _read(cert), "key": _read(key)}
        _load_pair(context, cert, key)
    elif files.cert not in files.may_be_absent and (cert or key):
        missing = "tls-key-file" if cert else "tls-cert-file"
        raise TlsFileError(str(cert or key), f"a client certificate needs both files: set {missing} as well")
    return TlsMaterial(context=context, for_jobs=TlsForJobs(**texts), mark=mark)


def _system_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:  # a Python built for another system: no CA would be trusted
        context = httpx.create_ssl_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # What GitLab Runner accepts must work here: any certificate in the CA file is an anchor, be it the server's own
    # or an intermediate one, and private CAs often lack the extensions that Python 3.13 demands by default.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise TlsFileError(path, f"cannot be read ({exc.strerror}): check the path and its permissions") from exc
    except UnicodeDecodeError as exc:
        raise TlsFileError(path, "is not a PEM file: convert it, for example with openssl x509") from exc


def _load_ca(context: ssl.SSLContext, path: str) -> str:
    text = _read(path)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as exc:
        raise TlsFileError(path, "holds no CA certificate in PEM form") from exc
    return text


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        # Without a password callback OpenSSL would stop the whole manager at a prompt on the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as exc:
        what = f"and {key} are not a certificate and its key without a password ({getattr(exc, 'reason', exc)})"
        raise TlsFileError(cert, what) from exc


def chain_of(connection: ssl.SSLSocket) -> str:
    """The certificates, as PEM, that made us trust the server: all but its own, or its own when it stands alone."""
    public = getattr(connection, "get_verified_chain", None)  # Python >= 3.13
    if public is not None:
        ders = list(public())
    else:
        inner = connection._sslobj  # type: ignore[attr-defined]  # the only way before 3.13
        ders = [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_verified_chain()]
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in ders[1:] or ders)
