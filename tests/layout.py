"""Checks the house rules of layout that no linter knows: file length, banned names, one reason per waiver.

Run as a program; prints each breach and exits 1 when there is one.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMITS = (("tests/", 600), ("fleet/", 400), ("plugins/", 400), ("migrations/", 400))
BANNED = {"utils", "helpers", "common", "base", "misc", "util", "helper"}
WAIVERS_ALLOWED = 10
WAIVER = re.compile(r"#\s*noqa(?P<codes>:\s*[A-Z0-9, ]+)?(?P<reason>.*)")
SECRETS = re.compile(r"(glpat|glrt|glcbt)-[0-9A-Za-z_]{20}")
REGISTRY = re.compile(r"(files\.pythonhosted|pypi\.org|registry\.npmjs|deb\.debian|crates\.io)")
MOCK = re.compile(r"^\s*(from unittest import .*mock|import unittest\.mock|from unittest\.mock)", re.MULTILINE)
EXEMPT = {"tests/layout.py"}


def tracked_files() -> list[pathlib.Path]:
    """All files git tracks or would track, that still exist."""
    out = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def breaches_of(path: pathlib.Path) -> tuple[list[str], int]:
    """What is wrong with one file, and how many complexity waivers it holds."""
    name = path.relative_to(ROOT).as_posix()
    text = path.read_text(encoding="utf-8", errors="replace")
    found = []
    if name not in EXEMPT and SECRETS.search(text):
        found.append(f"{name}: holds something that looks like a real token")
    if name not in EXEMPT and REGISTRY.search(text):
        found.append(f"{name}: names a package registry")
    if path.suffix != ".py":
        return found, 0
    lines = text.count("\n")
    found += [
        f"{name}: {lines} lines, at most {limit}" for at, limit in LIMITS if name.startswith(at) and lines > limit
    ]
    if path.stem in BANNED:
        found.append(f"{name}: a file named {path.stem!r} has no one concept")
    if MOCK.search(text):
        found.append(f"{name}: uses unittest.mock; write a fake with its illness in its name")
    if not name.startswith("fleet/"):
        return found, 0
    waivers = list(WAIVER.finditer(text))
    found += [
        f"{name}: a waiver without code and reason: {match[0]!r}"
        for match in waivers
        if not match["codes"] or not match["reason"].strip()
    ]
    return found, sum(bool(re.search(r"C901|PLR09|PLR17", match["codes"] or "")) for match in waivers)


def main() -> int:
    """Print every breach; 1 when there is any."""
    found, waivers = [], 0
    for path in tracked_files():
        breaches, count = breaches_of(path)
        found += breaches
        waivers += count
    if waivers > WAIVERS_ALLOWED:
        found.append(f"{waivers} complexity waivers in the tree, at most {WAIVERS_ALLOWED}")
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
