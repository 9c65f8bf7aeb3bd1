"""What is read off a residual stream is what the model's own final norm and unembedding make of it."""

from dataclasses import is_dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIGS, VOCABULARY, shared, tiny, tiny_tokenizer, tolerance

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.engines import directions, readouts
from hydrascope.engines.directions import Direction, Directions
from hydrascope.engines.readouts import (
    FINAL,
    Logit,
    LogitDifference,
    Placebo,
    Readouts,
    Tokens,
    final_scale,
    require_readouts,
)
from hydrascope.utils.errors import HydrascopeError

TOKENS = Tokens([3, 17, 60], [5, 6, 7], [8, 9, 10])


def streams(case: str) -> torch.Tensor:
    """`[prompt, row, width]` residual streams, not centred and of different sizes."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 4, shared(case).width, generator=generator, dtype=torch.float64)
    return drawn * torch.tensor([0.3, 1, 4, 20], dtype=torch.float64)[:, None] + 0.5


def whole(case: str, readouts: Readouts) -> torch.Tensor:
    """`[prompt, row, readout]` what `readouts` read of `streams`, in whole runs."""
    scale = final_scale(shared(case), streams(case))
    return readouts.rescale(readouts.read(streams(case)), scale) + readouts.constants[:, None]


@torch.no_grad()
def centred_logits(case: str) -> torch.Tensor:
    """Through the model's own modules."""
    model = shared(case)
    logits = model.unembedding(model.final_norm(streams(case))) * model.logit_scale
    return logits - logits.mean(-1, keepdim=True)


@pytest.mark.parametrize("case", list(CONFIGS))
def test_logits_and_differences_are_the_model_s_own(case):
    declared = [Logit(), Logit("answer"), Logit("foil"), Logit(42), LogitDifference()]
    readouts = Readouts.of(shared(case), declared, TOKENS, range(3))
    logits = centred_logits(case)

    def of(tokens) -> torch.Tensor:
        return logits[torch.arange(3), :, torch.tensor(tokens)]

    expected = [of(TOKENS.target), of(TOKENS.answer), of(TOKENS.foil), of([42] * 3), of([5, 6, 7]) - of([8, 9, 10])]
    atol = tolerance(case) * float(logits.abs().max())
    torch.testing.assert_close(whole(case, readouts), torch.stack(expected, -1), rtol=0, atol=atol)


