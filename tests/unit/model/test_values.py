"""Every value of the vocabulary is frozen, without a dictionary, and made by names alone."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import fleet.model

MODULES = [importlib.import_module(f"fleet.model.{found.name}") for found in pkgutil.iter_modules(fleet.model.__path__)]
VALUES = [
    kind
    for module in MODULES
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_is_frozen_slotted_and_made_by_names(kind):
    about = kind.__dataclass_params__
    assert about.frozen
    assert "__slots__" in vars(kind)
    assert all(each.kw_only for each in dataclasses.fields(kind))


def test_the_vocabulary_has_values():
    assert {"Instance", "Job", "Lease", "PoolSnapshot", "Policy"} <= {kind.__name__ for kind in VALUES}
