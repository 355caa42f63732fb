"""The command line of the agent: `serve`, `supervise`, `version`."""

from __future__ import annotations

import os
import sys

from . import PROTOCOL, VERSION, home, identity, serve, starting

USAGE = """usage: agent serve              be the other end of the manager's channel, on standard input and output
       agent supervise LEASE    run the job file on standard input, and wait for its end
       agent version            tell version and protocol"""


def main(arguments: list | None = None) -> int:
    """Run one command; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["version"]:
        sys.stdout.write("fleet-agent %s protocol %d\n" % (VERSION, PROTOCOL))
        return 0
    os.umask(0o077)
    if arguments == ["serve"]:
        serve.serve(home.of_user(identity.own().home))
        return 0
    if len(arguments) == 2 and arguments[0] == "supervise":
        return starting.supervise_here(home.of_user(identity.own().home), arguments[1], sys.stdin.buffer.read())
    sys.stderr.write(USAGE + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
