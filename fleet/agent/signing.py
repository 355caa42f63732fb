"""Fresh signed URLs for transfers that a stage makes: the stage asks, the manager answers.

A stage that transfers inherits two descriptors. On FLEET_SIGN_ASK it writes one JSON object a line, on
FLEET_SIGN_ANSWER it reads one line for each: `{"sign": N, "urls": ...}`. Rule: descriptors, not paths: no other
process of the user can listen. Between the supervisor and `serve` a question is a file `signs/N.ask` and an answer
`signs/N.answer`.
"""

from __future__ import annotations

import json
import os

from .home import discard, read_json, write, write_json
from .leases import Lease

LINE_LIMIT = 64 * 1024


class SignDesk:
    """The supervisor's end."""

    def __init__(self, lease: Lease, tell) -> None:
        self._folder = lease.signs
        self._tell = tell
        self._asked = 0
        self._line = b""
        self.asking, self._ask_end = os.pipe()
        self._answer_end, self._answering = os.pipe()
        os.set_blocking(self.asking, False)
        os.set_blocking(self._answering, False)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)

    @property
    def descriptors(self) -> tuple:
        """What a stage inherits."""
        return self._ask_end, self._answer_end

    def environment(self) -> dict:
        """How a stage finds them."""
        return {"FLEET_SIGN_ASK": str(self._ask_end), "FLEET_SIGN_ANSWER": str(self._answer_end)}

    def hear(self) -> None:
        """Take the questions that were written."""
        try:
            self._line += os.read(self.asking, LINE_LIMIT)
        except BlockingIOError:
            return
        *lines, self._line = self._line.split(b"\n")
        self._line = self._line[-LINE_LIMIT:]
        for line in lines:
            self._ask(line)

    def _ask(self, line: bytes) -> None:
        try:
            what = json.loads(line)
        except ValueError:
            return
        self._asked += 1
        write_json(os.path.join(self._folder, "%d.ask" % self._asked), {"what": what})
        self._tell()

    def deliver(self) -> None:
        """Hand on the answers that have come."""
        for number in _numbers(self._folder, ".answer"):
            answer = os.path.join(self._folder, "%d.answer" % number)
            line = json.dumps({"sign": number, "urls": read_json(answer).get("urls")})
            discard(answer)
            discard(os.path.join(self._folder, "%d.ask" % number))
            try:
                os.write(self._answering, line.encode() + b"\n")
            except OSError:  # nobody reads: the stage is over
                continue


def questions(lease: Lease) -> list:
    """The questions of a job that wait for an answer: (number, what)."""
    found = []
    for number in _numbers(lease.signs, ".ask"):
        asked = read_json(os.path.join(lease.signs, "%d.ask" % number))
        if asked:
            found.append((number, asked["what"]))
    return found


def answer(lease: Lease, number: int, urls: object) -> None:
    """Leave an answer for the supervisor."""
    write(os.path.join(lease.signs, "%d.answer" % number), json.dumps({"urls": urls}).encode())


def _numbers(folder: str, ending: str) -> list:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(int(name[: -len(ending)]) for name in names if name.endswith(ending) and name[0].isdigit())
