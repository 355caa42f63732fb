"""Transfers between a machine and GitLab or object storage, run as stages of a job: artifacts and caches.

The supervisor imports this package when a job starts whose job file needs it, and a child of it calls `run`. A module
for each verb (`do`) has a function `run(transfer, tree) -> exit code`. What all share: `tree` (the files below a
directory), `globs` and `picking` (which of them), `archive` and `extract` (formats), `http`, `meter`, `speech`.
Rule: secrets of a transfer are in its argument only: in no environment, argument list or line of the log.
"""

from __future__ import annotations

from . import cache, download, upload
from .http import HttpError
from .speech import fail
from .tree import LocalTree, TreeError

VERBS = {
    "upload_artifacts": upload.run,
    "download_artifacts": download.run,
    "restore_cache": cache.restore,
    "archive_cache": cache.save,
}


def run(transfer: dict, tree=None) -> int:
    """Do one transfer in this process, on a tree (none: the directory `root` of this machine); its exit code."""
    try:
        return VERBS[transfer["do"]](transfer, tree or LocalTree(transfer["root"]))
    except (HttpError, TreeError) as exc:
        fail(str(exc))
    except OSError as exc:
        fail("%s: %s" % (exc.filename, exc.strerror) if exc.filename else exc.strerror or str(exc))
    return 1
