"""Metrics against plain PyTorch on the model's own logits, soft-cap included."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asked import request
from tiny import CONFIGS, shared, tolerance
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines import ENGINES, choose_engine, metrics
from hydrascope.engines.metrics import BUILT_IN, METRICS, UNITS, Metric, evaluate, logits_of, resolve_metrics
from hydrascope.models.hooks import hooked, on_output
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: LayerNorm, RMSNorm, a soft-cap, logit multipliers, an unembedding with a bias.
CASES = ["gpt2", "llama", "gemma2", "granite", "cohere", "phi"]


def own_logits(model: LanguageModel, tokens: list[int], sublayer: Component | None = None, value=None) -> Tensor:
    """What the model itself gives at the last position, one sublayer's output there replaced."""

    def write(hidden: Tensor) -> None:
        hidden.view(1, -1, hidden.shape[-1])[0, -1] = value

    handles = [] if sublayer is None else [on_output(model.output(sublayer), write)]
    with model.measuring(), hooked(handles):
        return model.hf(torch.tensor([tokens])).logits[0, -1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_metrics_are_functions_of_the_model_s_own_logits(case, engine):
    model = shared(case)
    asked = request(model, ["attn.0", "mlp.2"], (6, 3), metrics=list(METRICS))
    readings = ENGINES[engine](model, asked)
    for prompt, tokens in enumerate(asked.tokens):
        clean, target = own_logits(model, tokens), int(asked.targets[prompt])

        def expected(logits: Tensor, clean: Tensor = clean, target: int = target) -> list[float]:
            log = F.log_softmax(logits, -1)
            return [
                float(log[target]),
                float(log[target].exp()),
                int((logits > logits[target]).sum()),
                float(F.kl_div(log, F.log_softmax(clean, -1), reduction="sum", log_target=True)),
                float(np.cov(logits - clean, aweights=clean.softmax(-1), ddof=0)),
                int(logits.argmax()),
            ]

        atol = max(tolerance(case), 1e-12)
        found = readings.metrics[:, prompt]
        torch.testing.assert_close(found, found.new_tensor(expected(clean)), rtol=0, atol=atol)
        for number, override in enumerate(asked.overrides):
            for patch in range(asked.patches):
                (sublayer,) = override.ablated
                logits = own_logits(model, tokens, sublayer, asked.values(sublayer)[prompt, patch, 0])
                found = readings.metrics_ablated[:, prompt, number, patch]
                torch.testing.assert_close(found, found.new_tensor(expected(logits)), rtol=0, atol=atol)


def test_a_soft_cap_matters():
    """Without it, the test above would pass for nothing."""
    model = shared("gemma2")
    assert model.config.final_logit_softcapping
    residual = 30 * torch.randn(2, model.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        logits = logits_of(model, residual)
        uncapped = model.unembedding(model.final_norm(residual))
    cap = model.config.final_logit_softcapping
    torch.testing.assert_close(logits, cap * (uncapped / cap).tanh())
    assert float((logits - uncapped).abs().max()) > 1e-6


@pytest.mark.parametrize("case", list(CONFIGS))
@torch.no_grad()
def test_the_logits_are_the_model_s(case):
    model = shared(case)
    tokens = [7, 8, 9]
    seen = []
    handle = model.final_norm.register_forward_pre_hook(lambda module, args: seen.append(args[0][0, -1]))
    expected = own_logits(model, tokens)
    handle.remove()
    found = logits_of(model, seen[0][None])[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance(case) * float(expected.abs().max()))


@pytest.mark.parametrize("piece", [1, 61, 100, 300])
def test_pieces_change_nothing(monkeypatch, piece):
    model = shared("gpt2")
    asked = request(model, ["attn.0", "mlp.1", "attn.2"], (5, 3), metrics=list(METRICS))
    expected = choose_engine(model).measure(model, asked)
    monkeypatch.setattr(metrics, "POSITIONS_AT_ONCE", piece)
    found = choose_engine(model).measure(model, asked)
    torch.testing.assert_close(found.metrics_ablated, expected.metrics_ablated, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.metrics, expected.metrics, rtol=1e-12, atol=1e-12)


def test_logits_stand_in_memory_a_piece_at_a_time(monkeypatch):
    seen = []

    def counting(logits: Tensor, clean: Tensor, target: int) -> Tensor:
        seen.append(len(logits))
        return logits[:, 0]

    monkeypatch.setattr(metrics, "POSITIONS_AT_ONCE", 200)
    model = shared("gpt2")
    evaluate(
        model,
        resolve_metrics([counting]),
        torch.ones(8, 32, dtype=torch.float64),
        torch.ones(32, dtype=torch.float64),
        0,
    )
    assert seen == [3, 3, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_of_the_user_s_own(engine):
    def margin(logits: Tensor, clean: Tensor, target: int) -> Tensor:
        return logits[:, target] - clean[target]

    model = shared("llama")
    readings = ENGINES[engine](model, request(model, ["attn.0", "mlp.1"], (5, 3), metrics=["prob", margin]))
    assert readings.metrics_ablated.shape == (2, 2, 2, 2)
    assert float(readings.metrics[1].abs().max()) <= 1e-6
    # Of the target's logit, less what all logits move by: the readout.
    assert float(readings.metrics_ablated[1].abs().min()) > 0


def test_a_function_may_give_whole_numbers_or_truths():
    def likely(logits: Tensor, clean: Tensor, target: int) -> Tensor:
        return logits.argmax(-1) == clean.argmax()

    model = shared("llama")
    readings = choose_engine(model).measure(model, request(model, ["attn.0"], (5,), metrics=[likely]))
    assert readings.metrics.tolist() == [[1.0]]
    assert readings.metrics_ablated.dtype == torch.float64


def fails(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    raise ValueError("no such luck")


def one_number(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    return logits.sum()


def a_row_a_run(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    return logits


def text(logits: Tensor, clean: Tensor, target: int) -> str:
    return "high"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, "the metric fails fails: no such luck"),
        (one_number, r"the metric one_number gives \[\] for \d+ rows: give a number a row"),
        (a_row_a_run, r"the metric a_row_a_run gives \[\d+, 61\] for \d+ rows: give a number a row"),
        (text, "the metric text fails"),
    ],
)
def test_functions_that_are_no_metrics(engine, function, message):
    model = shared("llama")
    with pytest.raises(HydrascopeError, match=message):
        ENGINES[engine](model, request(model, ["attn.0"], (4,), metrics=[function]))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_runs_out_is_not_the_function_s_fault(error):
    """It is passed on, so that less is measured at a time."""

    def hungry(logits: Tensor, clean: Tensor, target: int) -> Tensor:
        raise error

    model = shared("llama")
    with pytest.raises(type(error)):
        choose_engine(model).measure(model, request(model, ["attn.0"], (4,), metrics=[hungry]))


def test_names():
    def surprise(logits, clean, target):
        return logits[:, 0]

    class Distance:
        def __call__(self, logits, clean, target):
            return logits[:, 0]

    assert [metric.name for metric in resolve_metrics(["kl", surprise, Distance()])] == ["kl", "surprise", "Distance"]
    assert resolve_metrics(["kl"]) == (Metric("kl", METRICS["kl"]),)
    assert resolve_metrics([]) == ()
    assert set(UNITS) == set(BUILT_IN) == {*METRICS, "answer_log_prob"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["kl", "loss"],
            "unknown metric 'loss': choose from log_prob, prob, rank, kl, fisher, top, answer_log_prob, or give a "
            "function",
        ),
        (["kl", "prob", "kl"], "two metrics are called 'kl': each needs a name of its own"),
        ([lambda *_: 0, lambda *_: 1], "two metrics are called '<lambda>'"),
        (["fails", fails], "unknown metric 'fails'"),
        (["kl", METRICS["kl"]], "two metrics are called 'kl'"),
    ],
)
def test_names_that_are_none(names, message):
    with pytest.raises(HydrascopeError, match=message):
        resolve_metrics(names)
