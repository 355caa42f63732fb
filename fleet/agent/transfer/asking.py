"""Asks the manager for fresh signed addresses, over the descriptors that a stage inherits.

Rule: an answer says what it is for, and one for another question (a stage before this one gave up on it) is passed
over. Whoever gets no answer goes without.
"""

from __future__ import annotations

import json
import os
import select
import time

WITHIN_S = 120.0
READ_BYTES = 64 * 1024


class Asker:
    """The questions of one stage."""

    def __init__(self, environment: dict, within_s: float = WITHIN_S) -> None:
        self._ask_end = _number(environment, "FLEET_SIGN_ASK")
        self._answer_end = _number(environment, "FLEET_SIGN_ANSWER")
        self._within_s = within_s
        self._read = b""

    def ask(self, what: dict) -> dict | None:
        """The manager's answer, or None when none comes."""
        if self._ask_end is None or self._answer_end is None:
            return None
        os.write(self._ask_end, json.dumps(what).encode() + b"\n")
        until = time.monotonic() + self._within_s
        while time.monotonic() < until:
            for urls in self._answers(until):
                if isinstance(urls, dict) and urls.get("for") == what:
                    return urls
        return None

    def _answers(self, until: float):
        ready, _, _ = select.select([self._answer_end], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return
        self._read += os.read(self._answer_end, READ_BYTES)
        *lines, self._read = self._read.split(b"\n")
        for line in lines:
            try:
                yield json.loads(line).get("urls")
            except (ValueError, AttributeError):
                continue


def _number(environment: dict, name: str) -> int | None:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        return None
