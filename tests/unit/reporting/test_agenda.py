"""The agenda speaks of each key at its time, the earliest wish first, and never of what was dropped."""

from __future__ import annotations

import threading
import time

import pytest

from fleet.reporting.agenda import Agenda
from tests.acceptance.manager import wait_until


@pytest.fixture
def heard():
    return []


@pytest.fixture
def agenda(heard):
    made = Agenda(lambda key: heard.append((key, time.monotonic())))
    yield made
    made.close()


def names(heard):
    return [key for key, _ in heard]


def test_keys_are_spoken_of_in_the_order_of_their_times(agenda, heard):
    now = time.monotonic()
    for key, after in (("c", 0.3), ("a", 0.1), ("b", 0.2)):
        agenda.put(key, now + after)
    wait_until(lambda: len(heard) == 3, 5)
    assert names(heard) == ["a", "b", "c"]
    assert all(at >= now + after for (_, at), after in zip(heard, (0.1, 0.2, 0.3), strict=True))


def test_the_earlier_of_two_wishes_counts_whatever_their_order(agenda, heard):
    now = time.monotonic()
    agenda.put("moved up", now + 60)
    agenda.put("moved up", now + 0.1)
    agenda.put("stays", now + 0.2)
    agenda.put("stays", now + 60)
    wait_until(lambda: len(heard) == 2, 5)
    assert names(heard) == ["moved up", "stays"]


def test_a_key_is_spoken_of_once_for_each_time_it_was_put(agenda, heard):
    agenda.put("a", time.monotonic())
    wait_until(lambda: len(heard) == 1, 5)
    agenda.put("a", time.monotonic())
    wait_until(lambda: len(heard) == 2, 5)


def test_what_was_dropped_is_not_spoken_of(agenda, heard):
    now = time.monotonic()
    agenda.put("dropped", now + 0.1)
    agenda.drop("dropped")
    agenda.put("after", now + 0.2)
    wait_until(lambda: heard, 5)
    assert names(heard) == ["after"]


def test_closing_ends_the_thread_though_much_is_planned(heard):
    agenda = Agenda(heard.append)
    agenda.put("far", time.monotonic() + 3600)
    agenda.close()
    assert heard == []
    assert not any(thread.name == "agenda" and thread.is_alive() for thread in threading.enumerate())
