"""Writes the commands that bring a job's submodules.

Rule: they come after the checkout and from the same server with the same credentials, which git hands on to them
because they are given on the command line (`git -c include.path=...`); afterwards each submodule's own configuration
names the file with the credentials too, so that a job's own git commands work in them.
"""

from __future__ import annotations

from fleet.execution.git_wishes import GitWishes, SubmoduleStrategy
from fleet.execution.layout import Layout
from fleet.execution.shell_text import YELLOW, quote, say, words

INCLUDE_PATTERN = r"/\.fleet/git\.conf$"
_ESSENTIAL = (
    "^(core[.](worktree|bare|repositoryformatversion)|extensions[.]objectformat|remote[.]origin[.](url|fetch))$"
)
# For each `hooks` and `config` found: only beside HEAD and objects, for a branch or a submodule may have such a name.
_RESET = f"""\
for at do
  if [ ! -f "${{at%/*}}/HEAD" ] || [ ! -d "${{at%/*}}/objects" ]; then continue; fi
  kept=; if [ -f "$at" ]; then kept=$(git config -f "$at" --get-regexp '{_ESSENTIAL}') || kept=; fi
  rm -rf -- "$at"
  printf '%s\\n' "$kept" | while read -r key value; do
    if [ -n "$key" ]; then git config -f "$at" --add "$key" "$value"; fi
  done
done"""


def foreach(wishes: GitWishes, *, is_quiet: bool = False) -> str:
    """`git submodule foreach`, to be followed by one quoted command."""
    return f"git submodule{' --quiet' if is_quiet else ''} foreach{_recursive(wishes)}"


def submodule_lines(wishes: GitWishes, layout: Layout) -> list[str]:
    """The commands, for a shell that stands in the project directory."""
    if wishes.submodules.strategy is SubmoduleStrategy.NONE:
        return [say("Skipping Git submodules setup")]
    include = f"git config --replace-all include.path {quote(layout.git_config)} {quote(INCLUDE_PATTERN)}"
    each = foreach(wishes)
    return [
        say(_headline(wishes)),
        "git submodule init",
        _sync(wishes),
        # an earlier job's submodules do not know of their own ones any more: their configuration was reset
        f"{foreach(wishes, is_quiet=True)} {quote('git submodule --quiet init && git submodule --quiet sync')}",
        *cleaned_lines(wishes),
        f"if ! {_update(wishes)}; then",
        say("Updating submodules failed. Retrying...", YELLOW),
        *([f"{each} {quote(_fetch_heads(wishes))}"] if "--remote" in wishes.submodules.update_flags else ()),
        _sync(wishes),
        _update(wishes),
        "fi",
        *cleaned_lines(wishes),
        f"{foreach(wishes, is_quiet=True)} {quote(include)}",
        *([f"if git lfs version >/dev/null 2>&1; then {each} {quote('git lfs pull')}; fi"] if wishes.pulls_lfs else ()),
    ]


def leftover_lines(modules: str, *, cleans_config: bool) -> list[str]:
    """What an earlier job could have left in the submodules' repositories to stop or mislead git."""
    at = quote(modules)
    names = "\\( -name '*.lock' -o -path '*/hooks/post-checkout' \\)"
    lines = [f"find {at} -type f {names} -exec rm -f -- {{}} +"]
    if cleans_config:
        ours = "\\( -type d -name hooks -o -type f -name config \\)"
        lines.append(f"find {at} {ours} -exec sh -c {quote(_RESET)} fleet {{}} +")
    return [f"if [ -d {at} ]; then", *lines, "fi"]


def _headline(wishes: GitWishes) -> str:
    how = " recursively" if wishes.submodules.strategy is SubmoduleStrategy.RECURSIVE else ""
    depth = f" with git depth set to {wishes.submodules.depth}" if wishes.submodules.depth else ""
    return f"Updating/initializing submodules{how}{depth}..."


def _recursive(wishes: GitWishes) -> str:
    return " --recursive" if wishes.submodules.strategy is SubmoduleStrategy.RECURSIVE else ""


def _paths(wishes: GitWishes) -> str:
    return f" -- {words(wishes.submodules.paths)}" if wishes.submodules.paths else ""


def _sync(wishes: GitWishes) -> str:
    return f"git submodule sync{_recursive(wishes)}{_paths(wishes)}"


def _update(wishes: GitWishes) -> str:
    depth = f" --depth {wishes.submodules.depth}" if wishes.submodules.depth else ""
    flags = "".join(f" {quote(flag)}" for flag in wishes.submodules.update_flags)
    command = f"git {words(wishes.request_options)} submodule update --init{_recursive(wishes)}"
    return f"GIT_LFS_SKIP_SMUDGE=1 {command}{depth}{flags}{_paths(wishes)}"


def cleaned_lines(wishes: GitWishes) -> list[str]:
    """Every submodule as its commit has it."""
    if wishes.submodules.strategy is SubmoduleStrategy.NONE:
        return []
    each, flags = foreach(wishes), wishes.clean_flags
    clean = [f"{each} {quote(f'git clean {words(flags)}')}"] if flags is not None else []
    return [*clean, f"{each} {quote('git reset --hard')}"]


def _fetch_heads(wishes: GitWishes) -> str:
    return f"git {words(wishes.request_options)} fetch origin '+refs/heads/*:refs/remotes/origin/*'"
