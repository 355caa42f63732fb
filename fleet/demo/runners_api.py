"""The calls a runner makes as itself: register, verify, unregister, reset a token, ask for a job.

Rule: 403 for a token that opens nothing, whatever else is wrong with the call. A held poll gives
its job to nobody when the client has hung up meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

from werkzeug.wrappers import Response

from fleet.demo.call import Call, answer, refusal
from fleet.demo.conduct import info_breaches, system_id_breaches, token_breaches
from fleet.demo.payload import personalise
from fleet.demo.runners import Runner
from fleet.demo.workhorse import session_breaches

FORBIDDEN = "403 Forbidden"
ATTRIBUTES = (
    "description", "maintenance_note", "tag_list", "run_untagged", "locked", "access_level",
    "maximum_timeout", "paused",
)  # fmt: skip


def register(call: Call) -> Response:
    """POST runners: the legacy way, by registration token."""
    body = call.body()
    call.blame(token_breaches("register", call.request, body))
    call.blame(info_breaches("register", body))
    with call.state.lock:
        if body.get("token") != call.state.runners.registration_token:
            return refusal(403, "403 Forbidden - invalid token supplied")
        runner = call.state.runners.create(
            description=str(body.get("description") or ""), legacy=True, paused=bool(body.get("paused"))
        )
        runner.attributes = {key: body[key] for key in ATTRIBUTES if key in body}
        return answer(201, runner.credentials())


def verify(call: Call) -> Response:
    """POST runners/verify: is this token good; also the first word of a manager."""
    body = call.body()
    call.blame(token_breaches("verify", call.request, body))
    call.blame(info_breaches("verify", body))
    call.blame(system_id_breaches("verify", body))
    with call.state.lock:
        runner = call.state.runners.calling(body.get("token"))
        if runner is None:
            return refusal(403, FORBIDDEN)
        _remember(runner, body)
        return answer(200, runner.credentials())


def unregister(call: Call) -> Response:
    """DELETE runners: removes a legacy runner; a `glrt-` runner is GitLab's to delete."""
    body = call.body()
    call.blame(token_breaches("unregister", call.request, body))
    with call.state.lock:
        runner = call.state.runners.calling(body.get("token"))
        if runner is None:
            return refusal(403, FORBIDDEN)
        if not runner.legacy:
            call.blame([("wrong_unregister", "DELETE runners with a glrt- token; use DELETE runners/managers")])
            return refusal(403, FORBIDDEN)
        call.state.runners.delete(runner)
        return answer(204)


def unregister_manager(call: Call) -> Response:
    """DELETE runners/managers: forgets one manager of a `glrt-` runner."""
    body = call.body()
    call.blame(token_breaches("unregister_manager", call.request, body))
    call.blame(system_id_breaches("unregister_manager", body))
    with call.state.lock:
        runner = call.state.runners.calling(body.get("token"))
        if runner is None:
            return refusal(403, FORBIDDEN)
        if runner.managers.pop(str(body.get("system_id")), None) is None:
            return refusal(404, "404 Not Found")
        return answer(204)


def reset_token(call: Call) -> Response:
    """POST runners/reset_authentication_token: the old token buys the new one."""
    body = call.body()
    with call.state.lock:
        runner = call.state.runners.calling(body.get("token"))
        if runner is None:
            return refusal(403, FORBIDDEN)
        call.state.runners.reset(runner)
        credentials = runner.credentials()
        return answer(201, {key: credentials[key] for key in ("token", "token_expires_at")})


def reset_runner_token(call: Call) -> Response:
    """POST runners/<id>/reset_authentication_token: a person's access token buys the new one."""
    if call.request.get_data():
        call.blame([("bad_body", "reset_runner_token: the body must be empty")])
    with call.state.lock:
        if call.request.headers.get("PRIVATE-TOKEN") != call.state.runners.private_token:
            return refusal(401, "401 Unauthorized")
        try:
            runner = call.state.runners.get(call.runner_id or 0)
        except KeyError:
            return refusal(404, "404 Runner Not Found")
        call.state.runners.reset(runner)
        credentials = runner.credentials()
        return answer(201, {key: credentials[key] for key in ("token", "token_expires_at")})


def request_job(call: Call) -> Response:
    """POST jobs/request: a job, or nothing at once, or nothing after holding the poll.

    The header `X-GitLab-Last-Update` comes with every 204, and with a 201 only when the queue holds
    no further job for this runner: else the next poll would be held while jobs wait.
    """
    body = call.body()
    call.blame(token_breaches("request", call.request, body))
    call.blame(info_breaches("request", body))
    call.blame(system_id_breaches("request", body))
    call.blame(session_breaches(body))
    state = call.state
    with state.lock:
        runner = state.runners.calling(body.get("token"))
        if runner is None:
            return refusal(403, FORBIDDEN)
        _remember(runner, body)
        call.peer.system_id = str(body.get("system_id"))
        _hold(call, runner, body.get("last_update"))
        if not runner.may_call:
            return refusal(403, FORBIDDEN)
        if runner.paused or state.stopping.is_set():
            return answer(204, headers={"X-GitLab-Last-Update": runner.last_update})
        info = body.get("info")
        features = info.get("features") if isinstance(info, dict) else None
        taken = state.take(
            runner,
            str(body.get("system_id")),
            features if isinstance(features, dict) else {},
            still_there=call.peer.is_there,
        )
        if taken is None:
            return answer(204, headers={"X-GitLab-Last-Update": runner.last_update})
        job, attempt = taken
        attempt.session = body.get("session")
        call.job_id = job.id
        more = state.holds_a_job_for(runner)
        headers = {} if more else {"X-GitLab-Last-Update": runner.last_update}
    # a payload may be 10 MB: written without the lock
    payload = personalise(job.payload, job_id=job.id, token=attempt.token, server_url=state.url)
    return answer(201, payload, headers)


def _hold(call: Call, runner: Runner, last_update: object) -> None:
    """Wait while the queue is as the client saw it last; the condition gives the lock away."""
    state = call.state
    by = call.started + state.knobs.hold_s
    while (
        last_update == runner.last_update
        and runner.may_call
        and not state.stopping.is_set()
        and (left := by - time.monotonic()) > 0
    ):
        state.queued.wait(left)


def _remember(runner: Runner, body: dict[str, Any]) -> None:
    runner.managers[str(body.get("system_id"))] = {"info": body.get("info"), "contacted_at": time.time()}
