"""Writes the commands that bring a job's sources, for PowerShell. The order is that of `sources`, which is for sh.

Rule: as there, what an earlier job left is used again and never trusted. Where `sources` picks what may stay in the
configuration of a submodule's repository, here the repositories of submodules are fetched anew.
"""

from __future__ import annotations

from fleet.execution.git_wishes import GitWishes, Strategy, SubmoduleStrategy
from fleet.execution.layout import Layout
from fleet.execution.powershell_text import CHECK, call, enter, make, quote, remove, say
from fleet.execution.shell_text import RED, YELLOW
from fleet.execution.shell_text import quote as sh_quote
from fleet.execution.submodules import INCLUDE_PATTERN

LOCKS = ("index.lock", "shallow.lock", "HEAD.lock", "config.lock", "hooks/post-checkout")


def source_lines(wishes: GitWishes, layout: Layout) -> list[str]:
    """The commands; after them the shell stands in the project directory."""
    if wishes.strategy is Strategy.EMPTY:
        headline = say("Skipping Git repository setup and creating an empty build directory")
        return [headline, remove(layout.project), make(layout.project), *_skipped(layout)]
    if wishes.strategy is Strategy.NONE:
        return [say("Skipping Git repository setup"), make(layout.project), *_skipped(layout)]
    if not wishes.has_git:
        return [say("git is not installed on this machine: install it, or set GIT_STRATEGY to none", RED), "exit 1"]
    return [
        "$env:GIT_TERMINAL_PROMPT = '0'; $env:GCM_INTERACTIVE = 'Never'",
        say(f"Fetching changes with git depth set to {wishes.depth}..." if wishes.depth else "Fetching changes..."),
        *_prepared(wishes, layout),
        *(_cloned(wishes, layout) if wishes.clones_natively and wishes.strategy is Strategy.CLONE else ()),
        *_opened(wishes, layout),
        *_fetched(wishes),
        *(_checked_out(wishes) if wishes.checks_out else [say("Skipping Git checkout")]),
        *_submodules(wishes, layout),
    ]


def clear_worktree_lines(layout: Layout) -> list[str]:
    """Everything but the repository itself goes, before sources are brought once more."""
    at = quote(layout.project)
    inner = f"Get-ChildItem -LiteralPath {at} -Force | Where-Object {{ $_.Name -ne '.git' }}"
    return [f"if (Test-Path -LiteralPath {at}) {{ {inner} | Remove-Item -Recurse -Force }}"]


def cleanup_lines(wishes: GitWishes, layout: Layout) -> list[str]:
    """What FF_ENABLE_JOB_CLEANUP asks for at the end of the job."""
    if wishes.strategy is Strategy.NONE:
        return [say("Skipping build directory cleanup step")]
    if wishes.strategy is not Strategy.FETCH:
        return [remove(layout.project)]
    return [
        enter(layout.project),
        *_cleaned(wishes),
        *call("git", ("reset", "--hard")),
        *_cleaned_submodules(wishes),
        remove(f"{layout.project}/.git/config"),
    ]


def _skipped(layout: Layout) -> list[str]:
    return [say("Skipping Git checkout"), say("Skipping Git submodules setup"), enter(layout.project)]


def _prepared(wishes: GitWishes, layout: Layout) -> list[str]:
    if wishes.strategy is Strategy.CLONE:
        return [remove(layout.project), make(layout.project)]
    git = f"{layout.project}/.git"
    refs = quote(f"{git}/refs")
    locks = f"Get-ChildItem -LiteralPath {refs} -Recurse -Force -File -Filter '*.lock' | Remove-Item -Force"
    return [
        make(layout.project),
        *(remove(f"{git}/{name}") for name in LOCKS),
        f"if (Test-Path -LiteralPath {refs}) {{ {locks} }}",
        *((remove(f"{git}/config"), remove(f"{git}/hooks"), remove(f"{git}/modules")) if wishes.cleans_config else ()),
    ]


def _cloned(wishes: GitWishes, layout: Layout) -> list[str]:
    depth = ("--depth", str(wishes.depth)) if wishes.depth else ()
    words = (*wishes.request_options, "clone", "--no-checkout", "--no-recurse-submodules", *depth)
    return call("git", (*words, "--template", layout.git_template, *wishes.clone_flags, wishes.remote, layout.project))


