"""One `[[runners]]` entry on its way to be a runner: identity, variables, files, what its executor needs.

Rule: what is wrong with the world around the file (a missing file, a variable that is not set) or is not supported
stops this entry only. Its identity is known even then, so that nothing of it is retired.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.model.ids import RunnerKey
from fleet.settings.environment import Env, UndefinedVariable, expand
from fleet.settings.findings import Findings
from fleet.settings.positions import Path
from fleet.settings.runner import RunnerTable

PLACES = {  # executor -> where its jobs run: on a pool of its own table, on one given host, or on this host
    "instance": "pool",
    "docker-autoscaler": "pool",
    "ssh": "ssh",
    "docker-ssh": "ssh",
    "shell": "host",
    "docker": "host",
}
CONTAINER_EXECUTORS = frozenset({"docker", "docker-autoscaler", "docker-ssh"})
EXECUTORS = frozenset({"instance", "ssh", "shell"}) | CONTAINER_EXECUTORS
POWERSHELLS = frozenset({"pwsh", "powershell"})
SHELLS = frozenset({"bash", "sh"}) | POWERSHELLS


@dataclass(slots=True, kw_only=True)
class Entry:
    """One entry of the file while it is read.

    Attributes:
        stopped: why it cannot run; None while nothing is known against it.
    """

    index: int
    table: RunnerTable
    url: str
    token: str
    key: RunnerKey
    stopped: str | None = None
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path = ("runners", self.index)

    @property
    def place(self) -> str:
        """Where its jobs run: `pool`, `ssh` or `host`."""
        return PLACES[self.table.executor]

    def stop(self, findings: Findings, key: Path, message: str) -> None:
        """Note why it cannot run."""
        findings.stop((*self.path, *key), message)
        self.stopped = self.stopped or message


def entries(
    tables: Iterable[tuple[int, RunnerTable]],
    findings: Findings,
    env: Env,
    directory: str,
    executors: frozenset[str] = EXECUTORS,
) -> list[Entry]:
    """The entries of the file, each with its identity, and stopped where it cannot run."""
    found: list[Entry] = []
    nameless: dict[str, int] = {}
    for index, table in tables:
        entry = _entry(index, table, findings, env, nameless)
        twin = next((each for each in found if each.key == entry.key), None)
        if twin is not None:
            line = findings.positions.line(twin.path)
            entry.stop(
                findings, (), f"is the same runner (url and id) as the entry in line {line}: remove one of the two"
            )
            entry.key = RunnerKey(f"{entry.key}|again:{index}")  # so that stopping this one says nothing of its twin
        _check_executor(entry, findings, executors)
        _check_tls(entry, findings, directory)
        found.append(entry)
    return found


def _entry(index: int, table: RunnerTable, findings: Findings, env: Env, nameless: dict[str, int]) -> Entry:
    values, undefined = {}, []
    for key in ("url", "token"):
        written = table.url if key == "url" else table.token.get_secret_value()
        try:
            values[key] = expand(written, env)
        except UndefinedVariable as exc:
            values[key] = written if key == "url" else ""
            undefined.append((key, str(exc)))
    url = values["url"].strip().rstrip("/")
    entry = Entry(index=index, table=table, url=url, token=values["token"], key=_identity(url, table, nameless))
    for key, message in undefined:
        entry.stop(findings, (key,), message)
    if not undefined and not entry.token:
        entry.stop(findings, (), "has no token: run fleetctl register, or write the runner's token")
    if not undefined and not url.startswith(("http://", "https://")):
        entry.stop(findings, ("url",), "is not the address of a server: write it as https://gitlab.example.com")
    if not table.id:
        findings.warn(
            entry.path,
            f"has no id, so {'its name' if table.name else 'its place in the file'} is its identity: "
            "fleetctl verify writes the id",
        )
    return entry


def _identity(url: str, table: RunnerTable, nameless: dict[str, int]) -> RunnerKey:
    if table.id:
        return RunnerKey(f"{url}|{table.id}")
    if table.name:
        return RunnerKey(f"{url}|name:{table.name}")
    nameless[url] = nameless.get(url, 0) + 1
    return RunnerKey(f"{url}|entry:{nameless[url]}")


def _check_executor(entry: Entry, findings: Findings, executors: frozenset[str]) -> None:
    name = entry.table.executor
    if name not in executors or name not in PLACES:
        known = ", ".join(sorted(executors))
        entry.stop(findings, ("executor",), f"{name!r} is not supported: use one of {known}")
    shell = entry.table.shell
    if shell is not None and shell not in SHELLS:
        entry.stop(findings, ("shell",), f"{shell!r} is not supported: use bash, sh, pwsh or powershell")
    if shell in POWERSHELLS and name in CONTAINER_EXECUTORS:
        entry.stop(findings, ("shell",), f"{shell!r} is not supported in containers: remove it, or use bash or sh")


def resolved(path: str | None, directory: str) -> str | None:
    """An absolute path; relative ones start at the directory of the configuration file."""
    return None if path is None else os.path.normpath(os.path.join(directory, os.path.expanduser(path)))


def unreadable(path: str) -> str | None:
    """Why a file cannot be read; None when it can."""
    try:
        with open(path, "rb"):
            return None
    except FileNotFoundError:
        return f"there is no file {path}"
    except OSError as exc:
        return f"{path} cannot be read: {exc.strerror}"


def _check_tls(entry: Entry, findings: Findings, directory: str) -> None:
    table = entry.table
    files = {
        "tls-ca-file": table.tls_ca_file,
        "tls-cert-file": table.tls_cert_file,
        "tls-key-file": table.tls_key_file,
    }
    paths = {key: resolved(value, directory) for key, value in files.items()}
    broken = False
    for key, path in paths.items():
        reason = unreadable(path) if path is not None else None
        if reason is not None:
            entry.stop(findings, (key,), f"{reason}: check the path and its permissions")
            broken = True
    if broken:
        return
    if (paths["tls-cert-file"] is None) != (paths["tls-key-file"] is None):
        given = "tls-cert-file" if paths["tls-cert-file"] else "tls-key-file"
        entry.stop(findings, (given,), "a client certificate needs tls-cert-file and tls-key-file: set both")
        return
    _check_pem(entry, findings, paths)


def _check_pem(entry: Entry, findings: Findings, paths: dict[str, str | None]) -> None:
    ca, cert, key = paths["tls-ca-file"], paths["tls-cert-file"], paths["tls-key-file"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (ssl.SSLError, OSError, ValueError):
            entry.stop(findings, ("tls-ca-file",), f"{ca} holds no CA certificate in PEM form")
    if cert is not None and key is not None:
        try:
            context.load_cert_chain(cert, key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError):
            entry.stop(
                findings,
                ("tls-cert-file",),
                f"{cert} and {key} are not a certificate and its key without password, both in PEM form",
            )
