"""From "logged in" to "the agent speaks": one exec, whatever the login shell prints or is.

The command that the login shell sees is one harmless line: it becomes /bin/sh, prints a marker with a random word,
and reads the real program from its standard input. So a heavy or chatty `.bashrc` costs time and nothing else, and no
quoting of ours meets a shell we do not know. /bin/sh finds a Python, as root where wanted and possible; Python installs
the agent if its content is not there yet, and becomes it. All of it ends by one deadline.
"""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import dataclass

from fleet.machine.bundle import Bundle
from fleet.machine.errors import BootstrapFailed, NoPython, NoSpace
from fleet.machine.pipe import Pipe, PipeClosed, PipeTimeout, readable

# Tried in this order when no interpreter is named; a distribution's `python3` may be too old and a newer one beside it.
PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 7, -1)), "/usr/libexec/platform-python")
MAX_NOISE_BYTES = 4 * 1024 * 1024

_SHELL = r"""
m={mark}
ok() {{ "$@" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 8))' </dev/null >/dev/null 2>&1; }}
found= up=
[ {root} = 1 ] && [ -z "$FLEET_NO_SUDO" ] && [ "$(id -u)" != 0 ] && command -v sudo >/dev/null 2>&1 && up=1
for p in {pythons}; do
  command -v "$p" >/dev/null 2>&1 || continue
  if [ "$up" ] && ok sudo -n -H "$p"; then
    exec sudo -n -H "$p" -I -S -c {program} "$m" {name} {size} {mode}
  fi
  ok "$p" && exec "$p" -I -S -c {program} "$m" {name} {size} {mode}
  found="$found $p is $("$p" --version </dev/null 2>&1 | head -n 1);"
done
printf '\n%s no-python %s\n' "$m" "$found"
"""

