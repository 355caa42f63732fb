"""Programs for PowerShell say what jobs mean. No PowerShell runs here: what it reads is told by its own rules."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.execution.jobfile import render
from fleet.execution.powershell import PowerShellManner, on_one_line
from fleet.execution.powershell_text import CHECK, quote
from fleet.execution.refused import JobRefused
from tests.contract.execution.job_inputs import LEASE, RUNNER, machine_at, payload_of, render_with, stage_named

SHELLS = ("pwsh", "bash", "sh")
SINGLE_QUOTES = "'\u2018\u2019\u201a\u201b"
GIT = {
    "repo_url": "https://gitlab.example/g/p.git",
    "sha": "0123456789abcdef0123456789abcdef01234567",
    "ref": "main",
    "refspecs": ["+refs/heads/main:refs/remotes/origin/main"],
    "depth": 20,
}


def read_word(text: str) -> tuple[str, str]:
    """What PowerShell reads a quoted word as, and what follows it: a quote ends it unless another quote follows."""
    assert text[0] == "'"
    at, read = 1, []
    while True:
        if text[at] in SINGLE_QUOTES:
            if at + 1 == len(text) or text[at + 1] not in SINGLE_QUOTES:
                return "".join(read), text[at + 1 :]
            at += 1
        read.append(text[at])
        at += 1


def text_of(program: str) -> str:
    """The program as a person would read it."""
    found = re.search(r"FromBase64String\('([A-Za-z0-9+/=]*)'\)", program)
    assert found is not None
    return base64.b64decode(found[1]).decode("utf-8", "surrogatepass")


def pwsh(payload, **runner):
    return render_with(payload, machine=machine_at("/home/ci", shells=SHELLS), shell="pwsh", **runner)


def step_of(payload, **runner) -> str:
    return text_of(stage_named(pwsh(payload, **runner), "step_script")["script"])


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_every_text_is_read_back_unchanged(text):
    assert read_word(quote(text) + ";") == (text, ";")


@given(st.text(alphabet=SINGLE_QUOTES + "a$`\n"))
def test_quotes_of_every_kind_end_no_word(text):
    assert read_word(quote(text)) == (text, "")


@given(st.text())
def test_a_program_is_one_line_of_ascii_that_ends_the_shell(text):
    program = on_one_line(text)
    assert program.isascii()
    assert program.endswith("; exit 0\n\n")
    assert program.count("\n") == 2
    assert text_of(program) == text


def test_each_command_is_shown_and_its_end_is_looked_at():
    lines = step_of(payload_of(script=["dotnet build", "Get-Item nothing"])).splitlines()
    at = lines.index("dotnet build")
    assert lines[at - 1] == quote_line("$ dotnet build")
    assert lines[at + 1] == CHECK
    assert lines[lines.index("Get-Item nothing") + 1] == CHECK


def quote_line(text: str) -> str:
    return f"Write-Output '\x1b[32;1m{text}\x1b[0;m'"


def test_a_failing_cmdlet_ends_the_stage_before_anything_else_is_said():
    assert step_of(payload_of()).startswith("$ErrorActionPreference = 'Stop'\n")


def test_the_code_of_a_native_program_becomes_the_stages():
    assert CHECK == "if (-not $?) { exit $(if ($LASTEXITCODE) { $LASTEXITCODE } else { 1 }) }"


def test_an_empty_command_is_an_empty_line():
    assert "Write-Output ''\n" in step_of(payload_of(script=["", "x"]))


def test_several_lines_are_shown_by_their_first():
    text = step_of(payload_of(script=["if ($true) {\n  'x'\n}"]))
    assert quote_line("$ if ($true) { # collapsed multi-line command") in text
    assert f"\nif ($true) {{\n  'x'\n}}\n{CHECK}\n" in text


def test_several_lines_are_a_section_where_sections_are_wanted():
    text = step_of(payload_of(script=["'a'\n'b'"], variables={"FF_SCRIPT_SECTIONS": "true"}))
    assert "':section_script_step_0[hide_duration=true,collapsed=true]\r\x1b[0K\x1b[32;1m$ ''a''\x1b[0;m')" in text
    assert "+ ':section_script_step_0\r\x1b[0K')" in text


def test_a_variable_is_there_under_both_names():
    text = step_of(payload_of(variables={"GREETING": "it's $HOME"}))
    assert "\n${GREETING} = 'it''s $HOME'\n" not in text  # HOME is no variable of the job: it was expanded to nothing
    assert "\n${GREETING} = 'it''s '\n${env:GREETING} = 'it''s '\n" in text


@pytest.mark.parametrize("name", ["HOME", "PID", "true", "Error", "PSVersionTable", "input"])
def test_a_name_that_powershell_keeps_to_itself_is_in_the_environment_only(name):
    text = step_of(payload_of(variables={name: "x"}))
    assert f"\n${{env:{name}}} = 'x'\n" in text
    assert f"\n${{{name}}} =" not in text


def test_a_file_variable_is_worth_its_path():
    payload = payload_of(variables=[{"key": "CONFIG", "value": "secret text", "file": True}])
    rendered = pwsh(payload)
    assert "${env:CONFIG} = '/home/ci/builds/abcdefghi/1/group/project.tmp/CONFIG'" in step_of(payload)
    assert "secret text" in [each["text"] for each in rendered.job_file["files"]]
    assert "secret text" not in step_of(payload)


def test_secrets_are_set_before_tracing_begins():
    secret = {"key": "TOKEN", "value": "very-hidden-value", "masked": True}
    payload = payload_of(variables=[secret, {"key": "CI_DEBUG_TRACE", "value": "true"}, {"key": "SEEN", "value": "1"}])
    text = step_of(payload)
    assert text.index("${env:TOKEN}") < text.index("Set-PSDebug -Trace 2") < text.index("${env:SEEN}")


def test_what_earlier_stages_left_in_the_environment_file_is_read():
    assert "gitlab_runner_env') { foreach ($fleet_line in Get-Content" in step_of(payload_of())


def test_sources_come_in_gitlabs_order_and_every_call_is_looked_at():
    stage = stage_named(pwsh(payload_of(git_info=GIT)), "get_sources")
    lines = text_of(stage["script"]).splitlines()
    calls = [index for index, line in enumerate(lines) if line.startswith("& 'git' ")]
    words = ("init", "include.path", "remote.origin.url", "fetch", "checkout", "clean")
    positions = [next(i for i in calls if f"'{word}'" in lines[i]) for word in words]
    assert positions == sorted(positions)
    assert all(lines[index + 1] == CHECK for index in calls)
    assert f"'checkout' '-f' '-q' '{GIT['sha']}'" in lines[positions[4]]
    assert "'+refs/heads/main:refs/remotes/origin/main' '--prune' '--quiet' '--depth' '20'" in lines[positions[3]]


def test_an_earlier_jobs_locks_hooks_and_configuration_go_first():
    text = text_of(stage_named(pwsh(payload_of(git_info=GIT, allow_git_fetch=True)), "get_sources")["script"])
    for name in ("index.lock", "config.lock", "config", "hooks", "modules"):
        assert f"project/.git/{name}' -Recurse -Force }}" in text
    assert text.index("index.lock") < text.index("'init'")


@pytest.mark.parametrize("strategy", ["fetch", "clone", "none", "empty"])
@pytest.mark.parametrize("submodules", ["none", "normal", "recursive"])
def test_every_strategy_is_written_with_its_blocks_closed(strategy, submodules):
    given = {"GIT_STRATEGY": strategy, "GIT_SUBMODULE_STRATEGY": submodules, "FF_ENABLE_JOB_CLEANUP": "true"}
    for stage in pwsh(payload_of(git_info=GIT, variables=given, after_script=["'bye'"])).job_file["stages"]:
        text = unquoted(text_of(stage["script"])) if stage["script"] else ""
        assert text.count("{") == text.count("}")
        assert text.count("(") == text.count(")")


def unquoted(text: str) -> str:
    """The text without its quoted words, each of which must end."""
    rest, kept = text, []
    while (at := rest.find("'")) >= 0:
        kept.append(rest[:at])
        _, rest = read_word(rest[at:])
    return "".join((*kept, rest))


def test_after_script_and_cleanup_are_written_for_the_same_shell():
    rendered = pwsh(payload_of(after_script=["'bye'"]))
    assert "\n'bye'\n" in text_of(stage_named(rendered, "after_script")["script"])
    cleanup = text_of(stage_named(rendered, "cleanup_file_variables")["script"])
    assert "Remove-Item -LiteralPath '/home/ci/builds/abcdefghi/1/group/project.tmp' -Recurse -Force" in cleanup
    assert rendered.job_file["shell"] == "pwsh"


def test_powershell_is_taken_where_nothing_else_is():
    machine = machine_at("/home/ci", shells=("powershell",))
    assert render(payload=payload_of(), runner=RUNNER, machine=machine, lease=LEASE).job_file["shell"] == "powershell"


def test_a_machine_without_powershell_refuses_the_job():
    with pytest.raises(JobRefused, match="'pwsh'"):
        render_with(payload_of(), machine=machine_at("/home/ci"), shell="pwsh")


def test_an_empty_body_is_no_program():
    manner = PowerShellManner(shell="pwsh", exports=None, env_file="/x")  # type: ignore[arg-type]
    assert manner.program([]) == ""
