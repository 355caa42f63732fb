from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.execution.moa import RESERVED, Scope, SensitiveRead, interpolated
from fleet.execution.moa_values import ExpressionError

INPUTS: dict[str, Any] = {
    "name": "world", "empty": "", "count": 3.0, "half": 0.5, "yes": True, "no": False, "tags": ["a", "b"],
    "numbers": [1.0, 2.0], "place": {"line1": "Way 42", "line-2": "Sydney", "at": {"x": [True, None]}},
    "with-dash": "dashed", "default": "reserved", "braces": "${{ job.inputs.name }}",
}  # fmt: skip


def worth(expression: str, **inputs: Any) -> str:
    return interpolated(f"${{{{ {expression} }}}}", Scope(inputs=inputs or INPUTS))


def wrong(text: str) -> str:
    with pytest.raises(ExpressionError) as found:
        interpolated(text, Scope(inputs=INPUTS))
    return str(found.value)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("${{ job.inputs.name }}", "world"),
        ("${{job.inputs.name}}", "world"),
        ("a ${{ job.inputs.name }} b ${{ job.inputs.count }} c", "a world b 3 c"),
        ("${{\n  job.inputs.name\n}}", "world"),
        (r"\${{ job.inputs.name }}", "${{ job.inputs.name }}"),
        (r"a\${{b ${{ job.inputs.name }}", "a${{b world"),
        ("$ ${ {{ }} ${NAME} $(date)", "$ ${ {{ }} ${NAME} $(date)"),
        (r"back\slash ${{ 1 }}", r"back\slash 1"),
        ("${{ job.inputs.braces }}", "${{ job.inputs.name }}"),
        ("${{ 'Literal ${{ not evaluated }}' }}", "Literal ${{ not evaluated }}"),
        ("${{ {a: {b: 1}} }}", '{"a":{"b":1}}'),
        ('${{ "in ${{ job.inputs.name + "!" }} it" }}', "in world! it"),
        (r'${{ "no \${{ here" }}', "no ${{ here"),
    ],
)
def test_a_text_is_filled(text: str, filled: str) -> None:
    assert interpolated(text, Scope(inputs=INPUTS)) == filled


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        # texts of values
        ("null", "<null>"), ("true", "true"), ("42", "42"), ("3.14", "3.14"), ("1.5e3", "1500"), ("2E-4", "0.0002"),
        ("job.inputs.half", "0.5"), ("job.inputs.yes", "true"), ("job.inputs.tags", '["a","b"]'),
        ("job.inputs.place.at", '{"x":[true,null]}'), ("1e21", "1e+21"), ("10 / 4", "2.5"),
        # paths
        ("job.inputs.tags[1]", "b"), ("job.inputs.place.line1", "Way 42"), ('job.inputs.place["line-2"]', "Sydney"),
        ("job.inputs['with-dash']", "dashed"), ("job['inputs'].name", "world"), ("(job).inputs.name", "world"),
        ("job.inputs.default", "reserved"), ("[1, 2,][1]", "2"), ("{a: 1,}.a", "1"), ("{'a-b': 1}['a-b']", "1"),
        ("{(job.inputs.name): 1}.world", "1"), ("{name: 1}", '{"name":1}'), ("[]", "[]"), ("{}", "{}"),
        # reckoning
        ("2 + 3 * 4", "14"), ("(2 + 3) * 4", "20"), ("10 - 4 - 3", "3"), ("2 * 3 % 4", "2"), ("-7 % 3", "-1"),
        ("-5", "-5"), ("+5", "5"), ("- -5", "5"), ("'a' + \"b\"", "ab"), ("str(42) + '!'", "42!"),
        ("num('3.5') + 1", "4.5"),
        # comparing
        ("1 == 1", "true"), ("1 == '1'", "false"), ("1 != '1'", "true"), ("2 <= 2", "true"), ("'a' < 'b'", "true"),
        ("'Z' < 'a'", "true"), ("false < true", "true"), ("[1, 2] < [1, 3]", "true"), ("[1] < [1, 0]", "true"),
        ("{a: 1, b: 2} == {b: 2, a: 1}", "true"), ("{a: 1} < {a: 2}", "true"), ("{z: 1} < {a: 1, b: 1}", "true"),
        ("null == null", "true"), ("null <= null", "true"), ("[1, 'a'] == [1, 'a']", "true"), ("[1] == ['1']", "false"),
        # logic
        ("job.inputs.empty || 'default'", "default"), ("job.inputs.name || 'default'", "world"),
        ("job.inputs.yes && '-v' || ''", "-v"), ("job.inputs.no && '-v' || ''", ""), ("0 || 'zero'", "zero"),
        ("[] || 'none'", "none"), ("{} && 1", "{}"), ("null || null", "<null>"), ("!job.inputs.empty", "true"),
        ("!!job.inputs.count", "true"), ("true || job.inputs.unknown", "true"), ("false && 1 / 0", "false"),
        ("job.inputs.name == 'world' && job.inputs.count > 2", "true"), ("bool('x')", "true"), ("bool(0)", "false"),
        # strings
        (r"'It\'s \\ here'", r"It's \ here"), (r"'raw \n'", r"raw \n"), (r'"a\tb\u0041\/\""', 'a\tbA/"'), ('""', ""),
    ],
)  # fmt: skip
def test_an_expression_has_a_value(expression: str, value: str) -> None:
    assert worth(expression) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${{ job.inputs.nmae }}", "there is no input 'nmae'; there are: braces, count,"),
        ("${{ job.inputs.place.no }}", "there is no property 'no'"),
        ("${{ job.other }}", "there is no property 'other'"),
        ("${{ vars.CI }}", "vars is not known here: job.inputs is (character 9)"),
        ("${{ job.inputs.name.x }}", "a string has no properties"),
        ("${{ job.inputs.tags[2] }}", "there is no element 2 in an array of 2"),
        ("${{ job.inputs.tags[-1] }}", "there is no element -1"),
        ("${{ job.inputs.tags['a'] }}", "an element is named by a whole number, not by a string"),
        ("${{ job.inputs[0] }}", "a property is named by a string, not by a number"),
        ("${{ 'a' + 1 }}", "+ has no meaning for a string: nothing is converted unasked"),
        ("${{ -'a' }}", "- has no meaning for a string"),
        ("${{ 1 / 0 }}", "division by zero"),
        ("${{ 1e308 * 10 }}", "too large"),
        ("${{ 1 < 'a' }}", "a number and a string have no order"),
        ("${{ num('x') }}", "num() wants a text that is a number"),
        ("${{ num(true) }}", "num() wants a string, not a boolean"),
        ("${{ upper('x') }}", "there is no function upper: bool, num, str are known"),
        ("${{ 'x' | expand_vars }}", "expected }} here (character 9)"),
        ("${{ }}", "expected a value here"),
        ("${{", "expected a value here (character 4)"),
        ("${{ 1", "expected }} here"),
        ("${{ 'open }}", "a string has no end"),
        ('${{ "open }}', "a string has no end"),
        (r'${{ "\x" }}', r"\x is no escape"),
        (r'${{ "\u12" }}', "four hexadecimal digits"),
        ("${{ [1 }}", "expected ] here"),
        ("${{ (1 }}", "expected ) here"),
        ("${{ {a 1} }}", "expected : here"),
        ("${{ {(1): 1} }}", "the key of an object is a string, not a number"),
        ("${{ job. }}", "expected the name of a property here"),
        ("${{ " + "(" * 60 + "1" + ")" * 60 + " }}", "nested more than 40 deep"),
        ("${{ " + "!" * 60 + "1 }}", "nested more than 40 deep"),
    ],
)
def test_what_has_no_value_says_where_and_why(text: str, why: str) -> None:
    assert why in wrong(text)