@pytest.mark.parametrize("case", list(CONFIGS))
def test_a_direction_reads_what_the_final_norm_gives_but_for_its_bias(case):
    model = shared(case)
    vectors = torch.randn(3, model.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    readouts = Readouts.of(model, [Direction(vectors), Direction(vectors[0])], TOKENS, range(3))
    with torch.no_grad():
        normed = model.final_norm(streams(case))
    expected = torch.stack([torch.einsum("prw,pw->pr", normed, vectors), normed @ vectors[0]], -1)
    atol = tolerance(case) * float(expected.abs().max())
    torch.testing.assert_close(whole(case, readouts), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("before", [None, 1])
@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma", "cohere"])
def test_directions_read_what_each_reads_alone(case, before):
    model = shared(case)
    matrix = torch.randn(5, model.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = [Direction(row, before, f"direction.{number}") for number, row in enumerate(matrix)]
    for declared in ([Directions(matrix, before)], [Logit(), Directions(matrix.numpy(), before), LogitDifference()]):
        one_by_one = [
            each for readout in declared for each in (alone if isinstance(readout, Directions) else [readout])
        ]
        for prompts in (range(3), [1]):
            together = Readouts.of(model, declared, TOKENS, prompts)
            each = Readouts.of(model, one_by_one, TOKENS, prompts)
            assert together.shared == (len(declared) == 1)
            assert not each.shared
            assert torch.equal(together.directions, each.directions)
            torch.testing.assert_close(together.constants, each.constants, rtol=0, atol=1e-12)
            vectors = streams(case)[list(prompts)]
            torch.testing.assert_close(together.read(vectors), each.read(vectors), rtol=0, atol=1e-11)
            assert together.final.tolist() == each.final.tolist()
            numbers = together.read_before(1)
            assert numbers == each.read_before(1)
            if numbers:
                read = together.select(numbers).read(vectors)
                torch.testing.assert_close(read, each.read(vectors)[..., numbers], rtol=0, atol=1e-11)
            component = Component(1, "attn")
            belongs = [each.belongs(component), together.belongs(component)]
            assert belongs == [None, None] if before is None else torch.equal(*belongs)


def test_directions_have_a_label_each():
    matrix = np.ones((3, 32))
    assert Directions(matrix).labels == ("direction.0", "direction.1", "direction.2")
    assert Directions(matrix, name="sae").labels == ("sae.0", "sae.1", "sae.2")
    assert Directions(matrix, names=["a", "b", "c"]).labels == ("a", "b", "c")
    for names in (["a"], "abc"):
        with pytest.raises(HydrascopeError, match="3 directions need 3 names, as a list"):
            _ = Directions(matrix, names=names).labels


def test_a_direction_within_the_network_is_read_as_it_is():
    vectors = torch.randn(3, 32, dtype=torch.float64)
    readouts = Readouts.of(shared("llama"), [Direction(vectors, before=1), Direction(vectors)], TOKENS, range(3))
    expected = torch.einsum("prw,pw->pr", streams("llama"), vectors)
    torch.testing.assert_close(whole("llama", readouts)[..., 0], expected)
    assert readouts.final.tolist() == [False, True]
    assert readouts.blocks == {1}
    assert (readouts.read_before(1), readouts.read_before(2), readouts.read_before(FINAL)) == ([0], [], [1])


def test_what_belongs_to_an_inner_readout_is_below_it():
    vector = np.ones(32)
    readouts = Readouts.of(shared("llama"), [Direction(vector, before=1), Logit()], TOKENS, range(3))
    assert readouts.belongs(Component(0, "mlp")) is None
    assert readouts.belongs(Component(1, "attn")).tolist() == [False, True]
    assert readouts.belongs(Component(1, "head", 2)).tolist() == [False, True]


def test_directions_are_taken_from_anything_and_for_the_prompts_asked_for():
    model = shared("llama")
    rows = np.arange(96, dtype=np.float32).reshape(3, 32)
    for vector in (rows, torch.from_numpy(rows), rows.tolist()):
        (linear,) = Direction(vector, before=0).linear(model, TOKENS, [2, 0])
        assert torch.equal(linear.direction, torch.from_numpy(rows[[2, 0]]).double())
    (linear,) = Logit("answer").linear(model, TOKENS, [2, 0])
    assert linear.tokens[0].tolist() == [7, 5]
    (linear,) = LogitDifference().linear(model, TOKENS, [1])
    assert [tokens.tolist() for tokens in linear.tokens] == [[6], [9]]


@pytest.mark.parametrize(("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_nothing_is_read_in_less_than_float32(dtype, wide):
    model = tiny("llama", dtype)
    readouts = Readouts.of(model, [Logit(), Direction(np.ones(32))], TOKENS, range(3))
    assert readouts.directions.dtype == readouts.constants.dtype == wide
    assert readouts.read(torch.ones(3, 1, 32, dtype=dtype)).dtype == wide
    assert final_scale(model, torch.ones(3, 32, dtype=dtype)).dtype == wide
    assert not readouts.directions.requires_grad


@pytest.mark.parametrize("case", ["gpt2", "llama", "cohere", "gemma"])
def test_the_scale_is_the_norm_s(case):
    """Eq. 8, written out."""
    model, stream = shared(case), streams(case)
    centred = stream - stream.mean(-1, keepdim=True) if model.anatomy.norm_kind == "layer" else stream
    expected = (centred.square().mean(-1) + model.norm_eps).sqrt()
    torch.testing.assert_close(final_scale(model, stream), expected, rtol=1e-12, atol=0)


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8), st.integers(1, 60))
def test_placebos_are_other_tokens_drawn_by_the_prompt_s_index_alone(seed, targets, count):
    model, spoken = shared("llama"), Tokens(targets)
    together = [each.tokens[0] for each in Placebo(count, seed).linear(model, spoken, range(len(targets)))]
    drawn = torch.stack(together, 1)
    for index, target in enumerate(targets):
        mine = drawn[index].tolist()
        assert target not in mine
        assert len(set(mine)) == count
        assert all(0 <= token < VOCABULARY for token in mine)
        alone = [int(each.tokens[0]) for each in Placebo(count, seed).linear(model, spoken, [index])]
        assert alone == mine


def test_placebos_are_logits_of_the_tokenizer_s_tokens():
    model = tiny("llama")
    model.tokenizer = tiny_tokenizer()
    count = model.vocabulary - 1
    readouts = Placebo(count).linear(model, TOKENS, [0])
    tokens = {int(each.tokens[0]) for each in readouts}
    assert tokens == set(range(model.vocabulary)) - {3}
    (logit,) = Logit(int(readouts[0].tokens[0])).linear(model, TOKENS, [0])
    assert torch.equal(readouts[0].direction, logit.direction)
    different = Placebo(8, seed=1).linear(model, TOKENS, [0])
    assert [int(each.tokens[0]) for each in different] != [int(each.tokens[0]) for each in readouts[:8]]


@pytest.mark.parametrize("token", [59, 60])
def test_rows_that_only_pad_the_unembedding_are_no_tokens(token):
    model = tiny("llama")
    model.tokenizer = tiny_tokenizer()
    with pytest.raises(HydrascopeError, match=f"llama has no token {token}: it has 0 to 58"):
        Logit(token).linear(model, TOKENS, [0])


def test_labels_and_needs():
    declared = [Logit(), Logit("answer"), Logit(7), LogitDifference(), Direction([1.0], name="probe"), Placebo(2)]
    assert [label for readout in declared for label in readout.labels] == [
        *("logit", "logit.answer", "logit.7", "difference", "probe", "placebo.0", "placebo.1")
    ]
    assert [readout.needs for readout in declared] == [(), ("answer",), (), ("answer", "foil"), (), ()]


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        (Logit(61), "llama has no token 61: it has 0 to 60"),
        (Logit(-1), "llama has no token -1"),
        (Logit(True), r"Logit\(True\): give target"),
        (Logit("best"), r"Logit\('best'\): give target, answer, foil, or a token's id"),
        (Direction([1.0, 2.0]), r"the direction 'direction' has the shape \[2\]: give 32 numbers, or a row"),
        (Direction(np.ones((2, 32)), name="probe"), r"'probe' has the shape \[2, 32\].* each of the 3 prompts"),
        (Direction([np.nan] * 32), "'direction' holds a number that is not finite"),
        (Direction([np.inf] * 32), "'direction' holds a number that is not finite"),
        (Direction(np.ones(32), before=3), "llama has no block 3 to read before: it has 0 to 2"),
        (Direction(np.ones(32), before=-1), "llama has no block -1"),
        (
            Directions(np.ones((2, 31))),
            r"have the shape \[2, 31\], and the residual stream of llama 32 numbers: give rows",
        ),
        (
            Directions(np.ones((32, 5)), name="sae"),
            r"'sae' have the shape \[32, 5\].*rows of 32 numbers \(give its transpose",
        ),
        (
            Directions(np.ones(32)),
            r"have the shape \[32\]: give a matrix with a row for each, or hs\.Direction for one",
        ),
        (Directions(np.ones((0, 32))), r"have the shape \[0, 32\]: give a matrix with a row"),
        (Directions([[np.nan] * 32]), "the directions 'direction' hold a number that is not finite"),
        (Directions(np.ones((2, 32)), before=7), "llama has no block 7"),
        (Directions([["a"] * 32]), "are no matrix of numbers"),
        (Placebo(0), "0 placebo tokens: ask for 1 to 60"),
        (Placebo(61), "61 placebo tokens: ask for 1 to 60"),
    ],
)
def test_what_cannot_be_read(readout, message):
    with pytest.raises(HydrascopeError, match=message):
        Readouts.of(shared("llama"), [readout], TOKENS, range(3))


def test_every_readout_is_public_and_named_to_whoever_gives_none() -> None:
    found = {**vars(readouts), **vars(directions)}.values()
    kinds = [kind for kind in found if is_dataclass(kind) and hasattr(kind, "linear")]
    assert {Logit, LogitDifference, Direction, Directions, Placebo} <= set(kinds)
    with pytest.raises(HydrascopeError) as refused:
        require_readouts("taste")
    for kind in kinds:
        assert getattr(hs, kind.__name__) is kind
        assert f"hs.{kind.__name__}(" in str(refused.value)
