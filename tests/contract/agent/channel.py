"""A manager's end of the channel, for tests: starts the packed agent as a real process and speaks frames with it."""

from __future__ import annotations

import os
import pathlib
import pwd
import select
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from fleet.agent.frames import Decoder, encode

AGENT = pathlib.Path(__file__).resolve().parents[3] / "fleet" / "agent"
PATIENCE_S = 20.0
MAIN = "import sys\nfrom fleet_agent.__main__ import main\nsys.exit(main())\n"


def pack(path: pathlib.Path) -> pathlib.Path:
    """The agent as the manager installs it: one zip with a package and a start."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", MAIN)
        for source in sorted(AGENT.rglob("*.py")):
            archive.write(source, f"fleet_agent/{source.relative_to(AGENT)}")
    return path


def eventually(check: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """What the check gives as soon as it is true."""
    give_up_at = time.monotonic() + within_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < give_up_at, f"it never came true that {what}"
        time.sleep(0.01)


class Channel:
    """One `agent serve` process and what it said."""

    def __init__(
        self,
        agent: pathlib.Path,
        home: pathlib.Path,
        python: str = sys.executable,
        user: str | None = None,
        **env: str,
    ) -> None:
        self.process = subprocess.Popen(
            [python, "-I", "-S", str(agent), "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"HOME": str(home), "PATH": os.environ["PATH"], **env},
            bufsize=0,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
        )
        self._decoder = Decoder()
        self.frames: list[tuple[dict[str, Any], bytes]] = []
        self._next = 0
        self.hello = self.expect(lambda head: head["type"] == "hello")

    def send(self, kind: str, body: bytes = b"", **fields: Any) -> int:
        """Send a request and give its id."""
        self._next += 1
        assert self.process.stdin is not None
        self.process.stdin.write(encode({"type": kind, "id": self._next, **fields}, body))
        return self._next

    def ask(self, kind: str, body: bytes = b"", within_s: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its reply."""
        number = self.send(kind, body, **fields)
        return self.expect(lambda head: head["type"] == "reply" and head["id"] == number, within_s)

    def expect(self, fits: Callable[[dict[str, Any]], bool], within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The first frame that fits, of those that came and those to come."""
        give_up_at = time.monotonic() + within_s
        seen = 0
        while True:
            for head, _ in self.frames[seen:]:
                if fits(head):
                    return head
            seen = len(self.frames)
            left = give_up_at - time.monotonic()
            assert left > 0, f"no such frame; got {[head for head, _ in self.frames][-8:]}"
            self.receive(left)

    def receive(self, within_s: float) -> bool:
        """Take what comes; False when nothing did."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            return False
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        assert data, f"the agent closed the channel, status {self.process.poll()}"
        self.frames += self._decoder.feed(data)
        return True

    def exit_of(self, lease: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The `exit` frame of a lease."""
        return self.expect(lambda head: head["type"] == "exit" and head["lease"] == lease, within_s)

    def data(self, lease: str) -> Iterator[tuple[int, bytes]]:
        """The data that came for a lease: offset and bytes."""
        for head, body in self.frames:
            if head["type"] == "data" and head["lease"] == lease:
                yield head["offset"], body

    def log(self, lease: str, start: int = 0) -> bytes:
        """The log as it was received; fails on a gap or a repetition."""
        pieces, end = [], start
        for offset, body in self.data(lease):
            assert offset == end
            pieces.append(body)
            end += len(body)
        return b"".join(pieces)

    def kill(self) -> None:
        """kill -9, as a machine's out-of-memory killer would."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Hang up and wait for the end of the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()
