"""What `fleetctl` says to scripts when it ends, and the errors of the command line itself.

Rule: every way to end has one number here, and the numbers never change their meaning.
"""

from __future__ import annotations

from enum import IntEnum

from fleet.sdk import FleetError


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    CONFIG = 3
    UNREACHABLE = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS = {
    Exit.OK: "done, or the answer is yes",
    Exit.NEGATIVE: "it failed, was refused, or the answer is no",
    Exit.USAGE: "the command line is wrong",
    Exit.CONFIG: "the configuration or the secret key is wrong",
    Exit.UNREACHABLE: "the manager, the database or GitLab did not answer: nothing is known",
    Exit.INTERRUPTED: "a person pressed Ctrl-C",
    Exit.BROKEN_PIPE: "who read the output has gone",
}
# of errors that know nothing of exit codes, by their slug; any other is NEGATIVE
BY_SLUG = {
    "seal": Exit.CONFIG,
    "tls_file": Exit.CONFIG,
    "endpoint": Exit.CONFIG,
    "no_such_plugin": Exit.CONFIG,
    "store": Exit.UNREACHABLE,
    "store_unavailable": Exit.UNREACHABLE,
    "store_damaged": Exit.UNREACHABLE,
    "store_too_new": Exit.UNREACHABLE,
}


class Failed(FleetError):
    """What was asked could not be done; the message says why, and what to do."""

    slug = "failed"
    exit = Exit.NEGATIVE


class Misused(Failed):
    """The options do not go together."""

    slug = "misused"
    exit = Exit.USAGE


class ConfigInvalid(Failed):
    """The configuration file cannot be used."""

    slug = "config_invalid"
    exit = Exit.CONFIG


class Unreachable(Failed):
    """Nobody answered."""

    slug = "unreachable"
    exit = Exit.UNREACHABLE


def exit_of(error: FleetError) -> Exit:
    """The code that an error ends the program with."""
    return error.exit if isinstance(error, Failed) else BY_SLUG.get(error.slug, Exit.NEGATIVE)
