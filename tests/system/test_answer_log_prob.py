"""The metric `answer_log_prob` of a whole run: every number by plain passes, token by token, and what is refused."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from command import Run
from faults.processes import identical
from plain import Plain, exactly_normed, loaded, plain_run
from stored import run_to_disk
from tiny import VOCABULARY

import hydrascope as hs
from hydrascope.ablations.ablation import Ablation
from hydrascope.components.component import Override
from hydrascope.engines import ENGINES, Engine, Readings, Request, wavefront
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan

torch.set_num_threads(1)

METRICS = ["log_prob", "answer_log_prob"]
#: The tokenizer's tokens are characters, and a space is put before an answer: 2, 4, 1, 3, 1 and 4 tokens.
PROMPTS = [
    hs.Prompt("the cat", "s", counterfactual="the dog"),
    hs.Prompt("Hello, world", "and", counterfactual="Hullo, wirld"),
    hs.Prompt("xyz. ", "q", counterfactual="zyx. "),
    hs.Prompt("no way", " on", counterfactual="on way"),
    hs.Prompt("abc ", "d", counterfactual="cba "),
    hs.Prompt("QRS", "tuv", counterfactual="SRQ"),
]
LENGTHS = [2, 4, 1, 3, 1, 4]
UNITS = [f"head.{block}.{head}" for block in range(3) for head in range(4)] + ["neuron.1.7"]
ATOL = 1e-10


def last(length: int) -> list[int]:
    return [length - 1]


@dataclass(frozen=True)
class Case:
    """Hold the ablated positions, and patch a prompt of some length there."""

    ablate: str = "layers"
    ablation: Ablation = field(default_factory=lambda: hs.Resample(2))
    at: Any = "last"
    positions: Callable[[int], list[int]] = last


CASES = {
    "layers": Case(),
    "units": Case("heads.1,neuron.1.7,head.2.0+head.0.1"),
    "earlier": Case("layers,head.1.2", at=-2, positions=lambda length: [length - 2]),
    "two places": Case("attn,head.0.3", at="-2,-1", positions=lambda length: [length - 2, length - 1]),
    "first": Case("layers", hs.Zero(), 0, lambda length: [0]),
    "twins": Case("layers,head.1.1", hs.Counterfactual(), "all", lambda length: list(range(length))),
    "zero": Case("layers", hs.Zero(), "all", lambda length: list(range(length))),
    "several": Case("attn.0+mlp.1,attn.0|mlp.1,head.0.1|head.1.0|mlp.2,mlp.0|attn.1|mlp.1"),
}
QUICK = {("gpt2", "layers"), ("gpt2", "earlier"), ("llama", "units"), ("llama", "twins"), ("llama", "several")}


def answer_ids(model: LanguageModel, prompt: hs.Prompt) -> tuple[list[int], list[int]]:
    """The prompt's tokens and its answer's, a space between them where there is none."""
    space = "" if prompt.text[-1] == " " or prompt.answer[0] == " " else " "
    tokens = model.encode(prompt.text)
    return tokens, model.encode(prompt.text + space + prompt.answer)[len(tokens) :]


def patch_values(case: Case, donor: Plain, component: str, back: list[int]) -> torch.Tensor:
    """Return the writes of a component in a patched pass, at positions from a prompt's end."""
    if isinstance(case.ablation, hs.Zero):
        return torch.zeros_like(donor.values[component][:1])
    return donor.values[component][back]


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow)
        for each in product(["gpt2", "llama"], CASES)
    ],
)
def test_every_number_is_that_of_plain_forward_passes(architecture: str, name: str) -> None:
    """Σ log p, by a pass for each token: of the prompt and the tokens before it, patched at the prompt's positions."""
    model, case = exactly_normed(loaded(architecture)), CASES[name]
    prompts = PROMPTS[:4]
    several = [
        hs.sweep(
            model, prompts, case.ablation, ablate=case.ablate, at=case.at, metrics=METRICS, batch_size=3, engine=engine
        )
        for engine in ENGINES
    ]
    results = several[0]
    found = xr.concat([each.sel(metric="answer_log_prob") for each in several], "engine")
    ids = [answer_ids(model, prompt) for prompt in prompts]
    assert [len(answer) for _, answer in ids] == LENGTHS[:4]
    clean = [plain_run(model, tokens, units=UNITS) for tokens, _ in ids]
    twins = [plain_run(model, model.encode(prompt.counterfactual), units=UNITS) for prompt in prompts]
    for index, (tokens, answer) in enumerate(ids):
        begun = [[*tokens, *answer[:number]] for number in range(len(answer))]
        own = [plain_run(model, each, units=UNITS) for each in begun]
        np.testing.assert_allclose(found["metric_clean"][:, index], log_p(own, answer), rtol=0, atol=ATOL)
        places = case.positions(len(tokens))
        back = [place - len(tokens) for place in places]
        for number, override in enumerate(map(Override.parse, results["ablated"].values)):
            for patch, source in enumerate(results["patch_prompt"].values[index]):
                donor = clean[source] if source >= 0 else twins[index]
                ablated = {str(c): (places, patch_values(case, donor, str(c), back)) for c in override.ablated}
                changed = []
                for run, each in zip(own, begun, strict=True):
                    frozen = {str(c): (range(len(each)), run.values[str(c)]) for c in override.frozen}
                    changed.append(plain_run(model, each, ablated | frozen, UNITS))
                here = found["metric_ablated"][:, index, number, patch]
                np.testing.assert_allclose(here, log_p(changed, answer), rtol=0, atol=ATOL, err_msg=str(override))


