"""What each runner tells GitLab of itself: terminals only where they are served and built."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from fleet.execution.features import features_of
from fleet.runtime.servers import Servers


class Served:
    """Sessions as they are once the terminal server listens."""

    where = ("ci.example:9252", "PEM")

    def offer(self):
        return {"url": "https://ci.example:9252/session/1"}


@pytest.mark.parametrize(("shell", "has_terminals"), [(None, True), ("bash", True), ("sh", True), ("pwsh", False)])
def test_terminals_are_offered_where_the_shell_has_them(shell: str | None, has_terminals: bool):
    servers = Servers(
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        features=features_of,
        sessions=Served(),
        max_age=timedelta(minutes=15),
    )
    runner = SimpleNamespace(settings=SimpleNamespace(executor="instance", shell=shell, labels={}))
    assert servers.info_of(runner)["features"].get("terminal", False) is has_terminals
    assert bool(servers.session_of(runner)) is has_terminals
