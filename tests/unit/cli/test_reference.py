from __future__ import annotations

import pathlib

import pytest

from fleet.cli import reference as commands
from fleet.runtime import reference as served

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    ("name", "draw"), [("cli", commands.page), ("metrics", served.metrics_page), ("api", served.api_page)]
)
def test_the_page_says_what_the_program_does(name, draw) -> None:
    assert (DOCS / f"{name}.md").read_text() == draw(), f"draw docs/reference/{name}.md anew"
