"""Chooses the entries of a tree that `paths`, `untracked` and `exclude` mean, and says in the log what was found.

Rule: as in GitLab Runner a folder brings everything below it, an exclusion is matched against each entry's own path,
what lies outside of the project is refused with a line, and what is not there is a warning. The root is no entry.
"""

from __future__ import annotations

import posixpath

from . import globs
from .speech import say, warn
from .tree import OTHER, TreeError
from .tree import below as path_below


def pick(tree, paths: list, exclude: list, *, untracked: bool, what: str = "artifact") -> list:
    """The entries to archive, sorted by path."""
    picking = Picking(tree, exclude)
    for path in paths:
        picking.add(path, what)
    if untracked:
        picking.add_untracked()
    picking.tell_excluded()
    return [picking.entries[path] for path in sorted(picking.entries)]


class Picking:
    """What was chosen so far."""

    def __init__(self, tree, exclude: list) -> None:
        self.entries = {}
        self._tree = tree
        self._exclude = [pattern for pattern in map(self._read, exclude) if pattern is not None]
        self._excluded = {}
        self._warned_of_git = False

    def add(self, path: str, what: str) -> None:
        """Everything that one of `paths` means."""
        if self.relative(path) is None:
            warn("%s: the path lies outside of the project directory (%s), nothing of it is taken" % (path, self._root))
            return
        pattern = self._read(path)
        found = set()
        for match in pattern.find(self._tree) if pattern is not None else ():
            for entry in globs.below(self._tree, match):
                if self._take(entry):
                    found.add(entry.path)
        if found:
            say("%s: found %d matching %s files and directories" % (path, len(found), what))
        elif pattern is not None:
            warn(
                "%s: no matching files. Ensure that the artifact path is relative to the working directory (%s)"
                % (path, self._root)
            )

    def add_untracked(self) -> None:
        """Everything that git does not track."""
        try:
            paths = self._tree.untracked()
        except TreeError as exc:
            warn("untracked: %s" % exc)
            return
        found = 0
        for path in paths:
            entry = self._tree.entry(path.rstrip("/"))
            found += entry is not None and self._take(entry)
        if found:
            say("untracked: found %d files" % found)
        else:
            warn("untracked: no files")

    def tell_excluded(self) -> None:
        """Say what the exclusions left out."""
        for pattern, count in self._excluded.items():
            say("%s: excluded %d files" % (pattern, count))

    def relative(self, path: str) -> str | None:
        """A path or pattern as one below the root; None when it lies outside."""
        if path.startswith("/"):
            return path_below(self._root, posixpath.normpath(path))
        inside = posixpath.normpath(path) if path else "."
        if inside == ".." or inside.startswith("../"):
            return None
        return "" if inside == "." else inside

    @property
    def _root(self) -> str:
        return self._tree.root

    def _read(self, path: str) -> globs.Pattern | None:
        inside = self.relative(path)
        try:
            return None if inside is None else globs.Pattern(inside)
        except globs.PatternError as exc:
            warn("%s: this pattern cannot be read: %s" % (path, exc))
            return None

    def _take(self, entry) -> bool:
        """Whether the entry is among those to archive."""
        if not entry.path:
            return False
        if entry.kind == OTHER:
            warn("%s: neither a file nor a folder nor a link, it is left out" % entry.path)
            return False
        for pattern in self._exclude:
            if pattern.matches(entry.path):
                self._excluded[pattern.text] = self._excluded.get(pattern.text, 0) + 1
                return False
        if not self._warned_of_git and (entry.path == ".git" or entry.path.startswith(".git/")):
            self._warned_of_git = True
            warn("a part of the .git directory is among the files, which may have unexpected effects")
        self.entries[entry.path] = entry
        return True
