"""The page of settings in the documents is the one that the program draws."""

from __future__ import annotations

import pathlib

from fleet.settings.keys import all_tables
from fleet.settings.reference import page

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs/reference/settings.md"


def test_the_page_is_drawn_from_the_models():
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "draw it anew: .venv/bin/python -m fleet.settings.reference > docs/reference/settings.md"
    )


def test_every_key_has_words_for_people():
    for names, model in all_tables().items():
        for key, field in model.model_fields.items():
            assert field.description, f"{names} {key} has no docstring"
