"""Restores and saves the caches of a job (docs/reference/agent-frames.md, `restore_cache` and `archive_cache`).

Rule: nothing here fails a job. The archive on the machine is used unless the store's is newer; each is replaced as a
whole, so that two jobs with one key never see half a file. An archive that cannot be unpacked is removed.
"""

from __future__ import annotations

import contextlib
import os

from . import archive
from .asking import WITHIN_S, Asker
from .extract import extract
from .picking import Picking, pick
from .shelf import Shelf
from .speech import say, size, warn
from .store import ABSENT, FAILED, GOT, NOT_NEWER, Store, said
from .tree import TreeError

OWN_FOLDER = ".fleet-caches"
LARGEST_UPLOAD_BYTES = 5 * 1024**3  # of one request, at every store


def restore(transfer: dict, tree) -> int:
    """All caches of the job; 1 when it is worth to try again and the transfer wants to hear of it."""
    work = Work(transfer, tree)
    results = [work.restore(item) for item in transfer["items"]]
    return 1 if not all(results) and transfer.get("is_told") else 0


def save(transfer: dict, tree) -> int:
    """All caches of the job."""
    work = Work(transfer, tree)
    for item in transfer["items"]:
        work.save(item)
    return 0


class Work:
    """One transfer."""

    def __init__(self, transfer: dict, tree) -> None:
        self._transfer = transfer
        self._tree = tree
        self._store = Store(transfer)
        self._asker = Asker(os.environ)
        for note in transfer.get("notes") or []:
            warn(note)

    def _shelf(self, key: dict) -> Shelf:
        """Where the archive lies: in the cache directory, or beside it where only containers see that one.

        Then the job's files are copies (`tree`), and archives stay in this user's home, which no job can reach.
        """
        folder, local = self._transfer["folder"], key["local"]
        if self._tree.root == self._transfer["root"]:
            return Shelf(folder, local)
        kind = "protected" if self._transfer.get("protected") else "open"
        own = os.path.join(os.path.expanduser("~"), OWN_FOLDER, kind, folder.strip("/"))
        return Shelf(own, os.path.join(own, os.path.relpath(local, folder)))

    # restoring

    def restore(self, item: dict) -> bool:
        """The first of the item's keys that has an archive; False when one failed and none was restored."""
        is_good = True
        for key in item["keys"]:
            say("Looking for cache %s..." % key["name"])
            try:
                with self._shelf(key) as shelf:
                    came = self._restore_key(item, key, shelf)
            except OSError as exc:
                warn("the cache %s was not restored: %s" % (key["name"], said(exc)))
                came = FAILED
            if came == GOT:
                return True
            is_good = is_good and came == ABSENT
        return is_good

    def _restore_key(self, item: dict, key: dict, shelf: Shelf) -> str:
        came = self._fetch(key, shelf)
        opened = shelf.opened()
        if opened is None:
            if came == ABSENT:
                say("There is no cache %s" % key["name"])
            return came
        with opened as file:
            return GOT if self._unpack(file, item, key, shelf) else FAILED

    def _fetch(self, key: dict, shelf: Shelf) -> str:
        """Bring the store's archive if it is newer."""
        came = ABSENT
        for signed in self._signed(key, ("get", "other")):
            if not signed:
                continue
            came = self._store.download(signed, shelf)
            if came == NOT_NEWER:
                say("The archive on this machine is not older than the store's")
            if came in {GOT, NOT_NEWER}:
                break
        return came

    def _unpack(self, file, item: dict, key: dict, shelf: Shelf) -> bool:
        try:
            made = extract(file, self._tree.fresh())
        except TreeError as exc:
            warn("the cache %s cannot be unpacked and is removed from this machine: %s" % (key["name"], said(exc)))
            shelf.remove(file)
        except OSError as exc:
            warn("the cache %s was not unpacked: %s" % (key["name"], said(exc)))
        else:
            say("Restored cache %s (%d files and directories)" % (key["name"], made))
            return True
        if self._transfer.get("removes_torn"):
            self._remove_torn(item["paths"])
        return False

    def _remove_torn(self, paths: list) -> None:
        """What a failed extraction may have left; nothing that a link leads to."""
        picking = Picking(self._tree, [])
        for path in paths:
            picking.add(path, "cache")
        top = os.path.realpath(self._tree.root)
        for path in sorted(picking.entries, reverse=True):
            full = os.path.join(self._tree.root, path)
            parent = os.path.realpath(os.path.dirname(full))
            if parent != top and not parent.startswith(top + "/"):
                continue
            with contextlib.suppress(OSError):
                if os.path.isdir(full) and not os.path.islink(full):
                    os.rmdir(full)
                else:
                    os.unlink(full)
        say("Removed what the failed cache may have left")

    # saving

    def save(self, item: dict) -> None:
        """Archive the item's files, on the machine and then in the store."""
        key = item["keys"][0]
        say("Saving cache %s..." % key["name"])
        entries = pick(self._tree, item["paths"], [], untracked=bool(item.get("untracked")), what="cache")
        if not entries:
            warn("no file matches: the cache %s is not saved" % key["name"])
            return
        try:
            with self._shelf(key) as shelf, shelf.anew() as draft:
                shelf.sweep()
                archive.write(self._transfer["format"], self._tree.read(entries), draft.file, self._transfer["level"])
                length = draft.put()
                say("Saved cache %s on this machine (%s)" % (key["name"], size(length)))
                self._upload(key, draft, length)
        except (TreeError, OSError) as exc:
            warn("the cache %s was not saved: %s" % (key["name"], said(exc)))

    def _upload(self, key: dict, draft, length: int) -> None:
        limit = min(self._transfer.get("max_bytes") or LARGEST_UPLOAD_BYTES, LARGEST_UPLOAD_BYTES)
        if not key.get("put") and not key.get("ask"):
            return
        if length > limit:
            warn("the cache %s is larger than %s, the most that is uploaded" % (key["name"], size(limit)))
            return
        signed = self._signed(key, ("put",))[0]
        at = self._store.upload(signed, draft.file, length) if signed else None
        if at is not None:
            draft.date(at)  # by the store's clock, so that this machine does not download what it has uploaded
            say("Uploaded cache %s" % key["name"])

    # addresses

    def _signed(self, key: dict, wishes: tuple) -> list:
        """The signed addresses for some wishes, asked for now where they could not be given with the job."""
        found = key
        if key.get("ask"):
            found = self._asker.ask(key["ask"])
            if found is None:
                warn("no manager answered within %d s: the cache %s goes without its store" % (WITHIN_S, key["name"]))
            elif found.get("error"):
                warn("there is no address for the cache %s: %s" % (key["name"], found["error"]))
        return [(found or {}).get(wish) for wish in wishes]
