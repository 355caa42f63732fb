"""What we quote, real shells read back unchanged: as values, as commands, through every layer of a program."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.execution.shell_text import quote, words
from tests.contract.execution.job_inputs import payload_of, render_with
from tests.contract.execution.stage_runner import run_job

SHELLS = ("bash", "sh")
NASTY = "'\"\\$`!#&|;<>(){}[]*?~%^=\n\t\r -ab1é\u2028\U0001f600\x1b\x7f\x01"
TEXTS = st.text(alphabet=st.one_of(st.sampled_from(NASTY), st.characters(exclude_characters="\0", codec="utf-8")))


def read_back(shell: str, program: str) -> bytes:
    with tempfile.TemporaryFile() as script:
        script.write(program.encode("utf-8"))
        script.seek(0)
        return subprocess.run([shell], stdin=script, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("shell", SHELLS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_every_text_comes_back_as_it_was(shell: str, texts: list[str]) -> None:
    program = f"printf '%s\\0' {words(texts)}\n"
    assert read_back(shell, program) == b"".join(text.encode("utf-8") + b"\0" for text in texts)


@pytest.mark.parametrize("shell", SHELLS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_every_text_survives_three_layers_of_eval(shell: str, texts: list[str]) -> None:
    program = f"printf '%s\\0' {words(texts)}"
    for _ in range(3):
        program = f"eval {quote(program)}"
    assert read_back(shell, program + "\n") == b"".join(text.encode("utf-8") + b"\0" for text in texts)


@pytest.mark.parametrize("shell", SHELLS)
@given(values=st.lists(TEXTS, min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_programs_see_every_variable_as_it_was(shell: str, values: list[str]) -> None:
    with tempfile.TemporaryDirectory() as home:
        names = [f"VALUE_{index}" for index in range(len(values))]
        variables = [
            {"key": name, "value": value, "raw": True, "masked": index % 2 == 0}
            for index, (name, value) in enumerate(zip(names, values, strict=True))
        ]
        out = pathlib.Path(home, "out")
        script = [f"for name in {' '.join(names)}; do printenv \"$name\" >> {out}; printf '\\0' >> {out}; done"]
        rendered = render_with(payload_of(script=script, variables=variables), home, shell=shell)
        run = run_job(rendered.job_file, {"PATH": os.environ["PATH"], "HOME": home})
        assert run.codes["step_script"] == 0, run.log
        assert out.read_bytes() == b"".join(value.encode("utf-8") + b"\n\0" for value in values)


@pytest.mark.parametrize("shell", SHELLS)
@given(text=TEXTS)
@settings(max_examples=25, deadline=None)
def test_a_file_variable_holds_its_content_byte_for_byte(shell: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        out = pathlib.Path(home, "out")
        variables = [{"key": "CONTENT", "value": text, "file": True, "raw": True}]
        rendered = render_with(payload_of(script=[f'cat "$CONTENT" > {out}'], variables=variables), home, shell=shell)
        run = run_job(rendered.job_file, {"PATH": os.environ["PATH"], "HOME": home})
        assert run.codes["step_script"] == 0, run.log
        assert out.read_bytes() == text.encode("utf-8")
        assert not pathlib.Path(rendered.job_file["cleanup_paths"][0]).exists()