def log_p(runs: Sequence[Plain], answer: Sequence[int]) -> float:
    """Log p of an answer, of which each token is predicted by one of the runs."""
    return sum(float(run.logits.log_softmax(-1)[token]) for run, token in zip(runs, answer, strict=True))


def by_ids(model: LanguageModel) -> list[hs.Prompt]:
    """The same prompts and answers as token ids."""
    ids = [answer_ids(model, prompt) for prompt in PROMPTS]
    return [hs.Prompt(tokens=tuple(tokens), answer=tuple(answer)) for tokens, answer in ids]


@pytest.mark.parametrize("at", ["last", -2, "all"])
def test_nothing_else_depends_on_it(at: Any) -> None:
    """Nor does it on the target; for an answer of one token it is log p of the target, to the bit."""
    model = loaded()
    prompts = by_ids(model)

    def measure(metrics: Any, target: Any = "answer") -> xr.Dataset:
        return hs.sweep(model, prompts, hs.Zero(), metrics=metrics, target=target, at=at)

    without, results = measure("log_prob"), measure(METRICS)
    for name, variable in without.data_vars.items():
        here = results[name].sel(metric=["log_prob"]) if "metric" in variable.dims else results[name]
        np.testing.assert_array_equal(here, variable, err_msg=str(name))
    one = [place for place, length in enumerate(LENGTHS) if length == 1]
    for name in ("metric_clean", "metric_ablated"):
        values = results[name].isel(prompt=one)
        np.testing.assert_array_equal(values.sel(metric="log_prob"), values.sel(metric="answer_log_prob"))
    several = results["metric_clean"].drop_isel(prompt=one)
    assert bool((several.sel(metric="answer_log_prob") < several.sel(metric="log_prob")).all())
    for target in ("argmax", 7):
        other = measure("answer_log_prob", target)
        for name in ("metric_clean", "metric_ablated"):
            np.testing.assert_array_equal(other[name][0], results[name][1])


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2")
    options: dict[str, Any] = {
        "ablate": "attn.1,mlp.0,head.1.1,attn.0|mlp.2",
        "metrics": "answer_log_prob",
        "at": "all",
    }
    expected = hs.sweep(model, PROMPTS, hs.Zero(), engine="reference", **options)
    found = hs.sweep(model, PROMPTS, hs.Zero(), batch_size=2, **options)
    monkeypatch.setattr("hydrascope.models.memory.CPU_BYTES", 1)
    split = hs.sweep(model, PROMPTS, hs.Zero(), **options)
    assert split.attrs["overrides_at_once"] == 1
    for name in ("metric_clean", "metric_ablated"):
        for each in (found, split):
            np.testing.assert_allclose(each[name], expected[name], rtol=0, atol=ATOL)


def test_prompts_and_answers_as_token_ids() -> None:
    """Check a model without a tokenizer, too."""
    model = loaded()
    prompts, expected = by_ids(model), hs.sweep(model, PROMPTS, hs.Zero(), metrics="answer_log_prob")
    model.tokenizer = None
    found = hs.sweep(model, prompts, hs.Zero(), metrics="answer_log_prob")
    for name in ("metric_clean", "metric_ablated", "total"):
        np.testing.assert_array_equal(found[name], expected[name])
    # The first of several ids is the target.
    targets = hs.sweep(model, prompts, hs.Zero(), target="answer")["target"]
    assert targets.values.tolist() == [prompt.answer[0] for prompt in prompts]


