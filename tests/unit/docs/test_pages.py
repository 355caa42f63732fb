"""The documents say what the code says, and their links lead somewhere."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

from tests import pages

ROOT = pathlib.Path(__file__).resolve().parents[3]
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])


@pytest.mark.parametrize("name", sorted(pages.PAGES))
def test_a_drawn_page_is_what_the_code_draws(name):
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == pages.PAGES[name](), f"docs/reference/{name} is old: run .venv/bin/python -m tests.pages"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document):
    missing = [
        target
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert missing == []


def logged_events():
    """(event, level) of every warning and error that the manager logs."""
    found = set()
    for path in (ROOT / "fleet").rglob("*.py"):
        if "agent" in path.relative_to(ROOT / "fleet").parts[:1]:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func
            named = isinstance(called, ast.Attribute) and called.attr in ("warning", "error", "exception", "critical")
            of_log = named and isinstance(called.value, ast.Name) and called.value.id == "log"
            if of_log and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


def test_every_warning_and_error_of_the_log_is_explained():
    explained = (ROOT / "docs" / "howto" / "log-messages.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z_]+)` \|", explained, re.MULTILINE))
    assert logged_events() - named == set(), "not explained in docs/howto/log-messages.md"
    assert named - logged_events() == set(), "explained, and never logged"
