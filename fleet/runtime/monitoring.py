"""The pages that monitoring looks at: metrics, health, and GitLab Runner's two pages for debugging.

`/health/live` says that the process answers; `/health/ready` that it takes jobs, and else why not. Rule: nothing here
needs a token and nothing here is a secret.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from fleet.runtime.lists import Query
from fleet.runtime.metrics import CONTENT_TYPE, JOB_LABELS, PROCESS_STATES, Metrics
from fleet.runtime.status import readiness
from fleet.runtime.views import Views

if TYPE_CHECKING:
    from fleet.runtime.app import Manager

TEXT = "text/plain; charset=utf-8"
PAGES = ("/metrics", "/health/live", "/health/ready", "/debug/jobs/list", "/debug/process/state")


class Monitoring:
    """Answers for one manager."""

    def __init__(self, manager: Manager, metrics: Metrics, views: Views) -> None:
        self._manager = manager
        self._metrics = metrics
        self._views = views
        self.rules = Map([Rule(page, endpoint=page, methods=["GET"]) for page in PAGES])
        self._answers = {
            "/metrics": self._metrics_page,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/debug/jobs/list": self._jobs,
            "/debug/process/state": self._state,
        }

    def answer(self, page: str, _request: Request) -> Response:
        """The page; a HEAD is answered like a GET, and the server leaves the body out."""
        return self._answers[page]()

    def _metrics_page(self) -> Response:
        return Response(self._metrics.text(), content_type=CONTENT_TYPE)

    def _live(self) -> Response:
        return Response("alive\n", content_type=TEXT)

    def _ready(self) -> Response:
        reasons = readiness(self._manager)
        if not reasons:
            return Response("ready\n", content_type=TEXT)
        return Response("".join(f"{each.message}\n" for each in reasons), status=503, content_type=TEXT)

    def _state(self) -> Response:
        state = self._manager.state
        return Response(PROCESS_STATES.get(state, state) + "\n", content_type=TEXT)

    def _jobs(self) -> Response:
        """One line a job, as GitLab Runner has them."""
        now = datetime.fromisoformat(self._views.get("status")["at"])
        labels = {state.value: words for state, words in JOB_LABELS.items()}
        lines = []
        for job in self._views.get("jobs", Query(limit=1000))["items"]:
            if job["owner"] != self._manager.me:
                continue
            state, stage = labels[job["state"]]
            seconds = (now - datetime.fromisoformat(job["received_at"]).astimezone(UTC)).total_seconds()
            lines.append(
                f"id={job['gitlab_job_id']} url={job['url']} state={state} stage={stage} executor_stage= "
                f"duration={max(0.0, seconds):.3f}s\n"
            )
        return Response("".join(lines), content_type=TEXT, headers={"X-List-Version": "2"})
