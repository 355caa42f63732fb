from __future__ import annotations

import pytest

from fleet.execution.flags import DEFAULTS, as_bool, changed, resolve


def nobody(_: str) -> None:
    return None


def test_without_a_word_every_flag_has_its_default() -> None:
    values, warnings = resolve({}, nobody)
    assert values == dict(DEFAULTS)
    assert warnings == []
    assert changed(values) == []
    assert values["FF_TIMESTAMPS"]
    assert not values["FF_NETWORK_PER_BUILD"]


def test_the_job_beats_the_default_and_the_runner_beats_the_job() -> None:
    values, _ = resolve({"FF_TIMESTAMPS": True}, {"FF_TIMESTAMPS": "false", "FF_SCRIPT_SECTIONS": "1"}.get)
    assert values["FF_TIMESTAMPS"]
    assert values["FF_SCRIPT_SECTIONS"]
    assert changed(values) == ["FF_SCRIPT_SECTIONS:true"]


def test_what_nobody_can_read_is_off_and_said() -> None:
    values, warnings = resolve({}, {"FF_TIMESTAMPS": "yes please"}.get)
    assert not values["FF_TIMESTAMPS"]
    assert len(warnings) == 1
    assert "FF_TIMESTAMPS" in warnings[0]
    assert resolve({}, {"FF_TIMESTAMPS": ""}.get) == ({**DEFAULTS, "FF_TIMESTAMPS": False}, [])


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "t", "T", "1"])
def test_truth_has_six_spellings(text: str) -> None:
    assert as_bool(text) is True


@pytest.mark.parametrize("text", ["false", "False", "FALSE", "f", "F", "0"])
def test_so_has_falsehood(text: str) -> None:
    assert as_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "tRUE", "2"])
def test_other_texts_are_neither(text: str) -> None:
    assert as_bool(text) is None
