"""What both ends of the API agree on; light, so that a command that only asks loads nothing of the manager."""

from __future__ import annotations

PREFIX = "/api/v1"
CONFIGURATION = "X-Fleet-Configuration"  # a header of each answer: the file of the manager that gave it
ADDRESS_FILE = "api.address"  # in the state directory: where the API really listens
MOST = 1000  # items on a page
USUAL = 200
