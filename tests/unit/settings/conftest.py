"""A configuration file made of a text, and what its loading says."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping

import pytest

from fleet.settings.loading import load
from fleet.settings.settings import Loaded

Load = Callable[..., Loaded]


@pytest.fixture
def load_text(tmp_path: pathlib.Path) -> Load:
    """Write the text to `config.toml` and load it; the environment is empty but for what is given."""

    def loaded(text: str, env: Mapping[str, str] | None = None, **kwargs: object) -> Loaded:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, {"HOME": str(tmp_path), "TZ": "Europe/Berlin", **(env or {})}, **kwargs)

    return loaded
