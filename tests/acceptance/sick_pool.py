"""A pool of the outside plugin `sick` for a manager, and the orders that make its cloud ill."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

from tests.acceptance.manager import Manager
from tests.acceptance.reasons import started

PLUGIN = pathlib.Path(__file__).with_name("sick_cloud.py")
POOL = """
  [runners.autoscaler]
  plugin = "sick"
  max_instances = {machines}
  update_interval = "1s"
  update_interval_when_expecting = "500ms"
  {pool_keys}
  [runners.autoscaler.plugin_config]
  orders = "{orders}"
  {plugin_keys}
  [runners.autoscaler.fleet]
  {fleet_keys}
  [[runners.autoscaler.policy]]
  idle_count = {idle}
  idle_time = "{idle_time}"
  {tables}
"""


class SickPool:
    """The plugin in a directory of its own, and the file with the orders for one pool."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "plugin"
        self.orders = directory / "orders.json"
        info = self.path / "fleet_sick-1.0.dist-info"
        info.mkdir(parents=True)
        shutil.copy(PLUGIN, self.path / "fleet_sick.py")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fleet-sick\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[fleet.providers]\nsick = fleet_sick\n")

    def pool(
        self,
        *,
        machines: int = 3,
        idle: int = 0,
        idle_time: str = "30s",
        pool_keys: str = "",
        plugin_keys: str = "",
        fleet_keys: str = "",
        tables: str = "",
    ) -> str:
        """The table for `Manager(pool=...)`."""
        return POOL.format(
            machines=machines,
            idle=idle,
            idle_time=idle_time,
            pool_keys=pool_keys,
            plugin_keys=plugin_keys,
            fleet_keys=fleet_keys,
            tables=tables,
            orders=self.orders,
        )

    def started(self, manager: Manager) -> Manager:
        """Start a manager that finds the plugin."""
        before = os.environ.get("PYTHONPATH")
        manager.environment["PYTHONPATH"] = f"{self.path}{os.pathsep}{before}" if before else str(self.path)
        return started(manager)

    def order(self, *illnesses: tuple[str, dict[str, Any]]) -> None:
        """From the next call on the cloud has these illnesses; none: it is well."""
        part = self.orders.with_suffix(".part")
        part.write_text(json.dumps(illnesses))
        part.replace(self.orders)

    def calls(self, call: str, how: str | None = None) -> list[dict[str, Any]]:
        """What was asked of the cloud; of calls that have ended only those that ended so."""
        try:
            lines = self.orders.with_suffix(".calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines]
        return [each for each in found if each["call"] == call and (how is None or each["how"] == how)]
