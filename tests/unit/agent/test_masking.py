"""Masking hides each byte of each secret, however the output is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.agent.masking import MASK, Masker, Openers, Phrases

PREFIXES = ["glpat-", "gl-", "_session="]
PARAMETERS = ["private_token", "x-amz-signature"]


def cut(text: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


def through(passes, pieces: list[bytes]) -> bytes:
    return b"".join(passes.feed(piece) for piece in pieces) + passes.flush()


def hide_plainly(text: bytes, phrases: list[bytes]) -> bytes:
    """The definition, slow: occurrences that share a byte are one run, each run is one mark."""
    found = sorted(
        (at, at + len(phrase))
        for phrase in set(phrases)
        for at in range(len(text) - len(phrase) + 1)
        if text.startswith(phrase, at)
    )
    runs: list[list[int]] = []
    for start, end in found:
        if runs and start < runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], end)
        else:
            runs.append([start, end])
    hidden, shown = b"", 0
    for start, end in runs:
        hidden += text[shown:start] + MASK
        shown = end
    return hidden + text[shown:]


ABC = st.lists(st.sampled_from(b"ab\n"), max_size=40).map(bytes)


@given(
    text=ABC,
    phrases=st.lists(st.lists(st.sampled_from(b"ab\n"), min_size=1, max_size=6).map(bytes), min_size=1, max_size=4),
    sizes=st.lists(st.integers(0, 7), max_size=12),
)
@settings(max_examples=400, deadline=None)
def test_every_occurrence_of_every_phrase_is_hidden_wherever_the_output_is_cut(text, phrases, sizes) -> None:
    assert through(Phrases(phrases), cut(text, sizes)) == hide_plainly(text, phrases)


@given(
    text=st.lists(
        st.sampled_from(
            [b"glpat-", b"gl-", b"gl", b"x", b" ", MASK, b"[MAS", b"?private_token=", b"&X-Amz-Signature="]
        ),
        max_size=12,
    ).map(b"".join),
    sizes=st.lists(st.integers(0, 7), max_size=12),
)
@settings(max_examples=400, deadline=None)
def test_tokens_and_parameters_are_hidden_the_same_wherever_the_output_is_cut(text, sizes) -> None:
    whole = through(Masker(["x"], PREFIXES, PARAMETERS), [text])
    assert through(Masker(["x"], PREFIXES, PARAMETERS), cut(text, sizes)) == whole


def test_the_longest_phrase_wins() -> None:
    assert through(Masker(["pass", "password1"], [], []), [b"my password1!"]) == b"my [MASKED]!"


def test_what_two_overlapping_secrets_share_leaves_no_rest_of_either() -> None:
    assert through(Masker(["admin:hunter2", "hunter2@db"], [], []), [b"admin:hunter2@db"]) == b"[MASKED]"


def test_a_secret_of_one_character_is_hidden_and_never_inside_a_mark() -> None:
    assert through(Masker(["A", "SECRET"], [], []), [b"A SECRET BA"]) == b"[MASKED] [MASKED] B[MASKED]"


def test_a_secret_of_several_lines_is_hidden() -> None:
    assert through(Masker(["one\ntwo\n"], [], []), [b"x one\n", b"two\n y"]) == b"x [MASKED] y"


def test_a_secret_that_is_not_ascii_is_hidden_across_the_middle_of_a_character() -> None:
    secret = "gehe\u00efm\u20ac"
    text = f"<{secret}>".encode()
    assert through(Masker([secret], [], []), [text[:7], text[7:]]) == b"<[MASKED]>"


def test_an_empty_phrase_hides_nothing() -> None:
    assert through(Masker(["", ""], [], []), [b"abc"]) == b"abc"


def test_a_token_keeps_its_prefix_and_loses_the_rest() -> None:
    pieces = [b"t=glp", b"at-Ab1", b"_-.=Z9", b"! end"]
    assert through(Masker([], ["glpat-"], []), pieces) == b"t=glpat-[MASKED]! end"


def test_a_token_without_characters_stays() -> None:
    assert through(Masker([], ["glpat-"], []), [b"glpat-", b" and glpat-"]) == b"glpat- and glpat-"


def test_a_token_in_which_a_phrase_was_hidden_is_hidden_to_its_end() -> None:
    assert through(Masker(["mid"], ["glpat-"], []), [b"glpat-xxmidyy z"]) == b"glpat-[MASKED] z"


def test_the_value_of_a_secret_parameter_is_hidden_whatever_its_case() -> None:
    url = b"https://x/y?a=1&X-Amz-Signature=00ff&b=2 ?private_token=t,t# \n"
    hidden = b"https://x/y?a=1&X-Amz-Signature=[MASKED]&b=2 ?private_token=[MASKED]# \n"
    for at in range(len(url)):
        assert through(Masker([], [], PARAMETERS), [url[:at], url[at:]]) == hidden


def test_what_may_become_a_secret_is_all_that_is_held_back() -> None:
    passes = Phrases([b"secret"])
    assert passes.feed(b"x" * 1000 + b"secr") == b"x" * 1000
    assert passes.feed(b"x") == b"secrx"


def test_a_value_without_end_takes_no_memory() -> None:
    passes = Openers([b"glpat-"], rb"[a-z]+")
    shown = sum(len(passes.feed(piece)) for piece in [b"glpat-", *[b"a" * 65536] * 100])
    assert shown == len(b"glpat-" + MASK)
    assert passes.flush() == b""
