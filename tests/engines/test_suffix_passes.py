"""Passes over the last tokens give the model's own logits and gradients, each prompt alone and whole."""

from collections.abc import Sequence

import pytest
import torch
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tolerance
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.engines.suffix_passes import SuffixPasses
from hydrascope.models.batching import batchable
from hydrascope.models.gradients import with_gradients
from hydrascope.models.hooks import hooked, on_site
from hydrascope.models.language_model import LanguageModel

LENGTHS = (7, 4, 6)
PLACES = ("last", "span", "all")


def slots(length: int, at: str) -> list[int]:
    """Return the ablated positions; a shorter list repeats its last to fill the batch."""
    if at == "last":
        return [length - 1]
    chosen = list(range(length)) if at == "all" else [1, length - 1]
    return chosen + [chosen[-1]] * ((max(LENGTHS) if at == "all" else 2) - len(chosen))


def plain(model: LanguageModel, ids: Sequence[int], component: Component, value: Tensor, at: Sequence[int]) -> Tensor:
    """Return the logits at the last position, one prompt in one whole pass; they are not soft-capped."""
    kept: list[Tensor] = []

    def write(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        rows = changed if changed.ndim == 2 else changed[0]
        rows[list(at), model.columns(component)] = value
        return changed

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output.reshape(len(ids), -1)[-1])

    handle = model.final_norm.register_forward_hook(keep)
    try:
        with with_gradients(model), hooked([on_site(model, component.site, write)]):
            model.hf(input_ids=torch.tensor([list(ids)]), use_cache=False)
    finally:
        handle.remove()
    return model.unembedded(kept[0])


@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("llama", "gpt2", "gemma2", "gptj", "gpt_oss", "bloom")))
@pytest.mark.parametrize("at", PLACES)
def test_logits_and_gradients_are_the_models_own(case, at):
    model = shared(case)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 60, (length,), generator=generator).tolist() for length in LENGTHS]
    if len(batchable(model, prompts)) > 1:
        pytest.skip("these prompts may not share a batch")
    positions = torch.tensor([slots(length, at) for length in LENGTHS])
    passes = SuffixPasses.of(model, prompts, positions)
    components = [model.sublayers[0], model.sublayers[3], model.sublayers[-1], Component(1, "head", 2)]
    for component in components:
        width = torch.zeros(model.site_width(component.site))[model.columns(component)].shape[0]
        value = torch.randn(width, generator=generator, dtype=model.dtype).requires_grad_()
        weights = torch.randn(len(prompts), model.hf.config.vocab_size, generator=generator, dtype=model.dtype)
        logits = passes.logits_with(component, value)
        (found,) = torch.autograd.grad((logits.tanh() * weights).sum(), value)
        own = torch.stack(
            [plain(model, ids, component, value, each) for ids, each in zip(prompts, positions.tolist(), strict=True)]
        )
        (expected,) = torch.autograd.grad((own.tanh() * weights).sum(), value)
        assert torch.allclose(logits, own, atol=tolerance(case))
        assert torch.allclose(found, expected, atol=10 * tolerance(case))
        assert expected.abs().max() > 1e-4  # the test could see a gradient that is left out
        with torch.no_grad():
            assert torch.allclose(passes.logits_with(component, value.detach()), own, atol=tolerance(case))
        assert all(parameter.grad is None for parameter in model.hf.parameters())


def test_the_model_is_left_as_it_was():
    model = shared("llama")
    before = [dict(block.__dict__) for block in model.blocks]
    passes = SuffixPasses.of(model, [[3, 4, 5]], torch.tensor([[2]]))
    with pytest.raises(RuntimeError):
        passes.logits_with(model.sublayers[-1], torch.zeros(3, dtype=model.dtype))
    assert [block.__dict__.keys() for block in model.blocks] == [each.keys() for each in before]
    assert not any(block._forward_hooks for block in model.blocks)
