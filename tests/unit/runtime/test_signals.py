"""What was asked for first gives way to what is asked for later only when that is stronger."""

from __future__ import annotations

import signal

import pytest

from fleet.runtime.signals import Wishes
from fleet.settings.manager import OnTerm

TERM, INT, QUIT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP


@pytest.fixture
def wishes():
    before = {each: signal.getsignal(each) for each in (TERM, INT, QUIT, HUP)}
    made = Wishes()
    made.install()
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("on_term", "sent", "wish"),
    [
        (OnTerm.LEAVE, [TERM], OnTerm.LEAVE),
        (OnTerm.LEAVE, [INT], OnTerm.LEAVE),
        (OnTerm.LEAVE, [QUIT], OnTerm.DRAIN),
        (OnTerm.ABORT, [TERM], OnTerm.ABORT),
        (OnTerm.DRAIN, [INT], OnTerm.DRAIN),
        (OnTerm.LEAVE, [TERM, TERM, TERM], OnTerm.LEAVE),
        (OnTerm.DRAIN, [TERM, TERM, TERM], OnTerm.DRAIN),
        (OnTerm.LEAVE, [QUIT, TERM], OnTerm.LEAVE),
        (OnTerm.LEAVE, [TERM, QUIT], OnTerm.LEAVE),
        (OnTerm.LEAVE, [QUIT, INT], OnTerm.LEAVE),
        (OnTerm.DRAIN, [QUIT, INT], OnTerm.DRAIN),
        (OnTerm.DRAIN, [INT, INT], OnTerm.ABORT),
        (OnTerm.LEAVE, [QUIT, INT, INT], OnTerm.ABORT),
        (OnTerm.LEAVE, [INT, INT, TERM, QUIT], OnTerm.ABORT),
        (OnTerm.LEAVE, [HUP], None),
    ],
)
def test_signals_in_order(wishes, on_term, sent, wish):
    wishes.on_term = lambda: on_term
    for number in sent:
        signal.raise_signal(number)
    assert wishes.how is wish
    assert wishes.woken.is_set()
    assert wishes.reload == (HUP in sent)