def _opened(wishes: GitWishes, layout: Layout) -> list[str]:
    """A repository with the right remote, that finds its credentials."""
    kind = () if wishes.object_format == "sha1" else (f"--object-format={wishes.object_format}",)
    head = quote(f"{layout.project}/.git/HEAD")
    heads = "+refs/heads/*:refs/remotes/origin/*"
    return [
        *(_marked_safe(layout) if wishes.marks_safe else ()),
        f"$fleet_is_fresh = -not (Test-Path -LiteralPath {head})",
        *call(
            "git", ("-c", "init.defaultBranch=none", "init", "--template", layout.git_template, *kind, layout.project)
        ),
        enter(layout.project),
        *call("git", ("config", "--replace-all", "include.path", layout.git_config, INCLUDE_PATTERN)),
        *call("git", ("config", "fetch.recurseSubmodules", "false")),
        *call("git", ("config", "gc.autoDetach", "false")),
        *call("git", ("config", "--replace-all", "remote.origin.url", wishes.remote)),
        *call("git", ("config", "--replace-all", "remote.origin.fetch", heads)),
        f"if ($fleet_is_fresh) {{ {say('Created fresh repository.')} }}",
    ]


def _marked_safe(layout: Layout) -> list[str]:
    project = quote(layout.project)
    add = f"& 'git' 'config' '--global' '--add' 'safe.directory' {project}; {CHECK}"
    return [f"if (@(& 'git' 'config' '--global' '--get-all' 'safe.directory') -cnotcontains {project}) {{ {add} }}"]


def _fetched(wishes: GitWishes) -> list[str]:
    words = (*wishes.request_options, "fetch", "origin", "--no-recurse-submodules", *wishes.refspecs)
    if wishes.depth:
        return call("git", (*words, *wishes.fetch_flags, "--depth", str(wishes.depth)))
    whole = "; ".join(call("git", (*words, *wishes.fetch_flags)))
    deeper = "; ".join(call("git", (*words, *wishes.fetch_flags, "--unshallow")))
    return [f"if (Test-Path -LiteralPath '.git/shallow') {{ {deeper} }} else {{ {whole} }}"]


def _checked_out(wishes: GitWishes) -> list[str]:
    ref = f" (ref is {wishes.ref})" if wishes.ref else ""
    return [
        say(f"Checking out {wishes.sha[:8]} as detached HEAD{ref}..."),
        "$env:GIT_LFS_SKIP_SMUDGE = '1'",
        *call("git", ("-c", "submodule.recurse=false", "checkout", "-f", "-q", wishes.sha)),
        "Remove-Item -LiteralPath 'Env:GIT_LFS_SKIP_SMUDGE'",
        *_cleaned(wishes),
        *(_with_lfs(call("git", (*wishes.request_options, "lfs", "pull"))) if wishes.pulls_lfs else ()),
    ]


def _with_lfs(lines: list[str]) -> list[str]:
    return [f"if (Get-Command 'git-lfs' -ErrorAction SilentlyContinue) {{ {'; '.join(lines)} }}"]


def _cleaned(wishes: GitWishes) -> list[str]:
    return [] if wishes.clean_flags is None else call("git", ("clean", *wishes.clean_flags))


def _submodules(wishes: GitWishes, layout: Layout) -> list[str]:
    wanted = wishes.submodules
    if wanted.strategy is SubmoduleStrategy.NONE:
        return [say("Skipping Git submodules setup")]
    deep = ("--recursive",) if wanted.strategy is SubmoduleStrategy.RECURSIVE else ()
    paths = ("--", *wanted.paths) if wanted.paths else ()
    depth = ("--depth", str(wanted.depth)) if wanted.depth else ()
    sync = call("git", ("submodule", "sync", *deep, *paths))
    words = (*wishes.request_options, "submodule", "update", "--init", *deep, *depth, *wanted.update_flags, *paths)
    include = f"git config --replace-all include.path {sh_quote(layout.git_config)} {sh_quote(INCLUDE_PATTERN)}"
    update = call("git", words)
    again = "; ".join((say("Updating submodules failed. Retrying...", YELLOW), *sync, *update))
    return [
        say(f"Updating/initializing submodules{' recursively' if deep else ''}..."),
        *call("git", ("submodule", "init")),
        *sync,
        "$env:GIT_LFS_SKIP_SMUDGE = '1'",
        update[0],
        f"if (-not $?) {{ {again} }}",
        "Remove-Item -LiteralPath 'Env:GIT_LFS_SKIP_SMUDGE'",
        *_cleaned_submodules(wishes),
        *call("git", ("submodule", "--quiet", "foreach", *deep, include)),
        *(_with_lfs(call("git", ("submodule", "foreach", *deep, "git lfs pull"))) if wishes.pulls_lfs else ()),
    ]


def _cleaned_submodules(wishes: GitWishes) -> list[str]:
    """Every submodule as its commit has it."""
    if wishes.submodules.strategy is SubmoduleStrategy.NONE:
        return []
    deep = ("--recursive",) if wishes.submodules.strategy is SubmoduleStrategy.RECURSIVE else ()
    flags = wishes.clean_flags
    clean = [] if flags is None else call("git", ("submodule", "foreach", *deep, f"git clean {' '.join(flags)}"))
    return [*clean, *call("git", ("submodule", "foreach", *deep, "git reset --hard"))]
