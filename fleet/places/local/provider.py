"""The place `local`: machines that are child processes of this host, each with a real SSH server on 127.0.0.1.

For the demo and for tests, and honest in both: a machine is made by intent first, found again after a kill at any
point, and lives on without the manager. It is no sandbox: its jobs run as the manager's user or as whom the agent
drops to.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from fleet.places.local.registry import (
    Record,
    is_gone,
    locked,
    machine_ids,
    read_json,
    records,
    sweep,
    this_boot,
    token_folder,
    write_json,
)
from fleet.sdk import (
    Abilities,
    BadParameters,
    Created,
    CreateRequest,
    Machine,
    MachineState,
    ProviderInfo,
    ProviderSetting,
    ProviderUnavailable,
)

KEEP_TOKENS_S = 24 * 3600.0
KEEP_ENDED_S = 600.0
STUBBORN_S = 10.0  # a machine told to end that has not, is killed
_KNOWN_KEYS = frozenset({"root", "shell"})


class LocalProvider:
    """One pool's use of this host's local machines.

    All pools of a state directory see the same machines; so do all whose `plugin_config` names the same `root`, which
    several managers of one fleet on this host must do.
    """

    def __init__(self, setting: ProviderSetting) -> None:
        unknown = sorted(set(setting.plugin_config) - _KNOWN_KEYS)
        if unknown:
            raise BadParameters(
                f"pool {setting.pool!r}: plugin_config.{unknown[0]} is no setting of the plugin local; "
                f"it knows {', '.join(sorted(_KNOWN_KEYS))}"
            )
        self._shell = _shell(setting)
        self._root = _root(setting)

    def info(self) -> ProviderInfo:
        return ProviderInfo(
            name="local",
            account=f"local:{self._root}",
            visibility_lag_s=5.0,
            call_timeout_s=60.0,
            max_batch=8,
            abilities=Abilities(hands_over_host_key=True, tells_host_key=True),
        )

    def create(self, request: CreateRequest) -> Created:
        if request.client_public_key is None:
            raise BadParameters("a local machine lets in one client key only, and client_public_key is missing")
        ids = machine_ids(self._root, request.token, request.count)
        with _disk(self._root), locked(self._root):
            self._remember(request, ids)
            for machine_id in ids:
                record = Record(self._root, machine_id)
                if not record.exists and not is_gone(self._root, request.token, machine_id):
                    record.make(self._meta(request))
                if record.exists and not record.is_alive() and record.run() is None and record.ended() is None:
                    self._start(record, request)
        return Created(machine_ids=ids)

    def list(self) -> Iterator[Machine]:
        with _disk(self._root):
            return iter([machine for record in records(self._root) if (machine := self._observed(record)) is not None])

    def delete(self, machine_ids: Sequence[str]) -> None:
        with _disk(self._root), locked(self._root):
            for machine_id in machine_ids:
                record = Record(self._root, machine_id)
                # A machine that ends takes its directory with it, at any moment.
                with contextlib.suppress(FileNotFoundError):
                    _let_go(record)

    def close(self) -> None:
        """Nothing is held: machines are not our children."""

    def _remember(self, request: CreateRequest, ids: tuple[str, ...]) -> None:
        """Write the token down before the first effect, and refuse it with other parameters."""
        folder = token_folder(self._root, request.token)
        digest = _digest(request)
        known = read_json(folder / "request.json")
        if known is None:
            sweep(self._root, keep_tokens_s=KEEP_TOKENS_S)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._root / "machines").mkdir(exist_ok=True, mode=0o700)
            intent = {"digest": digest, "machines": ids, "boot": this_boot(), "at": time.monotonic()}
            write_json(folder / "request.json", intent)
        elif known["digest"] != digest:
            raise BadParameters(
                f"create token {request.token} was used with other parameters; a changed request needs a new token"
            )

    def _meta(self, request: CreateRequest) -> dict[str, Any]:
        return {
            "token": request.token,
            "tags": dict(request.tags),
            "user": request.user or getpass.getuser(),
            "placement": request.placement.get("name"),
            "boot": this_boot(),
            "at": time.monotonic(),
        }

    def _start(self, record: Record, request: CreateRequest) -> None:
        """Start the machine's process, with the lock of life already held for it."""
        spec = {
            "host_key": request.host_key.private if request.host_key else _make_host_key(),
            "client_public_key": request.client_public_key,
            "user": request.user or getpass.getuser(),
            "shell": self._shell,
            "agent_timeout_s": request.agent_timeout_s,
        }
        alive = record.hold()
        try:
            _spawn(record, alive, json.dumps(spec).encode())
        except OSError as exc:
            raise ProviderUnavailable(f"the process of {record.machine_id} cannot be started: {exc}") from exc
        finally:
            os.close(alive)

    def _observed(self, record: Record) -> Machine | None:
        """One machine as it is now; a dead one is cleaned up on the way."""
        is_alive = record.is_alive()
        try:
            meta, run, deleting = record.meta(), record.run(), record.deleting_since()
        except (OSError, ValueError):
            meta = None
        if meta is None:  # removed while we looked
            return None
        if is_alive:
            state = MachineState.CREATING if run is None else MachineState.RUNNING
            return _machine(record, meta, run, state if deleting is None else MachineState.DELETING, None)
        return self._observed_dead(record, meta, run, deleting)

    def _observed_dead(
        self, record: Record, meta: Mapping[str, Any], run: Mapping[str, Any] | None, deleting: float | None
    ) -> Machine | None:
        with locked(self._root):
            if record.is_alive():
                return _machine(record, meta, run, MachineState.CREATING, None)
            if not record.exists:
                return None
            ended = record.ended()
            is_old = ended is not None and (
                ended["boot"] != this_boot() or time.monotonic() - ended["at"] > KEEP_ENDED_S
            )
            if deleting is not None or is_old:
                record.bury("deleted")
                record.remove()
                return None
            if run is None:
                return _machine(record, meta, None, MachineState.FAILED, f"it never came up: {_last_words(record)}")
            if ended is None:
                gone = "its process was killed" if run["boot"] == this_boot() else "this host was restarted"
                record.bury(gone)
                ended = record.ended()
            return _machine(record, meta, run, MachineState.GONE, str((ended or {}).get("reason")))


