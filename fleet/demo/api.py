"""The WSGI application: which handler serves a path, and what faults do to it on the way.

Rule: a fault is looked up before the work; what it does to an answer is done after the work, and a
client whose answer was spoilt is forgiven what it cannot know.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from fleet.demo import artifacts_api, jobs_api, runners_api
from fleet.demo.call import Call, DroppedError, Peer, answer, refusal
from fleet.demo.conduct import form_breaches
from fleet.demo.faults import WITHOUT_WORK, Fault, FaultKind
from fleet.demo.githost import GitHost
from fleet.demo.state import State

PEER = "fleet.demo.peer"
API = "/api/v4"
ROUTES = Map(
    [
        Rule(f"{API}/runners", methods=["POST"], endpoint="register"),
        Rule(f"{API}/runners/verify", methods=["POST"], endpoint="verify"),
        Rule(f"{API}/runners", methods=["DELETE"], endpoint="unregister"),
        Rule(f"{API}/runners/managers", methods=["DELETE"], endpoint="unregister_manager"),
        Rule(f"{API}/runners/reset_authentication_token", methods=["POST"], endpoint="reset_token"),
        Rule(
            f"{API}/runners/<int:runner_id>/reset_authentication_token",
            methods=["POST"],
            endpoint="reset_runner_token",
        ),
        Rule(f"{API}/jobs/request", methods=["POST"], endpoint="request"),
        Rule(f"{API}/jobs/<int:job_id>", methods=["PUT"], endpoint="update"),
        Rule(f"{API}/jobs/<int:job_id>/trace", methods=["PATCH"], endpoint="trace"),
        Rule(f"{API}/jobs/<int:job_id>/artifacts", methods=["POST"], endpoint="artifact_upload"),
        Rule(f"{API}/jobs/<int:job_id>/artifacts", methods=["GET"], endpoint="artifact_download"),
        Rule("/<path:repository>.git/<path:rest>", endpoint="git"),
        Rule("/_control/<verb>", methods=["POST"], endpoint="control"),
    ],
    strict_slashes=True,
    merge_slashes=False,
)
HANDLERS: dict[str, Callable[[Call], Response]] = {
    "register": runners_api.register,
    "verify": runners_api.verify,
    "unregister": runners_api.unregister,
    "unregister_manager": runners_api.unregister_manager,
    "reset_token": runners_api.reset_token,
    "reset_runner_token": runners_api.reset_runner_token,
    "request": runners_api.request_job,
    "trace": jobs_api.append_trace,
    "artifact_upload": artifacts_api.upload,
    "artifact_download": artifacts_api.download,
}
SUCCESS = {
    "register": 201, "verify": 200, "unregister": 204, "unregister_manager": 204, "reset_token": 201,
    "reset_runner_token": 201, "request": 201, "update": 200, "trace": 202, "git": 200,
    "artifact_upload": 201, "artifact_download": 200,
}  # fmt: skip
PAGE = "<!DOCTYPE html><html><head><title>GitLab</title></head><body>Something else answered.</body></html>"
UNHEARD_OF = {"unheard_of": {"list": [1, None, {}], "text": "from a later GitLab"}, "zz_flag": True}

StartResponse = Callable[..., Any]
Control = Callable[[str, dict[str, Any]], Any]


class Application:
    """Serves the API, the repositories and the control calls of one `State`."""

    def __init__(self, state: State, git: GitHost, control: Control) -> None:
        self._state = state
        self._git = git
        self._control = control

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI; a dropped answer resets the connection through the peer."""
        started = time.monotonic()
        request = Request(environ)
        try:
            response = self._serve(request, environ[PEER], started)
        except (DroppedError, ClientDisconnected):
            environ[PEER].reset = True
            raise ConnectionResetError(errno.ECONNRESET, "dropped on purpose") from None
        return response(environ, start_response)

    def _serve(self, request: Request, peer: Peer, started: float) -> Response:
        endpoint, arguments = self._route(request)
        if endpoint == "control":
            return self._serve_control(request, arguments["verb"])
        if self._state.in_outage():
            self._note_attempt(arguments.get("job_id"))
            raise DroppedError
        call = Call(
            state=self._state,
            request=request,
            endpoint=endpoint,
            started=started,
            peer=peer,
            job_id=arguments.get("job_id"),
            runner_id=arguments.get("runner_id"),
        )
        if endpoint == "unknown":
            call.blame([("unknown_path", f"{request.method} {request.path}")])
            return refusal(404, "404 Not Found")
        return self._serve_call(call, arguments)

    def _route(self, request: Request) -> tuple[str, dict[str, Any]]:
        try:
            endpoint, arguments = ROUTES.bind_to_environ(request.environ).match()
        except (NotFound, MethodNotAllowed):
            return "unknown", {}
        return str(endpoint), dict(arguments)

    def _note_attempt(self, job_id: int | None) -> None:
        """A call that the outage refused may have been the acknowledgement; its client may go on without."""
        with self._state.lock:
            job = self._state.jobs.get(job_id or 0)
            if job is not None and job.attempt is not None:
                job.attempt.ack_was_tried = True

    def _serve_call(self, call: Call, arguments: dict[str, Any]) -> Response:
        body: dict[str, Any] = {}
        names = frozenset({call.endpoint})
        if call.endpoint == "update":
            body = call.body()
            names = jobs_api.names_of_update(call, body)
        fault = self._state.faults.take(names, call.job_id)
        if fault is not None and fault.kind in WITHOUT_WORK:
            return self._refuse(call, fault)
        if fault is not None and fault.kind is FaultKind.DELAY:
            self._state.stopping.wait(fault.seconds)
        if call.endpoint == "git":
            response = self._git.serve(call.request, arguments["repository"], arguments["rest"])
        else:
            call.blame(form_breaches(call.endpoint, call.request))
            response = jobs_api.update_job(call, body) if call.endpoint == "update" else HANDLERS[call.endpoint](call)
        return response if fault is None else self._spoil(call, fault, response)

    def _refuse(self, call: Call, fault: Fault) -> Response:
        if fault.kind is FaultKind.RESET_BODY:
            length = call.request.content_length or 0
            call.request.stream.read(length // 2 or 1)
            raise DroppedError
        # what the client sent is read, or the next request on this connection begins in its middle
        while call.request.stream.read(1 << 18):
            pass
        status = fault.status or SUCCESS[call.endpoint]
        if fault.kind is FaultKind.HTML:
            return Response(PAGE, status=status, content_type="text/html; charset=utf-8", headers=fault.headers)
        return refusal(status, f"{status} on purpose", fault.headers)

    def _spoil(self, call: Call, fault: Fault, response: Response) -> Response:
        if fault.kind is FaultKind.EXTRA_FIELDS:
            if not response.get_data():
                return response
            headers = {key: value for key, value in response.headers if key.startswith("X-")}
            return answer(response.status_code, _with_unheard_of(response.json), headers)
        self._forgive(call)
        if fault.kind is FaultKind.LOST_ANSWER:
            raise DroppedError
        if fault.kind is FaultKind.TRUNCATED_JSON:
            text = response.get_data()
            response.set_data(text[: len(text) // 2])
        elif fault.kind is FaultKind.CONTENT_TYPE:
            response.content_type = "text/html"
        return response

    def _forgive(self, call: Call) -> None:
        with self._state.lock:
            job = self._state.jobs.get(call.job_id or 0)
            if job is not None:
                job.forgive()
                job.may_not_know_size = True

    def _serve_control(self, request: Request, verb: str) -> Response:
        try:
            return answer(200, {"result": self._control(verb, json.loads(request.get_data() or b"{}"))})
        except (LookupError, ValueError, TypeError, HTTPException) as wrong:
            return answer(400, {"error": f"{verb}: {type(wrong).__name__}: {wrong}"})


def _with_unheard_of(body: object) -> object:
    """Unknown fields at the top and in every object of a payload."""
    if isinstance(body, dict):
        return {key: _with_unheard_of(value) for key, value in body.items()} | UNHEARD_OF
    if isinstance(body, list):
        return [_with_unheard_of(item) for item in body]
    return body
