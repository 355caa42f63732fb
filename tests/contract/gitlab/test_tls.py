"""TLS with private CAs and client certificates, and files that change under us."""

import contextlib
import os
import pathlib
import secrets
import socket
import ssl
import threading
import time

import pytest
import trustme

from fleet.gitlab.cancel import Cancel
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.errors import TlsFileError
from fleet.gitlab.outcomes import Doubt, JobOffer, NoJob, PatchOutcome, Unavailable, Unusable, Withdrawn
from fleet.gitlab.tls import TlsFiles, load
from tests.contract.gitlab.scripted_server import ScriptedServer, answer, until

TOKEN = secrets.token_hex(12)
JOB = answer(201, {"id": 7, "token": TOKEN})
OK = NoJob(last_update=None, retriable_seen=False)


def ask(gitlab, **more):
    return gitlab.request_job(token=TOKEN, system_id="s_1", info={}, **more)


@pytest.fixture
def ca():
    return trustme.CA()


@pytest.fixture
def context(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "gitlab.test").configure_cert(context)
    return context


@pytest.fixture
def server(nothing_stays_behind, context):
    server = ScriptedServer(context=context)
    yield server
    server.close()


@pytest.fixture
def ca_file(ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


def test_a_private_ca_is_trusted_when_it_is_named(server, client_of, ca_file):
    gitlab = client_of(server.url, tls_ca_file=ca_file)
    assert ask(gitlab) == OK
    assert ask(gitlab) == OK
    assert server.accepted == 1


def test_a_private_ca_is_not_trusted_otherwise_and_the_reason_says_what_to_set(server, client_of):
    found = ask(client_of(server.url))
    assert isinstance(found, Unavailable)
    assert "not trusted" in found.reason
    assert "tls-ca-file" in found.reason


def test_a_certificate_for_another_name_is_refused(server, client_of, ca_file):
    found = ask(client_of(server.url.replace("localhost", "127.0.0.1"), tls_ca_file=ca_file))
    assert isinstance(found, Unavailable)
    assert "not trusted" in found.reason


def test_tls_before_1_2_is_refused(ca_file):
    files = TlsFiles.of(Endpoint(url="https://localhost", tls_ca_file=ca_file), None)
    assert load(files).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_servers_own_certificate_can_be_the_anchor(nothing_stays_behind, client_of, ca, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = ca.issue_cert("localhost")
    issued.configure_cert(context)
    path = tmp_path / "server.pem"
    issued.cert_chain_pems[0].write_to_path(path)
    server = ScriptedServer(context=context)
    try:
        assert ask(client_of(server.url, tls_ca_file=str(path))) == OK
    finally:
        server.close()


def test_the_certificate_directory_is_looked_into(server, client_of, ca, tmp_path):
    ca.cert_pem.write_to_path(tmp_path / "localhost.crt")
    assert ask(client_of(server.url, certificate_directory=tmp_path)) == OK


def test_a_file_that_appears_later_is_used_at_once(server, client_of, ca, tmp_path):
    gitlab = client_of(server.url, certificate_directory=tmp_path)
    assert isinstance(ask(gitlab), Unavailable)
    ca.cert_pem.write_to_path(tmp_path / "localhost.crt")
    assert ask(gitlab) == OK


def test_a_file_that_changes_is_used_at_once(server, client_of, ca_file, ca):
    gitlab = client_of(server.url, tls_ca_file=ca_file)
    assert ask(gitlab) == OK
    trustme.CA().cert_pem.write_to_path(ca_file)
    assert isinstance(ask(gitlab), Unavailable)
    ca.cert_pem.write_to_path(ca_file)
    os.utime(ca_file, ns=(1, 1))
    assert ask(gitlab) == OK


@pytest.mark.parametrize("content", [None, "", "not a certificate", b"\xff\xfe", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_file_that_cannot_be_used_is_named(server, client_of, tmp_path, content):
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    gitlab = client_of(server.url, tls_ca_file=str(path))
    with pytest.raises(TlsFileError, match=r"broken\.pem"):
        gitlab.check_files()
    found = ask(gitlab)
    assert isinstance(found, Unusable)
    assert str(path) in found.reason
    assert isinstance(gitlab.verify(token=TOKEN, system_id="s_1", info={}), Doubt)
    assert gitlab.patch_trace(job_id=1, token=TOKEN, start=0, data=b"x").outcome is PatchOutcome.FAILED
    assert server.accepted == 0


def pair(ca, directory, cert="client.crt", key="client.key"):
    issued = ca.issue_cert("runner@example.com")
    issued.cert_chain_pems[0].write_to_path(directory / cert)
    issued.private_key_pem.write_to_path(directory / key)
    return str(directory / cert), str(directory / key)


@pytest.fixture
def demands_a_client_certificate(context, ca):
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)


@pytest.mark.usefixtures("demands_a_client_certificate")
def test_a_client_certificate_is_shown(server, client_of, ca, ca_file, tmp_path):
    cert, key = pair(ca, tmp_path)
    gitlab = client_of(server.url, tls_ca_file=ca_file, tls_cert_file=cert, tls_key_file=key)
    assert ask(gitlab) == OK
    assert isinstance(ask(client_of(server.url, tls_ca_file=ca_file)), Unavailable)


@pytest.mark.usefixtures("demands_a_client_certificate")
def test_a_client_certificate_of_the_directory_is_shown(server, client_of, ca, tmp_path):
    ca.cert_pem.write_to_path(tmp_path / "localhost.crt")
    pair(ca, tmp_path, "localhost.auth.crt", "localhost.auth.key")
    assert ask(client_of(server.url, certificate_directory=tmp_path)) == OK


def test_half_a_client_pair_is_named(client_of, ca, tmp_path):
    cert, key = pair(ca, tmp_path)
    with pytest.raises(TlsFileError, match="tls-key-file"):
        client_of("https://localhost", tls_cert_file=cert).check_files()
    with pytest.raises(TlsFileError, match="tls-cert-file"):
        client_of("https://localhost", tls_key_file=key).check_files()


def test_a_key_of_another_certificate_is_named(client_of, ca, tmp_path):
    cert, _ = pair(ca, tmp_path)
    _, key = pair(ca, tmp_path, "other.crt", "other.key")
    with pytest.raises(TlsFileError, match=r"other\.key"):
        client_of("https://localhost", tls_cert_file=cert, tls_key_file=key).check_files()


def test_a_job_gets_the_files_as_configured(server, client_of, ca, ca_file, tmp_path):
    server.script = [JOB]
    cert, key = pair(ca, tmp_path)
    found = ask(client_of(server.url, tls_ca_file=ca_file, tls_cert_file=cert, tls_key_file=key))
    assert isinstance(found, JobOffer)
    texts = [pathlib.Path(path).read_text() for path in (ca_file, cert, key)]
    assert [found.tls.ca, found.tls.cert, found.tls.key] == texts


def test_a_job_gets_the_chain_where_no_ca_is_configured(server, client_of, ca, ca_file, monkeypatch):
    server.script = [JOB]
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)  # stands for a CA that this host's system trusts
    found = ask(client_of(server.url))
    assert isinstance(found, JobOffer)
    assert ssl.PEM_cert_to_DER_cert(found.tls.ca) == ssl.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode())
    assert (found.tls.cert, found.tls.key) == ("", "")


def test_plain_http_has_nothing_to_give(nothing_stays_behind, client_of):
    server = ScriptedServer(script=[JOB])
    try:
        assert ask(client_of(server.url)).tls.ca == ""
    finally:
        server.close()


@pytest.fixture
def proxy(server, nothing_stays_behind):
    """Joins two sockets after CONNECT; `proxy.connects` holds the first lines it was sent."""

    def greet(sock):
        proxy.connects.append(sock.recv(65536).split(b"\r\n")[0])
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", server.port)) as onward:
            back = threading.Thread(target=copy, args=(onward, sock))
            back.start()
            copy(sock, onward)
            back.join()

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    proxy = ScriptedServer(greet=greet)
    proxy.connects = []
    yield proxy
    proxy.close()


def through(proxy):
    return {"https_proxy": f"http://127.0.0.1:{proxy.port}"}


def test_tls_goes_through_a_proxy(server, client_of, ca_file, proxy):
    gitlab = client_of("https://gitlab.test", tls_ca_file=ca_file, environment=through(proxy))
    assert [ask(gitlab), ask(gitlab)] == [OK, OK]
    assert proxy.connects == [b"CONNECT gitlab.test:443 HTTP/1.1"]
    assert [each.headers["host"] for each in server.asked] == ["gitlab.test"] * 2


def test_a_held_poll_through_a_proxy_ends_at_once(server, client_of, ca_file, proxy):
    server.script = [lambda sock, asked: sock.recv(1) and None]
    gitlab, found = client_of("https://gitlab.test", tls_ca_file=ca_file, environment=through(proxy)), []
    with Cancel() as cancel:
        thread = threading.Thread(target=lambda: found.append(ask(gitlab, cancel=cancel)))
        thread.start()
        until(lambda: server.asked)
        started = time.monotonic()
        cancel.set()
        thread.join(20)
        assert time.monotonic() - started < 2
    assert found == [Withdrawn()]


@pytest.mark.parametrize("reply", [JOB, None])
def test_a_held_poll_over_tls_ends_at_once_and_loses_no_job(server, client_of, ca_file, reply):
    with Cancel() as cancel:

        def hold(sock, asked):
            assert cancel.wait(10)
            return reply or sock.recv(1) or None

        server.script = [hold]
        gitlab, found = client_of(server.url, tls_ca_file=ca_file), []
        thread = threading.Thread(target=lambda: found.append(ask(gitlab, cancel=cancel)))
        thread.start()
        until(lambda: server.asked)
        started = time.monotonic()
        cancel.set()
        thread.join(10)
        assert time.monotonic() - started < 2
    assert isinstance(found[0], JobOffer if reply else Withdrawn)
