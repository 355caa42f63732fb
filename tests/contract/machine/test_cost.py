"""What the channel costs the manager, as ratios and counts, and times only where they differ by their kind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import statistics
import threading
import time
from collections.abc import Iterator

import pytest

from fleet.machine.channel import AgentChannel
from fleet.machine.ssh import connect
from tests.contract.machine.openssh import OpenSsh
from tests.contract.machine.stand_in import stand_in_bundle


@contextlib.contextmanager
def opened(sshd: OpenSsh) -> Iterator[AgentChannel]:
    with connect(sshd.target) as connection, AgentChannel.over_ssh(connection, bundle=stand_in_bundle()) as channel:
        yield channel


def resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def wakes() -> int:
    """How often a thread of ours has gone to sleep and come back."""
    total = 0
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            status = pathlib.Path("/proc/self/task", task, "status").read_text()
            total += int(status.split("voluntary_ctxt_switches:")[1].split()[0])
    return total


class Flood:
    """Output from the machine, counted as it comes."""

    def __init__(self, channel: AgentChannel) -> None:
        self.channel = channel
        self.bytes = self.most_resident = self.most_threads = 0
        self.ended = threading.Event()
        channel.on_frame(self.take)

    def take(self, head: dict, body: bytes) -> None:
        self.bytes += len(body)
        if head["type"] == "exit":
            self.ended.set()
        elif head["offset"] % (64 * 65536) == 0:
            self.most_resident = max(self.most_resident, resident_bytes())
            self.most_threads = max(self.most_threads, thread_count())

    def run(self, size: int) -> float:
        """Take so many bytes; the CPU seconds it cost."""
        self.ended.clear()
        begun = time.process_time()
        self.channel.request("flood", 30, bytes=size, piece=65536)
        assert self.ended.wait(120)
        return time.process_time() - begun


def test_200_megabytes_pass_with_flat_memory_and_no_more_threads(sshd: OpenSsh) -> None:
    with opened(sshd) as channel:
        flood = Flood(channel)
        flood.run(20 * 65536)
        before, threads = resident_bytes(), thread_count()
        size = 3200 * 65536
        flood.bytes = 0
        flood.run(size)
    assert flood.bytes == size
    assert flood.most_resident - before < 40_000_000
    assert flood.most_threads <= threads


def test_output_costs_what_its_bytes_cost(sshd: OpenSsh) -> None:
    with opened(sshd) as channel:
        flood = Flood(channel)
        flood.run(64 * 65536)
        small = statistics.median(flood.run(128 * 65536) for _ in range(3))
        large = statistics.median(flood.run(512 * 65536) for _ in range(3))
    assert large < 8 * small


def test_a_request_on_an_open_channel_waits_for_no_timer(sshd: OpenSsh) -> None:
    # 40 ms is what a packet costs that Nagle's algorithm holds back for a delayed acknowledgement.
    with opened(sshd) as channel:
        took = []
        for _ in range(60):
            begun = time.monotonic()
            channel.request("ping", 20)
            took.append(time.monotonic() - begun)
    assert statistics.median(took) < 0.02


@pytest.mark.parametrize("count", [12])
def test_idle_channels_wake_nobody(tmp_path: pathlib.Path, count: int) -> None:
    with OpenSsh(tmp_path / "many", "MaxStartups 100") as sshd, contextlib.ExitStack() as stack:
        before = thread_count()
        channels = [stack.enter_context(opened(sshd)) for _ in range(count)]
        assert thread_count() - before <= 2 * count
        begun = wakes()
        assert not threading.Event().wait(3.0)
        # A connection left as paramiko makes it wakes ten times a second: 360 in all.
        assert wakes() - begun < 60
        assert all(channel.closed is None for channel in channels)