# Python 3.8, standard library only. The file is written to its end, then renamed: what has the name is whole. Beside
# each source it holds the code compiled for this machine's Python (another one would compile again), which makes each
# start of the agent three times as fast; the archive's comment, its last bytes, proves that nothing was cut off.
_PROGRAM = r"""
import os, sys
mark, name, size, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
def say(*words):
    os.write(1, ("\n%s %s\n" % (mark, " ".join(words))).encode("utf-8", "replace"))
def receive():
    parts, left = [], size
    while left:
        part = os.read(0, min(left, 1 << 20))
        if not part:
            sys.exit(1)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
def is_whole():
    try:
        with open(path, "rb") as file:
            file.seek(-len(name), 2)
            return file.read() == name.encode()
    except OSError:
        return False
def compiled(data):
    import importlib.util, io, marshal, zipfile
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        target.comment = name.encode()
        for each in source.namelist():
            text = source.read(each)
            target.writestr(zipfile.ZipInfo(each), text)
            if each.endswith(".py"):
                code = marshal.dumps(compile(text, path + "/" + each, "exec", dont_inherit=True))
                head = importlib.util.MAGIC_NUMBER + b"\1\0\0\0" + importlib.util.source_hash(text)
                target.writestr(zipfile.ZipInfo(each + "c"), head + code)
    return out.getvalue()
def install(data):
    import hashlib
    if hashlib.sha256(data).hexdigest() != name:
        say("broken")
        sys.exit(1)
    part = "%s.%d" % (path, os.getpid())
    try:
        with open(part, "wb") as file:
            file.write(compiled(data))
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except OSError:
        if os.path.exists(part):
            os.unlink(part)
        raise
os.umask(0o077)
home = os.path.expanduser("~")
folder = os.path.join(home, ".fleet-agent", "agents")
path = os.path.join(folder, name + ".pyz")
try:
    os.makedirs(folder, 0o700, exist_ok=True)
    if not is_whole():
        say("need")
        install(receive())
except OSError as error:
    say("no-space", folder + ":", error.strerror or str(error))
    sys.exit(1)
say("go")
os.chdir(home)
os.execv(sys.executable, [sys.executable, "-I", path, mode])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How to bring the agent to life.

    Attributes:
        python: the interpreter to use (`agent_python`); None looks for one.
        become_root: use `sudo -n` when the login user is not root and may.
        deadline_s: for everything from the exec to the agent's first frame.
    """

    python: str | None = None
    become_root: bool = True
    deadline_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The agent runs on the pipe: whether it had to be sent, and the bytes it has already said."""

    uploaded: bool
    first_bytes: bytes


def marked_program(script: str, **filled: object) -> tuple[str, str, bytes]:
    """A mark, the line for the login shell, and the program that /bin/sh then reads from its standard input.

    `script` may use `{mark}` and what `filled` names; sequences are quoted for the shell word by word.
    """
    mark = f"fleet-{secrets.token_hex(8)}"
    words = {key: shlex.join(value) if isinstance(value, tuple) else value for key, value in filled.items()}
    text = script.format(mark=mark, **words).encode()
    return mark, f"exec /bin/sh -c '{_first_line(mark, len(text))}'", text


def _first_line(mark: str, size: int) -> str:
    """What /bin/sh is to do: nothing in it could be read differently by a login shell of whatever kind."""
    return f'echo; echo {mark} sh; eval "$(dd bs=1 count={size} 2>/dev/null)"'


class Bootstrap:
    """The words of one bootstrap: `command` goes to the login shell, `run` says the rest on the pipe."""

    def __init__(self, bundle: Bundle, options: AgentOptions) -> None:
        self._bundle = bundle
        self._options = options
        self._mark, self.command, self._script = marked_program(
            _SHELL,
            pythons=(options.python,) if options.python else PYTHONS,
            root=int(options.become_root),
            program=shlex.quote(_PROGRAM),
            name=bundle.sha256,
            size=len(bundle.data),
            mode="serve",
        )

    @property
    def program(self) -> str:
        """The same without a login shell in front."""
        return _first_line(self._mark, len(self._script))

    def run(self, pipe: Pipe, *, by: float) -> Started:
        """Bring the agent to life on a pipe on which `command` was started; `by` is a monotonic instant.

        Raises:
            NoPython, NoSpace, BootstrapFailed: it did not come to life; the pipe is of no more use.
        """
        talk = _Talk(pipe, self._mark, by)
        talk.expect("sh")
        talk.send(self._script)
        uploaded = False
        while True:
            word, rest = talk.next_word()
            if word == "go":
                return Started(uploaded=uploaded, first_bytes=talk.rest())
            if word == "need" and not uploaded:
                uploaded = True
                talk.send(self._bundle.data)
            else:
                raise self._failure(pipe.where, word, rest)

    def _failure(self, where: str, word: str, rest: str) -> BootstrapFailed:
        found = rest.strip(" ;")
        if word == "no-python" and self._options.python:
            return NoPython(
                f"{where} has no Python 3.8 or newer at {self._options.python}: {found or 'there is no such program'}. "
                "Correct agent_python or install Python",
                output=rest,
            )
        if word == "no-python":
            return NoPython(
                f"{where} has no Python 3.8 or newer ({found or 'no python3 in its PATH'}). "
                "Install one, or name it with agent_python",
                output=rest,
            )
        if word == "no-space":
            return NoSpace(
                f"the agent cannot be installed on {where}: {rest}. Make room, or make the home directory writable",
                output=rest,
            )
        return BootstrapFailed(f"{where} answered {word!r} where the agent was to start: {rest}", output=rest)


class _Talk:
    """Marked lines in whatever else comes."""

    def __init__(self, pipe: Pipe, mark: str, by: float) -> None:
        self._pipe = pipe
        self._mark = f"\n{mark} ".encode()
        self._by = by
        self._seen = bytearray(b"\n")
        self._searched = 0

    def send(self, data: bytes) -> None:
        try:
            self._pipe.send(data)
        except PipeClosed as exc:
            raise self._failed(f"it ended while we spoke ({exc})") from exc

    def expect(self, word: str) -> None:
        got, rest = self.next_word()
        if got != word:
            raise BootstrapFailed(f"{self._pipe.where} answered {got!r}, expected {word!r}", output=rest)

    def next_word(self) -> tuple[str, str]:
        """The next marked line: its word and the rest of it."""
        while True:
            start = self._seen.find(self._mark, max(0, self._searched - len(self._mark)))
            end = self._seen.find(b"\n", start + len(self._mark)) if start >= 0 else -1
            if end >= 0:
                line = bytes(self._seen[start + len(self._mark) : end])
                del self._seen[:end]
                self._searched = 0
                word, _, rest = readable(line).partition(" ")
                return word, rest
            self._searched = len(self._seen) if start < 0 else start + len(self._mark)
            self._seen += self._more()

    def rest(self) -> bytes:
        """What has come after the last marked line."""
        return bytes(self._seen[1:])

    def _more(self) -> bytes:
        if len(self._seen) > MAX_NOISE_BYTES:
            raise self._failed("its login shell prints without end")
        try:
            data = self._pipe.recv(max(0.0, self._by - time.monotonic()))
        except PipeTimeout:
            raise self._failed("it did not come to our command in time; look at its login shell's start-up") from None
        if not data:
            raise self._failed(self._pipe.ending() or "it ended without a word")
        return data

    def _failed(self, why: str) -> BootstrapFailed:
        output = readable(bytes(self._seen))
        said = f". The last it said: {output[-400:]}" if output else ""
        return BootstrapFailed(f"the agent did not start on {self._pipe.where}: {why}{said}", output=output)
