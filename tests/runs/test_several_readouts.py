"""Several readouts and metrics of one run: labels, their own numbers, and what is refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import TEXTS, Reader, exactly_normed, loaded, plain_run, sigma

import hydrascope as hs
from hydrascope.engines.readouts import Readouts, Tokens
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

PROMPTS = [hs.Prompt(f"{text} ", "c", foil="d") for text in TEXTS]
PROBE = np.linspace(-1, 1, 32)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded("gpt2")


def test_every_readout_is_what_it_is_alone(model: LanguageModel) -> None:
    """And so is every metric: what else is read changes nothing."""
    readouts: list[Any] = [
        hs.Logit(),
        hs.Placebo(2, seed=3),
        hs.LogitDifference(),
        hs.Logit("answer"),
        hs.Logit("foil"),
        hs.Logit(40),
        hs.Direction(PROBE, name="final"),
        hs.Direction(PROBE, before=0, name="inner.0"),
        hs.Direction(PROBE, before=2, name="inner.2"),
    ]
    metrics = ["log_prob", "kl"]
    together = sweep(model, PROMPTS, hs.Zero(), readouts=readouts, metrics=metrics)
    labels = ["logit", "placebo.0", "placebo.1", "difference", "logit.answer", "logit.foil", "logit.40"]
    assert list(together["readout"].values) == [*labels, "final", "inner.0", "inner.2"]
    assert list(together["readout_before"].values) == [-1] * 8 + [0, 2]
    assert list(together["metric"].values) == metrics
    assert together.attrs["units"] == together["total"].attrs["units"] == "unit of the readout"
    for readout in readouts:
        alone = sweep(model, PROMPTS, hs.Zero(), readouts=[readout], metrics=["kl"])
        for name in (
            "total",
            "direct",
            "indirect",
            "unembed",
            "unembed_ablated",
            "unembed_ablated_own",
            "logit",
            "embed",
        ):
            found = together[name].sel(readout=alone["readout"])
            np.testing.assert_allclose(found, alone[name], rtol=0, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(together["metric_ablated"][1:], alone["metric_ablated"], rtol=0, atol=1e-12)
    difference = together["total"].sel(readout="logit.answer") - together["total"].sel(readout="logit.foil")
    np.testing.assert_allclose(together["total"].sel(readout="difference"), difference, rtol=0, atol=1e-12)
    # The stream that enters the first block is the embedding: no component belongs to it.
    np.testing.assert_array_equal(together["unembed_ablated"].sel(readout="inner.0"), 0)
    np.testing.assert_array_equal(together["total"].sel(readout="inner.0"), 0)
    assert (together["unembed"].sel(readout="inner.2") != 0).any("prompt").values.tolist() == [True] * 4 + [False] * 2


def test_a_direction_for_each_prompt_follows_it(model: LanguageModel) -> None:
    """Whatever the batch, and however short the prompt."""
    rows = np.random.default_rng(0).normal(size=(len(TEXTS), 32))
    found = sweep(model, TEXTS, hs.Zero(), readouts=[hs.Direction(rows, before=1)], batch_size=3)
    for index, text in enumerate(TEXTS):
        reader = Reader(torch.from_numpy(rows[index]), before=1)
        assert float(found["logit"][0, index]) == pytest.approx(reader.whole(plain_run(model, model.encode(text))))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_a_direction_may_be_a_tensor_of_any_kind(model: LanguageModel, dtype: torch.dtype, grad: bool) -> None:
    """A probe's weights have gradients."""
    given_ = torch.tensor(PROBE, dtype=dtype, requires_grad=grad)
    found = sweep(model, TEXTS, hs.Zero(), readouts=[hs.Direction(given_)])
    numbers = given_.detach().double().tolist()
    expected = sweep(model, TEXTS, hs.Zero(), readouts=[hs.Direction(numbers)])
    np.testing.assert_array_equal(found["total"], expected["total"])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 2**31), st.permutations(range(6)), st.data())
def test_placebos_never_draw_the_target(tokens: int, seed: int, order: Sequence[int], data: st.DataObject) -> None:
    """Reproducibly from the seed and the prompt's index, whatever the batch; each prompt's are distinct."""
    model = loaded("gpt2")
    targets = data.draw(st.lists(st.integers(0, model.vocabulary - 1), min_size=6, max_size=6))

    def drawn(prompts: Sequence[int]) -> np.ndarray:
        each = Readouts.of(model, [hs.Placebo(tokens, seed)], Tokens(targets), prompts).rows
        return np.stack([linear.tokens[0].numpy() for linear in each if linear.tokens is not None], 1)

    together = drawn(order)
    for row, index in zip(together, order, strict=True):
        assert targets[index] not in row
        assert len(set(row)) == tokens
        assert ((row >= 0) & (row < model.vocabulary)).all()
        np.testing.assert_array_equal(drawn([index])[0], row)


