"""`[session_server]`: where GitLab reaches the interactive terminals of running jobs.

Rule: without an address there are none; GitLab Runner writes the table so, with a time-out alone. What is here takes
effect at the start of the manager.
"""

from __future__ import annotations

import urllib.parse

from pydantic import ValidationInfo, field_validator

from fleet.settings.addresses import address
from fleet.settings.section import Section, Text

SESSION_PORT = 8093
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  compared, not bound


class SessionServerTable(Section):
    """`[session_server]`: interactive web terminals of jobs."""

    listen_address: Text = None
    """Where terminals are served, over TLS, as `host:port`, port 8093 when left out; not set: nowhere."""
    advertise_address: Text = None
    """Under which address GitLab reaches that, as `host:port` without a scheme; not set: `listen_address`."""
    session_timeout: int = 1800
    """Seconds that a job whose script has ended waits for an open terminal; 0 or less means 1800. The job's own time
    goes on."""

    @field_validator("listen_address", "advertise_address")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        return None if value is None else address(value, SESSION_PORT)

    @field_validator("session_timeout")
    @classmethod
    def _defaults(cls, value: int, info: ValidationInfo) -> int:
        return int(cls.default_unless_positive(value, info))

    @property
    def advertised(self) -> str | None:
        """The address that GitLab is told; None when there are no terminals, or none that it could reach."""
        found = self.advertise_address or self.listen_address
        if self.listen_address is None or found is None:
            return None
        return None if (urllib.parse.urlsplit(f"//{found}").hostname or "") in EVERYWHERE else found
