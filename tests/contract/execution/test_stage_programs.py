"""The programs of the stages, run by real bash and sh."""

from __future__ import annotations

import os
import pathlib
import re
import secrets
import signal
import subprocess
import tempfile
import time
from typing import Any

import pytest

from tests.contract.execution.job_inputs import payload_of, render_with, stage_named
from tests.contract.execution.stage_runner import Run, place_files, run_job

pytestmark = pytest.mark.parametrize("shell", ["bash", "sh"])


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'it\'s a "home" \\ é'
    path.mkdir()
    return path


def run(home: pathlib.Path, shell: str, *, payload: dict[str, Any], **runner: Any) -> Run:
    rendered = render_with(payload_of(**payload), home, shell=shell, **runner)
    return run_job(rendered.job_file, {"PATH": os.environ["PATH"], "HOME": str(home)})


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text)


def test_commands_are_shown_and_run_in_the_project_directory(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": ["pwd", 'echo "a b"\necho c']})
    project = home / "builds/abcdefghi/1/group/project"
    assert plain(done.outputs["step_script"]).splitlines() == [
        "$ pwd", str(project), '$ echo "a b" # collapsed multi-line command', "a b", "c",
    ]  # fmt: skip
    assert done.outputs["step_script"].startswith("\x1b[32;1m$ pwd\x1b[0;m\n")
    assert done.codes == dict.fromkeys(("prepare_script", "get_sources", "step_script", "cleanup_file_variables"), 0)


def test_the_first_failing_command_ends_the_step_with_its_exit_code(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": ["(exit 42)", "echo not reached"]})
    assert done.codes["step_script"] == 42
    assert "not reached" not in done.log


def test_an_exit_in_the_script_is_the_steps_exit_code(home: pathlib.Path, shell: str) -> None:
    assert run(home, shell, payload={"script": ["exit 7"]}).codes["step_script"] == 7
    done = run(home, shell, payload={"script": ["exit 0", "echo not reached"]})
    assert done.codes["step_script"] == 0
    assert "not reached" not in done.log


def test_a_last_command_that_is_false_fails_the_step(home: pathlib.Path, shell: str) -> None:
    assert run(home, shell, payload={"script": ["false && true"]}).codes["step_script"] == 1
    assert run(home, shell, payload={"script": ["false && true", "true"]}).codes["step_script"] == 0


def test_an_open_quote_fails_the_step_after_the_commands_before_it(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": ["echo before", "echo 'open"], "after_script": ["echo after"]})
    assert done.codes["step_script"] != 0
    assert "\nbefore\n" in done.outputs["step_script"]
    assert "\nafter\n" in done.outputs["after_script"]


def test_one_construct_may_span_several_entries(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": ["if true; then", "echo inside", "fi", "cat <<END\nin a document\nEND"]})
    assert done.codes["step_script"] == 0
    assert "\ninside\n" in done.log
    assert "\nin a document\n" in done.log


def test_commands_cannot_eat_the_program(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": ["cat", "read -r line || echo empty", "echo end"]})
    assert plain(done.outputs["step_script"]).splitlines()[-3:] == ["empty", "$ echo end", "end"]


def test_a_broken_pipe_counts_in_bash(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": ["false | true"]})
    assert done.codes["step_script"] == (1 if shell == "bash" else 0)


def test_files_may_be_written_over(home: pathlib.Path, shell: str) -> None:
    assert run(home, shell, payload={"script": ["echo 1 > f", "echo 2 > f", "cat f"]}).codes["step_script"] == 0


def test_an_empty_step_is_no_stage_and_the_job_is_fine(home: pathlib.Path, shell: str) -> None:
    done = run(home, shell, payload={"script": [], "after_script": []}, pre_build_script="echo never")
    assert set(done.codes) == {"prepare_script", "get_sources", "cleanup_file_variables"}
    assert run(home, shell, payload={"script": ["", "  \n"]}).codes["step_script"] == 0


def test_the_runners_scripts_surround_steps_but_not_after_script(home: pathlib.Path, shell: str) -> None:
    done = run(
        home, shell, payload={"script": ["echo the step"], "after_script": ["echo after it"]},
        pre_build_script="echo first\nSET_BEFORE=yes", post_build_script='echo "last $SET_BEFORE"',
    )  # fmt: skip
    said = [line for line in plain(done.outputs["step_script"]).splitlines() if not line.startswith("$ ")]
    assert said == ["first", "the step", "last yes"]
    assert plain(done.outputs["after_script"]).splitlines() == [
        "Running after script...", "$ echo after it", "after it",
    ]  # fmt: skip


def test_hooks_run_around_the_sources_in_their_order(home: pathlib.Path, shell: str) -> None:
    hooks = [
        {"name": "post_get_sources_script", "script": ["echo 3"]},
        {"name": "pre_get_sources_script", "script": ["echo 2"]},
    ]
    done = run(
        home, shell, payload={"hooks": hooks}, pre_get_sources_script="echo 1", post_get_sources_script="echo 4; pwd"
    )
    said = [line for line in plain(done.outputs["get_sources"]).splitlines() if not line.startswith(("$ ", "Skip"))]
    assert said == ["1", "2", "3", "4", str(home / "builds/abcdefghi/1/group/project")]


def test_after_script_sees_how_the_job_stands_in_a_fresh_shell(home: pathlib.Path, shell: str) -> None:
    payload: dict[str, Any] = {"script": ["export LEFT=over", "false"], "after_script": ['echo "$CI_JOB_STATUS:$LEFT"']}
    assert "\nfailed:\n" in run(home, shell, payload=payload).outputs["after_script"]


def test_a_stage_hands_variables_to_the_later_ones(home: pathlib.Path, shell: str) -> None:
    script = ['printf \'A=1 2="x\\nB=$HOME\' >> "$GITLAB_ENV"', 'echo "not yet ${A:-unset}"']
    done = run(home, shell, payload={"script": script, "after_script": ['echo "$A|$B"']})
    assert "\nnot yet unset\n" in done.outputs["step_script"]
    assert '\n1 2="x|$HOME\n' in done.outputs["after_script"]


def test_each_command_can_be_checked_explicitly(home: pathlib.Path, shell: str) -> None:
    payload: dict[str, Any] = {"script": ["set +e", "(exit 9)", "echo not reached"]}
    assert run(home, shell, payload=payload).codes["step_script"] == 0
    flags = {"FF_ENABLE_BASH_EXIT_CODE_CHECK": True}
    assert run(home, shell, payload=payload, feature_flags=flags).codes["step_script"] == 9


def test_long_commands_fold_into_sections_where_asked(home: pathlib.Path, shell: str) -> None:
    payload: dict[str, Any] = {"script": ["echo one", "echo '%s\"'\necho two"]}
    output = run(home, shell, payload=payload, feature_flags={"FF_SCRIPT_SECTIONS": True}).outputs["step_script"]
    start = r"section_start:\d+:section_script_step_1\[hide_duration=true,collapsed=true\]\r\x1b\[0K"
    assert re.search(start + re.escape("\x1b[32;1m$ echo '%s\"'\x1b[0;m\n\x1b[32;1mecho two\x1b[0;m\n"), output)
    assert re.search(r"section_end:\d+:section_script_step_1\r\x1b\[0K\n%s\"\ntwo\n", output)
    assert output.count("section_start") == 1
    without = payload | {"features": {"trace_sections": False}}
    assert "section_" not in run(home, shell, payload=without, feature_flags={"FF_SCRIPT_SECTIONS": True}).log


def test_a_debug_trace_shows_commands_and_plain_variables_and_no_secret(home: pathlib.Path, shell: str) -> None:
    secret = f"{secrets.token_hex(4)}\n'{secrets.token_hex(4)}"
    variables = [
        {"key": "CI_DEBUG_TRACE", "value": "true"}, {"key": "SHOWN", "value": "plain"},
        {"key": "HIDDEN", "value": secret, "masked": True},
    ]  # fmt: skip
    payload: dict[str, Any] = {"script": ["echo done"], "variables": variables}
    output = run(home, shell, payload=payload).outputs["step_script"]
    assert re.search(r"^\++ export '?SHOWN='?plain", output, re.MULTILINE)
    assert re.search(r"^\++ echo done$", output, re.MULTILINE)
    assert secret[:8] not in output
    rendered = render_with(payload_of(**payload), home, shell=shell, debug_trace_disabled=True)
    assert not rendered.debug_trace
    assert any("CI_DEBUG_TRACE" in warning for warning in rendered.warnings)
    assert "+ " not in run(home, shell, payload=payload, debug_trace_disabled=True).outputs["step_script"]


def test_a_login_shells_farewell_cannot_fail_the_job(home: pathlib.Path, shell: str) -> None:
    (home / ".profile").write_text("FROM_PROFILE=yes\n")
    (home / ".bash_logout").write_text("echo logged out; false\n")
    done = run(home, shell, payload={"script": ['echo "profile $FROM_PROFILE"', "echo end"]}, login=True)
    assert done.codes["step_script"] == 0
    assert "\nprofile yes\n" in done.outputs["step_script"]
    assert done.outputs["step_script"].endswith("end\n")


def test_no_name_of_a_shells_own_variables_ends_the_shell(home: pathlib.Path, shell: str) -> None:
    names = subprocess.run(["bash", "-c", "compgen -v"], capture_output=True, text=True, check=True).stdout.split()
    more = ["UID", "EUID", "PPID", "IFS", "OPTIND", "GROUPS", "FUNCNAME", "LINENO", "RANDOM", "SECONDS", "BASH_ENV"]
    more += ["ENV", "PS4", "LC_ALL", "LANG", "SHELLOPTS", "BASH_COMMAND", "COMP_WORDBREAKS", "MAILCHECK", "HISTSIZE"]
    for name in sorted({*names, *more} - {"PATH", "HOME"}):
        done = run(home, shell, payload={"script": ["echo alive"], "variables": {name: "x"}})
        assert done.codes["step_script"] == 0, (name, done.log)
        assert "\nalive\n" in done.log, (name, done.log)


def test_a_path_of_the_jobs_own_counts(home: pathlib.Path, shell: str) -> None:
    tools = home / "tools"
    tools.mkdir()
    (tools / "special").write_text("#!/bin/sh\necho special\n")
    (tools / "special").chmod(0o755)
    variables = [{"key": "PATH", "value": f"{tools}:{os.environ['PATH']}", "raw": True}]
    done = run(home, shell, payload={"script": ["special"], "variables": variables})
    assert "\nspecial\n" in done.outputs["step_script"]


def test_names_with_a_dash_are_usable_in_other_variables_only(home: pathlib.Path, shell: str) -> None:
    variables = {"with-dash": "inner", "OUTER": "<${with-dash}>"}
    done = run(home, shell, payload={"script": ['echo "$OUTER"; env | grep -c with- || true'], "variables": variables})
    assert done.outputs["step_script"].endswith("<inner>\n0\n")


def test_ten_megabytes_of_variables_leave_programs_able_to_start(home: pathlib.Path, shell: str) -> None:
    variables = {f"BIG_{index}": "it's" * 25_000 for index in range(100)} | {"SMALL": "x", "HUGE": "y" * 200_000}
    rendered = render_with(payload_of(script=["env | grep -c ^SMALL=", "echo ${#HUGE}"], variables=variables), home)
    assert any("HUGE (195 KiB)" in warning for warning in rendered.warnings)
    began = time.monotonic()
    done = run(home, shell, payload={"script": ["env | grep -c ^SMALL=", "echo ${#HUGE}"], "variables": variables})
    assert done.codes["step_script"] == 0, done.log[-1000:]
    assert plain(done.outputs["step_script"]).splitlines()[1::2] == ["1", "200000"]
    assert time.monotonic() - began < 30


def test_a_terminated_step_ends_with_its_own_exit_trap(home: pathlib.Path, shell: str) -> None:
    script = ["trap 'echo cleaned > marker' EXIT", "echo $$ > started; sleep 60"]
    rendered = render_with(payload_of(script=script), home, shell=shell)
    place_files(rendered.job_file)
    project = home / "builds/abcdefghi/1/group/project"
    project.mkdir(parents=True)
    with tempfile.TemporaryFile() as program:
        program.write(stage_named(rendered, "step_script")["script"].encode())
        program.seek(0)
        process = subprocess.Popen(
            [shell], stdin=program, cwd=home, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (project / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=20) == 1
    assert (project / "marker").read_text() == "cleaned\n"
