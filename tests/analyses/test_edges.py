"""Edges, against plain forward passes written from the definition alone, and from end to end."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from asked import several_readouts
from dictionaries import ACTIVATIONS, with_dictionary
from edge_faults import FAULTS, Plant, leave_the_change_in_the_reference, leave_the_change_in_the_wavefront
from plain import loaded
from plain_edges import EMBED, NAMES, Drawn, PlainEdges, Run, drawn
from rest_slow import rest_slow
from tiny import shared, tolerance
from torch import Tensor

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.models.float64 import Float64Mode

#: Of different lengths, in an order that isn't theirs.
PROMPTS = [[5, 9, 7, 11], [3, 40, 12, 8, 30, 21]]

PLACES: dict[str, Any] = {"last": "last", "early": [-3], "span": [-3, -1], "all": "all"}

SOURCES = ("embed", "attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2", "head.0.1", "head.1.3")
READERS = ("attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2", "logits")
INPUTS = ("query.0.2", "query.1.0", "key.1.3", "value.2.1", "key.2.0", "group.1.1.key", "group.2.0.value")

#: The cases whose heads the oracle writes out.
BY_HAND = ("gpt2", "llama", "qwen3", "gemma2", "gemma3_text")

#: Those that run always, and where their sources change.
FAST = {
    "gpt2": "all",
    "llama": "span",
    "qwen3": "early",
    "granite": "last",
    "gemma2": "all",
    "gpt_neox": "span",
    "cohere": "all",
}

#: The readouts inside the network read the stream that enters these blocks.
INNER = (1, 2)


def vectors(width: int) -> Tensor:
    return torch.randn(len(INNER), width, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def measured(case: str, at: str, engine: str, readers: Sequence[str], **options: Any):
    model = PlainEdges(case).model
    inner = [
        hs.Direction(vector, before=block, name=f"d{block}")
        for vector, block in zip(vectors(model.width), INNER, strict=True)
    ]
    return hs.analyses.edges(
        model,
        PROMPTS,
        Drawn(),
        sources=",".join(SOURCES),
        readers=list(readers),
        at=PLACES[at],
        readouts=[hs.Logit(), *inner],
        metrics=["log_prob", "kl"],
        engine=engine,
        **options,
    )


def engines_of(case: str) -> list[str]:
    return ["wavefront", "reference"] if shared(case).anatomy.supports_wavefront else ["reference"]


def read(plain: PlainEdges, run: Run, clean: Run) -> Tensor:
    """The centred logit of the clean run's likeliest token, the inner directions, and the two metrics."""
    target = int(clean.logits.argmax())
    logit = run.logits[target] - run.logits.mean()
    inner = [run.streams[block][-1] @ vector for vector, block in zip(vectors(plain.model.width), INNER, strict=True)]
    cap = getattr(plain.hf.config, "final_logit_softcapping", None)
    each = [logits if cap is None else (logits / cap).tanh() * cap for logits in (run.logits, clean.logits)]
    now, was = (logits.log_softmax(-1) for logits in each)
    return torch.stack([logit, *inner, now[target], (was.exp() * (was - now)).sum()])


