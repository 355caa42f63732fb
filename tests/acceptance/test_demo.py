"""`fleetctl up --demo` runs its pipeline to the end and leaves nothing behind."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys


def test_the_demonstration_ends_well_and_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fleet.cli.main", "up", "--demo"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The pipeline passed" in done.stdout
    assert "To run jobs of your own GitLab" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert [pid for pid in pathlib.Path("/proc").glob("[0-9]*") if _mentions(pid, tmp_path)] == []


def _mentions(process: pathlib.Path, directory: pathlib.Path) -> bool:
    try:
        return str(directory).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
