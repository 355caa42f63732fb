"""The layout check itself catches what it promises to catch."""

from __future__ import annotations

import importlib.util
import pathlib

SPEC = importlib.util.spec_from_file_location("layout", pathlib.Path(__file__).resolve().parents[1] / "layout.py")
layout = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(layout)


def test_the_tree_keeps_the_layout_rules(capsys):
    assert layout.main() == 0, capsys.readouterr().out


def test_a_token_in_a_file_is_a_breach(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    leaky = tmp_path / "notes.md"
    leaky.write_text("gl" + "pat-" + "x" * 20)
    assert layout.breaches_of(leaky)[0] == ["notes.md: holds something that looks like a real token"]


def test_a_long_file_and_a_file_without_a_concept_are_breaches(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    (tmp_path / "fleet").mkdir()
    long = tmp_path / "fleet" / "utils.py"
    long.write_text("x = 1\n" * 401)
    assert len(layout.breaches_of(long)[0]) == 2


def test_a_mock_is_a_breach(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    lazy = tmp_path / "test_lazy.py"
    lazy.write_text("from unittest" + " import mock\n")
    assert layout.breaches_of(lazy)[0] == [
        "test_lazy.py: uses unittest.mock; write a fake with its illness in its name"
    ]
