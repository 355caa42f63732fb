from __future__ import annotations

from fleet.cli.runner_keys import entry_of, keys, laid_over, plain


def test_every_key_has_an_option_of_its_own_and_a_twin_in_the_environment() -> None:
    found = list(keys())
    assert len({key.option for key in found}) == len(found)
    assert len({key.variable for key in found}) == len(found)
    by_option = {key.option: key for key in found}
    assert by_option["--ssh-host"].path == ("ssh",)
    assert by_option["--tls-ca-file"].variable == "CI_SERVER_TLS_CA_FILE"
    assert by_option["--autoscaler-max-instances"].kind is int
    assert by_option["--environment"].many


def test_given_values_become_keys_in_their_tables_and_others_do_not() -> None:
    given = {"key_limit": 3, "key_ssh__host": "h", "key_environment": ("A=1",), "key_shell": None, "other": 1}
    assert entry_of(given) == {"limit": 3, "ssh": {"host": "h"}, "environment": ["A=1"]}


def test_false_is_a_value() -> None:
    assert entry_of({"key_debug_trace_disabled": False}) == {"debug_trace_disabled": False}


def test_what_is_given_beats_the_template_key_by_key() -> None:
    below = {"limit": 1, "ssh": {"host": "a", "port": 22}}
    assert laid_over(below, {"limit": 2, "ssh": {"host": "b"}}) == {"limit": 2, "ssh": {"host": "b", "port": 22}}


def test_a_template_is_made_of_plain_values() -> None:
    assert plain({"a": [{"b": 1}], "c": "x"}) == {"a": [{"b": 1}], "c": "x"}
