"""Which runners may ask next: fair, never beyond a slot, never in a busy loop."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.model.ids import PoolName, RunnerKey
from fleet.planning.asking import Answer, Ask, PoolRoom, Refusal, RunnerAsk, began, choose, ended
from tests.unit.planning.rows import HOUR, MINUTE, NOW, POOL

SECOND = timedelta(seconds=1)
MAC = PoolName("mac")


def runner(name="a", **more):
    return RunnerAsk(runner=RunnerKey(name), pool=more.pop("pool", POOL), **more)


def choice(*runners, slots=9, concurrent=9, last=None, now=NOW, **pools):
    rooms = {POOL: PoolRoom(asking=0, ask_limit=slots), **pools.pop("pools", {})}
    return choose(runners, pools=rooms, concurrent=concurrent, now=now, last=last)


def asked(*runners, **more):
    return [ask.runner for ask in choice(*runners, **more).asks]


def test_a_runner_that_never_asked_asks_at_once_and_may_be_held():
    assert choice(runner()).asks == (Ask(runner="a", held=True),)


def test_the_next_poll_comes_no_sooner_than_check_interval_after_the_last_began():
    idle = ended(began(runner(), NOW), Answer.NO_JOB, NOW + SECOND)
    early = choice(idle, now=NOW + 2 * SECOND)
    assert not early.asks
    assert early.refusals == {"a": Refusal.CHECK_INTERVAL}
    assert early.next_at == NOW + 3 * SECOND
    assert asked(idle, now=NOW + 3 * SECOND) == ["a"]


def test_204_at_once_for_ever_is_no_busy_loop():
    state, polls, now = runner(), 0, NOW
    while now < NOW + MINUTE:
        made = choice(state, now=now)
        for _ in made.asks:
            polls += 1
            state = ended(began(state, now), Answer.NO_JOB, now)
        now = choice(state, now=now).next_at
    assert polls == 20


def test_after_a_job_the_next_poll_follows_at_once():
    lucky = ended(began(runner(), NOW), Answer.JOB, NOW)
    assert asked(lucky, now=NOW) == ["a"]


def test_strict_check_interval_waits_after_a_job_too():
    lucky = ended(began(runner(strict_check_interval=True), NOW), Answer.JOB, NOW)
    assert choice(lucky, now=NOW).refusals == {"a": Refusal.CHECK_INTERVAL}
    assert asked(lucky, now=NOW + 3 * SECOND) == ["a"]


def test_at_most_one_poll_is_in_the_air_while_no_jobs_flow():
    held = began(runner(request_concurrency=5, pace=5.0), NOW)
    later = choice(held, now=NOW + MINUTE)
    assert later.refusals == {"a": Refusal.POLL_IN_THE_AIR}
    assert later.next_at is None, "only its answer changes that"


def test_while_jobs_flow_up_to_request_concurrency_polls_run_and_one_is_held():
    flowing = runner(request_concurrency=3, pace=3.0, flowing=True)
    assert [ask.held for ask in choice(flowing).asks] == [True, False, False]
    assert len(choice(flowing, slots=2).asks) == 2


def test_the_pace_grows_with_jobs_and_shrinks_without():
    state = runner(request_concurrency=4)
    most = []
    for _ in range(16):
        state = ended(began(state, NOW), Answer.JOB, NOW)
        most.append(state.most_polls)
    assert (most[0], most[-1]) == (2, 4)
    assert most == sorted(most)
    assert state.pace == 4
    assert ended(state, Answer.NO_JOB, NOW).pace == pytest.approx(3.8)
    assert ended(state, Answer.FAILED, NOW).pace == pytest.approx(3.8)
    assert ended(state, Answer.JOB, NOW, retriable_seen=True).pace == 2
    assert ended(runner(request_concurrency=4), Answer.NO_JOB, NOW, retriable_seen=True).pace == 1


def test_without_adaptive_concurrency_the_configured_number_holds():
    assert runner(request_concurrency=4, adaptive=False, flowing=True).most_polls == 4
    assert runner(request_concurrency=4, adaptive=False).most_polls == 1


def test_403_as_often_as_the_limit_silences_a_runner_for_the_interval():
    state = runner()
    for _ in range(2):
        state = ended(began(state, NOW), Answer.FORBIDDEN, NOW)
        assert state.unhealthy_until is None
    state = ended(began(state, NOW), Answer.FORBIDDEN, NOW)
    silent = choice(state, now=NOW + MINUTE)
    assert silent.refusals == {"a": Refusal.UNHEALTHY}
    assert silent.next_at == NOW + HOUR
    assert asked(state, now=NOW + HOUR) == ["a"]
    again = ended(began(state, NOW + HOUR), Answer.FORBIDDEN, NOW + HOUR)
    assert again.unhealthy_until is None, "it needs a full series again"


@pytest.mark.parametrize("answer", [Answer.JOB, Answer.NO_JOB, Answer.FAILED])
def test_nothing_but_403_makes_a_runner_unhealthy(answer):
    state = runner(failures=2, unhealthy_requests_limit=1)
    state = ended(began(state, NOW), answer, NOW)
    assert (state.failures, state.unhealthy_until) == (0, None)


def test_a_server_that_asks_for_time_gets_it():
    state = ended(began(runner(), NOW), Answer.JOB, NOW, not_before=NOW + MINUTE)
    told = choice(state, now=NOW + 30 * SECOND)
    assert told.refusals == {"a": Refusal.TOLD_TO_WAIT}
    assert told.next_at == NOW + MINUTE
    assert asked(state, now=NOW + MINUTE) == ["a"]


def test_jobs_and_polls_together_stay_below_the_limit():
    assert choice(runner(limit=2, jobs=2)).refusals == {"a": Refusal.LIMIT}
    flowing = runner(limit=3, jobs=1, request_concurrency=5, pace=5.0, flowing=True)
    assert asked(flowing) == ["a", "a"]


def test_jobs_and_polls_of_all_runners_stay_below_concurrent():
    full = choice(runner("a", jobs=2), runner("b", polls=1, flowing=True, pace=2.0), concurrent=3)
    assert full.refusals == {"a": Refusal.CONCURRENT, "b": Refusal.CONCURRENT}
    assert asked(runner("a", jobs=2), runner("b"), concurrent=3) == ["a"]


def test_law_3_without_a_slot_to_promise_nobody_asks():
    none = choice(runner(), slots=0)
    assert not none.asks
    assert none.refusals == {"a": Refusal.NO_FREE_SLOT}
    assert none.last is None
    assert choice(runner(pool=MAC)).refusals == {"a": Refusal.NO_FREE_SLOT}, "a pool nobody planned promises nothing"


def test_runners_of_different_pools_do_not_stand_in_each_others_way():
    rooms = {MAC: PoolRoom(asking=3, ask_limit=4)}
    made = choice(runner("a"), runner("b", pool=MAC), runner("c", pool=MAC), slots=1, pools=rooms)
    assert made.asks == (Ask(runner="a", held=True), Ask(runner="b", held=False))
    assert made.refusals == {"c": Refusal.NO_FREE_SLOT}


def test_turns_go_round_from_the_one_after_the_last():
    three = [runner(name) for name in "abc"]
    last, turns = None, []
    for _ in range(5):
        made = choice(*three, slots=1, last=last)
        last = made.last
        turns += [ask.runner for ask in made.asks]
    assert turns == ["a", "b", "c", "a", "b"]
    assert asked(*three, slots=1, last=RunnerKey("gone from the file")) == ["a"]


def test_runners_that_outnumber_the_slots_ask_without_being_held():
    assert [ask.held for ask in choice(runner("a"), runner("b"), slots=1).asks] == [False]
    assert [ask.held for ask in choice(runner("a"), runner("b"), slots=2).asks] == [True, True]
    assert [ask.held for ask in choice(runner("a"), runner("b"), concurrent=1).asks] == [False]


def test_a_runner_that_could_take_no_job_is_nobodys_rival():
    at_limit, silent = runner("b", limit=1, jobs=1), runner("c", unhealthy_until=NOW + HOUR)
    assert choice(runner("a"), at_limit, silent, slots=1).asks == (Ask(runner="a", held=True),)


def test_a_slot_that_a_rivals_poll_holds_already_counts_for_it():
    other = began(runner("b"), NOW)
    rooms = {POOL: PoolRoom(asking=1, ask_limit=2)}
    made = choose([runner("a"), other], pools=rooms, concurrent=9, now=NOW)
    assert made.asks == (Ask(runner="a", held=True),)


_times = st.one_of(st.none(), st.integers(-90, 90).map(lambda s: NOW + s * SECOND))
_runners = st.lists(
    st.builds(
        RunnerAsk,
        runner=st.sampled_from([RunnerKey(name) for name in "abcdef"]),
        pool=st.sampled_from([POOL, MAC]),
        limit=st.integers(0, 4),
        request_concurrency=st.just(4),
        pace=st.floats(1, 4),
        adaptive=st.booleans(),
        strict_check_interval=st.booleans(),
        jobs=st.integers(0, 3),
        polls=st.integers(0, 3),
        began_at=_times,
        flowing=st.booleans(),
        unhealthy_until=_times,
        not_before=_times,
    ),
    max_size=5,
    unique_by=lambda each: each.runner,
)


@given(_runners, st.integers(0, 6), st.integers(0, 6), st.integers(0, 12))
def test_no_choice_ever_breaks_a_bound(runners, slots, others, concurrent):
    rooms = {POOL: PoolRoom(asking=others, ask_limit=slots), MAC: PoolRoom(asking=0, ask_limit=2)}
    made = choose(runners, pools=rooms, concurrent=concurrent, now=NOW)
    states = {each.runner: each for each in runners}
    for ask in made.asks:
        assert not (ask.held and states[ask.runner].polls), "at most one poll of a runner is held"
        states[ask.runner] = began(states[ask.runner], NOW)
    new = {
        name: state.polls - before.polls
        for before in runners
        for name, state in states.items()
        if name == before.runner
    }
    for pool, room in rooms.items():
        assert sum(new[each.runner] for each in runners if each.pool == pool) <= max(0, room.ask_limit - room.asking)
    if made.asks:
        assert sum(each.jobs + each.polls for each in states.values()) <= concurrent
    for each in states.values():
        assert not new[each.runner] or each.polls <= each.most_polls
        assert not (new[each.runner] and each.limit) or each.jobs + each.polls <= each.limit
        assert (each.runner in made.refusals) == (new[each.runner] == 0)


@given(_runners, st.integers(0, 6), st.integers(0, 12))
def test_whoever_may_ask_does_and_next_at_is_never_too_late(runners, slots, concurrent):
    rooms = {POOL: PoolRoom(asking=0, ask_limit=slots), MAC: PoolRoom(asking=0, ask_limit=2)}
    now = choose(runners, pools=rooms, concurrent=concurrent, now=NOW)
    states = {each.runner: each for each in runners}
    for ask in now.asks:
        states[ask.runner] = began(states[ask.runner], NOW)
        rooms[states[ask.runner].pool] = replace(
            rooms[states[ask.runner].pool], asking=rooms[states[ask.runner].pool].asking + 1
        )
    settled = choose(list(states.values()), pools=rooms, concurrent=concurrent, now=NOW)
    assert not settled.asks, "asking again at the same instant asks for nothing more"
    just_before = (settled.next_at or NOW + HOUR) - timedelta(microseconds=1)
    assert not choose(list(states.values()), pools=rooms, concurrent=concurrent, now=just_before).asks
