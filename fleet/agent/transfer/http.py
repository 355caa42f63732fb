"""HTTP for transfers: one request on one connection, streamed both ways, with TLS, proxies and redirects.

    client = Client(tls, timeout_s=3600, header_timeout_s=600, environment={})
    with client.fetch(url, {"JOB-TOKEN": token}, private=("JOB-TOKEN",)) as answer:      # GET, redirects followed
        for piece in answer.pieces(): ...
    with client.begin("POST", url, headers) as exchange:                                 # a body of unknown length
        exchange.send(data); exchange.end(); answer = exchange.answer()
    with client.begin("PUT", url, headers, length=size) as exchange: ...                 # a body of known length

Rule: no call waits for longer than its deadline, and every fault is an `HttpError` whose text may stand in the job's
log: the host is named, never a path or query, for signed addresses are secrets. Nothing is tried again here. A server
that answers before the body is over ends the sending with `Answered`.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import ssl
import tempfile
import time
import urllib.parse

from .proxies import proxy_for

CONNECT_S = 30.0
PIECE_BYTES = 256 * 1024
MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
TEXT_BYTES = 64 * 1024
DEFAULT_PORTS = {"http": 80, "https": 443}


class HttpError(Exception):
    """A request that got no answer; the text says why and names the host."""


class Answered(Exception):
    """The server has answered, or hung up, before the body was over: ask for the answer."""


class Client:
    """What all requests of a transfer have in common; `timeout_s` is for one whole request."""

    def __init__(
        self, tls: dict, *, timeout_s: float, header_timeout_s: float, environment: dict, agent: str = "fleet"
    ):
        self._context = tls_context(tls)
        self._timeout_s = timeout_s
        self._header_timeout_s = header_timeout_s
        self._environment = {**os.environ, **environment}
        self._agent = agent

    def begin(self, method: str, url: str, headers: dict, *, length: int | None = None) -> Exchange:
        """Connect and send the head of a request with a body: chunked, or of a known length."""
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        exchange = self._exchange(url, is_chunked=length is None)
        exchange.head(method, {**headers, **framing}, self._agent)
        return exchange

    def fetch(
        self, url: str, headers: dict, *, method: str = "GET", private: tuple = (), follow: bool = True
    ) -> Answer:
        """The answer to a request without body; headers in `private` are dropped when a redirect leaves the server."""
        for _ in range(MOST_REDIRECTS):
            exchange = self._exchange(url, is_chunked=False)
            try:
                exchange.head(method, headers, self._agent)
                answer = exchange.answer()
            except BaseException:
                exchange.close()
                raise
            location = answer.header("Location")
            if not follow or answer.status not in REDIRECTS or not location:
                return answer
            answer.close()
            there = urllib.parse.urljoin(url, location)
            if not may_tell(url, there):
                headers = {name: value for name, value in headers.items() if name not in private}
            url = there
        raise HttpError("%s redirects more than %d times" % (host_of(url), MOST_REDIRECTS))

    def _exchange(self, url: str, *, is_chunked: bool) -> Exchange:
        until = time.monotonic() + self._timeout_s
        connection, target, extra = self._connection(url)
        exchange = Exchange(connection, host_of(url), until, self._header_timeout_s, target, is_chunked=is_chunked)
        exchange.extra_headers.update(extra)
        return exchange

    def _connection(self, url: str) -> tuple:
        """A connection that is not yet open, the target of the request on it, and headers for a proxy."""
        parts = _split(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        proxy = proxy_for(parts.scheme, parts.hostname, port, self._environment)
        if proxy is None:
            return self._open(parts.scheme, parts.hostname, port), target, {}
        if parts.scheme == "http":
            return self._open(proxy.scheme, proxy.host, proxy.port), url, proxy.headers
        if proxy.scheme == "https":
            raise HttpError(
                "the proxy %s is reached by https, which is not supported: name it with http://" % proxy.host
            )
        connection = self._open("https", proxy.host, proxy.port)
        connection.set_tunnel(parts.hostname, port, headers=proxy.headers)
        return connection, target, {}

    def _open(self, scheme: str, host: str, port: int):
        timeout_s = min(CONNECT_S, self._timeout_s)
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)


class Exchange:
    """One request and its answer."""

    def __init__(
        self, connection, host: str, until: float, header_timeout_s: float, target: str, *, is_chunked: bool
    ) -> None:
        self.extra_headers = {}
        self._connection = connection
        self._host = host
        self._until = until
        self._header_timeout_s = header_timeout_s
        self._target = target
        self._is_chunked = is_chunked
        self._waiting = []
        self._waiting_bytes = 0
        self._ears = None

    def head(self, method: str, headers: dict, agent: str) -> None:
        """Connect and send everything before the body."""
        with Faults(self._host):
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.putrequest(method, self._target, skip_accept_encoding=True)
            for name, value in {"User-Agent": agent, **self.extra_headers, **headers}.items():
                self._connection.putheader(name, value)
            self._hurry()
            self._connection.endheaders()
        if not isinstance(self._connection.sock, ssl.SSLSocket):  # TLS has words of its own to be read
            self._ears = select.poll()
            self._ears.register(self._connection.sock, select.POLLIN)

    def write(self, data: bytes) -> None:
        """Send a piece of the body; small pieces travel together."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= PIECE_BYTES:
            self._flush()

    send = write

    def end(self) -> None:
        """The body is over."""
        self._flush()
        if self._is_chunked:
            self._push(b"0\r\n\r\n")

    def answer(self) -> Answer:
        """Wait for the answer; closing it closes the connection."""
        with Faults(self._host):
            self._hurry(self._header_timeout_s)
            response = self._connection.getresponse()
            self._hurry()
        return Answer(response, self._connection, self._host, self._until)

    def close(self) -> None:
        """End the connection, also in the middle."""
        self._connection.close()

    def __enter__(self) -> Exchange:  # noqa: PYI034  Python 3.8 has no Self
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if data:
            self._push(b"%x\r\n%s\r\n" % (len(data), data) if self._is_chunked else data)

    def _push(self, data: bytes) -> None:
        if self._ears is not None and self._ears.poll(0):
            raise Answered
        try:
            self._hurry()
            self._connection.sock.sendall(data)
        except socket.timeout as exc:
            raise HttpError("%s took nothing more until the time for the transfer was over" % self._host) from exc
        except OSError as exc:
            raise Answered from exc

    def _hurry(self, at_most_s: float = 3600.0) -> None:
        """No longer than the deadline."""
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise HttpError("the transfer with %s took longer than it may" % self._host)
        if self._connection.sock is not None:
            self._connection.sock.settimeout(min(left_s, at_most_s))