def test_the_result_says_what_it_holds(tmp_path: Path) -> None:
    model = loaded("gpt2", torch.float32)
    run_to_disk(model, PROMPTS, hs.Resample(2), out=tmp_path / "r.zarr", metrics=METRICS)
    results = hs.open_results(tmp_path / "r.zarr")
    assert results["metric"].values.tolist() == METRICS
    assert results["metric_units"].values.tolist() == ["nats", "nats"]
    assert json.loads(results.attrs["metrics"]) == METRICS
    assert "metrics_hash" not in results.attrs
    columns = hs.tidy(results).columns
    assert {"answer_log_prob_clean", "answer_log_prob_ablated"} <= set(columns)


@pytest.mark.parametrize(
    "ablate",
    [
        hs.Interactions("attn"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("attn", hs.Mediation("attn.0"))),
    ],
)
def test_summaries_and_pages_are_those_without_it(ablate: Any, tmp_path: Path) -> None:
    """They show readouts; the table of `export` has the metric."""
    model = loaded("gpt2", torch.float32)
    plain, read = (
        hs.open_results(run_to_disk(model, PROMPTS, hs.Zero(), out=tmp_path / name, ablate=ablate, metrics=metrics))
        for name, metrics in (("plain.zarr", ()), ("read.zarr", "answer_log_prob"))
    )
    bootstrap = hs.measures.Bootstrap(50)
    # As texts, since NaN is no number's equal.
    assert repr(hs.reports.summarise(read, bootstrap)) == repr(hs.reports.summarise(plain, bootstrap))
    (_, arrays), (_, expected) = (hs.reports.page_data(each, bootstrap) for each in (read, plain))
    assert arrays == expected
    means = read["metric_ablated"].isel(metric=0).mean("patch").values.ravel()
    np.testing.assert_allclose(hs.tidy(read)["answer_log_prob_ablated"], means, rtol=1e-6)


def test_a_run_goes_on_with_the_same_answers_alone(tmp_path: Path) -> None:
    model = loaded("gpt2", torch.float32)
    out, options = tmp_path / "r.zarr", {"metrics": "answer_log_prob", "batch_size": 1}
    run_to_disk(model, PROMPTS, hs.Zero(), out=out, **options)
    run_to_disk(model, PROMPTS, hs.Zero(), out=out, resume=True, **options)
    other = [replace(PROMPTS[0], answer="t"), *PROMPTS[1:]]
    with pytest.raises(hs.HydrascopeError, match="tokens_hash was"):
        run_to_disk(model, other, hs.Zero(), out=out, resume=True, **options)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("gpt2", torch.float32)
    options: dict[str, Any] = {"metrics": METRICS, "batch_size": 1, "at": "all"}
    whole = run_to_disk(model, PROMPTS, hs.Zero(), out=tmp_path / "whole.zarr", **options)
    left = iter(range(5))

    def ends(model: LanguageModel, request: Request) -> Readings:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return wavefront.measure(model, request)

    with monkeypatch.context() as patch:
        patch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", ends, "for the test"))
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, PROMPTS, hs.Zero(), out=tmp_path / "r.zarr", **options)
    assert hs.open_results(tmp_path / "r.zarr").sizes["prompt"] == 4
    run_to_disk(model, PROMPTS, hs.Zero(), out=tmp_path / "r.zarr", resume=True, **options)
    identical(tmp_path / "r.zarr", whole)


def test_tokens_of_answers_count_only_where_they_are_read() -> None:
    """Else a result from before this metric could not be resumed."""
    model = loaded("gpt2", torch.float32)
    other = [replace(PROMPTS[0], answer="t"), *PROMPTS[1:]]
    plain = [hs.sweep(model, prompts, hs.Zero()).attrs["tokens_hash"] for prompts in (PROMPTS, other)]
    read = [
        hs.sweep(model, prompts, hs.Zero(), metrics="answer_log_prob").attrs["tokens_hash"]
        for prompts in (PROMPTS, other)
    ]
    assert plain[0] == plain[1]
    assert len({*plain, *read}) == 3


