"""The values of Moa: their texts, their order, and what operators and functions make of them.

Rule: nothing is converted unasked. Numbers are double-precision floats; arrays and objects are lists and dictionaries.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Value = Any  # None, bool, float, str, list or dict

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


class ExpressionError(Exception):
    """An expression cannot be read or has no value; the text says where and why, and holds no value of an input."""


def as_text(value: Value) -> str:
    """A value as `str()` writes it: arrays and objects as JSON, whole numbers without a point."""
    if isinstance(value, str):
        return value
    return "<null>" if value is None else _json(value)


def kind(value: Value) -> str:
    """The type of a value, in words."""
    names = {bool: "a boolean", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def combined(sign: str, left: Value, right: Value) -> Value:
    """What a binary operator makes of two values; `&&` and `||` are not among them."""
    if sign in ("==", "!="):
        return _equal(left, right) is (sign == "==")
    if sign in _ORDERS:
        return _ORDERS[sign](_order(left, right))
    return _reckoned(sign, left, right)


def signed(sign: str, value: Value) -> Value:
    """What a unary operator makes of a value."""
    if sign == "!":
        return not value
    return _number(sign, value) * (-1.0 if sign == "-" else 1.0)


def element(owner: list[Value], index: Value) -> Value:
    """An element of an array."""
    if not isinstance(index, float) or not index.is_integer():
        raise ExpressionError(f"an element is named by a whole number, not by {kind(index)}")
    if not 0 <= index < len(owner):
        raise ExpressionError(f"there is no element {int(index)} in an array of {len(owner)}")
    return owner[int(index)]


def _json(value: Value) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{','.join(_json(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_json(key)}:{_json(item)}' for key, item in value.items())}}}"
    whole = float(value)
    return str(int(whole)) if whole.is_integer() and abs(whole) < 1e21 else repr(whole)


_ORDERS: Mapping[str, Callable[[int], bool]] = {
    "<": lambda order: order < 0, "<=": lambda order: order <= 0,
    ">": lambda order: order > 0, ">=": lambda order: order >= 0,
}  # fmt: skip


def _reckoned(sign: str, left: Value, right: Value) -> Value:
    if sign == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    a, b = _number(sign, left), _number(sign, right)
    if sign in ("/", "%") and b == 0:
        raise ExpressionError("division by zero")
    with_two: dict[str, Callable[[], float]] = {
        "+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b, "%": lambda: math.fmod(a, b),
    }  # fmt: skip
    result = with_two[sign]()
    if not math.isfinite(result):
        raise ExpressionError(f"the result of {sign} is too large")
    return result


def _number(sign: str, value: Value) -> float:
    if not isinstance(value, float):
        raise ExpressionError(f"{sign} has no meaning for {kind(value)}: nothing is converted unasked")
    return value


def _equal(left: Value, right: Value) -> bool:
    if kind(left) != kind(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(_equal(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _order(left: Value, right: Value) -> int:
    """Less than zero when `left` comes first; only what is of one type has an order."""
    if kind(left) != kind(right):
        raise ExpressionError(f"{kind(left)} and {kind(right)} have no order")
    if isinstance(left, list):
        found = (order for a, b in zip(left, right, strict=False) if (order := _order(a, b)))
        return next(found, len(left) - len(right))
    if isinstance(left, dict):
        return _order(_flat(left), _flat(right))
    if isinstance(left, str):
        left, right = left.encode("utf-8", "replace"), right.encode("utf-8", "replace")
    return 0 if left is None else int(left > right) - int(left < right)


def _flat(thing: dict[str, Value]) -> list[Value]:
    """An object by its length, then its keys, then their values."""
    keys = sorted(thing)
    return [float(len(keys)), keys, [thing[key] for key in keys]]


def _as_number(value: Value) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, float):
        return value
    raise ExpressionError(
        "num() wants a text that is a number" if isinstance(value, str) else f"num() wants a string, not {kind(value)}"
    )


FUNCTIONS: Mapping[str, Callable[[Value], Value]] = {"str": as_text, "num": _as_number, "bool": bool}
