r"""Moa, GitLab's language between `${{` and `}}`: reads a template and says what it is worth.

Rule: pure, and only what GitLab documents; anything else is an error that names the place, never a guess. Operators
convert nothing by themselves. `\${{` stands for the three characters. A text costs time in its length, nesting is
bounded, and what `+` makes of it is bounded by whoever gives the texts.

Theory. The parser goes down the grammar once and makes a function of the scope out of each piece, so `&&` and `||`
evaluate their right side only when it counts. A `}}` ends an expression where the grammar has no use for it: one inside
an object or a string does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fleet.execution.moa_values import FUNCTIONS, ExpressionError, Value, as_text, combined, element, kind, signed

Node = Callable[["Scope"], Value]

OPEN, CLOSE, ESCAPED = "${{", "}}", "\\${{"
DEPTH = 40
_START = re.compile(r"\\?\$\{\{")
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<op>\|\||&&|==|!=|<=|>=|[-+*/%!<>.\[\](){},:\"'])",
    re.ASCII,
)
_SPACE = re.compile(r"\s*")
_ESCAPES = {
    "\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "/": "/",
}  # fmt: skip
_WORDS: Mapping[str, Value] = {"null": None, "true": True, "false": False}
RESERVED = frozenset((
    "array", "as", "break", "case", "const", "continue", "default", "else", "fallthrough", "float", "for", "func",
    "function", "goto", "if", "import", "in", "int", "let", "loop", "map", "namespace", "number", "object", "package",
    "range", "return", "string", "struct", "switch", "type", "var", "void", "while",
))  # fmt: skip
_LEVELS = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))


class SensitiveRead(ExpressionError):
    """An expression reads what must not be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What names stand for. Only `job.inputs` is known outside of GitLab Functions.

    Attributes:
        inputs: by key.
        sensitive: the keys of those that no expression may read.
    """

    inputs: Mapping[str, Value] = field(repr=False)
    sensitive: frozenset[str] = frozenset()


class _Inputs(dict[str, Value]):
    """All inputs as one object."""


class _Job(dict[str, Value]):
    """The object `job`."""


def interpolated(text: str, scope: Scope) -> str:
    """The text with the value of every expression put in.

    Raises:
        ExpressionError: one cannot be read, or has no value.
        SensitiveRead: one reads a sensitive input.
    """
    if OPEN not in text:
        return text
    parser = _Parser(text)
    return as_text(parser.template(end=None)(scope))


class _Parser:
    """Reads one text; `at` is how far it has come."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    # texts with expressions in them

    def template(self, *, end: str | None) -> Node:
        """Up to the quote `end`, where escapes are read too, or to the end of the text."""
        parts: list[str | Node] = []
        plain: list[str] = []
        while True:
            if self.at >= len(self.text):
                if end is not None:
                    raise self.wrong("a string has no end")
                break
            if end is not None and self.text[self.at] == end:
                self.at += 1
                break
            if self.text.startswith(ESCAPED, self.at):
                plain.append(OPEN)
                self.at += len(ESCAPED)
            elif self.text.startswith(OPEN, self.at):
                parts += ["".join(plain), self.expression_in_braces()]
                plain = []
            else:
                plain.append(self.escape() if end is not None else self.run())
        return _joined([*parts, "".join(plain)])

    def run(self) -> str:
        """Plain text up to what may begin an expression."""
        found = _START.search(self.text, self.at)
        start, self.at = self.at, found.start() if found else len(self.text)
        return self.text[start : self.at]

    def escape(self) -> str:
        """One character of a double-quoted string."""
        sign, self.at = self.text[self.at], self.at + 1
        if sign != "\\":
            return sign
        kind, self.at = self.text[self.at : self.at + 1], self.at + 1
        if kind == "u":
            digits, self.at = self.text[self.at : self.at + 4], self.at + 4
            if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
                raise self.wrong("\\u wants four hexadecimal digits")
            return chr(int(digits, 16))
        if kind not in _ESCAPES:
            raise self.wrong(f"\\{kind} is no escape in a string")
        return _ESCAPES[kind]

    def raw_string(self) -> Node:
        """A single-quoted string, whose quote is read."""
        found: list[str] = []
        while True:
            sign = self.text[self.at : self.at + 1]
            if not sign:
                raise self.wrong("a string has no end")
            self.at += 1
            if sign == "'":
                return _constant("".join(found))
            if sign == "\\" and self.text[self.at : self.at + 1] in ("\\", "'"):
                sign, self.at = self.text[self.at], self.at + 1
            found.append(sign)

    def expression_in_braces(self) -> Node:
        """From `${{` to the `}}` that belongs to it."""
        self.at += len(OPEN)
        node = self.expression()
        self.space()
        if not self.text.startswith(CLOSE, self.at):
            raise self.wrong(f"expected {CLOSE} here")
        self.at += len(CLOSE)
        return node

    # expressions

    def expression(self, level: int = 0) -> Node:
        """Binary operators of this level and those that bind more tightly; all are left-associative."""
        if level == len(_LEVELS):
            return self.unary()
        first, rest = self.expression(level + 1), []
        while (sign := self.peek()) in _LEVELS[level]:
            self.take()
            rest.append((sign, self.expression(level + 1)))
        return _folded(first, rest) if rest else first

    def unary(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH:
            raise self.wrong(f"nested more than {DEPTH} deep")
        try:
            sign = self.peek()
            if sign not in ("+", "-", "!"):
                return self.chain()
            self.take()
            operand = self.unary()
            return lambda scope: signed(sign, operand(scope))
        finally:
            self.depth -= 1

    def chain(self) -> Node:
        """A value, then `.name` and `[key]`."""
        first, keys = self.primary(), []
        while (sign := self.peek()) in (".", "["):
            self.take()
            if sign == ".":
                keys.append(_constant(self.name("the name of a property")))
            else:
                keys.append(self.expression())
                self.expect("]")
        return _path(first, keys)

    def primary(self) -> Node:
        self.space()
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            raise self.wrong("expected a value here")
        sign, self.at = found[0], found.end()
        if found["number"]:
            return _constant(float(sign))
        if found["name"]:
            return self.named(sign)
        openers: dict[str, Callable[[], Node]] = {
            "(": self.parenthesised, "[": self.array, "{": self.object, "'": self.raw_string,
            '"': lambda: self.template(end='"'),
        }  # fmt: skip
        if sign not in openers:
            self.at = found.start()
            raise self.wrong("expected a value here")
        return openers[sign]()

    def named(self, name: str) -> Node:
        if name in _WORDS:
            return _constant(_WORDS[name])
        if name in RESERVED:
            raise self.wrong(f"{name} is a reserved word")
        if self.peek() == "(":
            return self.call(name)
        if name != "job":
            raise self.wrong(f"{name} is not known here: job.inputs is")
        return lambda scope: _Job({"inputs": _Inputs(scope.inputs)})

    def call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            raise self.wrong(f"there is no function {name}: {', '.join(sorted(FUNCTIONS))} are known")
        self.take()
        argument = self.expression()
        self.expect(")")
        function = FUNCTIONS[name]
        return lambda scope: function(argument(scope))

    def parenthesised(self) -> Node:
        node = self.expression()
        self.expect(")")
        return node

    def array(self) -> Node:
        items: list[Node] = []
        while self.peek() != "]":
            items.append(self.expression())
            if self.peek() != ",":
                break
            self.take()
        self.expect("]")
        return lambda scope: [item(scope) for item in items]

    def object(self) -> Node:
        pairs: list[tuple[Node, Node]] = []
        while self.peek() != "}":
            key = self.key()
            self.expect(":")
            pairs.append((key, self.expression()))
            if self.peek() != ",":
                break
            self.take()
        self.expect("}")
        return lambda scope: {_key(key(scope)): item(scope) for key, item in pairs}

    def key(self) -> Node:
        """A bare name stands for itself; anything else is evaluated."""
        self.space()
        found = _TOKEN.match(self.text, self.at)
        if found is not None and found["name"]:
            self.at = found.end()
            return _constant(found[0])
        return self.primary()

    # characters

    def space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def peek(self) -> str:
        """The operator that comes next, or nothing."""
        self.space()
        found = _TOKEN.match(self.text, self.at)
        return (found["op"] or "") if found else ""

    def take(self) -> None:
        self.at += len(self.peek())

    def expect(self, sign: str) -> None:
        if self.peek() != sign:
            raise self.wrong(f"expected {sign} here")
        self.take()

    def name(self, what: str) -> str:
        self.space()
        found = _TOKEN.match(self.text, self.at)
        if found is None or not found["name"]:
            raise self.wrong(f"expected {what} here")
        self.at = found.end()
        return found["name"]

    def wrong(self, why: str) -> ExpressionError:
        return ExpressionError(f"{why} (character {min(self.at, len(self.text)) + 1})")


def _constant(value: Value) -> Node:
    return lambda _: value


def _joined(parts: list[str | Node]) -> Node:
    """One expression without text around it keeps its type; else everything becomes text."""
    kept = [part for part in parts if part != ""]
    if len(kept) == 1 and not isinstance(kept[0], str):
        return kept[0]
    return lambda scope: "".join(part if isinstance(part, str) else as_text(part(scope)) for part in kept)


def _folded(first: Node, rest: list[tuple[str, Node]]) -> Node:
    """From left to right; `||` and `&&` look no further than they must."""

    def value(scope: Scope) -> Value:
        found = first(scope)
        for sign, node in rest:
            if sign in ("||", "&&"):
                found = found if bool(found) is (sign == "||") else node(scope)
            else:
                found = combined(sign, found, node(scope))
        return found

    return value


def _path(first: Node, keys: list[Node]) -> Node:
    """From property to property; all inputs in one value are read together."""

    def value(scope: Scope) -> Value:
        found = first(scope)
        for key in keys:
            found = _member(scope, found, key(scope))
        if scope.sensitive and isinstance(found, _Inputs | _Job):
            raise SensitiveRead(f"it reads all inputs, and {min(scope.sensitive)!r} is sensitive")
        return found

    return value


def _member(scope: Scope, owner: Value, name: Value) -> Value:
    if isinstance(owner, list):
        return element(owner, name)
    if not isinstance(owner, dict):
        raise ExpressionError(f"{kind(owner)} has no properties")
    if not isinstance(name, str):
        raise ExpressionError(f"a property is named by a string, not by {kind(name)}")
    if isinstance(owner, _Inputs):
        if name in scope.sensitive:
            raise SensitiveRead(f"input {name!r} is sensitive")
        if name not in owner:
            raise ExpressionError(f"there is no input {name!r}; there are: {', '.join(sorted(owner))}")
    if name not in owner:
        raise ExpressionError(f"there is no property {name!r}")
    return owner[name]


def _key(key: Value) -> str:
    if not isinstance(key, str):
        raise ExpressionError(f"the key of an object is a string, not {kind(key)}")
    return key