def test_a_placebo_is_the_logit_of_what_it_draws(model: LanguageModel) -> None:
    results = sweep(model, TEXTS, hs.Zero(), readouts=[hs.Placebo(3, seed=5)], batch_size=2)
    readouts = Readouts.of(model, [hs.Placebo(3, seed=5)], Tokens(results["target"].values.tolist()), range(len(TEXTS)))
    for number, linear in enumerate(readouts.rows):
        assert linear.tokens is not None
        for index, text in enumerate(TEXTS):
            reader = Reader.of_logit(model, int(linear.tokens[0][index]))
            run = plain_run(model, model.encode(text))
            assert float(results["logit"][number, index]) == pytest.approx(reader.whole(run), abs=1e-10)


def test_users_metrics_see_what_the_model_gives() -> None:
    """A run's logits, the clean run's and the target, by plain runs; called by the function's name."""
    model = exactly_normed(loaded("llama"))
    seen: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def margin(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
        seen.append((logits, clean, target))
        return logits[:, target] - clean[target]

    results = sweep(model, TEXTS[:2], hs.Zero(), ablate="mlp.1", metrics=[margin, "rank"], batch_size=1)
    assert list(results["metric"].values) == ["margin", "rank"]
    np.testing.assert_allclose(results["metric_clean"], 0, atol=1e-12)
    for index in range(2):
        # Shorter prompts are measured first.
        clean = plain_run(model, model.encode(TEXTS[index]))
        length = len(model.encode(TEXTS[index]))
        ablated = plain_run(
            model, model.encode(TEXTS[index]), {"mlp.1": ([length - 1], torch.zeros(1, 32, dtype=torch.float64))}
        )
        logits, of_clean, target = seen[index]
        torch.testing.assert_close(of_clean, clean.logits)
        assert target == int(clean.logits.argmax())
        torch.testing.assert_close(logits[-1], ablated.logits)
        expected = float(ablated.logits[target] - clean.logits[target])
        assert float(results["metric_ablated"][0, index, 0, 0]) == pytest.approx(expected, abs=1e-10)
        assert sigma(model, ablated.streams[-1]) != sigma(model, clean.streams[-1])


def failing(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
    raise ValueError("no such thing")


def one_number(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
    return logits.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"readouts": [hs.Direction(np.ones(31))]}, r"the direction 'direction' has the shape \[31\]: give 32 numbers"),
        ({"readouts": [hs.Direction(np.ones((3, 32)))]}, r"has the shape \[3, 32\]: .* each of the 8 prompts"),
        ({"readouts": [hs.Direction([*PROBE[1:], np.nan])]}, "holds a number that is not finite"),
        ({"readouts": [hs.Direction(PROBE, before=3)]}, "gpt2 has no block 3 to read before: it has 0 to 2"),
        ({"readouts": [hs.Direction(PROBE, before=-1)]}, "gpt2 has no block -1"),
        ({"readouts": [hs.Direction(PROBE), hs.Direction(-PROBE)]}, "two readouts are called 'direction'"),
        ({"readouts": [hs.Placebo(2), hs.Placebo(1, seed=1)]}, r"two readouts are called 'placebo\.0'"),
        ({"readouts": [hs.Logit(), hs.Placebo(0)]}, "0 placebo tokens: ask for 1 to 58"),
        ({"readouts": [hs.Placebo(59)]}, "59 placebo tokens: ask for 1 to 58"),
        ({"readouts": [hs.Logit(61)]}, "gpt2 has no token 61"),
        ({"readouts": [hs.Logit("best")]}, "'best'.*: give target, answer, foil, or a token's id"),
        ({"metrics": ["kl", "kl"]}, "two metrics are called 'kl'"),
        ({"metrics": [failing]}, "the metric failing fails: no such thing"),
        ({"metrics": [one_number]}, r"the metric one_number gives \[\] for \d+ rows: give a number a row"),
    ],
)
def test_what_cannot_be_read_is_refused(model: LanguageModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        sweep(model, TEXTS, hs.Zero(), **arguments)
    assert "\n" not in str(caught.value)


def test_one_readout_and_one_metric_need_no_list(model: LanguageModel) -> None:
    alone = sweep(model, TEXTS, hs.Zero(), readouts=hs.Logit(7), metrics="kl")
    listed = sweep(model, TEXTS, hs.Zero(), readouts=[hs.Logit(7)], metrics=["kl"])
    xr.testing.assert_identical(alone, listed)
    assert (list(alone["readout"].values), list(alone["metric"].values)) == (["logit.7"], ["kl"])
    assert list(alone["metric_units"].values) == ["nats"]
