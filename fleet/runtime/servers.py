"""The GitLab servers of this manager: one client each, shared by all runners of the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from fleet import __version__
from fleet.gitlab.client import GitLab, Info
from fleet.gitlab.endpoint import Endpoint
from fleet.gitlab.info import build_info
from fleet.gitlab.tls import default_certificate_directory
from fleet.runtime.sessions import Sessions
from fleet.store.book import Runner

TERMINAL_SHELLS = frozenset({None, "bash", "sh"})  # of a PowerShell none is built
USER_AGENT = f"gitlab-runner {__version__} (fleet)"


class Servers:
    """Makes clients when they are first needed. Thread-safe."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        features: Callable[..., frozenset[str]],
        sessions: Sessions,
        max_age: timedelta,
        observe: Callable[..., None] | None = None,
        count_retry: Callable[..., None] | None = None,
    ) -> None:
        self._now = now
        self.sessions = sessions
        self._features = features
        self._max_age = max_age
        self._observe = observe
        self._count_retry = count_retry
        self._clients: dict[Endpoint, GitLab] = {}
        self._lock = threading.Lock()

    def of(self, runner: Runner) -> GitLab:
        """The client for a runner's server."""
        settings = runner.settings
        endpoint = Endpoint(
            url=settings.url,
            tls_ca_file=settings.tls_ca_file,
            tls_cert_file=settings.tls_cert_file,
            tls_key_file=settings.tls_key_file,
        )
        with self._lock:
            client = self._clients.get(endpoint)
            if client is None:
                client = self._clients[endpoint] = GitLab(
                    endpoint,
                    user_agent=USER_AGENT,
                    now=self._now,
                    connection_max_age_s=self._max_age.total_seconds(),
                    certificate_directory=default_certificate_directory(),
                    observe=self._observe,
                    count_retry=self._count_retry,
                )
            return client

    def info_of(self, runner: Runner) -> Info:
        """What GitLab is told of us with every request."""
        settings = runner.settings
        has_terminals = self.sessions.where is not None and settings.shell in TERMINAL_SHELLS
        return build_info(
            version=__version__,
            executor=settings.executor,
            shell=settings.shell or "bash",
            features=self._features(settings.executor, terminals=has_terminals),
            labels=settings.labels,
        )

    def session_of(self, runner: Runner) -> Mapping[str, str]:
        """Where GitLab is told to reach a terminal of the job that a poll may bring; empty for nowhere."""
        return self.sessions.offer() if runner.settings.shell in TERMINAL_SHELLS else {}

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
