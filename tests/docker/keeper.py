"""`python -m tests.docker.keeper HOME USERS`: runs the engine that the processes of one test run share.

It ends the engine when nobody holds the lock USERS any more, also when those who held it were killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import sys

from tests.docker.engine import Engine, NoDocker


def main() -> int:
    """Keep it until it is not needed."""
    home, users = (pathlib.Path(each) for each in sys.argv[1:3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; they let go of the lock
    with users.open("rb+") as lock:
        engine = Engine.create(home)
        try:
            engine.start()
            _tell(home, {"number": engine.number})
            fcntl.flock(lock, fcntl.LOCK_EX)
        except NoDocker as exc:
            _tell(home, {"error": str(exc)})
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            engine.discard()
            users.unlink(missing_ok=True)  # whoever comes now waits for the lock, and begins anew
    return 0


def _tell(home: pathlib.Path, what: dict[str, object]) -> None:
    fresh = home / "ready.new"
    fresh.write_text(json.dumps(what), encoding="utf-8")
    os.replace(fresh, home / "ready.json")


if __name__ == "__main__":
    sys.exit(main())