def test_reserved_words_name_nothing() -> None:
    for word in RESERVED:
        assert f"{word} is a reserved word" in wrong(f"${{{{ {word} }}}}")


@pytest.mark.parametrize(
    "expression",
    ["job.inputs.password", "job.inputs['password'] == 'x'", "job.inputs", "str(job)", "[job.inputs]", "(job.inputs)"],
)
def test_a_sensitive_input_is_never_read(expression: str) -> None:
    scope = Scope(inputs=INPUTS | {"password": "hunter2"}, sensitive=frozenset(["password"]))
    with pytest.raises(SensitiveRead) as found:
        interpolated(f"${{{{ {expression} }}}}", scope)
    assert "hunter2" not in str(found.value)
    assert "password" in str(found.value)


def test_a_sensitive_input_that_is_not_read_harms_nobody() -> None:
    scope = Scope(inputs={"password": "hunter2", "name": "x"}, sensitive=frozenset(["password"]))
    assert interpolated("${{ job.inputs.name }}", scope) == "x"
    assert interpolated("${{ true || job.inputs.password }}", scope) == "true"


def test_long_chains_need_no_deep_stack() -> None:
    assert worth(" + ".join(["1"] * 20_000)) == "20000"
    assert worth("job.inputs.a" + "[0]" * 30, a=_nested(30)) == "end"
    assert interpolated("${{ job.inputs.name }}," * 20_000, Scope(inputs=INPUTS)).count("world") == 20_000


def _nested(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value]
    return value


@given(st.text())
def test_any_text_is_filled_or_refused_in_words(text: str) -> None:
    try:
        found = interpolated("${{ " + text, Scope(inputs=INPUTS))
    except ExpressionError as exc:
        found = str(exc)
    assert isinstance(found, str)


@given(st.text())
def test_any_string_goes_through_unchanged(text: str) -> None:
    assert worth("job.inputs.a", a=text) == text