@cache
def by_definition(case: str, at: str, readers: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[readout or metric, prompt, source, reader]` the edges, `[…, source]` totals, `[source, reader]` exists."""
    plain = PlainEdges(case)
    edges = np.zeros((3 + len(INNER), len(PROMPTS), len(SOURCES), len(readers)))
    totals = np.zeros(edges.shape[:3])
    exists = np.zeros(edges.shape[2:], bool)
    for prompt, tokens in enumerate(PROMPTS):
        clean = plain.run(tokens)
        before = read(plain, clean, clean)
        end = len(tokens) - 1
        places = {"last": [end], "early": [end - 2], "span": [end - 2, end], "all": range(len(tokens))}[at]
        for row, label in enumerate(SOURCES):
            source = EMBED if label == "embed" else Component.parse(label)
            columns = clean.heads[source.block].shape[-1] // 4 if source.kind == "head" else plain.model.width
            for value in drawn(source, prompt, 2, len(places), columns):
                delta = plain.change(clean, source, places, value)
                total = read(plain, plain.everything(tokens, clean, source, delta), clean) - before
                totals[:, prompt, row] += total.numpy() / 2
                for column, reader in enumerate(readers):
                    exists[row, column] = plain.exists(source, reader)
                    if not exists[row, column]:
                        continue
                    effect = read(plain, plain.edge(tokens, clean, delta, reader), clean) - before
                    if reader == "logits":
                        # A readout inside the network reads δ itself, if it is downstream of the source.
                        for number, (vector, block) in enumerate(zip(vectors(plain.model.width), INNER, strict=True)):
                            seen = source == EMBED or source.block < block
                            effect[1 + number] = delta[-1] @ vector * seen
                    edges[:, prompt, row, column] += effect.numpy() / 2
    return edges, totals, exists


def assert_by_definition(case: str, at: str, engines: Sequence[str] = ()) -> None:
    """Every edge, total and metric of every engine is what the definition gives."""
    readers = READERS + (INPUTS if case in BY_HAND else ())
    with Float64Mode():
        edges, totals, exists = by_definition(case, at, readers)
        for engine in engines or engines_of(case):
            found = measured(case, at, engine, readers, slopes=False)
            np.testing.assert_array_equal(found["exists"], exists)
            assert not found["edge"].values[:, :, ~exists].any()
            given = {
                "edge": (found["edge"].values, edges[:3]),
                "metric_edge": (found["metric_edge"].values, edges[3:]),
                "total": (found["total"].values, totals[:3]),
            }
            for name, (values, expected) in given.items():
                size = abs(expected).reshape(len(expected), -1).max(1).reshape(-1, *[1] * (expected.ndim - 1))
                off = float((abs(values - expected) / size).max())
                # Not `>` of it, so that a NaN fails.
                assert off <= 1e-9, f"{engine}, {name}: off by {off:.1e}"


@pytest.mark.parametrize(("case", "at"), FAST.items())
def test_edges_by_definition(case: str, at: str) -> None:
    """Compare edges of the most different models with their definition, at several positions."""
    assert_by_definition(case, at)


@pytest.mark.slow
@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("case", NAMES)
def test_edges_by_definition_at_every_place(case: str, at: str) -> None:
    assert_by_definition(case, at)


@pytest.mark.parametrize(("plant", "case", "engine"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_planted_fault_is_caught(plant: Plant, case: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catch each planted fault by the definition, with the check of the books left out."""
    analysis = import_module("hydrascope.analyses.edges")
    monkeypatch.setattr(analysis, "_require_sound", lambda plan, indices, *rest: np.zeros(len(indices)))
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="edge: off by"):
        assert_by_definition(case, FAST[case], [engine])


@pytest.mark.parametrize(
    ("plant", "engine"),
    [(leave_the_change_in_the_wavefront, "wavefront"), (leave_the_change_in_the_reference, "reference")],
    ids=["wavefront", "reference"],
)
def test_the_books_find_a_change_that_is_left_in_the_stream(
    plant: Plant, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(hs.HydrascopeError, match=r"^the edge .* → .* and its terms do not balance: off by [^\n]*$"):
        hs.analyses.edges(shared("gpt2"), PROMPTS, hs.Zero(), engine=engine, slopes=False)


#: Tokens of one length and more of another.
SET = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16], [17, 18, 19]]


@pytest.mark.parametrize(
    ("ablation", "at"),
    [(hs.Zero(), "all"), (hs.Mean(), "last"), (hs.Resample(2, seed=1), [-2, -1])],
    ids=["zero", "mean", "resample"],
)
@pytest.mark.parametrize("case", rest_slow(["gpt2", "gemma2", "cohere", "gptj"], ("gemma2", "gptj")))
def test_totals_and_direct_effects_are_those_of_a_sweep(case: str, ablation: hs.ablations.Ablation, at: Any) -> None:
    """With the same patches; also of heads."""
    model = shared(case)
    options = {"at": at, "readouts": [hs.Logit(), hs.Direction(np.arange(32) - 9.0, before=2)], "metrics": ["prob"]}
    found = hs.analyses.edges(model, SET, ablation, sources="layers,heads.1", readers="logits,attn.2", **options)
    swept = hs.sweep(model, SET, ablation, ablate="layers,heads.1", **options).mean("patch")
    assert found["source"].values.tolist() == swept["ablated"].values.tolist()
    for values, expected in (
        (found["total"], swept["total"]),
        (found["edge"].sel(reader="logits"), swept["direct"]),
    ):
        expected = expected.transpose("readout", "prompt", "ablated").values
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance(case) * abs(expected).max())
    assert float(found["imbalance"].max()) <= tolerance(case) * float(abs(found["logit"]).max())


def test_labels_and_what_exists() -> None:
    found = hs.analyses.edges(
        shared("llama"),
        SET,
        hs.Zero(),
        sources="embed,attn.1,head.1.2,mlp.1,attn.1",
        readers=[
            "layers",
            "queries.1",
            "head.2.3.value",
            "value.2.3",
            "blocks.2.hook_mlp_out",
            "group.2.1.key",
            "logits",
        ],
    )
    assert found["source"].values.tolist() == ["embed", "attn.1", "head.1.2", "mlp.1"]
    layers = ["attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2"]
    queries = [f"query.1.{head}" for head in range(4)]
    assert found["reader"].values.tolist() == [*layers, *queries, "value.2.3", "group.2.1.key", "logits"]
    after = ["attn.2", "mlp.2", "value.2.3", "group.2.1.key", "logits"]
    expected = {
        "embed": found["reader"].values.tolist(),
        "attn.1": ["mlp.1", *after],
        "head.1.2": ["mlp.1", *after],
        "mlp.1": after,
    }
    for source, readers in expected.items():
        there = found["exists"].sel(source=source)
        assert set(found["reader"].values[there.values]) == set(readers)
        assert bool((found["edge"].sel(source=source, reader=~there.values) == 0).all())
        assert bool((found["edge"].sel(source=source, reader=there.values) != 0).any("prompt").all())
    whole = [reader in (*layers, "logits") for reader in found["reader"].values]
    remainder = found["edge"][..., whole].sum("reader") - found["total"]
    np.testing.assert_allclose(found["edge_remainder"], remainder, rtol=0, atol=1e-12)
    assert bool(found["eap"][..., [not each for each in whole]].where(found["exists"]).isnull().sum() > 0)
    assert not found["eap"][..., whole].isnull().any()


def test_no_remainder_where_a_reader_is_missing() -> None:
    found = hs.analyses.edges(shared("gpt2"), SET, hs.Zero(), readers="layers", slopes=False)
    assert "edge_remainder" not in found
    assert "eap" not in found


@pytest.mark.parametrize("case", rest_slow(["gpt2", "gptj", "llama"], ("gpt2", "gptj")))
def test_batches_make_no_difference(case: str) -> None:
    """Prompts of different lengths; patches of other prompts of the set."""
    options = {"at": "-2,-1", "readouts": several_readouts(shared(case), len(SET))[2:], "metrics": ["kl"]}
    expected = hs.analyses.edges(shared(case), SET, hs.Resample(2, seed=3), **options)
    for size in (1, 3):
        found = hs.analyses.edges(shared(case), SET, hs.Resample(2, seed=3), batch_size=size, **options)
        for name in ("edge", "total", "eap", "metric_edge", "edge_remainder"):
            size_of = float(abs(expected[name]).max())
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance(case) * size_of)


def test_a_patch_that_changes_nothing_has_no_effect() -> None:
    found = hs.analyses.edges(shared("gemma2"), SET, Drawn(step=0.0), sources="embed,layers,heads.0")
    assert not found["eap"].values.any()
    for name in ("edge", "total", "edge_remainder"):
        np.testing.assert_allclose(found[name], 0, atol=tolerance("gemma2"))


def test_prompts_with_text_answers_and_a_metric_of_ones_own() -> None:
    def surprise(logits: Tensor, clean: Tensor, target: int) -> Tensor:
        return -logits.log_softmax(-1)[:, target]

    model = loaded("gpt2")
    prompts = [hs.Prompt("the cat", answer="s", foil="t"), hs.Prompt("a dog", answer="o", foil="x")]
    metrics = ["log_prob", surprise]
    found = hs.analyses.edges(
        model, prompts, hs.Zero(), readouts=[hs.LogitDifference()], metrics=metrics, target="answer"
    )
    assert found["readout"].values.tolist() == ["difference"]
    assert found["metric"].values.tolist() == ["log_prob", "surprise"]
    np.testing.assert_allclose(found["metric_edge"][0], -found["metric_edge"][1], rtol=0, atol=1e-12)
    assert float(abs(found["metric_edge"]).max()) > 0


@pytest.mark.parametrize(
    ("case", "options", "said"),
    [
        ("gpt2", {"readers": "nothing"}, "'nothing' is no component of a model"),
        ("gpt2", {"readers": "everything"}, "'everything' is no component of a model"),
        ("gpt2", {"readers": "head.1.0"}, "head.1.0 reads no residual stream: name sublayers"),
        ("gpt2", {"readers": "attn.7"}, "gpt2 has no attn.7: its blocks are 0 to 2"),
        ("gpt2", {"readers": None}, "'None' is no component"),
        ("gpt2", {"sources": 3}, "'3' is no component"),
        (
            "gpt2",
            {"sources": "neuron.1.3"},
            "neuron.1.3 can't be the source of an edge: give embed, sublayers or heads",
        ),
        ("gpt2", {"sources": "query.1.3"}, "query.1.3 can only be frozen"),
        ("gpt2", {"sources": "attn.0+mlp.1"}, "name them one by one"),
        ("gpt2", {"sources": "attn.2", "readers": "layers.0,mlp.1"}, "'layers.0' is no component"),
        ("gpt2", {"sources": "attn.2", "readers": "mlp.0,attn.2"}, "no reader is downstream of a source"),
        ("cohere", {"sources": "attn.2", "readers": "mlp.2"}, "no reader is downstream of a source"),
        ("gptj", {"readers": "query.1.0"}, "inputs of its heads can't read an edge; name sublayers"),
        ("llama", {"readers": "group.1.2.key"}, "llama has no group.1.2.key: attn.1 has groups 0 to 1"),
        ("llama", {"readers": "group.4.0.key"}, "llama has no group.4.0.key: its blocks are 0 to 2"),
        ("llama", {"readers": "key.1.4"}, "llama has no key.1.4: its heads there are head.1.0 to head.1.3"),
        ("gpt2", {"batch_size": 0}, "a batch of 0 prompts: ask for auto, or at least 1"),
        ("gpt2", {"batch_size": "big"}, "a batch of 'big' prompts: ask for auto, or at least 1"),
    ],
)
def test_refusals(case: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(hs.HydrascopeError, match=re.escape(said)) as caught:
        hs.analyses.edges(shared(case), SET, hs.Zero(), **options)
    assert "\n" not in str(caught.value)


def test_terms_of_dictionaries_are_no_sources_or_readers() -> None:
    model = with_dictionary("gpt2", "mlp.1", ACTIVATIONS[0])
    with pytest.raises(hs.HydrascopeError, match=r"feature.mlp.1.0 is a term of a dictionary: an edge takes"):
        hs.analyses.edges(model, SET, hs.Zero(), sources="feature.mlp.1.0")
    with pytest.raises(hs.HydrascopeError, match=r"feature.mlp.1.0 reads no residual stream"):
        hs.analyses.edges(model, SET, hs.Zero(), readers="feature.mlp.1.0")
    # The sublayers of a model with a dictionary have the same edges.
    found, expected = (hs.analyses.edges(each, SET, hs.Zero()) for each in (model, shared("gpt2")))
    np.testing.assert_allclose(found["edge"], expected["edge"], rtol=0, atol=1e-9 * float(abs(expected["edge"]).max()))


def test_a_metric_of_whole_answers_is_refused() -> None:
    with pytest.raises(hs.HydrascopeError, match="answer_log_prob reads more than the next token"):
        hs.analyses.edges(loaded("gpt2"), [hs.Prompt("the cat", answer="sat")], hs.Zero(), metrics=["answer_log_prob"])
