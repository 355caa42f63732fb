"""Word from the manager to a supervisor: cancel and abort, and the signals that tell the supervisor itself to end.

Rule: what was said stays said; an abort is never taken back by a cancel. The file is written by `serve`, atomically,
then the supervisor is woken.
"""

from __future__ import annotations

import os

from .errors import Refused
from .home import read_json, write_json
from .leases import Lease
from .wakes import knock

CANCEL, ABORT = "cancel", "abort"


class Control:
    """The supervisor's end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._also = []
        self.is_canceled = False
        self.abort_reason = None
        self._signal = None

    def on_read(self, run) -> None:
        """Call this too when there may be word."""
        self._also.append(run)

    def read(self) -> None:
        """Look for word."""
        said = read_json(self._path)
        self.is_canceled = self.is_canceled or bool(said)
        if said.get("do") == ABORT and self.abort_reason is None:
            self.abort_reason = str(said.get("reason") or "")
        for run in self._also:
            run()

    def be_told_to_end(self, number: int, _frame: object) -> None:
        """A signal handler: the machine is going, or somebody kills the supervisor."""
        self._signal = number
        if self.abort_reason is None:
            self.abort_reason = "runner_system_failure"

    def result(self) -> dict | None:
        """The result when a signal ended the job."""
        if self._signal is None:
            return None
        return {
            "outcome": "failed",
            "reason": "runner_system_failure",
            "exit_code": 0,
            "message": "the job's supervisor was told to end by signal %d" % self._signal,
            "stage": None,
        }


def command(lease: Lease, do: str, reason: str | None) -> None:
    """As `serve`: leave word for a supervisor and wake it."""
    if not os.path.isdir(lease.folder):
        raise Refused("unknown_lease", "lease %s is not known on this machine" % lease.name)
    if read_json(lease.control).get("do") != ABORT:
        write_json(lease.control, {"do": do, "reason": reason})
    wake(lease)


def wake(lease: Lease) -> None:
    """As `serve`: let a supervisor look for word."""
    knock(lease.wake, "look")
