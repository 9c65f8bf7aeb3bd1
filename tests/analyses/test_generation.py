"""Generation under an override: the tokens and logits of plain passes of whole texts, with plain hooks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from plain import Parts, exactly_normed, loaded
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tiny
from torch import Tensor, nn

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

PROMPTS = [[5, 6, 7, 8], [9, 10, 4, 20]]
STEPS = 6
FLOAT64 = {"gpt2": loaded, "llama": lambda case: exactly_normed(loaded(case))}


def model_of(case: str) -> LanguageModel:
    model = FLOAT64[case](case)
    model.hf.generation_config.pad_token_id = 0
    model.hf.generation_config.eos_token_id = None
    return model


def generated(hf: Any, prompts: Sequence[Sequence[int]], **options: Any) -> tuple[Tensor, Tensor]:
    """`[row, step]` the tokens that transformers generates, and `[row, step, vocabulary]` their logits."""
    logits: list[Tensor] = []  # generate itself gives them in float32
    handle = hf.get_output_embeddings().register_forward_hook(lambda m, a, output: logits.append(output[:, -1].clone()))
    options.setdefault("attention_mask", torch.ones(len(prompts), len(prompts[0]), dtype=torch.long))
    tokens = hf.generate(torch.tensor(prompts), max_new_tokens=STEPS, do_sample=False, **options)
    handle.remove()
    return tokens[:, len(prompts[0]) :], torch.stack(logits, 1)


@torch.no_grad()
def by_hand(model: LanguageModel, prompt: Sequence[int], values: dict[str, Tensor], at: str) -> tuple[Tensor, Tensor]:
    """The same of one prompt: its whole text is run for each token, overridden where the steps were."""
    parts, tokens, logits = Parts.of(model), list(prompt), []
    first = len(prompt) - 1 if at == "last" else 0

    def on_layer(value: Tensor) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            (output[0] if isinstance(output, tuple) else output)[:, first:] = value

        return hook

    def on_projection(component: Component, value: Tensor) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> tuple:
            changed = inputs[0].clone()
            changed[:, first:, parts.columns(component)] = value
            return (changed, *inputs[1:])

        return hook

    handles = []
    for label, value in values.items():
        component = Component.parse(label)
        if component.is_unit:
            module = parts.projections[str(component.sublayer)]
            handles.append(module.register_forward_pre_hook(on_projection(component, value)))
        else:
            handles.append(parts.layers[label].register_forward_hook(on_layer(value)))
    for _ in range(STEPS):
        logits.append(model.hf(torch.tensor([tokens]), use_cache=False).logits[0, -1])
        tokens.append(int(logits[-1].argmax()))
    for handle in handles:
        handle.remove()
    return torch.tensor(tokens[len(prompt) :]), torch.stack(logits)


def vectors(model: LanguageModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        label: torch.randn(width, generator=generator, dtype=torch.float64)
        for label, width in (("attn.0", model.width), ("head.1.2", model.width // 4), ("neuron.2.3", 1))
    }


@pytest.mark.parametrize("case", FLOAT64)
@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("kind", ["zero", "vectors", "one"])
def test_what_is_generated_is_what_plain_hooks_generate(case: str, at: Any, kind: str) -> None:
    model = model_of(case)
    values = vectors(model)
    if kind == "zero":
        values = {label: torch.zeros_like(value) for label, value in values.items()}
    if kind == "one":
        values = {"head.1.2": values["head.1.2"]}
    by: Any = {"zero": "zero", "vectors": values, "one": values["head.1.2"].numpy()}[kind]
    plainly = generated(model.hf, PROMPTS)
    with hs.override(model, ",".join(values), by=by, at=at) as hf:
        assert hf is model.hf
        tokens, logits = generated(hf, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        expected_tokens, expected = by_hand(model, prompt, values, at)
        assert tokens[row].tolist() == expected_tokens.tolist()
        torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-9)
    assert (logits - plainly[1]).abs().max() > 1e-3
    # And nothing is left of it.
    torch.testing.assert_close(generated(model.hf, PROMPTS)[1], plainly[1], rtol=0, atol=0)


def test_the_mean_is_that_over_prompts_at_the_last_position_or_over_all() -> None:
    model = model_of("gpt2")
    texts = ["ab", "the cat", "no"]
    labels = ["attn.0", "head.1.2", "mlp.2"]
    for at in ("last", "all"):
        values = {}
        for label in labels:
            found = hs.activations(model, texts, label, at=at)["activation"].stack(all=("prompt", "slot")).values[0].T
            values[label] = torch.from_numpy(found[~np.isnan(found[:, 0])].mean(0))
        with hs.override(model, labels, by="mean", at=at, prompts=texts) as hf:
            _, logits = generated(hf, PROMPTS)
        for row, prompt in enumerate(PROMPTS):
            torch.testing.assert_close(logits[row], by_hand(model, prompt, values, at)[1], rtol=0, atol=1e-9)


def test_a_transformers_model_will_do() -> None:
    model = model_of("gpt2")
    with hs.override(model, "attn.1+mlp.2") as hf:
        expected = generated(hf, PROMPTS)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.hf.modules()]
    with hs.override(model.hf, "blocks.1.hook_attn_out,transformer.h[2].mlp") as hf:
        assert hf is model.hf
        found = generated(model.hf, PROMPTS)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.hf.modules()]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_never_the_last_position(side: str) -> None:
    """Require that each prompt of a padded batch gives what it gives alone."""
    model, values = model_of("llama"), {"mlp.0": torch.ones(32, dtype=torch.float64)}
    prompts = [[5, 6, 7, 8], [9, 10]]
    pad = [0, 0]
    padded = [prompts[0], pad + prompts[1] if side == "left" else prompts[1] + pad]
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1] if side == "left" else [1, 1, 0, 0]])
    if side == "left":
        with hs.override(model, "mlp.0", by=values["mlp.0"]) as hf:
            logits = generated(hf, padded, attention_mask=mask)[1]
    else:
        with hs.override(model, "mlp.0", by=values["mlp.0"]) as hf, torch.no_grad():
            whole = hf(torch.tensor(padded), attention_mask=mask).logits
        logits = torch.stack([whole[0, 3], whole[1, 1]])[:, None]
    for row, prompt in enumerate(prompts):
        expected = by_hand(model, prompt, values, "last")[1]
        torch.testing.assert_close(logits[row], expected[: len(logits[row])], rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", rest_slow(CONFIGS))
def test_every_architecture_generates_as_it_runs_overridden(case: str) -> None:
    """The first step, of each kind of component, is the run of a sweep: an engine of its own."""
    # Experts in groups know no float64.
    experts = case in ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss")
    model = tiny(case, torch.float32) if experts else shared(case)
    kinds = ["attn.1", "mlp.1", "head.0.1", *(["neuron.1.3"] if model.is_dense(Component(1, "mlp")) else [])]
    tokens = [5, 6, 7, 8]
    for label in kinds:
        found: list[Tensor] = []
        hs.sweep(model, [tokens], hs.Zero(), ablate=label, engine="reference", metrics=[keep_into(found)])
        with hs.override(model, label) as hf, Evaluating(hf), torch.no_grad():
            cached = hf(torch.tensor([tokens])).logits[0, -1]
        torch.testing.assert_close(cached.log_softmax(-1), found[-1][0].log_softmax(-1), rtol=1e-4, atol=1e-5)


def keep_into(found: list[Tensor]) -> Callable:
    """A metric that keeps the logits that it is given, those of the ablated row last."""

    def kept(logits: Tensor, clean: Tensor, target: int) -> Tensor:
        found.append(logits.clone())
        return logits[:, 0]

    return kept


class Evaluating:
    """Evaluation mode for the length of a block."""

    def __init__(self, hf: Any) -> None:
        self.hf, self.training = hf, hf.training

    def __enter__(self) -> None:
        self.hf.eval()

    def __exit__(self, *_: Any) -> None:
        self.hf.train(self.training)


def test_hooks_are_removed_after_an_error() -> None:
    model = model_of("gpt2")
    plainly = generated(model.hf, PROMPTS)
    with pytest.raises(ZeroDivisionError), hs.override(model, "attn.0"):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())
    assert not [name for name in vars(model.hf) if "hydrascope" in name]
    torch.testing.assert_close(generated(model.hf, PROMPTS), plainly, rtol=0, atol=0)
    hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0")


def test_nothing_is_measured_meanwhile_and_overrides_may_be_nested() -> None:
    model = model_of("gpt2")
    with hs.override(model, "attn.0+mlp.1") as hf:
        expected = generated(hf, PROMPTS)
    with hs.override(model, "attn.0"):
        with hs.override(model, "mlp.1") as hf:
            torch.testing.assert_close(generated(hf, PROMPTS), expected, rtol=0, atol=0)
        for measure in (
            lambda: hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0"),
            lambda: hs.load_model(model.hf),
            lambda: hs.activations(model, PROMPTS),
        ):
            with pytest.raises(HydrascopeError, match=r"is overridden: leave the with block of hs\.override"):
                measure()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "one"}, "unknown by 'one': give 'zero', 'mean' with prompts, a vector"),
        ({"by": "mean"}, "prompts are those of by='mean': give both, or neither"),
        ({"prompts": ["ab"]}, "prompts are those of by='mean'"),
        ({"at": "first"}, "unknown at 'first': choose last or all"),
        ({"by": np.ones(3)}, r"the vector for attn\.0 has the shape \[3\]: give 32 numbers"),
        ({"by": np.full(32, np.nan)}, "the vector for attn.0 holds a number that is not finite"),
        ({"by": {"attn.1": np.ones(32)}}, r"by and the components differ in attn\.0"),
        ({"by": object()}, "attn.0 cannot be overridden by a object"),
        ({"components": "attn.0,mlp.1", "by": np.ones(32)}, "one vector for 2 components: give 'zero'"),
        ({"components": "attn.0|mlp.1"}, r"attn\.0\|mlp\.1 freezes a component, which no generation can"),
        ({"components": "attn.0,head.0.1"}, "overrides head.0.1 and all of attn.0"),
        ({"components": "attn.7"}, "gpt2 has no attn.7"),
    ],
)
def test_every_mistake_is_one_line(options: dict[str, Any], message: str) -> None:
    model = tiny("gpt2")
    with (
        pytest.raises(HydrascopeError, match=message) as error,
        hs.override(model, **{"components": "attn.0", **options}),
    ):
        pass
    assert "\n" not in str(error.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_a_text_in_chunks_is_refused_where_only_the_last_counts() -> None:
    model = model_of("gpt2")
    with torch.no_grad(), hs.override(model, "attn.0") as hf:
        cache = hf(torch.tensor([[5, 6]]), use_cache=True).past_key_values
        with pytest.raises(
            HydrascopeError, match=r"a pass of 2 tokens after 2 cached ones: with at='last' generate one"
        ):
            hf(torch.tensor([[7, 8]]), past_key_values=cache)
    with torch.no_grad(), hs.override(model, "attn.0", at="all") as hf:
        whole = hf(torch.tensor([[5, 6, 7, 8]])).logits[0, -1]
        cache = hf(torch.tensor([[5, 6]]), use_cache=True).past_key_values
        torch.testing.assert_close(hf(torch.tensor([[7, 8]]), past_key_values=cache).logits[0, -1], whole)
