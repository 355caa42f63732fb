"""What a manager says of why something happened: its journal and its log."""

from __future__ import annotations

from tests.acceptance.manager import Manager, wait_until


def started(manager: Manager) -> Manager:
    """Start it and wait until it acts."""
    before = len(manager.events("manager_started")) if manager.starts else 0
    manager.start()
    wait_until(lambda: len(manager.events("manager_started")) > before, 40, "the manager's start")
    return manager


def journal(manager: Manager, stimulus: str) -> list[str]:
    """The reasons of every change with this stimulus, oldest first."""
    found = manager.rows("SELECT reason FROM journal WHERE stimulus = ? ORDER BY seq", stimulus)
    return [row["reason"] for row in found]


def in_state(manager: Manager, *states: str) -> list[str]:
    """The instances in one of these states; none named: all that are not gone."""
    rows = manager.rows("SELECT instance_id, state FROM instances ORDER BY created_at, instance_id")
    return [row["instance_id"] for row in rows if (row["state"] in states if states else row["state"] != "gone")]
