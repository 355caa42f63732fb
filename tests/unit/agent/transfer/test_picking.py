"""What `paths`, `untracked` and `exclude` choose, and what the log says of it."""

from __future__ import annotations

import os
import subprocess

import pytest

from fleet.agent.transfer.picking import pick
from fleet.agent.transfer.tree import LocalTree


@pytest.fixture
def project(tmp_path):
    for path in ("a.txt", "dist/x.js", "dist/x.map", "dist/sub/y.js", "dist/sub/y.map", ".git/HEAD"):
        file = tmp_path / "p" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (tmp_path / "outside.txt").write_text("outside")
    return tmp_path / "p"


@pytest.fixture
def chosen(project):
    tree = LocalTree(str(project))
    yield lambda *paths, exclude=(), untracked=False: [
        entry.path for entry in pick(tree, list(paths), list(exclude), untracked=untracked)
    ]
    tree.close()


def test_a_folder_brings_all_below_it(chosen, capfd):
    assert chosen("dist/") == ["dist", "dist/sub", "dist/sub/y.js", "dist/sub/y.map", "dist/x.js", "dist/x.map"]
    assert capfd.readouterr().out == "dist/: found 6 matching artifact files and directories\n"


def test_what_two_paths_mean_is_taken_once(chosen):
    assert chosen("dist/*.js", "dist/x.js", "**/x.js") == ["dist/x.js"]


def test_an_absolute_path_inside_the_project_is_fine(chosen, project):
    assert chosen(f"{project}/a.txt") == ["a.txt"]


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/passwd", "dist/../../outside.txt", "..", "/"])
def test_paths_outside_of_the_project_are_refused_with_a_line(chosen, capfd, path):
    assert chosen(path) == []
    assert "lies outside of the project directory" in capfd.readouterr().out


def test_what_is_not_there_is_a_warning_that_says_what_to_do(chosen, capfd, project):
    assert chosen("nothing/*") == []
    said = capfd.readouterr().out
    assert "WARNING: nothing/*: no matching files. Ensure that the artifact path is relative to the working" in said
    assert str(project) in said


def test_exclusions_are_matched_against_each_path(chosen, capfd):
    assert chosen("dist", exclude=["**/*.map"]) == ["dist", "dist/sub", "dist/sub/y.js", "dist/x.js"]
    assert "**/*.map: excluded 2 files" in capfd.readouterr().out


def test_excluding_a_folder_alone_leaves_what_is_in_it(chosen):
    assert "dist/sub/y.js" in chosen("dist", exclude=["dist/sub"])
    assert chosen("dist", exclude=["dist/sub/**"]) == ["dist", "dist/x.js", "dist/x.map"]


def test_a_bad_pattern_is_told_and_the_others_count(chosen, capfd):
    assert chosen("[a", "a.txt") == ["a.txt"]
    assert "[a: this pattern cannot be read: a bracket is not closed" in capfd.readouterr().out


def test_the_git_directory_is_warned_about(chosen, capfd):
    assert ".git/HEAD" in chosen(".")
    assert "part of the .git directory" in capfd.readouterr().out


def test_pipes_and_sockets_are_left_out(chosen, project, capfd):
    os.mkfifo(project / "dist" / "pipe")
    assert "dist/pipe" not in chosen("dist")
    assert "dist/pipe: neither a file nor a folder nor a link" in capfd.readouterr().out


def test_untracked_is_what_git_does_not_know_ignored_files_too(tmp_path, capfd):
    run = lambda *words: subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)  # noqa: E731  short
    run("init", "-q")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "tracked").write_text("x")
    run("add", ".")
    for name in ("new file", "ignored.log", "ünicode"):
        (tmp_path / name).write_text("x")
    tree = LocalTree(str(tmp_path))
    found = [entry.path for entry in pick(tree, [], ["*.tmp"], untracked=True)]
    tree.close()
    assert found == ["ignored.log", "new file", "ünicode"]
    assert "untracked: found 3 files" in capfd.readouterr().out


def test_untracked_without_a_repository_is_a_warning(tmp_path, capfd):
    (tmp_path / "x").write_text("x")
    tree = LocalTree(str(tmp_path))
    assert pick(tree, ["x"], [], untracked=True)
    tree.close()
    assert "WARNING: untracked: git ls-files failed" in capfd.readouterr().out
