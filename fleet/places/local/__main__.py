"""`python -m fleet.places.local --dir D --alive-fd N`: be a local machine (see `fleet.places.local.machine`)."""

from __future__ import annotations

import importlib
import sys

# paramiko imports invoke for one feature of ssh_config and goes on without it; it is a third of a machine's start.
sys.modules["invoke"] = None  # type: ignore[assignment]

importlib.import_module("fleet.places.local.machine").main()
