"""Opens the terminal of a job as GitLab does for a browser: a websocket to the session that came with the job's poll.

Rule: only the certificate that came with the poll is trusted, and its name must be the session's; the authorization
goes into the header as it was given.
"""

from __future__ import annotations

import re
import ssl
import urllib.parse
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from fleet.demo.conduct import Breach

SUBPROTOCOL = "terminal.gitlab.com"
PATH = re.compile(r"/session/[0-9a-f]{64}")
FIELDS = frozenset({"url", "certificate", "authorization"})
NEEDS = ("session", "terminal")


def session_breaches(body: dict[str, Any]) -> Iterator[Breach]:
    """What is wrong with the `session` of a poll, and whether it is there exactly when it was promised."""
    info = body.get("info")
    features = info.get("features") if isinstance(info, dict) else None
    promised = [isinstance(features, dict) and features.get(name) is True for name in NEEDS]
    session = body.get("session")
    if session is None:
        if any(promised):
            yield "bad_session", "request: features promise terminals, and there is no session"
        return
    if not all(promised):
        yield "bad_session", "request: a session without the features session and terminal"
    if not isinstance(session, dict) or set(session) != FIELDS:
        yield "bad_session", f"request: session must be an object of {', '.join(sorted(FIELDS))}"
        return
    yield from _value_breaches(session)


def _value_breaches(session: dict[str, Any]) -> Iterator[Breach]:
    if not all(isinstance(value, str) and value for value in session.values()):
        yield "bad_session", "request: a field of session is no text, or empty"
        return
    parts = urllib.parse.urlsplit(session["url"])
    if parts.scheme != "https" or not parts.netloc or not PATH.fullmatch(parts.path) or parts.query:
        yield "bad_session", f"request: session.url {session['url']!r} is not https://HOST/session/ and 64 hex digits"
    try:
        ssl.create_default_context(cadata=session["certificate"])
    except (ssl.SSLError, ValueError):
        yield "bad_session", "request: session.certificate is no certificate"
    if not session["authorization"].isprintable() or not session["authorization"].isascii():
        yield "bad_session", "request: session.authorization cannot stand in a header"


def open_terminal(
    session: dict[str, str],
    *,
    subprotocol: str | None = SUBPROTOCOL,
    path: str = "/exec",
    authorization: str | None = None,
    timeout: float = 70.0,
) -> ClientConnection:
    """The websocket of a job's terminal; `InvalidStatus` of websockets when the runner refuses."""
    trust = ssl.create_default_context(cadata=session["certificate"])
    trust.minimum_version = ssl.TLSVersion.TLSv1_2
    given = session["authorization"] if authorization is None else authorization
    return connect(
        session["url"].replace("https://", "wss://", 1) + path,
        ssl=trust,
        subprotocols=None if subprotocol is None else [Subprotocol(subprotocol)],
        additional_headers={"Authorization": given},
        compression=None,
        open_timeout=timeout,
        close_timeout=5,
        proxy=None,
    )
