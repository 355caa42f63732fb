"""The one place that reads the environment: variables in values, where files are, what beats what.

Rule: a value of the command line beats the environment, which beats the file, which beats the default.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fleet.planning.periods import read_zone
from fleet.settings.addresses import address
from fleet.settings.manager import LogFormat, LogLevel, OnTerm, log_level

Env = Mapping[str, str]
REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class UndefinedVariable(LookupError):
    """A value names a variable that the environment does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"names the variable ${name}, which is not set in the environment: set it, or write the value")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line and the environment say instead of the file; None leaves the file its word."""

    log_level: LogLevel | None = None
    log_format: LogFormat | None = None
    listen_address: str | None = None
    on_term: OnTerm | None = None
    state_dir: str | None = None
    database: str | None = None


def current() -> Env:
    """The environment of this process."""
    return dict(os.environ)


def expand(text: str, env: Env) -> str:
    """`text` with `$NAME` and `${NAME}` filled in; raises `UndefinedVariable`."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in env:
            raise UndefinedVariable(name)
        return env[name]

    return REFERENCE.sub(value, text)


def is_root() -> bool:
    """True when this process may do anything."""
    return os.geteuid() == 0


def home(env: Env) -> pathlib.Path:
    """The user's home directory."""
    return pathlib.Path(env.get("HOME") or os.path.expanduser("~"))


def config_path(flag: str | None, env: Env) -> pathlib.Path:
    """The configuration file: `--config`, else `$CONFIG_FILE`, else the first that exists, else GitLab Runner's."""
    if flag:
        return pathlib.Path(flag)
    if env.get("CONFIG_FILE"):
        return pathlib.Path(env["CONFIG_FILE"])
    if is_root():
        known = [pathlib.Path("/etc/fleet/fleet.toml"), pathlib.Path("/etc/gitlab-runner/config.toml")]
    else:
        known = [home(env) / ".config/fleet/fleet.toml", home(env) / ".gitlab-runner/config.toml"]
    return next((path for path in known if path.exists()), known[-1])


def system_id_path(config: pathlib.Path) -> pathlib.Path:
    """The file with this manager's system id: beside the configuration, as GitLab Runner has it."""
    return config.parent / ".runner_system_id"


def state_dir(env: Env) -> str:
    """Where a manager keeps its state when the file does not say."""
    given = env.get("STATE_DIRECTORY", "").split(":")[0]  # systemd's StateDirectory=
    if given:
        return given
    if is_root():
        return "/var/lib/fleet"
    return str(pathlib.Path(env.get("XDG_STATE_HOME") or home(env) / ".local/state") / "fleet")


def overrides(
    env: Env,
    *,
    log_level_flag: str | None = None,
    log_format_flag: str | None = None,
    listen_address_flag: str | None = None,
    on_term_flag: str | None = None,
    debug: bool = False,
) -> Overrides:
    """What flags and environment say; raises ValueError for a word that is none of the known ones."""
    level = log_level_flag or ("debug" if debug or env.get("RUNNER_DEBUG") in {"1", "true"} else env.get("LOG_LEVEL"))
    form = log_format_flag or env.get("LOG_FORMAT")
    listen = listen_address_flag or env.get("LISTEN_ADDRESS")
    return Overrides(
        log_level=log_level(level) if level else None,
        log_format=LogFormat(form) if form else None,
        listen_address=address(listen, 9252) if listen else None,
        on_term=OnTerm(on_term_flag) if on_term_flag else None,
        state_dir=env.get("FLEET_STATE_DIR") or None,
        database=env.get("FLEET_DATABASE") or None,
    )


def local_timezone(env: Env) -> str:
    """The IANA name of this host's zone: `$TZ`, `/etc/localtime`, `/etc/timezone`; UTC when none of them has one."""
    name = env.get("TZ", "").lstrip(":")
    linked = os.path.realpath(name if name.startswith("/") else "/etc/localtime").partition("zoneinfo/")[2]
    try:
        written = pathlib.Path("/etc/timezone").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        written = ""
    found = (each for each in (name, linked, written) if each and not each.startswith("/") and _is_zone(each))
    return next(found, "UTC")


def _is_zone(name: str) -> bool:
    try:
        read_zone(name)
    except ValueError:
        return False
    return True
