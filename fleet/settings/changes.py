"""What a reload changes: which runners and pools appeared, changed or went, and which keys of the manager.

Rule: what the file still names, even in an entry that cannot run just now, has not gone. Line numbers and the order of
entries are no change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fleet.model.ids import PoolName, RunnerKey
from fleet.settings.pools import outdated_by
from fleet.settings.section import REVEAL, Section
from fleet.settings.settings import Settings

AT_START_ONLY = frozenset({"database", "state_dir", "spool_dir", "secret_key_file", "secret_key", "secret_key_named"})
GLOBAL_AT_START = frozenset({"session_server"})
NO_CHANGE = {"line", "index", "runners"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The difference between two configurations; names in the order of the file.

    Attributes:
        runners_stopped: named by the file and not able to run: no polls, jobs go on, nothing is retired.
        runners_retired: no longer named: no polls, jobs finish.
        pools_outdated: of the changed pools those whose machines are to be replaced.
        pools_renamed: old name -> new name.
        pools_retired: no longer named: target 0, jobs finish, machines are deleted.
        keys: changed keys at the top of the file and in `[fleet]`, the latter as `fleet.NAME`.
        keys_at_start: those of them that take effect at the next start of the manager.
    """

    runners_appeared: tuple[RunnerKey, ...] = ()
    runners_changed: tuple[RunnerKey, ...] = ()
    runners_stopped: tuple[RunnerKey, ...] = ()
    runners_retired: tuple[RunnerKey, ...] = ()
    pools_appeared: tuple[PoolName, ...] = ()
    pools_changed: tuple[PoolName, ...] = ()
    pools_outdated: tuple[PoolName, ...] = ()
    pools_renamed: tuple[tuple[PoolName, PoolName], ...] = ()
    pools_retired: tuple[PoolName, ...] = ()
    keys: tuple[str, ...] = ()
    keys_at_start: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Changes()


def diff(old: Settings | None, new: Settings) -> Changes:
    """What `new` changes; with no `old`, everything appears."""
    runners = {} if old is None else old.runner_by_key
    pools = {} if old is None else old.pool_by_name
    renamed = {
        PoolName(each.fleet.renamed_from): each.name
        for each in new.pools
        if each.fleet.renamed_from in pools and each.name not in pools
    }
    before = {renamed.get(name, name): pool for name, pool in pools.items()}
    kept = [each for each in new.pools if each.name in before]
    keys = () if old is None else _changed_keys(old, new)
    return Changes(
        runners_appeared=tuple(each.key for each in new.runners if each.key not in runners),
        runners_changed=tuple(
            each.key for each in new.runners if each.key in runners and _differ(runners[each.key], each)
        ),
        runners_stopped=tuple(each.key for each in new.stopped),
        runners_retired=tuple(key for key in runners if key not in new.held_runners),
        pools_appeared=tuple(each.name for each in new.pools if each.name not in before),
        pools_changed=tuple(each.name for each in kept if _differ(before[each.name], each)),
        pools_outdated=tuple(each.name for each in kept if outdated_by(before[each.name], each)),
        pools_renamed=tuple(renamed.items()),
        pools_retired=tuple(name for name in pools if name not in new.held_pools and name not in renamed),
        keys=keys,
        keys_at_start=tuple(each for each in keys if each.removeprefix("fleet.") in AT_START_ONLY | GLOBAL_AT_START),
    )


def until_restart(old: Settings, new: Settings) -> Settings:
    """`new` with the values of `old` where those hold until the manager is started again."""
    top = {name: getattr(old.global_, name) for name in GLOBAL_AT_START}
    fleet = {name: getattr(old.fleet, name) for name in AT_START_ONLY}
    return replace(new, global_=new.global_.model_copy(update=top), fleet=new.fleet.model_copy(update=fleet))


def _plain(section: Section) -> dict[str, Any]:
    return section.model_dump(context=REVEAL, exclude=NO_CHANGE)


def _differ(old: Section, new: Section) -> bool:
    return _plain(old) != _plain(new)


def _changed_keys(old: Settings, new: Settings) -> tuple[str, ...]:
    found = _keys_between(old.global_, new.global_)
    return (*found, *(f"fleet.{each}" for each in _keys_between(old.fleet, new.fleet)))


def _keys_between(old: Section, new: Section) -> list[str]:
    before, after = _plain(old), _plain(new)
    return [key for key in after if before[key] != after[key]]
