"""Sessions: under which address, and with which word, GitLab may open a terminal of a job.

Rule: a session is made for each poll and belongs to the job that the poll brings; it is kept with the job's payload,
encrypted as that is, so it outlives the manager. Nothing of a session is kept anywhere else but in memory, and of a
poll that brought no job nothing at all.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.model.ids import ManagerId
from fleet.model.lifecycle import JobState
from fleet.store import jobs
from fleet.store.database import Store, Tx
from fleet.store.payloads import unpack
from fleet.store.worklist import Work, work_of

PREFIX = "/session/"
UNTIL_IT_ENDS = frozenset({JobState.RECEIVED, JobState.WAITING, JobState.STARTING, JobState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Where a terminal of a job is asked for, and with which `Authorization`."""

    session_id: str
    job_key: str
    authorization: str = field(repr=False)

    def admits(self, authorization: str) -> bool:
        """Whether that is the word, to the letter."""
        return hmac.compare_digest(self.authorization.encode(), authorization.encode("utf-8", "surrogateescape"))


class Sessions:
    """The sessions of one manager's open jobs. Thread-safe.

    `where` is set while terminals are served: the address that GitLab is told, and the certificate it is to trust.
    """

    def __init__(self, store: Store, me: ManagerId) -> None:
        self.where: tuple[str, str] | None = None
        self._store = store
        self._me = me
        self._known: dict[str, Session | None] = {}  # by job
        self._lock = threading.Lock()

    def offer(self) -> Mapping[str, str]:
        """What a poll tells GitLab; nothing while no terminals are served."""
        if self.where is None:
            return {}
        address, certificate = self.where
        return {
            "url": f"https://{address}{PREFIX}{secrets.token_hex(32)}",
            "certificate": certificate,
            "authorization": secrets.token_urlsafe(32),
        }

    def find(self, session_id: str) -> Session | None:
        """The session of this name, if it is that of an open job of ours."""
        with self._lock:
            found = self._among_known(session_id)
            if found is None:
                self._store.read(self._learn)
                found = self._among_known(session_id)
            return found

    def _among_known(self, session_id: str) -> Session | None:
        return next((each for each in self._known.values() if each is not None and each.session_id == session_id), None)

    def _learn(self, tx: Tx) -> None:
        """Forget jobs that are over, and look once into the payload of each new one."""
        works = {work.key: work for work in work_of(tx, self._me)}
        self._known = {key: session for key, session in self._known.items() if key in works}
        for key in works:
            if key not in self._known:
                self._known[key] = _session_of(key, jobs.payload_of(tx, key))

    def work(self, session: Session) -> Work | None:
        """The job of a session as it is now; None when it is over, or no longer ours."""
        works = self._store.read(lambda tx: work_of(tx, self._me))
        return next((work for work in works if work.key == session.job_key and work.state in UNTIL_IT_ENDS), None)


def _session_of(key: str, packed: bytes) -> Session | None:
    if not packed:
        return None
    _, beside = unpack(packed)
    url, authorization = beside.get("session_url", ""), beside.get("session_authorization", "")
    if not url or not authorization:
        return None
    return Session(session_id=url.rpartition(PREFIX)[2], job_key=key, authorization=authorization)
