"""Writes the commands that bring a job's sources into its project directory.

Rule: a directory that an earlier job left is used again and never trusted: its locks, hooks and configuration go
first. The order is that of GitLab Runner: leftovers, template, init, remote, fetch, checkout, clean, LFS, submodules.
All paths are absolute and all words quoted. It leaves the credentials to `git_credentials`, the retries to the agent.
"""

from __future__ import annotations

from fleet.execution import submodules
from fleet.execution.git_wishes import GitWishes, Strategy
from fleet.execution.layout import Layout
from fleet.execution.shell_text import RED, quote, say, words

LOCK_TRIES = 50
_LOCKS = ("index.lock", "shallow.lock", "HEAD.lock", "config.lock", "hooks/post-checkout")


def needs_git(wishes: GitWishes) -> bool:
    """Whether anything is to be brought at all."""
    return wishes.strategy in {Strategy.CLONE, Strategy.FETCH}


def source_lines(wishes: GitWishes, layout: Layout) -> list[str]:
    """The commands; after them the shell stands in the project directory."""
    project = quote(layout.project)
    if wishes.strategy is Strategy.EMPTY:
        return [
            say("Skipping Git repository setup and creating an empty build directory"),
            f"rm -rf -- {project}",
            f"mkdir -p -- {project}",
            *_skipped(project),
        ]
    if wishes.strategy is Strategy.NONE:
        return [say("Skipping Git repository setup"), f"mkdir -p -- {project}", *_skipped(project)]
    if not wishes.has_git:
        return [say("git is not installed on this machine: install it, or set GIT_STRATEGY to none", RED), "exit 1"]
    return [
        "export GIT_TERMINAL_PROMPT=0 GCM_INTERACTIVE=Never",
        say(_headline(wishes)),
        *(_prepared(wishes, layout)),
        *(_cloned(wishes, layout) if wishes.clones_natively and wishes.strategy is Strategy.CLONE else ()),
        *_opened(wishes, layout),
        *_fetched(wishes),
        *(_checked_out(wishes) if wishes.checks_out else [say("Skipping Git checkout")]),
        *submodules.submodule_lines(wishes, layout),
    ]


def clear_worktree_lines(layout: Layout) -> list[str]:
    """Everything but the repository itself goes, before sources are brought once more."""
    project = quote(layout.project)
    return [
        f"if [ -d {project} ]; then cd {project} && find . ! -name . -prune ! -name .git -exec rm -rf -- {{}} +; fi"
    ]


def cleanup_lines(wishes: GitWishes, layout: Layout) -> list[str]:
    """What FF_ENABLE_JOB_CLEANUP asks for at the end of the job."""
    project = quote(layout.project)
    if wishes.strategy is Strategy.NONE:
        return [say("Skipping build directory cleanup step")]
    if wishes.strategy is not Strategy.FETCH:
        return [f"rm -rf -- {project}"]
    return [
        f"cd {project}",
        *([f"git clean {words(wishes.clean_flags)}"] if wishes.clean_flags is not None else ()),
        "git reset --hard",
        *submodules.cleaned_lines(wishes),
        "rm -f .git/config",
    ]


def _skipped(project: str) -> list[str]:
    return [say("Skipping Git checkout"), say("Skipping Git submodules setup"), f"cd {project}"]


def _headline(wishes: GitWishes) -> str:
    return f"Fetching changes with git depth set to {wishes.depth}..." if wishes.depth else "Fetching changes..."


def _prepared(wishes: GitWishes, layout: Layout) -> list[str]:
    """No directory at all for a clone; else one without what could stop or mislead git."""
    project = quote(layout.project)
    if wishes.strategy is Strategy.CLONE:
        return [f"rm -rf -- {project}", f"mkdir -p -- {project}"]
    return [
        f"mkdir -p -- {project}",
        f"if [ -d {project}/.git ]; then",
        *_leftovers(quote(f"{layout.project}/.git"), cleans_config=wishes.cleans_config),
        "fi",
        *submodules.leftover_lines(f"{layout.project}/.git/modules", cleans_config=wishes.cleans_config),
    ]


