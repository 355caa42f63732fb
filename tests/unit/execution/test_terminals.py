"""A terminal, as the manager has it: bounded both ways, and over for good once it is over."""

from __future__ import annotations

import threading

import pytest

from fleet.execution.terminals import PIECE, WINDOW, Terminal
from fleet.machine.errors import ChannelClosed


class Channel:
    """Keeps what was sent."""

    def __init__(self):
        self.sent = []

    def send(self, kind, timeout_s, /, *, body=b"", **fields):
        self.sent.append((kind, body, fields))

    def typed(self):
        return b"".join(body for kind, body, _ in self.sent if kind == "terminal_data")


class DeadChannel:
    """Takes nothing any more."""

    def send(self, kind, timeout_s, /, **fields):
        raise ChannelClosed("the machine is gone")


class Job:
    key, lease = "job-1", "lease-1"


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def terminal(channel):
    return Terminal("t", Job(), "i-1", channel)


def test_what_is_read_is_told_as_taken_with_the_next_reading(terminal, channel):
    terminal.showed(b"abc")
    terminal.showed(b"de")
    assert (terminal.read(0), channel.sent) == (b"abc", [])
    assert terminal.read(0) == b"de"
    assert channel.sent == [("terminal_taken", b"", {"terminal": "t", "bytes": 3})]
    assert terminal.read(0) == b""
    assert channel.sent[1:] == [("terminal_taken", b"", {"terminal": "t", "bytes": 2})]


def test_who_types_more_than_the_window_waits_until_it_was_taken(terminal, channel):
    data = bytes(range(256)) * ((WINDOW + 2 * PIECE) // 256)
    typing = threading.Thread(target=terminal.write, args=(data,))
    typing.start()
    typing.join(0.3)
    assert typing.is_alive()
    assert len(channel.typed()) == WINDOW
    terminal.took(2 * PIECE)
    typing.join(20)
    assert channel.typed() == data


def test_an_end_frees_who_waits_and_follows_what_was_shown(terminal):
    typing = threading.Thread(target=terminal.write, args=(b"x" * 2 * WINDOW,))
    typing.start()
    terminal.showed(b"last")
    terminal.end("the shell has ended", 3)
    terminal.end("something else", None)
    typing.join(20)
    assert not typing.is_alive()
    assert (terminal.read(), terminal.read(), terminal.read()) == (b"last", None, None)
    assert (terminal.reason, terminal.exit_code) == ("the shell has ended", 3)


def test_nothing_is_sent_of_a_terminal_that_is_over(terminal, channel):
    terminal.close()
    terminal.close()
    terminal.write(b"x")
    terminal.showed(b"y")
    assert [kind for kind, _, _ in channel.sent] == ["terminal_close"]
    assert terminal.read() is None


def test_a_channel_that_is_gone_ends_it():
    terminal = Terminal("t", Job(), "i-1", DeadChannel())
    terminal.write(b"x")
    assert terminal.reason == "the machine is gone"
