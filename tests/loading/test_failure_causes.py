"""Models that other code has changed: each is measured as it is, or named by what was done to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import LONGER
from rest_slow import rest_slow
from safetensors.torch import load_file, save_file
from tiny import save_tiny, tiny_tokenizer
from torch import nn
from transformers import AttentionInterface, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import hydrascope as hs
from hydrascope.loading import failure_causes
from hydrascope.loading.checkpoint import unwrapped_names


class LoRALinear(nn.Linear):
    """An adapter of a tool of one's own, which isn't merged."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 1.5


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.weight = inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 1.5


def adapted(model: Any) -> None:
    mlp = model.model.layers[1].mlp
    old, mlp.down_proj = mlp.down_proj, LoRALinear(mlp.down_proj.in_features, mlp.down_proj.out_features, bias=False)
    mlp.down_proj.weight = old.weight


def wrapped(model: Any) -> None:
    mlp = model.model.layers[1].mlp
    mlp.down_proj = Scaled(mlp.down_proj)


def hooked(model: Any) -> None:
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 1.5)


def replaced(model: Any) -> None:
    mlp = model.model.layers[1].mlp
    before = mlp.forward
    mlp.forward = lambda x: before(x) * 1.5


def louder(*arguments: Any, **options: Any) -> Any:
    output, weights = sdpa_attention_forward(*arguments, **options)
    return output * 1.5, weights


def attends_otherwise(model: Any) -> None:
    AttentionInterface.register("louder", louder)
    model.set_attn_implementation("louder")


def of_two_dtypes(model: Any) -> None:
    model.model.layers[1].to(torch.bfloat16)


def in_tuples(model: Any) -> None:
    model.config.return_dict = False


def rounded(model: Any) -> None:
    projection = model.model.layers[1].mlp.down_proj
    projection.weight = nn.Parameter((projection.weight * 100).to(torch.int8), requires_grad=False)


def shared(model: Any) -> None:
    model.model.layers[1].mlp = model.model.layers[0].mlp


def headless(model: Any) -> None:
    model.lm_head = nn.Identity()