def _machine(
    record: Record, meta: Mapping[str, Any], run: Mapping[str, Any] | None, state: MachineState, reason: str | None
) -> Machine:
    is_up = run is not None and state is MachineState.RUNNING
    return Machine(
        machine_id=record.machine_id,
        state=state,
        tags=meta["tags"],
        address_internal="127.0.0.1" if is_up else None,
        address_external="127.0.0.1" if is_up else None,
        port=run["port"] if run is not None else 22,
        user=meta["user"],
        host_key=run["host_key"] if run is not None else None,
        placement=meta["placement"],
        reason=reason,
    )


def _let_go(record: Record) -> None:
    """Ask for the end of a machine, or finish it when its process is no more. Needs the lock."""
    if not record.exists:
        return
    since = record.deleting_since()
    record.mark_deleting()
    if not record.is_alive():
        record.bury("deleted")
        record.remove()
        return
    pid = record.pid()
    if pid is None:
        return  # it is starting, and looks at the mark when it has
    is_stubborn = since is not None and time.monotonic() - since > STUBBORN_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL if is_stubborn else signal.SIGTERM)


def _spawn(record: Record, alive: int, spec: bytes) -> None:
    """Start the process as nobody's child: a shell in between ends at once, so there is no zombie to wait for."""
    argv = [sys.executable, "-m", "fleet.places.local", "--dir", str(record.path), "--alive-fd", str(alive)]
    with open(record.path / "machine.log", "ab") as log:
        subprocess.run(
            ["/bin/sh", "-c", 'exec 3<&0; "$@" <&3 3<&- &', "sh", *argv],
            input=spec,
            stdout=log,
            stderr=log,
            cwd="/",
            env={name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ},
            pass_fds=(alive,),
            start_new_session=True,
            check=True,
        )


def _last_words(record: Record) -> str:
    try:
        words = (record.path / "machine.log").read_text(encoding="utf-8", errors="replace")[-500:].strip()
    except OSError:
        words = ""
    return words or "its process was not started"


def _digest(request: CreateRequest) -> str:
    host_key = request.host_key.public if request.host_key else None
    what = [
        request.count,
        dict(request.tags),
        dict(request.placement),
        request.user,
        request.client_public_key,
        host_key,
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def _make_host_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode("ascii")


def _root(setting: ProviderSetting) -> Path:
    root = setting.plugin_config.get("root")
    if root is None:
        return Path(setting.state_dir).absolute() / "local"
    # the path is part of each machine's name, so one directory must not have two paths
    if not isinstance(root, str) or not root.startswith("/"):
        raise BadParameters(f"pool {setting.pool!r}: plugin_config.root = {root!r} is no absolute path of a directory")
    return Path(root).resolve()


def _shell(setting: ProviderSetting) -> str:
    shell = setting.plugin_config.get("shell", "/bin/sh")
    if not isinstance(shell, str) or shutil.which(shell) is None:
        raise BadParameters(f"pool {setting.pool!r}: plugin_config.shell = {shell!r} is no program of this host")
    return shell


@contextlib.contextmanager
def _disk(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ProviderUnavailable(f"the directory of local machines {root} cannot be used: {exc}") from exc
