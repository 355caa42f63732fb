"""The configuration file of a call: which one it is, and what is in it."""

from __future__ import annotations

import pathlib

from fleet.cli.exits import ConfigInvalid
from fleet.cli.invocation import Invocation
from fleet.settings.environment import config_path, overrides
from fleet.settings.loading import load
from fleet.settings.settings import Loaded, Settings


def path_of(asked: Invocation) -> pathlib.Path:
    """The configuration file: `--config`, else `$CONFIG_FILE`, else the first of the usual places that exists."""
    return config_path(asked.config, asked.env).absolute()


def loaded_for(asked: Invocation) -> Loaded:
    """Read the file; its problems are part of the answer."""
    try:
        given = overrides(asked.env, log_level_flag=asked.log_level, log_format_flag=asked.log_format)
    except ValueError as exc:
        raise ConfigInvalid(f"a word in the environment is not known: {exc}") from exc
    return load(path_of(asked), asked.env, overrides=given)


def settings_for(asked: Invocation) -> Settings:
    """The configuration in force.

    Raises:
        ConfigInvalid: the file cannot be used; the message has every problem with its line.
    """
    loaded = loaded_for(asked)
    if loaded.settings is None:
        raise ConfigInvalid("\n".join(loaded.lines()))
    return loaded.settings
