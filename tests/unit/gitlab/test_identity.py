"""The system id: made once, kept, never replaced in silence."""

import hashlib
import hmac
import os
import pathlib
import re
import threading

import pytest

from fleet.gitlab.errors import SystemIdError
from fleet.gitlab.identity import FILE_NAME, system_id

NOWHERE = (pathlib.Path("/nonexistent/machine-id"),)


def machine_id(tmp_path):
    path = tmp_path / "machine-id"
    path.write_text("0123456789abcdef\n")
    return (path,)


def test_it_is_made_from_the_machine_id_as_gitlab_runner_makes_it(tmp_path):
    expected = hmac.new(b"0123456789abcdef", b"gitlab-runner", hashlib.sha256).hexdigest()[:12]
    assert system_id(tmp_path, machine_id(tmp_path)) == f"s_{expected}"
    assert (tmp_path / FILE_NAME).read_text() == f"s_{expected}"


def test_without_a_machine_id_it_is_chance_and_stays(tmp_path):
    found = system_id(tmp_path, NOWHERE)
    assert re.fullmatch(r"r_[0-9a-zA-Z]{12}", found)
    assert system_id(tmp_path, NOWHERE) == found
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_kept_id_wins_over_the_machine_id(tmp_path):
    (tmp_path / FILE_NAME).write_text("r_abcDEF123456\n")
    assert system_id(tmp_path, machine_id(tmp_path)) == "r_abcDEF123456"


@pytest.mark.parametrize("text", ["x_abcdefabcdef", "s_short", "s_abcdefabcdef0", "s_abcdef-bcdef"])
def test_a_broken_file_is_named_and_left_alone(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(SystemIdError, match=FILE_NAME):
        system_id(tmp_path, NOWHERE)
    assert (tmp_path / FILE_NAME).read_text() == text


def test_an_empty_file_is_a_start_that_was_cut_off(tmp_path):
    (tmp_path / FILE_NAME).write_text("")
    found = system_id(tmp_path, NOWHERE)
    assert (tmp_path / FILE_NAME).read_text() == found


def test_where_it_cannot_be_kept_only_a_repeatable_one_will_do(tmp_path):
    missing = tmp_path / "missing"
    assert system_id(missing, machine_id(tmp_path)).startswith("s_")
    with pytest.raises(SystemIdError, match=r"missing/\.runner_system_id"):
        system_id(missing, NOWHERE)


def test_of_many_that_start_together_all_get_the_same(tmp_path):
    found = []
    gate = threading.Barrier(8)

    def start():
        gate.wait()
        found.append(system_id(tmp_path, NOWHERE))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
