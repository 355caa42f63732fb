"""Answers the manager's requests.

Rule: each request gets one reply; what takes time becomes a task and is answered when it ends. A request that cannot be
carried out is refused with a slug and a sentence, and never ends the channel.
"""

from __future__ import annotations

import os

from . import control, facts, hostkey, identity, leases, signing, starting, system, tasks, tidy
from .children import describe
from .cleaning import clean
from .errors import Refused
from .following import Follow
from .home import Home, write, write_json
from .leases import Lease

MOST_PARTS = 128
UNANSWERED = frozenset({"terminal_data", "terminal_resize", "terminal_taken", "terminal_close"})


class Requests:
    """All kinds of requests of one channel."""

    def __init__(self, home: Home, follows: dict, tasks_: dict, send, terminals) -> None:
        self._home = home
        self._follows = follows
        self._tasks = tasks_
        self._send = send
        self._terminals = terminals
        self._starts = {}  # id -> (head, parts that have come) of a start in several frames
        self._kinds = {
            "start": self._start,
            "follow": self._follow,
            "unfollow": self._unfollow,
            "cancel": self._cancel,
            "abort": self._abort,
            "ack": self._ack,
            "clean": self._clean,
            "run": self._run,
            "user": self._user,
            "ping": self._ping,
            "rekey": self._rekey,
            "tidy": self._tidy,
            "terminal": self._terminal,
        }

    def take(self, head: dict, body: bytes) -> None:
        """Carry out one frame of the manager's."""
        kind = head["type"]
        if kind == "sign_reply":
            self._sign_reply(head)
            return
        if kind in UNANSWERED:
            self._terminals.take(head, body)
            return
        if kind == "part":
            head, body = self._gather(head, body)
            if head is None:
                return
        elif kind == "start" and head.get("parts"):
            self._starts[head.get("id")] = (head, [])
            return
        self._answer(head, body)

    def _answer(self, head: dict, body: bytes) -> None:
        handler = self._kinds.get(head["type"], _refuse)
        try:
            reply = handler(head, body)
        except Refused as exc:
            reply = {"ok": False, "error": exc.slug, "message": exc.message}
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            reply = {"ok": False, "error": "bad_frame", "message": "a field is missing or wrong: %s" % describe(exc)}
        except OSError as exc:
            slug = "disk_full" if exc.errno in starting.NO_ROOM else "failed"
            reply = {"ok": False, "error": slug, "message": describe(exc)}
        if reply is not None:
            self.reply(head.get("id"), reply)

    def reply(self, number: object, fields: dict) -> None:
        """Send a reply."""
        self._send({"type": "reply", "id": number, **fields})

    def _gather(self, head: dict, body: bytes) -> tuple:
        """Put a start together; (None, b"") while parts are missing."""
        begun = self._starts.get(head.get("id"))
        if begun is None:
            return None, b""
        start, parts = begun
        parts.append(body)
        if len(parts) < min(int(start["parts"]), MOST_PARTS):
            return None, b""
        del self._starts[head["id"]]
        return start, b"".join(parts)

    def _lease(self, head: dict) -> Lease:
        return Lease(self._home, head["lease"])

    def _obeyed(self, head: dict) -> Lease:
        lease = self._lease(head)
        lease.obey(int(head["epoch"]))
        return lease

    def _start(self, head: dict, body: bytes) -> dict:
        lease = self._lease(head)
        state = starting.start(lease, int(head["epoch"]), float(head["remaining_s"]), body)
        return {"ok": True, "state": state, "log_bytes": leases.size_of(lease.log)}

    def _follow(self, head: dict, _body: bytes) -> dict:
        lease = self._obeyed(head)
        offset = int(head["offset"])
        state = lease.view().state
        if state == "unknown":
            raise Refused("unknown_lease", "lease %s was promised but never started: start it again" % lease.name)
        follow = Follow(lease, offset)
        # After a reboot the log may be shorter than what was sent of it; then there is nothing more but the end.
        if offset < 0 or (state == "running" and offset > leases.size_of(lease.log)):
            follow.close()
            raise Refused("failed", "the log of lease %s has no byte %d" % (lease.name, offset))
        self._drop(lease.name)
        self._follows[lease.name] = follow
        return {"ok": True}

    def _unfollow(self, head: dict, _body: bytes) -> dict:
        self._drop(head["lease"])
        return {"ok": True}

    def _drop(self, name: str) -> None:
        follow = self._follows.pop(name, None)
        if follow is not None:
            follow.close()

    def _cancel(self, head: dict, _body: bytes) -> dict:
        control.command(self._obeyed(head), control.CANCEL, None)
        return {"ok": True}

    def _abort(self, head: dict, _body: bytes) -> dict:
        control.command(self._obeyed(head), control.ABORT, head.get("reason"))
        return {"ok": True}

    def _ack(self, head: dict, _body: bytes) -> dict:
        lease = self._obeyed(head)
        write(os.path.join(lease.folder, "acked"), b"%d" % int(head["offset"]))
        return {"ok": True}

    def _clean(self, head: dict, _body: bytes) -> dict | None:
        lease = self._lease(head)
        if lease.is_known and not lease.is_cleaned:
            lease.obey(int(head["epoch"]))
        self._drop(lease.name)
        self._terminals.drop_lease(lease.name)
        if lease.is_cleaned and not os.path.exists(lease.folder):
            return {"ok": True}
        self._later(head, tasks.function(lambda: clean(lease) or facts.pulse(self._home)))
        return None

    def _terminal(self, head: dict, _body: bytes) -> None:
        self._terminals.ask(self._obeyed(head), head)

    def _run(self, head: dict, _body: bytes) -> dict | None:
        shell = head.get("shell") or "sh"
        self._later(head, tasks.command(head["command"], shell, float(head["timeout_s"]), self._home.root))
        return None

    def _tidy(self, head: dict, _body: bytes) -> dict | None:
        self._later(head, tasks.function(lambda: tidy.tidy(self._home, head), float(head["timeout_s"])))
        return None

    def _later(self, head: dict, task: tasks.Task) -> None:
        self._tasks[task.number] = (task, head.get("id"))

    def _user(self, head: dict, _body: bytes) -> dict:
        try:
            who = identity.look_up(head.get("name"))
        except Refused:
            return {"ok": True, "exists": False, "home": None, "uid": None, "shell": None}
        return {"ok": True, "exists": True, "home": who.home, "uid": who.uid, "shell": who.shell, "name": who.name}

    def _ping(self, head: dict, _body: bytes) -> dict:
        if head.get("agent_timeout_s") is not None:
            rearm(self._home, float(head["agent_timeout_s"]))
        return {"ok": True, "leases": facts.known(self._home), **facts.pulse(self._home)}

    def _rekey(self, head: dict, _body: bytes) -> dict:
        hostkey.rekey(head["private"], head["public"])
        return {"ok": True}

    def _sign_reply(self, head: dict) -> None:
        try:
            lease = self._lease(head)
            signing.answer(lease, int(head["sign"]), head.get("urls"))
        except (Refused, KeyError, TypeError, ValueError, OSError):  # the job is gone; nobody waits for it
            return
        control.wake(lease)


def _refuse(head: dict, _body: bytes) -> dict:
    raise Refused("bad_frame", "this agent knows no request %r" % head["type"])


def rearm(home: Home, timeout_s: float) -> None:
    """The dead-man stays quiet for so long; told by the machine's clock since it started, and by the wall's."""
    contact = {
        "until_boottime_s": system.seconds_since_boot() + timeout_s,
        "until_wall_s": system.wall_s() + timeout_s,
        "boot_id": system.boot_id(),
    }
    write_json(home.contact, contact)
