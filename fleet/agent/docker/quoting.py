"""Small programs for the shell of a helper container, where this machine cannot touch the job's volumes itself."""

from __future__ import annotations


def quote(text: str) -> str:
    """One word of the shell."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def files_script(roots: list, stale: list, folder: str, directories: list, files: list) -> str:
    """Make a job's folders and files as root, after what a killed job left of them."""
    lines = ["set -e"]
    if stale:
        lines.append("rm -rf -- %s" % " ".join(quote(path) for path in stale))
    lines += ["chmod 0777 %s" % quote(root) for root in roots]
    lines.append("mkdir -p -- %s" % quote(folder))
    for entry in directories:
        path = quote(entry["path"])
        lines.append("mkdir -p -- %s && chmod %o %s" % (path, entry.get("mode", 0o700), path))
    for entry in files:
        path = quote(entry["path"])
        parent = quote(entry["path"].rpartition("/")[0])
        lines.append("mkdir -p -- %s && rm -f -- %s" % (parent, path))
        lines.append("printf %%s %s >%s && chmod %o %s" % (quote(entry["text"]), path, entry.get("mode", 0o600), path))
    return "\n".join(lines) + "\n"
