"""The way to GitLab: TLS with the runner's files, and proxies."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import ssl
import threading
import urllib.parse

import pytest
import trustme

from fleet.agent.transfer.http import Client, HttpError

PAGE = b"found"


class Page(http.server.BaseHTTPRequestHandler):
    """Answers everything, and notes what came."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    seen: list

    def handle_error(self, *_):
        """A client without a certificate is no news."""


@contextlib.contextmanager
def serving(context=None):
    server = Server(("127.0.0.1", 0), Page)
    server.seen = []
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server, server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


def client(environment=None, **tls):
    return Client(tls, timeout_s=10, header_timeout_s=5, environment=environment or {})


def page(made, url, **headers):
    with made.fetch(url, headers) as answer:
        return b"".join(answer.pieces())


def test_the_runners_ca_is_trusted(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as (_, port):
        assert page(client(ca=ca.cert_pem.bytes().decode()), f"https://127.0.0.1:{port}/x") == PAGE


def test_an_unknown_ca_is_refused_and_the_line_says_what_to_set(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as (_, port), pytest.raises(HttpError, match=r"is not trusted: .*tls-ca-file"):
        page(client(), f"https://127.0.0.1:{port}/x")


def test_the_runners_own_certificate_is_shown(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    pair = ca.issue_cert("runner.example.com")
    given = {
        "ca": ca.cert_pem.bytes().decode(),
        "cert": "".join(part.bytes().decode() for part in pair.cert_chain_pems),
        "key": pair.private_key_pem.bytes().decode(),
    }
    with serving(context) as (_, port):
        assert page(client(**given), f"https://127.0.0.1:{port}/x") == PAGE
        with pytest.raises(HttpError):
            page(client(ca=given["ca"]), f"https://127.0.0.1:{port}/x")


def test_tls_files_that_cannot_be_used_are_a_sentence():
    with pytest.raises(HttpError, match="TLS files cannot be used"):
        client(ca="no certificate")


def test_plain_requests_go_through_the_proxy_in_full():
    with serving() as (server, port):
        environment = {"http_proxy": f"http://me:secret@127.0.0.1:{port}"}
        assert page(client(environment), "http://gitlab.invalid:8080/x?y=1", **{"JOB-TOKEN": "t"}) == PAGE
    path, headers = server.seen[0]
    assert path == "http://gitlab.invalid:8080/x?y=1"
    assert headers["Host"] == "gitlab.invalid:8080"
    assert headers["Proxy-Authorization"].startswith("Basic ")


def test_tls_goes_through_a_tunnel_of_the_proxy(ca):
    asked = []

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode()
            while self.rfile.readline().strip():
                pass
            asked.append(line.split()[1])
            with socket_to(port) as there:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pass_on, args=(there, self.connection))
                back.start()
                pass_on(self.connection, there)
                back.join()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("gitlab.invalid").configure_cert(context)
    with serving(context) as (_, port), socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        environment = {"https_proxy": f"http://127.0.0.1:{proxy.server_address[1]}"}
        made = client(environment, ca=ca.cert_pem.bytes().decode())
        assert page(made, "https://gitlab.invalid/x") == PAGE
        proxy.shutdown()
        thread.join()
    assert asked == ["gitlab.invalid:443"]


def socket_to(port):
    return socket.create_connection(("127.0.0.1", port))


def pass_on(source, target):
    """Bytes from one socket to another, to the end of either."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_faults_name_the_host_and_never_the_address():
    with serving() as (_, port):
        pass
    with pytest.raises(HttpError) as fault:
        page(client(), f"http://127.0.0.1:{port}/bucket?X-Signature=secret")
    assert urllib.parse.quote("secret") not in str(fault.value)
    assert f"127.0.0.1:{port}" in str(fault.value)
