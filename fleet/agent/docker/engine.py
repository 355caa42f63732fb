"""The one way to the container engine: its command line program.

Rule: nothing secret is ever in an argument list. Credentials come to the program in a private `config.json`, variables
in a file in memory or, where such a file cannot hold them, in the program's own environment.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import time

from .. import system
from ..home import discard, read_json, write
from . import socket

PASSED_ON = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "XDG_RUNTIME_DIR",
    "CONTAINER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
ITS_OWN = re.compile(
    r"(DOCKER|CONTAINER|XDG|BUILDKIT|REGISTRY|LD|GO)|(PATH|HOME|TMPDIR|USER)\Z|(HTTPS?|NO|ALL)_PROXY\Z"
)
LINE_LIMIT_BYTES = 60000
GONE = re.compile(r"no such (container|object|volume|network|image)|not found|no container with", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"cannot connect to the docker daemon|error during connect|connection refused|unexpected eof|is the docker daemon"
    r" running|connect: no such file|connection reset|broken pipe|read: EOF",
    re.IGNORECASE,
)
SHORT_S = 60.0
REMOVAL_S = 10.0
BEING_REMOVED = ("removing", "dead")


class Failed(Exception):
    """A step that did not work: GitLab's reason for the job's failure, and what is said to people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Answer:
    """What the program said."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output
        self.errors = errors.strip()

    @property
    def is_good(self) -> bool:
        """Whether it did what it was told."""
        return self.code == 0

    @property
    def is_absent(self) -> bool:
        """Whether what it was asked about does not exist."""
        return self.code != 0 and GONE.search(self.errors) is not None

    @property
    def is_unreachable(self) -> bool:
        """Whether there was no engine to ask."""
        return self.code != 0 and UNREACHABLE.search(self.errors) is not None

    def complaint(self) -> str:
        """Its last words, for people."""
        lines = [line for line in self.errors.splitlines() if line.strip() and "--help" not in line]
        return lines[-1].strip() if lines else "exit code %d" % self.code


class Engine:
    """The program, and where its engine is."""

    def __init__(self, program: str, host: str | None, lease: str) -> None:
        self.program = program
        self.host = host
        self.lease = lease
        self.is_podman = os.path.basename(program) == "podman"
        self._path = os.environ.get("PATH") or system.STANDARD_PATH
        self.socket = socket.path_of(program, host)

    @property
    def found(self) -> str | None:
        """Where the program is on this machine."""
        return system.find_program(self.program, self._path)

    @property
    def label(self) -> str:
        """What marks everything of this job."""
        return "fleet.lease=%s" % self.lease

    def environment(self, config: str | None = None) -> dict:
        """The program's own environment; `config` is a folder with credentials."""
        known = {
            "PATH": self._path,
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "DOCKER_CLI_HINTS": "false",
            "FLEET_LEASE": self.lease,
        }
        known.update((name, os.environ[name]) for name in PASSED_ON if name in os.environ)
        if self.host is not None:
            known.pop("DOCKER_CONTEXT", None)
            known["CONTAINER_HOST" if self.is_podman else "DOCKER_HOST"] = self.host
        if config is not None:
            known["DOCKER_CONFIG"] = config
            known["REGISTRY_AUTH_FILE"] = os.path.join(config, "config.json")
        return known

    def command(self, *words: str) -> list:
        """The argument list."""
        remote = ["--remote"] if self.is_podman and self.host is not None else []
        return [self.found or self.program, *remote, *words]

    def ask(
        self,
        *words: str,
        within_s: float = SHORT_S,
        variables: dict | None = None,
        config: str | None = None,
        stdin: bytes = b"",
    ) -> Answer:
        """Run the program to its end; `variables` become those of a container, see the rule of this file."""
        if self.found is None:
            message = "there is no %s on this machine: install it, or use another executor" % self.program
            raise Failed("runner_system_failure", message)
        file, options, extra = variables_as_options(variables or {})
        words = (words[0], *options, *words[1:])
        try:
            done = subprocess.run(
                self.command(*words),
                env={**extra, **self.environment(config)},
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=() if file is None else (file,),
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(124, "", "%s %s gave no answer within %g s" % (self.program, words[0], within_s))
        except OSError as exc:
            return Answer(126, "", "%s could not be started: %s" % (self.program, exc.strerror or exc))
        finally:
            if file is not None:
                os.close(file)
        return Answer(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def must(self, *words: str, what: str, **options: object) -> str:
        """As `ask`, for what has to work: the output, else Failed."""
        answer = self.ask(*words, **options)
        if answer.is_good:
            return answer.output.strip()
        raise Failed(_reason_of(answer), "%s: %s" % (what, answer.complaint()))

    def inspect(self, kind: str, name: str) -> dict | None:
        """What is known of a container, an image or a volume; None when there is no such thing."""
        told = socket.call(self.socket, "GET", socket.KINDS[kind] % name) if self.socket else None
        if socket.is_good(told):
            return told[1]
        if told is not None and told[0] == socket.ABSENT:
            return None
        answer = self.ask(kind, "inspect", name)
        if answer.is_good:
            found = json.loads(answer.output)
            return found[0] if found else None
        if answer.is_absent:
            return None
        raise Failed("runner_system_failure", "%s %s: %s" % (kind, name, answer.complaint()))

    def standing(self, container: str) -> dict | None:
        """What is known of a container; one that is being removed is waited for, and is gone."""
        until = time.monotonic() + REMOVAL_S
        while True:
            known = self.inspect("container", container)
            if known is None or known["State"].get("Status") not in BEING_REMOVED:
                return known
            if time.monotonic() > until:
                return None
            time.sleep(0.1)

    def facts(self) -> dict:
        """Version, system, architecture, and whether the engine is root's own, on this machine."""
        answer = socket.call(self.socket, "GET", "/info") if self.socket else None
        if socket.is_good(answer):
            told = answer[1]
        else:
            text = self.must("info", "--format", "{{json .}}", what="the container engine does not answer")
            told = json.loads(text or "{}")
        if "host" in told:  # Podman's form
            host = told["host"]
            security = host.get("security") or {}
            return {
                "version": (told.get("version") or {}).get("Version", ""),
                "os": host.get("os", "linux"),
                "arch": host.get("arch", ""),
                "is_rootful": not security.get("rootless", False),
            }
        if told.get("ServerErrors"):
            raise Failed("runner_system_failure", "the container engine does not answer: %s" % told["ServerErrors"][0])
        options = " ".join(told.get("SecurityOptions") or [])
        return {
            "version": told.get("ServerVersion", ""),
            "os": told.get("OSType", "linux"),
            "arch": told.get("Architecture", ""),
            "is_rootful": "rootless" not in options and "userns" not in options,
        }


def _reason_of(answer: Answer) -> str:
    is_users = "invalid" in answer.errors.lower() and not answer.is_unreachable
    return "runner_configuration_error" if is_users else "runner_system_failure"


def variables_as_options(variables: dict) -> tuple:
    """(open file or None, options, what goes into the program's environment) that give a container its variables."""
    lines, options, extra = [], [], {}
    for name, value in variables.items():
        if not NAME.match(name) or "\0" in value:
            continue
        line = "%s=%s" % (name, value)
        is_plain = "\n" not in value and "\r" not in value and len(line.encode("utf-8", "replace")) < LINE_LIMIT_BYTES
        if is_plain:
            lines.append(line)
        elif not ITS_OWN.match(name) and len(value) < 2 * LINE_LIMIT_BYTES:
            options += ["-e", name]
            extra[name] = value
    if not lines:
        return None, options, extra
    text = ("\n".join(lines) + "\n").encode("utf-8", "replace")
    number = system.nameless_file(text, "/tmp")  # noqa: S108  only where the system has no files in memory
    os.set_inheritable(number, True)
    return number, ["--env-file", "/dev/fd/%d" % number, *options], extra


def write_credentials(folder: str, auth: dict | None) -> str | None:
    """A folder with a `config.json` for one registry, which only this user can read."""
    if auth is None:
        return None
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if auth.get("identity_token"):
        entry = {"identitytoken": auth["identity_token"]}
    else:
        pair = "%s:%s" % (auth.get("username", ""), auth.get("password", ""))
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
    config = {"auths": {auth["registry"]: entry}}
    own = os.path.join(os.environ.get("HOME", "/"), ".docker")
    context = read_json(os.path.join(own, "config.json")).get("currentContext")
    if context:  # the person's choice of engine is in the same file
        config["currentContext"] = context
        with contextlib.suppress(OSError):
            os.symlink(os.path.join(own, "contexts"), os.path.join(folder, "contexts"))
    write(os.path.join(folder, "config.json"), json.dumps(config).encode())
    return folder


def forget_credentials(folder: str) -> None:
    """Remove what `write_credentials` wrote."""
    discard(os.path.join(folder, "config.json"))
