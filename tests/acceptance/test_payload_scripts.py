"""Odd, broken and heavy payloads: scripts, variables, time limits, exit codes, options."""

from __future__ import annotations

import secrets

import pytest

from fleet.demo.payload import make_job
from tests.acceptance.standing import standing

SUCCESS = ("success", "", 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with standing(tmp_path_factory.mktemp("payload") / "m") as made:
        yield made


def variable(key, value, **more):
    return {"key": key, "value": value, "public": True} | more


# --- what no shell can hold ---


def test_nul_bytes_in_a_script_are_taken_out_and_the_log_says_so(place):
    ended = place.run("echo a\0b", "echo done", variables=[variable("WITH_NUL", "x\0y")])
    assert ended.end == SUCCESS
    assert {"ab", "done"} <= set(ended.lines)
    assert ended.has("step script: what no shell can hold")
    assert ended.has("variable WITH_NUL: what no shell can hold")


def test_lone_surrogates_become_replacement_characters(place):
    ended = place.run("echo 'a\ud800b' \"$BROKEN\"", variables=[variable("BROKEN", "c\udfffd")])
    assert ended.end == SUCCESS
    assert "a\ufffdb c\ufffdd" in ended.lines


def test_invalid_utf8_that_a_job_prints_is_repaired(place):
    ended = place.run(r"printf 'a\377\376b\n'", r"printf 'half \342\202'; sleep 1.5; printf '\254 whole\n'")
    assert ended.end == SUCCESS
    ended.trace.decode("utf-8")
    assert any(line.startswith("a\ufffd") and line.endswith("b") for line in ended.lines)
    assert "half \u20ac whole" in ended.lines


def test_unicode_goes_through_everywhere(place):
    word = "Grüße 🚀 漢字 \u202e \u0635\u0628\u0627\u062d"
    ended = place.run(
        f"echo '{word}'",
        'echo "variable $WORD"',
        'cat "$FILED"',
        after_script=[f"echo 'after {word}'"],
        name=f"job {word}",
        variables=[variable("WORD", word), variable("FILED", f"file {word}\n", file=True)],
    )
    assert ended.end == SUCCESS
    assert {word, f"variable {word}", f"file {word}", f"after {word}"} <= set(ended.lines)


# --- variables ---


def test_ten_megabytes_of_variables_reach_the_script(place):
    heavy = [variable(f"HEAVY_{number}", f"{number}-" + "x" * (1 << 20)) for number in range(10)]
    ended = place.run(
        'echo "first ${#HEAVY_0} last ${#HEAVY_9}"', "ls / >/dev/null && echo programs start", variables=heavy
    )
    assert ended.end == SUCCESS
    assert f"first {2 + (1 << 20)} last {2 + (1 << 20)}" in ended.lines
    assert "programs start" in ended.lines
    assert ended.has("too large for the environment of programs")


def test_a_variable_named_path_changes_the_path_and_one_with_a_dash_is_named_in_a_warning(place):
    ended = place.run(
        'echo "path is $PATH"',
        "env | grep -c with-dash || true",
        variables=[variable("PATH", "/usr/bin:/bin:/opt/of-the-job"), variable("with-dash", "1"), variable("1st", "1")],
    )
    assert ended.end == SUCCESS
    assert ended.has("/opt/of-the-job")
    assert ended.has("variable 'with-dash' is not in the environment")
    assert ended.has("variable '1st' is not in the environment")


def test_a_path_without_programs_still_ends_the_job_and_frees_the_slot(place):
    ended = place.run("ls", variables=[variable("PATH", "/nowhere")])
    assert ended.end == ("failed", "script_failure", 127)
    assert ended.has("command not found")
    assert place.run("echo next").end == SUCCESS


@pytest.mark.parametrize("key", ["BASH_ENV", "ENV", "PS4", "IFS", "HOME", "SHELLOPTS", "LD_PRELOAD", "UID"])
def test_a_variable_that_a_shell_knows_does_no_harm_to_the_agent(place, key):
    ended = place.run("echo begun", variables=[variable(key, "/nowhere/at all")])
    assert ended.view.state in ("success", "failed")
    assert place.run("echo next").end == SUCCESS


def test_expansion_raw_and_file_variables(place):
    ended = place.run(
        'echo "$EXPANDED|$RAW|$DOLLAR"',
        'cat "$FILED"',
        'echo "$POINTS"',
        variables=[
            variable("WHO", "world"),
            variable("EXPANDED", "hello $WHO"),
            variable("RAW", "hello $WHO", raw=True),
            variable("DOLLAR", "cost $$5"),
            variable("FILED", "content of $WHO\n", file=True),
            variable("POINTS", "at $FILED"),
        ],
    )
    assert ended.end == SUCCESS
    assert "hello world|hello $WHO|cost $5" in ended.lines
    assert "content of world" in ended.lines
    assert ended.has(".tmp/FILED")


def test_file_variables_are_gone_after_the_job(place):
    first = place.run('echo "it is $SECRET_FILE"', variables=[variable("SECRET_FILE", "content", file=True)])
    (path,) = {line.removeprefix("it is ") for line in first.lines if line.startswith("it is ")}
    for _ in range(2):  # on whichever machine
        seen = place.run(f"test -e {path} && echo still there || echo gone")
        assert "gone" in seen.lines


# --- masking ---


def test_a_masked_value_of_one_character_is_hidden_everywhere(place):
    ended = place.run("echo axbxc", variables=[variable("ONE", "x", masked=True)])
    assert ended.end == SUCCESS
    assert any(line.startswith("a[MASKED]b[MASKED]c") for line in ended.lines)
    assert "axbxc" not in ended.text


def test_a_masked_value_with_newlines_is_hidden_as_a_whole_and_across_pauses(place):
    value = f"first-{secrets.token_hex(8)}\nsecond-{secrets.token_hex(8)}"
    first, second = value.split("\n")
    ended = place.run(
        'echo "<$KEY>"',
        f"printf '<{first}'; sleep 1.3; printf '\\n{second[:5]}'; sleep 1.3; printf '{second[5:]}>\\n'",
        variables=[variable("KEY", value, masked=True)],
    )
    assert ended.end == SUCCESS
    assert second.encode() not in ended.trace
    assert ended.text.count("<[MASKED]>") >= 2


def test_the_job_token_token_prefixes_and_url_parameters_are_hidden(place):
    made_up = secrets.token_hex(12)
    ended = place.run(
        'echo "token $CI_JOB_TOKEN."',
        f'echo "glpat-{made_up}." "glrt-{made_up}."',
        f'echo "https://example.com/?private_token={made_up}&x=1"',
    )
    assert ended.end == SUCCESS
    assert "token [MASKED]." in ended.lines
    assert made_up not in ended.text
    assert ended.has("glpat-[MASKED]")
    assert ended.has("private_token=[MASKED]&x=1")


# --- steps ---


@pytest.mark.parametrize("steps", [[], [{"name": "script", "script": []}], None], ids=["none", "empty script", "null"])
def test_a_job_without_anything_to_do_succeeds(place, steps):
    assert place.run(steps=steps).end == SUCCESS


def test_several_steps_run_in_order_and_the_first_failure_stops_them(place):
    steps = [
        {"name": "script", "script": ["echo one; export LOST=1"]},
        {"name": "release", "script": ['echo "two $LOST"', "exit 4"]},
        {"name": "third", "script": ["echo three"]},
        {"name": "after_script", "script": ["echo after $CI_JOB_STATUS"]},
    ]
    ended = place.run(steps=steps)
    assert ended.end == ("failed", "script_failure", 4)
    assert [line.rstrip() for line in ended.lines if line.split()[0] in ("one", "two", "three", "after")] == [
        "one", "two", "after failed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "told"), [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("exit 256", 0), ("exit 300", 44)]
)
def test_exit_codes_are_those_of_the_shell(place, said, told):
    ended = place.run("echo begun", said)
    assert ended.end == (("failed", "script_failure", told) if told else SUCCESS)


def test_a_script_that_kills_itself_fails_with_the_signals_code(place):
    ended = place.run("kill -9 $$")
    assert ended.end[:2] == ("failed", "script_failure")
    assert ended.view.exit_code == 137


def test_after_script_sees_the_status_and_its_failure_counts_only_when_asked(place):
    ended = place.run("echo fine", after_script=["echo $CI_JOB_STATUS", "exit 9"])
    assert ended.end == SUCCESS
    assert "success" in ended.lines
    counted = {"AFTER_SCRIPT_IGNORE_ERRORS": "false"}
    ended = place.run("echo fine", after_script=["exit 9"], variables=counted)
    assert ended.end == ("failed", "script_failure", 9)


def test_hooks_run_around_get_sources(place):
    source = place.gitlab.commit("demo/hooks", {"README": "hello\n"})
    hooks = [
        {"name": "pre_get_sources_script", "script": ["echo before"]},
        {"name": "post_get_sources_script", "script": ["cat README", "echo behind"]},
    ]
    ended = place.run("echo script", git=source, hooks=hooks)
    assert ended.end == SUCCESS
    at = [ended.lines.index(word) for word in ("before", "hello", "behind", "script")]
    assert at == sorted(at)


# --- time limits ---


def test_a_timeout_of_zero_is_two_hours(place):
    ended = place.run("echo timeout is $CI_JOB_TIMEOUT", timeout=0)
    assert ended.end == SUCCESS
    assert "timeout is 7200" in ended.lines


def test_the_jobs_timeout_ends_it_without_after_script(place):
    ended = place.run("echo begun", "sleep 300", timeout=4, after_script=["echo after"])
    assert ended.end == ("failed", "job_execution_timeout", 0)
    assert "begun" in ended.lines
    assert "after" not in ended.lines
    assert ended.has("ERROR: Job failed")


def test_the_scripts_timeout_leaves_room_for_after_script(place):
    ended = place.run(
        "echo begun",
        "sleep 300",
        after_script=["echo status $CI_JOB_STATUS"],
        variables={"RUNNER_SCRIPT_TIMEOUT": "2s"},
    )
    assert ended.end == ("failed", "job_execution_timeout", 0)
    assert "status timedout" in ended.lines


def test_the_timeout_of_after_script_ends_it_and_not_the_job(place):
    ended = place.run(
        "echo fine", after_script=["echo after", "sleep 300"], variables={"RUNNER_AFTER_SCRIPT_TIMEOUT": "2s"}
    )
    assert ended.end == SUCCESS
    assert "after" in ended.lines


def test_a_timeout_nobody_can_read_is_named_and_ignored(place):
    ended = place.run("echo fine", variables={"RUNNER_SCRIPT_TIMEOUT": "soon"})
    assert ended.end == SUCCESS
    assert ended.has("RUNNER_SCRIPT_TIMEOUT is 'soon'")


# --- what is refused ---

REFUSED = {
    "native steps": {"steps": [], "run": '[{"name": "hello", "script": "echo hello"}]'},
    "an option of an executor": {"image": {"name": "alpine", "executor_opts": {"docker": {"unheard_of": 1}}}},
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_stage_can_stand_for_is_refused_with_exit_code_3(place, payload):
    ended = place.run("echo never", **payload)
    assert ended.end == ("failed", "runner_system_failure", 3)
    assert "never" not in ended.lines
    assert ended.has("this job uses what the runner does not support")


# --- the log ---


def test_sections_frame_the_stages_only_where_gitlab_shows_them(place):
    ended = place.run("echo hello")
    for name in ("prepare_executor", "prepare_script", "step_script"):
        start, end = f":{name}\r".encode(), f":{name}\r".encode()
        assert ended.trace.count(b"section_start:") >= 3
        assert ended.trace.count(start) >= 2, name
        assert end in ended.trace
    plain = place.run("echo hello", features={"trace_sections": False})
    assert b"section_" not in plain.trace
    assert plain.end == SUCCESS


def test_a_debug_trace_shows_the_commands_but_no_masked_value(place):
    word = secrets.token_hex(8)
    ended = place.run(
        'V=shown; test "$V" = shown && echo "$HIDDEN"',
        variables=[variable("CI_DEBUG_TRACE", "true"), variable("HIDDEN", word, masked=True)],
    )
    assert ended.end == SUCCESS
    assert ended.has("V=shown")
    assert any(line.lstrip().startswith("+") for line in ended.lines)
    assert word.encode() not in ended.trace


def test_timestamps_can_be_turned_off(place):
    ended = place.run("echo hello", variables={"FF_TIMESTAMPS": "false"})
    assert ended.end == SUCCESS
    assert b"\nhello\n" in ended.trace
    assert not any(line.startswith("20") for line in ended.trace.decode().splitlines())


def test_output_beyond_the_limit_is_cut_once_and_the_job_goes_on(gitlab, make_manager):
    manager = make_manager(runner_keys="output_limit = 64", idle=1).start()
    job = gitlab.enqueue(make_job(script=["head -c 300000 /dev/zero | tr '\\0' 'é'", "echo", "exit 5"]))
    (view,) = gitlab.wait_for(job, timeout=60)
    assert (view.state, view.exit_code) == ("failed", 5)
    trace = gitlab.trace(job)
    trace.decode("utf-8")
    assert 64 << 10 <= len(trace) < (64 << 10) + 1000
    assert trace.count(b"reached its limit") == 1
    assert b"Job failed" in trace[-300:]
    assert manager.events("work_failed") == []
