"""Where prompts are ablated, and which positions of two prompts correspond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny, tiny_tokenizer

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import AblationPositions, format_positions, resolve_positions
from hydrascope.prompts.prompt import Prompt
from hydrascope.utils.errors import HydrascopeError

#: Of single characters, so that a position is an index into the text; the tokenizer sets nothing before it.
MODEL = tiny("llama")
MODEL.tokenizer = tiny_tokenizer()

PROMPTS = [Prompt("my cat sat", subject="cat"), Prompt("a dog, a dog ran", subject="dog")]


def at(where, prompts=PROMPTS, model: LanguageModel = MODEL) -> list[tuple[int, ...]]:
    return [
        positions.positions
        for positions in resolve_positions(model, prompts, [model.encode(p.text) for p in prompts], where)
    ]


def test_names():
    assert at("last") == [(9,), (15,)]
    assert at("all") == [tuple(range(10)), tuple(range(16))]
    assert at("subject") == [(3, 4, 5), (9, 10, 11)]
    assert at("subject-last") == [(5,), (11,)]
    assert at(" last ") == at("last")


@given(st.lists(st.integers(-10, 9), min_size=1, max_size=5))
def test_numbers_count_from_the_start_or_from_the_end(numbers):
    expected = [tuple(sorted({(n + length) % length for n in numbers})) for length in (10, 16)]
    assert at(numbers) == at(tuple(numbers)) == at(",".join(map(str, numbers))) == expected


def test_a_number_is_itself_and_several_are_ascending_and_each_once():
    assert at(-1) == at("-1") == at("last")
    assert at(0) == [(0,), (0,)]
    assert at([3, -10, 0, 3]) == [(0, 3), (0, 3, 6)]
    assert at("0, -1") == [(0, 9), (0, 15)]


@pytest.mark.parametrize(
    ("where", "text"), [("last", "last"), (" all ", "all"), (-1, "-1"), ([0, -2], "0,-2"), ("1, +2", "1,2")]
)
def test_results_record_it_as_text(where, text):
    assert format_positions(where) == text
    assert format_positions(format_positions(where)) == text


@pytest.mark.parametrize("where", ["first", "", "1;2", "1,,2", "1.5", [], [0.5], "subject,last", "all,1"])
def test_what_is_no_position(where):
    with pytest.raises(HydrascopeError, match=r"is no position: give last, all, subject, subject-last, a number"):
        format_positions(where)


@pytest.mark.parametrize(
    ("where", "prompts", "message"),
    [
        (10, PROMPTS, r'^prompt 1 \("my cat sat"\) has no position 10: it is 10 tokens long$'),
        (-12, PROMPTS, r'^prompt 1 \("my cat sat"\) has no position -12: it is 10 tokens long$'),
        ([0, 12], PROMPTS[::-1], r'^prompt 2 \("my cat sat"\) has no position 12'),
        ("subject", [PROMPTS[0], Prompt("no")], r'^prompt 2 \("no"\) has no subject'),
        ("subject-last", [PROMPTS[0], Prompt("no", subject="yes")], r'^prompt 2 \("no"\) does not contain its subject'),
    ],
)
def test_errors_name_the_prompt(where, prompts, message):
    with pytest.raises(HydrascopeError, match=message):
        at(where, prompts)


def test_positions_correspond_by_their_distance_from_the_end():
    """Of the prompt, or of its subject; before the start of which there is nothing."""
    ids = [MODEL.encode(prompt.text) for prompt in PROMPTS]
    short, long = resolve_positions(MODEL, PROMPTS, ids, "all")
    assert long.offsets == tuple(range(16, 0, -1))
    assert long.has(short.offsets)
    assert not short.has(long.offsets)
    one, other = resolve_positions(MODEL, PROMPTS, ids, "subject")
    assert one.offsets == other.offsets == (3, 2, 1)
    assert (one.end, one.start, other.end, other.start) == (6, 3, 12, 9)
    assert not one.has([4])
    (first, _) = resolve_positions(MODEL, PROMPTS, ids, 0)
    assert first.offsets == (10,)


@given(st.integers(1, 20), st.integers(0, 10), st.data())
def test_a_position_has_its_own_offsets_and_no_further_ones(length, start, data):
    end = start + length
    positions = tuple(sorted(data.draw(st.sets(st.integers(start, end - 1), min_size=1))))
    place = AblationPositions(positions, end, start)
    assert place.has(place.offsets)
    assert place.has([length])
    assert not place.has([length + 1])
    assert tuple(end - offset for offset in place.offsets) == positions
