"""Whom the commands ask: the running manager over its API, or, when none runs, the store itself.

Rule: the manager is asked first, for it knows more than its rows. Only when nobody listens there is the store opened;
that is said on standard error, and nothing in the database is upgraded by looking.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import pathlib
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fleet.cli.exits import Failed, Unreachable
from fleet.cli.files import settings_for
from fleet.cli.invocation import Invocation
from fleet.cli.printing import note
from fleet.runtime.attach_frames import PROTOCOL, SIZE, pack
from fleet.runtime.contract import ADDRESS_FILE, CONFIGURATION, MOST, PREFIX
from fleet.settings.settings import Settings

PATIENCE_S = 20.0
FIRST_WORD_S = 5.0  # who listens and says nothing is no manager that could be asked
Answer = dict[str, Any]


class Source(Protocol):
    """Somebody who can be asked."""

    def get(self, what: str, **wanted: str | None) -> Answer:
        """One page of an answer."""
        ...

    def explain(self, name: str) -> Answer:
        """Everything about one thing."""
        ...

    def order(self, order: str, name: str = "", **how: bool) -> Answer:
        """Order something: drain, undrain, remove, sweeping, reload."""
        ...


def every_item(source: Source, what: str, most: int | None = None, **wanted: str | None) -> list[Answer]:
    """The items of an answer, page after page."""
    found: list[Answer] = []
    after: str | None = None
    while most is None or len(found) < most:
        limit = MOST if most is None else min(MOST, most - len(found))
        page = source.get(what, limit=str(limit), after=after, **wanted)
        found += page["items"]
        after = page["next"]
        if after is None:
            break
    return found


@contextlib.contextmanager
def source(asked: Invocation) -> Iterator[Source]:
    """Whom to ask, for the time of a command."""
    settings = settings_for(asked)
    manager = _manager(settings)
    if manager is not None:
        yield manager
        return
    note(f"no manager of {settings.path} answers: this is what its database says")
    offline: Any = importlib.import_module("fleet.cli.offline")  # a database is slow to load, and seldom needed
    with offline.opened_store(settings) as store:
        yield offline.Offline(store)


def running_manager(settings: Settings, *, quiet: bool = False) -> Manager | None:
    """The manager of this configuration, for what a database cannot do; None when none answers."""
    return _manager(settings, quiet=quiet)


def is_running(settings: Settings) -> bool:
    """Whether a manager of this configuration answers."""
    return _manager(settings) is not None


def _manager(settings: Settings, *, quiet: bool = False) -> Manager | None:
    """The manager of this configuration; None when it does not run."""
    addresses = [settings.fleet.api_listen]
    with contextlib.suppress(OSError):
        noted = pathlib.Path(settings.fleet.state_dir, ADDRESS_FILE).read_text(encoding="ascii").strip()
        addresses.insert(0, noted.removeprefix("http://"))
    token = settings.fleet.api_token
    for address in dict.fromkeys(addresses):
        manager = Manager(address, None if token is None else token.get_secret_value())
        try:
            theirs = manager.configuration()
        except OSError:
            continue
        if theirs is not None and os.path.realpath(theirs) == os.path.realpath(settings.path):
            return manager
        who = "no manager of this version" if theirs is None else f"the manager of {theirs}"
        if not quiet:
            note(f"{who} listens on {address}, and it is not asked")
    return None


class Manager:
    """A running manager."""

    def __init__(self, address: str, token: str | None) -> None:
        parts = urllib.parse.urlsplit(f"//{address}")
        self._host = _reachable(parts.hostname or "127.0.0.1")
        self._port = parts.port or 0
        self._headers = {"Accept": "application/json", "Host": f"{self._host}:{self._port}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def configuration(self) -> str | None:
        """The file of the manager that listens; None when it is none of ours."""
        _, headers, _ = self._call("GET", "/managers", FIRST_WORD_S)
        found = headers.get(CONFIGURATION)
        return None if found is None else urllib.parse.unquote(found)

    def get(self, what: str, **wanted: str | None) -> Answer:
        """One page of an answer."""
        return self._answer("GET", f"/{what}", wanted)

    def explain(self, name: str) -> Answer:
        """Everything about one thing."""
        return self._answer("GET", f"/explain/{urllib.parse.quote(name, safe='/')}", {})

    def order(self, order: str, name: str = "", **how: bool) -> Answer:
        """Order something."""
        path = f"/instances/{urllib.parse.quote(name, safe='')}/{order}" if name else f"/{order}"
        return self._answer("POST", path, {key: str(value).lower() for key, value in how.items()})

    def upgrade(self, path: str, **wanted: str) -> socket.socket:
        """A connection that speaks `fleet.runtime.attach_frames`.

        Raises:
            ConnectionError: nobody listens.
            Failed, Unreachable: the manager says no, and why.
        """
        where = f"{PREFIX}{urllib.parse.quote(path)}?{urllib.parse.urlencode(wanted)}"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE_S)
        try:
            connection.request("GET", where, headers={**self._headers, "Connection": "Upgrade", "Upgrade": PROTOCOL})
            response = connection.getresponse()
            if response.status == http.HTTPStatus.SWITCHING_PROTOCOLS and connection.sock is not None:
                upgraded = connection.sock.dup()
                upgraded.settimeout(None)
                upgraded.sendall(pack(SIZE, b"{}"))  # the manager waits for it, so that its answer ends where it ends
                return upgraded
            self._refuse(response.status, json.loads(response.read()))
        except http.client.HTTPException as exc:
            raise ConnectionError(f"it does not speak HTTP as we do: {exc}") from exc
        except (TimeoutError, ValueError) as exc:
            raise Unreachable(f"the manager on {self._host}:{self._port} gave no answer: {exc}") from exc
        finally:
            connection.close()
        raise Unreachable(f"the manager on {self._host}:{self._port} did not upgrade the call")

    def _refuse(self, status: int, answer: Answer) -> None:
        if status >= 400:
            message = answer["error"]["message"]
            raise Unreachable(message) if status in {401, 403, 503} else Failed(message)

    def _answer(self, method: str, path: str, wanted: Mapping[str, str | None]) -> Answer:
        given = {key: value for key, value in wanted.items() if value is not None}
        where = f"{path}?{urllib.parse.urlencode(given)}" if given else path
        try:
            status, _, body = self._call(method, where)
            answer = json.loads(body)
        except (OSError, ValueError) as exc:
            raise Unreachable(f"the manager on {self._host}:{self._port} gave no answer: {exc}") from exc
        self._refuse(status, answer)
        return dict(answer)

    def _call(self, method: str, path: str, patience_s: float = PATIENCE_S) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=patience_s)
        try:
            connection.request(method, f"{PREFIX}{path}", headers=self._headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        except http.client.HTTPException as exc:
            raise OSError(f"it does not speak HTTP as we do: {exc}") from exc
        finally:
            connection.close()


def _reachable(host: str) -> str:
    """Where to call a server that listens everywhere."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