def _leftovers(git_dir: str, *, cleans_config: bool) -> list[str]:
    return [
        f"rm -f -- {' '.join(f'{git_dir}/{name}' for name in _LOCKS)}",
        f"if [ -d {git_dir}/refs ]; then find {git_dir}/refs -type f -name '*.lock' -exec rm -f -- {{}} +; fi",
        *([f"rm -rf -- {git_dir}/config {git_dir}/hooks"] if cleans_config else ()),
    ]


def _cloned(wishes: GitWishes, layout: Layout) -> list[str]:
    depth = f"--depth {wishes.depth} " if wishes.depth else ""
    clone = f"git {words(wishes.request_options)} clone --no-checkout --no-recurse-submodules {depth}"
    template, flags = quote(layout.git_template), words(wishes.clone_flags)
    return [f"{clone}--template {template} {flags} {quote(wishes.remote)} {quote(layout.project)}"]


def _opened(wishes: GitWishes, layout: Layout) -> list[str]:
    """A repository with the right remote, that finds its credentials."""
    project, remote = quote(layout.project), quote(wishes.remote)
    format_option = "" if wishes.object_format == "sha1" else f"--object-format={quote(wishes.object_format)} "
    return [
        *(_marked_safe(layout) if wishes.marks_safe else ()),
        f"if [ -e {project}/.git/HEAD ]; then _fleet_is_fresh=no; else _fleet_is_fresh=yes; fi",
        f"git -c init.defaultBranch=none init --template {quote(layout.git_template)} {format_option}{project}",
        f"cd {project}",
        f"git config --replace-all include.path {quote(layout.git_config)} {quote(submodules.INCLUDE_PATTERN)}",
        "git config fetch.recurseSubmodules false",
        "git config gc.autoDetach false",
        f"git remote add origin {remote} 2>/dev/null || git remote set-url origin {remote}",
        f'if [ "$_fleet_is_fresh" = yes ]; then {say("Created fresh repository.")}; fi',
    ]


def _marked_safe(layout: Layout) -> list[str]:
    """Jobs of several slots write the same file, on which git takes a lock and does not wait for one."""
    project = quote(layout.project)
    known = f"git config --global --get-all safe.directory | grep -Fxq -- {project}"
    add = f"git config --global --add safe.directory {project}"
    return [
        f"if ! {known}; then",
        f"_fleet_tries=0; until {add} 2>/dev/null; do _fleet_tries=$((_fleet_tries+1))",
        f"if [ $_fleet_tries -ge {LOCK_TRIES} ]; then {add}; break; fi; sleep 0.2 2>/dev/null || sleep 1; done",
        "fi",
    ]


def _fetched(wishes: GitWishes) -> list[str]:
    common = (
        f"git {words(wishes.request_options)} fetch origin --no-recurse-submodules {words(wishes.refspecs)}"
        f" {words(wishes.fetch_flags)}"
    )
    if wishes.depth:
        return [f"{common} --depth {wishes.depth}"]
    return [f"if [ -f .git/shallow ]; then {common} --unshallow; else {common}; fi"]


def _checked_out(wishes: GitWishes) -> list[str]:
    ref = f" (ref is {wishes.ref})" if wishes.ref else ""
    return [
        say(f"Checking out {wishes.sha[:8]} as detached HEAD{ref}..."),
        f"GIT_LFS_SKIP_SMUDGE=1 git -c submodule.recurse=false checkout -f -q {quote(wishes.sha)}",
        *([f"git clean {words(wishes.clean_flags)}"] if wishes.clean_flags is not None else ()),
        *(_lfs(f"git {words(wishes.request_options)} lfs pull") if wishes.pulls_lfs else ()),
    ]


def _lfs(pull: str) -> list[str]:
    return [f"if git lfs version >/dev/null 2>&1; then {pull}; echo; fi"]