def test_a_function_of_the_user_s_own_may_bear_the_name() -> None:
    def answer_log_prob(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
        return logits[:, target]

    results = hs.sweep(loaded(), PROMPTS, hs.Zero(), metrics=answer_log_prob)
    np.testing.assert_array_equal(results["metric_clean"].sel(metric="answer_log_prob").shape, [len(PROMPTS)])
    assert "metrics_hash" in results.attrs
    with pytest.raises(hs.HydrascopeError, match="two metrics are called 'answer_log_prob'"):
        hs.sweep(loaded(), PROMPTS, hs.Zero(), metrics=[answer_log_prob, "answer_log_prob"])


LONG = tuple(4 + place % 50 for place in range(62))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (hs.Prompt("a cat"), r'prompt 2 \("a cat"\) has no answer: .* leave out the metric answer_log_prob'),
        (hs.Prompt("a cat", " "), "prompt 2 .* has no answer"),
        (hs.Prompt(tokens=(4, 5), answer=()), "prompt 2 .* has no answer"),
        (hs.Prompt("a cat", 9), "the answer of prompt 2 .* is the id of its first token: give its text, or"),
        (hs.Prompt(tokens=(4, 5), answer=9), "the answer of prompt 2 .* is the id of its first token"),
        (hs.Prompt(tokens=(4, 5), answer="s"), "prompt 2 .* is given as token ids: give the ids of all tokens"),
        (hs.Prompt(tokens=(4, 5), answer=(4, VOCABULARY)), f"the answer of prompt 2 .* has token {VOCABULARY}"),
        (hs.Prompt("a cat", "b?"), 'the answer "b.*" of prompt 2 .* is unknown to the tokenizer'),
        (
            hs.Prompt(tokens=LONG, answer=(4, 5, 6, 7)),
            "prompt 2 .* and its answer are 65 tokens long without the last, the context of gpt2 holds 64",
        ),
    ],
)
@pytest.mark.parametrize("metrics", ["answer_log_prob", ["kl", "answer_log_prob"]])
def test_answers_that_cannot_be_read_are_refused(prompt: hs.Prompt, message: str, metrics: Any) -> None:
    with pytest.raises(hs.HydrascopeError, match=message) as caught:
        hs.sweep(loaded("gpt2"), [PROMPTS[0], prompt], hs.Zero(), metrics=metrics)
    assert "\n" not in str(caught.value)


def test_an_answer_that_just_fits_is_measured() -> None:
    fits = hs.Prompt(tokens=LONG, answer=(4, 5, 6))
    assert np.isfinite(hs.sweep(loaded("gpt2"), [fits], hs.Zero(), metrics="answer_log_prob")["metric_ablated"]).all()


def test_a_model_without_a_tokenizer_names_what_is_missing() -> None:
    model = loaded()
    model.tokenizer = None
    with pytest.raises(
        hs.HydrascopeError, match="is the id of its first token: give its text, or a list of all its ids"
    ):
        hs.sweep(model, [hs.Prompt(tokens=(4, 5), answer=9)], hs.Zero(), metrics="answer_log_prob")


def read_after(prompts: Sequence[hs.Prompt], **options: Any) -> list[str]:
    return list(hs.sweep(loaded(), prompts, hs.Zero(), **options)["text"].values)


def test_a_bare_space_is_a_token_of_the_answer() -> None:
    """The prompt is read where it is read without the metric; a target may move it behind the space."""
    prompts = [hs.Prompt("the cat", "s"), hs.Prompt("no", "way")]
    assert read_after(prompts, metrics="answer_log_prob") == read_after(prompts) == ["the cat", "no"]
    moved = read_after(prompts, metrics="answer_log_prob", target="answer")
    assert moved == read_after(prompts, target="answer") == ["the cat ", "no "]
    apart, together = (
        hs.sweep(loaded(), prompts, hs.Zero(), metrics="answer_log_prob", target=target)["metric_clean"][0, 0]
        for target in ("argmax", "answer")
    )
    space = loaded().encode("a ")[-1]
    log_p = plain_run(loaded(), loaded().encode("the cat")).logits.log_softmax(-1)[space]
    assert float(apart) == pytest.approx(float(together) + float(log_p), abs=1e-5)


def test_on_the_command_line(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    asked = ("run", folder / "model", "--out", tmp_path / "r.zarr", "--ablation", "zero", "--metric", "answer_log_prob")
    code, _, err = hydrascope(*asked, "--prompts", folder / "facts.jsonl", "--dtype", "float64")
    assert (code, err) == (0, "")
    found = hs.open_results(tmp_path / "r.zarr")
    expected = hs.sweep(
        hs.load_model(folder / "model", dtype="float64"),
        hs.load_prompts(folder / "facts.jsonl"),
        hs.Zero(),
        metrics="answer_log_prob",
    )
    np.testing.assert_array_equal(found["metric_ablated"], expected["metric_ablated"])
    code, out, err = hydrascope(*asked, "--prompts", folder / "prompts.txt", "--overwrite")
    assert (code, out) == (2, "")
    assert "has no answer" in err
    assert "answer_log_prob" in hydrascope("run", "--help")[1]
