"""The JSON API: everything `fleetctl` asks and orders of a running manager, under `/api/v1`.

Rule: with `[fleet] api_token` set every call needs `Authorization: Bearer`. Without one only this host can call, and a
web page that a person on this host has open may not: calls that name another host, or come from a page, are refused.
Errors are `{"error": {"slug", "message"}}`. What an order changes is rows; the rooms act on them.
"""

from __future__ import annotations

import hmac
import json
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from fleet.runtime import orders
from fleet.runtime.attaching import Attaching
from fleet.runtime.contract import CONFIGURATION, PREFIX, USUAL
from fleet.runtime.lists import BadQuery, Query
from fleet.runtime.views import Views
from fleet.sdk import FleetError
from fleet.settings.addresses import is_loopback

if TYPE_CHECKING:
    from fleet.runtime.app import Manager
    from fleet.runtime.reloading import Reloader

log = structlog.get_logger(__name__)
STATUS = {
    "not_found": 404,
    "bad_query": 400,
    "refused": 409,
    "unauthorized": 401,
    "forbidden": 403,
    "store_unavailable": 503,
    "config_not_loaded": 422,
    "upgrade_needed": 426,
    "no_terminal": 409,
}
FILTERS = ("pool", "state", "runner", "kind", "about")
# path -> (method, what it does)
PATHS = {
    "/status": ("GET", "The manager, its pools, jobs by state, cool-downs."),
    "/pools": ("GET", "The pools with their instances by state and their slots."),
    "/instances": ("GET", "Instances, oldest first; `pool`, `state` (a state, or `all` with those that are gone)."),
    "/jobs": (
        "GET",
        "Open jobs, oldest first; `pool`, `runner`, `state` (a state; `all`: then those that have ended).",
    ),
    "/jobs/<path:name>/log": (
        "GET",
        "The log of an open job as it grows, from `offset` on, until the job has ended: an upgrade, see below.",
    ),
    "/jobs/<path:name>/shell": (
        "GET",
        "A shell beside a running job, on a terminal of `rows`, `cols` and kind `term`: an upgrade, see below.",
    ),
    "/runners": ("GET", "The runners, with their open jobs by state."),
    "/managers": ("GET", "The managers that share the store."),
    "/placements": ("GET", "Where machines are made, and what is cooling down; `pool`."),
    "/plan": ("GET", "The last plan of each pool, with reasons; `pool`."),
    "/journal": ("GET", "The journal, newest first; `kind`, `pool`, `about` (a job, an instance)."),
    "/explain/<path:name>": ("GET", "Why a job waits, what became of a machine, as sentences and as a story."),
    "/instances/<path:name>/drain": ("POST", "No more jobs for this instance."),
    "/instances/<path:name>/undrain": ("POST", "Jobs again for this instance."),
    "/instances/<path:name>/remove": ("POST", "Delete its machine; `force=true` also when it runs jobs."),
    "/sweeping": ("POST", "`on=true` or `on=false`: whether machines that no row knows are deleted."),
    "/reload": ("POST", "Read the configuration again."),
}


class Unauthorized(FleetError):
    """The token is missing or wrong."""

    slug = "unauthorized"


class CallForbidden(FleetError):
    """Who calls may not."""

    slug = "forbidden"


class ConfigNotLoaded(FleetError):
    """The file as it is cannot be used."""

    slug = "config_not_loaded"


class Api:
    """Answers for one manager."""

    def __init__(self, manager: Manager, views: Views, reloader: Reloader | None = None) -> None:
        self._manager = manager
        self._views = views
        self._reloader = reloader
        self.rules = Map([Rule(f"{PREFIX}{path}", endpoint=path, methods=[each[0]]) for path, each in PATHS.items()])
        attaching = Attaching(manager)
        self._upgrades: dict[str, Callable[[Request, str], Response]] = {
            "/jobs/<path:name>/log": attaching.log,
            "/jobs/<path:name>/shell": attaching.shell,
        }
        self._orders: dict[str, Callable[[Request, str], Any]] = {
            "/instances/<path:name>/drain": self._drain,
            "/instances/<path:name>/undrain": self._undrain,
            "/instances/<path:name>/remove": self._remove,
            "/sweeping": self._sweeping,
            "/reload": self._reload,
        }

    def answer(self, path: str, request: Request, name: str = "") -> Response:
        """Answer a call."""
        try:
            self._admit(request)
            if path in self._upgrades:
                return self._upgrades[path](request, name)
            response = as_json(self._told(path, request, name))
        except FleetError as exc:
            response = error_of(exc)
        # so that fleetctl with another configuration sees that this is not its manager
        response.headers[CONFIGURATION] = urllib.parse.quote(self._manager.settings.path)
        return response

    def _told(self, path: str, request: Request, name: str) -> Any:
        if path in self._orders:
            return self._orders[path](request, name)
        if path.startswith("/explain"):
            return self._views.explain(name)
        return self._views.get(path.removeprefix("/"), _query(request))

    def _admit(self, request: Request) -> None:
        token = self._manager.settings.fleet.api_token
        if token is not None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode()):
                raise Unauthorized("the call needs the header Authorization: Bearer with [fleet] api_token")
        elif not is_loopback(request.host) or "Origin" in request.headers:
            # a page in a browser on this host can send calls here, under a name of its own that leads to 127.0.0.1
            raise CallForbidden("without [fleet] api_token only programs on this host may call, as 127.0.0.1")

    def _drain(self, _request: Request, name: str) -> Any:
        return self._ordered(self._manager.store.write(lambda tx: orders.drain(tx, name)), "drain")

    def _undrain(self, _request: Request, name: str) -> Any:
        return self._ordered(self._manager.store.write(lambda tx: orders.undrain(tx, name)), "undrain")

    def _remove(self, request: Request, name: str) -> Any:
        force = _flag(request, "force", default=False)
        return self._ordered(self._manager.store.write(lambda tx: orders.remove(tx, name, force=force)), "remove")

    def _ordered(self, done: orders.Done, order: str) -> Any:
        log.info("order_taken", order=order, instance=done.instance_id)
        self._manager.hints("plan", "execute", "reap")
        return {"instance_id": done.instance_id, "message": done.message}

    def _sweeping(self, request: Request, _name: str) -> Any:
        on = _flag(request, "on")
        log.info("order_taken", order="sweeping", on=on)
        return {"on": on, "message": self._manager.store.write(lambda tx: orders.sweep(tx, on=on))}

    def _reload(self, _request: Request, _name: str) -> Any:
        if self._reloader is None:
            raise ConfigNotLoaded("this manager has no file to read again")
        if self._reloader.look(forced=True):
            return {"message": f"{self._manager.settings.path} is in force"}
        raise ConfigNotLoaded(f"the old configuration stays in force: {self._reloader.problem or 'nothing changed'}")


def as_json(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(
        json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n",
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def error_of(error: FleetError) -> Response:
    """An error as the API says it."""
    status = STATUS.get(error.slug, 500)
    return as_json({"error": {"slug": error.slug, "message": str(error)}}, status)


def _query(request: Request) -> Query:
    text = request.args.get("limit", str(USUAL))
    if not text.isdecimal() or int(text) < 1:
        raise BadQuery(f"limit={text} is no number above 0")
    wanted = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    return Query(limit=int(text), after=request.args.get("after", ""), wanted=wanted)


def _flag(request: Request, name: str, *, default: bool | None = None) -> bool:
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    if text not in {"true", "false"}:
        raise BadQuery(f"{name} must be true or false")
    return text == "true"
