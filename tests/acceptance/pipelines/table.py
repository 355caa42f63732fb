"""`python -m tests.acceptance.pipelines.table` draws docs/reference/gitlab-runner-compatibility.md."""

from __future__ import annotations

import collections
import pathlib
import sys

from tests.acceptance.pipelines.case import BOTH, SECTIONS, Case
from tests.acceptance.pipelines.every import CASES, RUN_ON

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "reference" / "gitlab-runner-compatibility.md"
HEAD = """\
# Compatibility with GitLab Runner

Drawn from the conformance pipeline (`tests/acceptance/pipelines`): each row is a behaviour of GitLab Runner, and each
`yes` is a job, or a test, that shows it through the real program at every run of the tests. `not yet` and `differs`
tell why; `-` means that the behaviour is not one of that executor. What holds for `docker-autoscaler` holds for the
other executors with containers, `docker` and `docker-ssh`; what holds for `instance` holds for `shell` and `ssh`.
"""


def page() -> str:
    """The page."""
    parts = [HEAD, _counts(), ""]
    for section, title in SECTIONS.items():
        rows = [each for each in CASES if each.section == section]
        if rows:
            parts += [f"## {title}", "", *_table(rows), ""]
    return "\n".join(parts).rstrip() + "\n"


def counts(executor: str) -> collections.Counter[str]:
    """How many rows have which status."""
    words = (_status(each, executor).partition(":")[0] for each in CASES)
    return collections.Counter(word for word in words if word != "-")


def _status(each: Case, executor: str) -> str:
    said = each.status(executor)
    return "not yet: the executor is not built" if executor not in RUN_ON and said != "-" else said


def _counts() -> str:
    lines = ["| executor | yes | differs | not yet |", "| --- | --- | --- | --- |"]
    for executor in BOTH:
        told = counts(executor)
        lines.append(f"| `{executor}` | {told['yes']} | {told['differs']} | {told['not yet']} |")
    return "\n".join(lines)


def _table(rows: list[Case]) -> list[str]:
    head = ["| behaviour | " + " | ".join(f"`{each}`" for each in BOTH) + " |", "| --- |" + " --- |" * len(BOTH)]
    return head + [
        f"| {each.title} | " + " | ".join(_status(each, executor) for executor in BOTH) + " |" for each in rows
    ]


def main() -> None:
    """Print it."""
    sys.stdout.write(page())


if __name__ == "__main__":
    main()