CHANGES: dict[Callable[[Any], None], str] = {
    adapted: r"fails the self-check.*; model\.layers\.1\.mlp\.down_proj is a LoRALinear, an adapter that isn't merged",
    wrapped: r"fails the self-check.*; model\.layers\.1\.mlp\.down_proj is a Scaled of .*: give the original model",
    hooked: r"fails the self-check.*; it holds without the hooks on model\.layers\.1\.mlp: remove them",
    replaced: r"fails the self-check.*; it holds without the forward methods put over those of model\.layers\.1\.mlp",
    attends_otherwise: r"fails the self-check.*; its attention is computed by 'louder', another tool's",
    of_two_dtypes: r"can't be run, .*embed_tokens\.weight is float32 and .*q_proj\.weight is bfloat16",
    in_tuples: r"can't be run, .*set model\.config\.return_dict = True",
    rounded: r"are quantised \(model\.layers\.1\.mlp\.down_proj\.weight is int8\): load the model without quant",
    shared: r"mlp\.0 and mlp\.1 share one module \(LlamaMLP\), so that neither can be ablated alone",
    headless: r"a LlamaForCausalLM predicts no tokens, since it has no unembedding: load the model with AutoModelFor",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_named(change: Callable[[Any], None], path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    change(model)
    modules = {name: (id(module), sorted(vars(module))) for name, module in model.named_modules()}
    with pytest.raises(hs.HydrascopeError, match=CHANGES[change]) as refused:
        hs.load_model(model, tiny_tokenizer())
    assert "declared wrongly" not in str(refused.value)
    # What was taken away for a moment is back.
    assert {name: (id(module), sorted(vars(module))) for name, module in model.named_modules()} == modules


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated", "ignore:torch.quantize_per_tensor")
def test_dynamically_quantised_models_are_named(path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(hs.HydrascopeError, match=r"are quantised .*: load the model without quantisation"):
        hs.load_model(quantised)


def test_a_hook_that_is_not_the_cause_is_not_blamed(path: Path) -> None:
    """The anatomy is wrong: hooks that only look change nothing."""
    model = hs.load_model(path)
    model.hf.model.norm.register_forward_hook(lambda *arguments: None)
    assert failure_causes.known_cause(model, lambda model: False) == ""
    model.blocks[0].mlp.down_proj.weight.data[0, 0] = torch.nan
    assert "NaN or infinity in model.layers.0.mlp.down_proj.weight" in failure_causes.known_cause(model, lambda m: True)


def test_a_model_in_data_parallel_is_the_model_inside(path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    found, expected = (
        hs.sweep(hs.load_model(given, tiny_tokenizer()), LONGER, hs.Zero())["total"].values
        for given in (nn.DataParallel(model), model)
    )
    np.testing.assert_array_equal(found, expected)


def saved_as(path: Path, folder: Path, rename: Callable[[str], str | None]) -> Path:
    """Save the model's folder again, with other names of weights."""
    save_tiny(folder)
    weights = {rename(name): value for name, value in load_file(path / "model.safetensors").items() if rename(name)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


RENAMED: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "in DataParallel": lambda name: f"module.{name}",
    "compiled in DataParallel": lambda name: f"module._orig_mod.{name}",
    "a compiled block": lambda name: name.replace("layers.1.", "layers.1._orig_mod."),
}


@pytest.mark.parametrize("how", rest_slow(RENAMED, ("compiled in DataParallel", "a compiled block")))
def test_weights_saved_from_a_wrapper_are_read_as_the_model_s(how: str, path: Path, tmp_path: Path) -> None:
    folder = saved_as(path, tmp_path, RENAMED[how])
    assert "_orig_mod" in RENAMED[how]("layers.1.x") or "module" in RENAMED[how]("x")
    found, expected = (hs.sweep(hs.load_model(each), LONGER, hs.Zero())["total"].values for each in (folder, path))
    np.testing.assert_array_equal(found, expected)


def test_two_weights_of_one_name_are_both_refused(path: Path, tmp_path: Path) -> None:
    names = ["module.lm_head.weight", "lm_head.weight"]
    assert unwrapped_names(names) == {}
    folder = saved_as(path, tmp_path, lambda name: name)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, names[0]: weights[names[1]] * 2}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(hs.HydrascopeError, match=r"leaves out 1 of its weights: module\.lm_head\.weight"):
        hs.load_model(folder)


def test_models_without_a_head_are_told_of_auto_model_for_causal_lm(path: Path, tmp_path: Path) -> None:
    base = AutoModel.from_pretrained(path)
    with pytest.raises(hs.HydrascopeError, match=r"a LlamaModel predicts no tokens.*AutoModelForCausalLM"):
        hs.sweep(base, [[1, 2]], hs.Zero())
    base.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(hs.HydrascopeError, match=r"was saved as a LlamaModel, .*\(lm_head\.weight\).*AutoModelForC"):
        hs.load_model(tmp_path)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_dynamic_ntk_takes_prompts_of_any_length(factor: float) -> None:
    """Its table is fitted to each prompt: no number depends on the others of the batch."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "factor": factor, "rope_theta": 1e4},
    )  # fmt: skip
    hf = LlamaForCausalLM(config).double().eval()
    for parameter in hf.parameters():
        parameter.data.normal_(0, 0.3)
    prompts = [[(3 * place) % 60 for place in range(length)] for length in (5, 16, 17, 30, 50, 12)]
    found = hs.sweep(hs.load_model(hf), prompts, hs.Zero())
    for number, prompt in enumerate(prompts):
        alone = LlamaForCausalLM(config).double().eval()  # one that has seen no longer prompt
        alone.load_state_dict(hf.state_dict())
        target = int(found["target"][number])
        with torch.no_grad():
            clean, changed = alone(torch.tensor([prompt]), use_cache=False).logits[0, -1], None
            alone.model.layers[0].mlp.register_forward_hook(
                lambda module, inputs, output: torch.cat([output[:, :-1], 0 * output[:, -1:]], 1)
            )
            changed = alone(torch.tensor([prompt]), use_cache=False).logits[0, -1]
        expected = (changed - clean)[target] - (changed - clean).mean()
        total = found["total"].sel(ablated="mlp.0").isel(prompt=number, readout=0, patch=0)
        assert float(total) == pytest.approx(float(expected), abs=1e-5)
