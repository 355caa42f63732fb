"""Draws `docs/reference/metrics.md` and `docs/reference/api.md` from the code, so that neither page can be wrong.

`python -m fleet.runtime.reference metrics > docs/reference/metrics.md` draws one anew, `api` the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from fleet.runtime.api import FILTERS, PATHS, STATUS
from fleet.runtime.contract import MOST, PREFIX, USUAL
from fleet.runtime.families import FAMILIES
from fleet.runtime.meters import Meters
from fleet.runtime.monitoring import PAGES

METRICS_HEAD = """\
# Metrics

<!-- Drawn from fleet/runtime by `fleet.runtime.reference.metrics_page`; a test keeps the two equal. -->

`/metrics` is served on `listen_address`, open as GitLab Runner's is, and on `[fleet] api_listen`. Names of GitLab
Runner, fleeting and taskscaler mean what they mean there, so that dashboards made for them work; series are there with
0 from the start.

`runner` is the short token, `runner_name` the entry's name, `system_id` this manager. A pool that several runners
share is shown under the first of them; our own label `pool` tells pools apart. Jobs are shown by the manager that owns
them, and machines and slots by the one that owns their pool, so a sum over managers that share a database is right.
"""
API_HEAD = """\
# HTTP

<!-- Drawn from fleet/runtime by `fleet.runtime.reference.api_page`; a test keeps the two equal. -->

Two listeners: `listen_address` serves the pages for monitoring, without a token; `[fleet] api_listen` (loopback unless
changed) serves them and the API.

## Pages for monitoring

| page | what |
| --- | --- |
"""
PAGE_TEXTS = {
    "/metrics": "[metrics](metrics.md) in Prometheus' text form",
    "/health/live": "200 while the process answers",
    "/health/ready": (
        "200 while jobs are taken; else 503 and a line for each reason: starting, draining, aborting, a database that "
        "takes no write, claims that have run out, too little free disk"
    ),
    "/debug/jobs/list": "one line for each open job of this manager, with `X-List-Version: 2`",
    "/debug/process/state": "`starting`, `running`, `graceful-shutdown` or `forceful-shutdown`",
}
API_RULES = f"""
## The API

With `[fleet] api_token` set each call needs the header `Authorization: Bearer TOKEN`. Without one only programs on this
host may call: a call that names another host, or has the header `Origin` of a web page, is refused.

Lists are `{{"items": [...], "next": ...}}`. `limit` is {USUAL} unless given and {MOST} at most; `after` is the `next`
of the page before, and `next` is null on the last page. Rows that come and go between two pages disturb neither. Lists
can be narrowed by {", ".join(f"`{each}`" for each in FILTERS)} where the table says so. Instants are ISO 8601 in UTC.

`log` and `shell` need the headers `Connection: Upgrade` and `Upgrade: fleet-attach`; after `101` both sides send
frames of a kind (one byte), a length (32 bits, big-endian) and that many bytes, at most 1 MiB: `d` bytes of the log or
of the terminal, both ways; `s` from the caller, the size of its terminal as `{{"rows": N, "cols": N}}`; `n` from the
manager, a sentence for a person; `e` from the manager, how it ended: `state`, `failure_reason`, `exit_code`, `message`.
The caller begins, with a frame `s` that may hold `{{}}`.

An error is `{{"error": {{"slug": ..., "message": ...}}}}`:

| slug | status |
| --- | --- |
{chr(10).join(f"| `{slug}` | {status} |" for slug, status in STATUS.items())}
| `method_not_allowed` | 405 |
| any other | 500 or 503 |

| call | what |
| --- | --- |
"""


def metrics_page() -> str:
    """The page of metrics."""
    groups: dict[str, list[str]] = {"GitLab Runner's": [], "fleeting's and taskscaler's": [], "Ours": []}
    for name, kind, labels, about in sorted([*_counted(), *_read()]):
        group = next((g for g, p in (("GitLab Runner's", "gitlab_"), ("Ours", "fleet_")) if name.startswith(p)), None)
        shown = ", ".join(f"`{label}`" for label in labels)
        groups[group or "fleeting's and taskscaler's"].append(f"| `{name}` | {kind} | {shown} | {about} |")
    parts = [METRICS_HEAD]
    for title, lines in groups.items():
        parts.append(
            "\n".join([f"## {title}", "", "| name | kind | labels | what |", "| --- | --- | --- | --- |", *lines])
        )
        parts.append("")
    parts.append("Beside them stand the usual `process_*` and `python_*` series of a Python process.\n")
    return "\n".join(parts)


def _counted() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for each in vars(Meters("")).values():
        if isinstance(each, MetricWrapperBase):
            name = f"{each._name}_total" if isinstance(each, Counter) else each._name
            kind = type(each).__name__.lower()
            yield name, kind, tuple(each._labelnames), each._documentation


def _read() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for name, family in FAMILIES.items():
        yield name, family.kind, family.labels, family.about


def api_page() -> str:
    """The page of HTTP."""
    pages = "\n".join(f"| `GET {page}` | {PAGE_TEXTS[page]} |" for page in PAGES)
    calls = "\n".join(
        f"| `{method} {PREFIX}{path.replace('<path:name>', 'NAME')}` | {about} |"
        for path, (method, about) in PATHS.items()
    )
    return f"{API_HEAD}{pages}\n{API_RULES}{calls}\n"


if __name__ == "__main__":
    sys.stdout.write(api_page() if sys.argv[1:] == ["api"] else metrics_page())
