"""PEFT: unmerged adapters, in a PeftModel or in a model of transformers, and adapters on disk."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError
from interop.checks import TOKENS, model_of, require_same, unchanged

TARGETS = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "o_proj", "down_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"c_proj": 5, "o_proj": 5}, "alpha_pattern": {"layers.1.mlp.down_proj": 11}},
    "dora": {"use_dora": True},
    "trained": {"modules_to_save": ["lm_head"]},
}


def adapted(case: str, **more: Any) -> peft.PeftModel:
    torch.manual_seed(0)
    settings = {
        "r": 3,
        "lora_alpha": 7,
        "lora_dropout": 0.1,
        "init_lora_weights": False,
        "target_modules": TARGETS[case],
    }
    config = peft.LoraConfig(**{**settings, "fan_in_fan_out": case == "gpt2", **more})
    model = peft.get_peft_model(model_of(case), config)
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name or "magnitude" in name:
            parameter.data.mul_(1.1)
    return model


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_adapters_are_measured_as_what_peft_merges(case: str, kind: str) -> None:
    given = adapted(case, **KINDS[kind])
    expected = copy.deepcopy(given).merge_and_unload()
    with unchanged(given):
        model = require_same(given, expected, atol=1e-9)
    assert model.change == "adapter merged"


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_adapters_inside_a_model_of_transformers(case: str) -> None:
    given = adapted(case)
    require_same(given.get_base_model(), copy.deepcopy(given).merge_and_unload(), atol=1e-9)


def test_an_ablated_head_is_what_a_hook_on_the_unmerged_model_gives() -> None:
    """Measure by plain passes of the user's own model, with the value of head 2 of block 1 set to zero."""
    given = adapted("llama").eval()
    results = hs.sweep(given, TOKENS, hs.Zero(), ablate="head.1.2")

    def zero(module: Any, inputs: Any) -> Any:
        values = inputs[0].clone()
        values[:, -1, 16:24] = 0
        return (values, *inputs[1:])

    projection = given.get_base_model().model.layers[1].self_attn.o_proj
    for index, ids in enumerate(TOKENS):
        with torch.no_grad():
            clean = given(input_ids=torch.tensor([ids])).logits[0, -1]
            handle = projection.register_forward_pre_hook(zero)
            ablated = given(input_ids=torch.tensor([ids])).logits[0, -1]
            handle.remove()
        target = int(clean.argmax())
        effect = (ablated[target] - ablated.mean()) - (clean[target] - clean.mean())
        assert float(results["total"][0, index, 0, 0]) == pytest.approx(float(effect), abs=1e-6)


def test_disabled_and_merged_adapters() -> None:
    given = adapted("llama")
    given.merge_adapter()
    require_same(given, copy.deepcopy(given).merge_and_unload(), atol=1e-9)
    given.unmerge_adapter()
    with given.disable_adapter():
        assert require_same(given, model_of("llama"), atol=1e-9).change == ""


def test_prompt_tuning_is_refused() -> None:
    given = peft.get_peft_model(model_of("gpt2"), peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))
    with pytest.raises(HydrascopeError, match=r"the adapter \(PROMPT_TUNING\) adds tokens to the prompt"):
        hs.load_model(given)


@pytest.mark.parametrize("kind", ["plain", "rslora", "patterns"])
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_an_adapter_on_disk_is_merged_as_peft_merges_it(case: str, kind: str, tmp_path: Path) -> None:
    from interop.checks import tokenizer

    model_of(case).save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    given = adapted(case, **KINDS[kind])
    given.save_pretrained(tmp_path / "adapter")
    found = hs.load_model(tmp_path / "base", dtype="float64", adapter=tmp_path / "adapter")
    require_same(found.hf, given.merge_and_unload(), atol=1e-9)


@pytest.mark.parametrize("kind", ["dora", "trained"])
def test_more_than_lora_on_disk_is_refused(kind: str, tmp_path: Path) -> None:
    adapted("llama", **KINDS[kind]).save_pretrained(tmp_path / "adapter")
    with pytest.raises(HydrascopeError, match="is more than LoRA of projections"):
        hs.load_model("phantom", adapter=tmp_path / "adapter")
