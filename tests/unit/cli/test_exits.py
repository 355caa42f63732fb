from __future__ import annotations

from fleet.cli.exits import BY_SLUG, MEANINGS, ConfigInvalid, Exit, Failed, Misused, Unreachable, exit_of
from fleet.gitlab.errors import GitLabError
from fleet.runtime.providers import NoSuchPlugin
from fleet.sdk import FleetError
from fleet.store.engine import StoreError, StoreUnavailable
from fleet.store.seal import SealError


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)


def test_an_error_ends_with_the_code_of_its_kind() -> None:
    assert [exit_of(error("x")) for error in (Failed, Misused, ConfigInvalid, Unreachable)] == [1, 2, 3, 4]
    assert exit_of(StoreUnavailable("x")) == exit_of(StoreError("x")) == Exit.UNREACHABLE
    assert exit_of(SealError("x")) == Exit.CONFIG
    assert exit_of(GitLabError("x")) == Exit.NEGATIVE


def test_every_slug_with_a_code_is_one_of_an_error() -> None:
    def slugs(kind: type) -> set[str]:
        return {kind.slug}.union(*(slugs(each) for each in kind.__subclasses__()))

    assert NoSuchPlugin.slug in BY_SLUG
    assert set(BY_SLUG) <= slugs(FleetError)
