"""Patterns match what GitLab Runner's doublestar matches."""

from __future__ import annotations

import pytest

from fleet.agent.transfer.globs import Pattern, PatternError, alternatives
from fleet.agent.transfer.tree import LocalTree

MATCHES = [
    ("a", "a"),
    ("a/b", "a/b"),
    ("*", "abc"),
    ("*", ".hidden"),
    ("a*", "a"),
    ("a*c", "abbc"),
    ("?b", "ab"),
    ("?", "ü"),
    ("[a-c]x", "bx"),
    ("[^a-c]x", "dx"),
    ("[!a-c]x", "dx"),
    ("[]]", "]"),
    ("[a-]", "-"),
    (r"\*", "*"),
    (r"a\?b", "a?b"),
    (r"\\*", "\\x"),
    (r"[\]]", "]"),
    ("**", "a"),
    ("**", "a/b/c"),
    ("**/c", "c"),
    ("**/c", "a/b/c"),
    ("a/**", "a"),
    ("a/**", "a/b"),
    ("a/**", "a/b/c"),
    ("a/**/c", "a/c"),
    ("a/**/c", "a/b/b/c"),
    ("a/**/**/c", "a/b/c"),
    ("**/*.log", "x.log"),
    ("**/*.log", "a/b/x.log"),
    ("a/**/*", "a/b"),
    ("**/b/**", "a/b/c/d"),
    ("a**c", "abbc"),
    ("{a,b}/c", "b/c"),
    ("{a,b/c}/d", "b/c/d"),
    ("*.{jpg,png}", "x.png"),
    ("{a,{b,c}}d", "cd"),
    ("a{,b}", "a"),
    ("{**/x,y}", "a/x"),
    ("ordner mit leerzeichen/*", "ordner mit leerzeichen/ä ö.txt"),
    ("日本/**", "日本/語/x"),
    ("a.b", "a.b"),
    ("(a|b)+", "(a|b)+"),
    ("*", "line\nbreak"),
]
DIFFERS = [
    ("a", "b"),
    ("a", "a/b"),
    ("a", "A"),
    ("*", "a/b"),
    ("?", "/"),
    ("a?b", "a/b"),
    ("[a-c]", "d"),
    ("[^x]", "/"),
    ("[!a]", "a"),
    (r"\*", "a"),
    ("a.b", "axb"),
    ("a/**", "ab"),
    ("a/**/c", "a/bc"),
    ("**/c", "bc"),
    ("a/**/*", "a"),
    ("a**c", "a/c"),
    ("{a,b}", "{a,b}"),
    ("*.{jpg,png}", "x.gif"),
    ("**/*.log", "x.log/y"),
]


@pytest.mark.parametrize(("pattern", "path"), MATCHES)
def test_a_pattern_matches(pattern, path):
    assert Pattern(pattern).matches(path)


@pytest.mark.parametrize(("pattern", "path"), DIFFERS)
def test_a_pattern_does_not_match(pattern, path):
    assert not Pattern(pattern).matches(path)


@pytest.mark.parametrize("pattern", ["[a", "{a", "{a,{b}", "a\\", "[c-a]", "a[", "x/[^"])
def test_a_pattern_that_cannot_be_read_is_an_error(pattern):
    with pytest.raises(PatternError):
        Pattern(pattern)


def test_braces_that_would_explode_are_refused():
    with pytest.raises(PatternError, match="alternatives"):
        alternatives("{a,b}" * 20)


@pytest.fixture
def tree(tmp_path):
    """A project with a bit of everything."""
    for path in (
        "a.txt",
        "b.log",
        ".hidden",
        "dist/x.js",
        "dist/css/y.css",
        "dist/css/deep/z.css",
        "dist/with space/ü.txt",
        "src/main/target/m.jar",
        "src/test/target/t.jar",
        "tmp/[x].txt",
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (tmp_path / "inner").symlink_to("dist/css")
    (tmp_path / "outer").symlink_to("/usr")
    made = LocalTree(str(tmp_path))
    yield made
    made.close()


FINDS = [
    ("a.txt", ["a.txt"]),
    ("missing", []),
    ("a.txt/b", []),
    ("*.txt", ["a.txt"]),
    ("*", [".hidden", "a.txt", "b.log", "dist", "inner", "outer", "src", "tmp"]),
    ("dist", ["dist"]),
    ("dist/*", ["dist/css", "dist/with space", "dist/x.js"]),
    ("dist/**/*.css", ["dist/css/deep/z.css", "dist/css/y.css"]),
    ("**/*.jar", ["src/main/target/m.jar", "src/test/target/t.jar"]),
    ("src/*/target/*.jar", ["src/main/target/m.jar", "src/test/target/t.jar"]),
    ("src/**/target", ["src/main/target", "src/test/target"]),
    ("{a.txt,b.log,c}", ["a.txt", "b.log"]),
    ("dist/with space/*", ["dist/with space/ü.txt"]),
    (r"tmp/\[x\].txt", ["tmp/[x].txt"]),
    ("dist/css/**", ["dist/css", "dist/css/deep", "dist/css/deep/z.css", "dist/css/y.css"]),
    ("inner/*.css", ["inner/y.css"]),
    ("inner/y.css", ["inner/y.css"]),
    ("in*/*.css", ["inner/y.css"]),
    ("outer/*", []),
    ("outer/bin", []),
    ("**/bin", []),
]


@pytest.mark.parametrize(("pattern", "paths"), FINDS)
def test_a_pattern_finds_what_is_there(tree, pattern, paths):
    assert sorted(entry.path for entry in Pattern(pattern).find(tree)) == paths


@pytest.mark.parametrize(("pattern", "paths"), FINDS)
def test_what_is_found_is_also_matched(tree, pattern, paths):
    assert all(Pattern(pattern).matches(path) for path in paths)
