"""TransformerLens: the bridge, with weights as they are and processed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError
from interop import guides
from interop.checks import TOKENS, model_of, require_same, tokenizer, unchanged

CASES = ["gpt2", "llama", "gpt_neox", "gemma2"]


def bridge_of(case: str, *, processed: bool = False) -> Any:
    model = model_of(case)
    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config, tokenizer=tokenizer())
    if processed:
        bridge.enable_compatibility_mode(disable_warnings=True)
    # Its components note their first pass in attributes, and the longest batch: `load_model` makes such a pass.
    bridge(torch.tensor([list(range(8))]))
    return bridge


@pytest.mark.parametrize("case", CASES)
def test_a_bridge_is_measured_as_the_plain_model(case: str) -> None:
    given = bridge_of(case)
    with unchanged(given.original_model):
        model = require_same(given, model_of(case))
    assert model.tokenizer is given.tokenizer
    assert model.change == ""


def uncapped(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Return logits before a final soft-cap, where effects are measured."""
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * (logits / cap).atanh()


@pytest.mark.parametrize("case", CASES)
def test_processed_weights_are_measured_as_they_stand(case: str) -> None:
    """The bridge's own hooks on its processed weights give the same effects.

    Its norms compute in float32 in some architectures, and processing rounds to float32.
    """
    given = bridge_of(case, processed=True)
    with unchanged(given.original_model):
        results = hs.sweep(given, TOKENS, hs.Zero(), ablate="layers,heads")
    assert results.attrs["weights_changed"] == "weights processed by TransformerLens"
    sites = {"attn.1": "blocks.1.hook_attn_out", "mlp.1": "blocks.1.hook_mlp_out", "head.1.2": "blocks.1.attn.hook_z"}
    if case == "gemma2":
        # The bridge's names for them lie before the norm after the sublayer, which is part of it here.
        del sites["attn.1"], sites["mlp.1"]
    for label, site in sites.items():

        def zero(activation: Any, hook: Any, label: str = label) -> Any:
            activation = activation.clone()
            if label.startswith("head"):
                activation[:, -1, 2] = 0
            else:
                activation[:, -1] = 0
            return activation

        for index, ids in enumerate(TOKENS):
            tokens = torch.tensor([ids])
            with torch.no_grad():
                clean = given(tokens)[0, -1]
                ablated = given.run_with_hooks(tokens, fwd_hooks=[(site, zero)])[0, -1]
            clean, ablated = (uncapped(each, given.original_model.config) for each in (clean, ablated))
            target = int(clean.argmax())
            effect = (ablated[target] - ablated.mean()) - (clean[target] - clean.mean())
            found = results["total"].sel(ablated=label)[0, index, 0]
            assert float(found) == pytest.approx(float(effect), abs=2e-6), (label, ids)


def test_a_hook_that_stays_is_refused() -> None:
    given = bridge_of("gpt2")
    given.add_hook("blocks.1.hook_mlp_out", lambda activation, hook: activation * 2)
    with pytest.raises(HydrascopeError, match="computes other logits than the transformers model inside it"):
        hs.load_model(given)
    given.reset_hooks()
    assert hs.load_model(given)


def test_a_copy_of_a_bridge_is_as_good() -> None:
    bridge = bridge_of("llama")  # its copies refer to it weakly, so it must live
    require_same(copy.deepcopy(bridge), model_of("llama"))


def test_the_guide_gives_the_same_numbers_twice(tmp_path: Path) -> None:
    guides.require_same("from-transformerlens.md", tmp_path)
