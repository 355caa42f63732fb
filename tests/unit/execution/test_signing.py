"""Addresses are signed for the job's own names, for long enough, or asked for just before use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.execution.caches import CachePlan
from fleet.execution.jobfile import Rendered
from fleet.execution.signing import BEYOND_DEADLINE_S, NoCacheStore, answer, caches_of, with_urls
from fleet.sdk import CacheMethod, CredentialsRefused, FleetError, SignedUrl
from tests.contract.execution.job_inputs import payload_of, render_with

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CACHES = [
    {"key": "own", "paths": ["a"], "fallback_keys": ["old"]},
    {"key": "pulled", "paths": ["b"], "policy": "pull"},
    {"key": "pushed", "paths": ["c"], "policy": "push", "when": "always"},
]


class SigningStore:
    """Signs with credentials that end when it is told."""

    def __init__(self, ends_at: datetime | None = None) -> None:
        self.signed: list[tuple[CacheMethod, str]] = []
        self._ends_at = ends_at

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        self.signed.append((method, name))
        ends_at = now + timedelta(seconds=valid_s)
        return SignedUrl(
            url=f"https://store/{name}?{method}", headers={"x": "y"}, expires_at=min(ends_at, self._ends_at or ends_at)
        )

    def close(self) -> None: ...


class RefusingStore(SigningStore):
    """Its credentials are refused."""

    def sign(self, method: CacheMethod, name: str, *, now: datetime, valid_s: float) -> SignedUrl:
        raise CredentialsRefused("nobody may sign")


@pytest.fixture
def rendered() -> Rendered:
    return render_with(payload_of(cache=CACHES))


def signed_by(store: Any, rendered: Rendered, remaining_s: float = 3600.0) -> list[dict[str, Any]]:
    job_file = with_urls(rendered.job_file, rendered.caches, lambda: store, now=NOW, remaining_s=remaining_s)
    return caches_of(job_file)


def keys_of(transfers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [key for transfer in transfers for item in transfer["items"] for key in item["keys"]]


def test_each_key_gets_what_its_stage_needs_and_no_more(rendered: Rendered) -> None:
    store = SigningStore()
    restore, success, failure = signed_by(store, rendered)
    assert [bool(key["get"]) and bool(key["other"]) and key["put"] is None for key in keys_of([restore])] == [True] * 3
    assert [key["name"] for key in keys_of([restore])] == ["own", "old", "pulled"]
    assert [(key["name"], key["put"]["headers"], key["get"]) for key in keys_of([success])] == [
        ("own", {"x": "y"}, None), ("pushed", {"x": "y"}, None),
    ]  # fmt: skip
    assert [key["name"] for key in keys_of([failure])] == ["pushed"]
    puts = {name for method, name in store.signed if method is CacheMethod.PUT}
    assert puts == {f"runner/abcdefghi/project/42/{name}" for name in ("own", "pushed")}
    assert not any(key["ask"] for key in keys_of([restore, success, failure]))


def test_the_job_file_that_was_rendered_is_left_as_it_was(rendered: Rendered) -> None:
    signed_by(SigningStore(), rendered)
    assert not any(key["get"] or key["put"] for key in keys_of(caches_of(rendered.job_file)))


def test_credentials_that_end_sooner_make_the_job_ask(rendered: Rendered) -> None:
    long_enough = NOW + timedelta(seconds=3600 + BEYOND_DEADLINE_S)
    assert not any(key["ask"] for key in keys_of(signed_by(SigningStore(long_enough), rendered)))
    asked = keys_of(signed_by(SigningStore(long_enough - timedelta(minutes=1)), rendered))
    assert all(key["ask"] for key in asked)
    assert not any(key["get"] or key["other"] or key["put"] for key in asked)


@pytest.mark.parametrize(
    ("error", "note"),
    [(NoCacheStore("no plugin"), ["no plugin"]), (NoCacheStore(""), []), (CredentialsRefused("expired"), None)],
)
def test_no_store_is_a_line_in_the_log_and_no_failure(rendered: Rendered, error: FleetError, note: list[str]) -> None:
    def refuse() -> SigningStore:
        raise error

    job_file = with_urls(rendered.job_file, rendered.caches, refuse, now=NOW, remaining_s=60.0)
    for transfer in caches_of(job_file):
        assert transfer["notes"] == note if note is not None else "expired" in transfer["notes"][0]
    assert not any(key["get"] or key["put"] or key["ask"] for key in keys_of(caches_of(job_file)))


def test_a_job_without_caches_opens_no_store() -> None:
    rendered = render_with(payload_of())

    def fail() -> SigningStore:
        raise AssertionError("it was opened")

    assert with_urls(rendered.job_file, rendered.caches, fail, now=NOW, remaining_s=60.0) is rendered.job_file


def asks_of(rendered: Rendered) -> list[dict[str, Any]]:
    return [key["ask"] for key in keys_of(signed_by(SigningStore(NOW), rendered))]


def test_every_question_of_the_job_file_has_an_answer_for_its_own_name(rendered: Rendered) -> None:
    store = SigningStore()
    for what in asks_of(rendered):
        reply = answer(what, rendered.caches, lambda: store, now=NOW)
        assert reply["for"] == what
        wishes = {"get", "other"} if what["do"] == "restore_cache" else {"put"}
        assert set(reply) == {"for", *wishes}
        own = rendered.caches.items[what["cache"]].keys[what["key"]].object_name
        assert own in reply["get" if "get" in wishes else "put"]["url"]


@pytest.mark.parametrize(
    "changed",
    [
        {"cache": 3}, {"cache": -1}, {"cache": "0"}, {"cache": True}, {"cache": None}, {"key": 2}, {"key": -1},
        {"do": "archive_cache", "cache": 1}, {"do": "archive_cache", "key": 1}, {"do": "restore_cache", "cache": 2},
        {"do": "anything"}, {"do": None}, {"digest": "0" * 16}, {"digest": None},
    ],
)  # fmt: skip
def test_a_machine_gets_no_address_for_what_its_job_may_not_do(rendered: Rendered, changed: dict[str, Any]) -> None:
    what = {**asks_of(rendered)[0], **changed}
    store = SigningStore()
    reply = answer(what, rendered.caches, lambda: store, now=NOW)
    assert set(reply) == {"for", "error"}
    assert store.signed == []


@pytest.mark.parametrize("what", [None, [], "own", 7, {}, {"name": "../other"}])
def test_what_a_machine_says_is_never_a_name(rendered: Rendered, what: Any) -> None:
    assert "error" in answer(what, rendered.caches, SigningStore, now=NOW)


def test_a_refusal_is_an_answer_too(rendered: Rendered) -> None:
    reply = answer(asks_of(rendered)[0], rendered.caches, RefusingStore, now=NOW)
    assert reply["error"] == "nobody may sign"
    assert answer({"do": "restore_cache", "cache": 0, "key": 0}, CachePlan(), SigningStore, now=NOW)["error"]
