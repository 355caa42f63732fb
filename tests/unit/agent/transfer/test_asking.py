"""A stage asks for addresses and waits a while; an answer to another question is passed over."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from fleet.agent.transfer.asking import Asker

WHAT = {"do": "restore_cache", "cache": 0, "key": 1, "digest": "d"}


class Manager:
    """The other end of the two descriptors."""

    def __init__(self) -> None:
        self.asked, self._ask = os.pipe()
        self._answer, self.answering = os.pipe()
        self.environment = {"FLEET_SIGN_ASK": str(self._ask), "FLEET_SIGN_ANSWER": str(self._answer)}

    def answers(self, *urls: object) -> None:
        for each in urls:
            os.write(self.answering, json.dumps({"sign": 1, "urls": each}).encode() + b"\n")

    def close(self) -> None:
        for number in (self.asked, self._ask, self._answer, self.answering):
            os.close(number)


@pytest.fixture
def manager():
    made = Manager()
    yield made
    made.close()


def test_the_answer_to_the_question_is_given(manager):
    manager.answers({"for": {**WHAT, "key": 0}, "get": "another"}, None, {"for": WHAT, "get": "mine"})
    assert Asker(manager.environment, 5).ask(WHAT) == {"for": WHAT, "get": "mine"}
    assert json.loads(os.read(manager.asked, 1000)) == WHAT


def test_an_answer_may_come_in_pieces(manager):
    line = json.dumps({"sign": 1, "urls": {"for": WHAT, "get": "g"}}).encode() + b"\n"

    def slowly() -> None:
        for byte in (line[:5], line[5:]):
            os.write(manager.answering, byte)
            time.sleep(0.02)

    thread = threading.Thread(target=slowly)
    thread.start()
    assert Asker(manager.environment, 5).ask(WHAT)["get"] == "g"
    thread.join()


def test_no_answer_ends_the_waiting(manager):
    began = time.monotonic()
    assert Asker(manager.environment, 0.1).ask(WHAT) is None
    assert 0.1 <= time.monotonic() - began < 3


def test_nobody_to_ask_is_no_answer():
    assert Asker({}, 5).ask(WHAT) is None