class Answer:
    """The answer to a request; read it or not, and close it."""

    def __init__(self, response, connection, host: str, until: float) -> None:
        self.status = response.status
        self.reason = response.reason
        self._response = response
        self._connection = connection
        self._host = host
        self._until = until

    @property
    def line(self) -> str:
        """`404 Not Found`, in the usual words whatever the server's are."""
        return ("%d %s" % (self.status, http.client.responses.get(self.status, self.reason))).strip()

    def header(self, name: str) -> str:
        """A header, or nothing."""
        return self._response.getheader(name) or ""

    def text(self) -> str:
        """The beginning of the content, for a message."""
        try:
            return self._read(TEXT_BYTES).decode("utf-8", "replace")
        except HttpError:
            return ""

    def pieces(self):
        """The content; HttpError when it is shorter than was promised."""
        promised = self._response.length
        got = 0
        while True:
            data = self._read(PIECE_BYTES)
            if not data:
                break
            got += len(data)
            yield data
        if promised is not None and got < promised:
            raise HttpError("%s hung up after %d of %d bytes" % (self._host, got, promised))

    def _read(self, count: int) -> bytes:
        with Faults(self._host):
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                raise HttpError("the transfer with %s took longer than it may" % self._host)
            if self._connection.sock is not None:
                self._connection.sock.settimeout(left_s)
            return self._response.read(count)

    def close(self) -> None:
        """End the connection."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> Answer:  # noqa: PYI034  Python 3.8 has no Self
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Faults:
    """Turns what may go wrong on a connection into `HttpError`."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, exc: object, _trace: object) -> None:
        if isinstance(exc, socket.timeout):
            raise HttpError("%s did not answer in time" % self._host) from exc
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise HttpError(
                "the certificate of %s is not trusted: %s; name its CA with tls-ca-file of the runner"
                % (self._host, exc.verify_message)
            ) from exc
        if isinstance(exc, OSError):
            raise HttpError("%s cannot be reached: %s" % (self._host, exc.strerror or exc)) from exc
        if isinstance(exc, http.client.RemoteDisconnected):
            raise HttpError("%s hung up without an answer" % self._host) from exc
        if isinstance(exc, (http.client.HTTPException, ValueError)):
            raise HttpError("%s did not answer in HTTP: %s" % (self._host, type(exc).__name__)) from exc


def tls_context(tls: dict) -> ssl.SSLContext:
    """TLS 1.2 or newer that trusts the machine's CAs and `tls["ca"]`, with `cert` and `key` (PEM texts) if given."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.get("ca"):
            context.load_verify_locations(cadata=tls["ca"])
        if tls.get("cert") and tls.get("key"):
            _load_pair(context, tls["cert"], tls["key"])
    except (ssl.SSLError, ValueError) as exc:
        raise HttpError("the runner's TLS files cannot be used: %s" % exc) from exc
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Python reads a pair from a file only: from one that is the user's alone, and gone when it was read."""
    with tempfile.NamedTemporaryFile(prefix=".fleet-tls-") as file:
        file.write((cert.strip() + "\n" + key.strip() + "\n").encode())
        file.flush()
        context.load_cert_chain(file.name)


def host_of(url: str) -> str:
    """What may be told of an address: its host and port."""
    try:
        parts = urllib.parse.urlsplit(url)
        return "%s:%d" % (parts.hostname, parts.port) if parts.port else str(parts.hostname)
    except ValueError:
        return "an address that cannot be read"


def may_tell(here: str, there: str) -> bool:
    """Whether what one server may know may be told to the other: the same one, or the same host now with TLS."""
    old, new = _split(here), _split(there)
    if old.hostname != new.hostname:
        return False
    ports = tuple(parts.port or DEFAULT_PORTS[parts.scheme] for parts in (old, new))
    if (old.scheme, new.scheme) == ("http", "https"):
        return ports == (80, 443)
    return old.scheme == new.scheme and ports[0] == ports[1]


def _split(url: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in DEFAULT_PORTS and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:
        pass
    raise HttpError("an address is not http:// or https://: check the runner's `url`")


def is_downgrade(old_scheme: str, new_scheme: str) -> bool:
    """Whether going on there gives up TLS."""
    return old_scheme == "https" and new_scheme == "http"
