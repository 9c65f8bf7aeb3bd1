"""LoRA adapters from disk: merged by the plain formula, or refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import TEXTS
from safetensors.torch import load_file, save_file
from tiny import save_tiny

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

#: The projections of `save_tiny`, and the shapes of their weights, `[out, in]`.
LLAMA = {
    "model.layers.0.self_attn.q_proj": (32, 32),
    "model.layers.1.self_attn.o_proj": (32, 32),
    "model.layers.2.mlp.down_proj": (32, 48),
}
GPT2 = {"transformer.h.0.attn.c_attn": (96, 32), "transformer.h.2.mlp.c_proj": (32, 128)}
SETTINGS: dict[str, Any] = {"peft_type": "LORA", "r": 3, "lora_alpha": 7, "base_model_name_or_path": "org/base"}


def save_adapter(
    folder: Path, shapes: dict[str, tuple[int, int]], ranks: dict[str, int] | None = None, **more: Any
) -> Path:
    """An adapter as PEFT saves it, with random weights."""
    folder.mkdir()
    torch.manual_seed(5)
    weights = {}
    for path, (out, into) in shapes.items():
        rank = (ranks or {}).get(path, 3)
        weights[f"base_model.model.{path}.lora_A.weight"] = torch.randn(rank, into) * 0.3
        weights[f"base_model.model.{path}.lora_B.weight"] = torch.randn(out, rank) * 0.3
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **more}))
    return folder


def merged_by_hand(model: Path, adapter: Path, scales: dict[str, float], *, transposed: bool = False) -> Any:
    """The model of a folder, its weights changed by plain arithmetic in float64."""
    expected = hs.load_model(model, dtype="float64").hf
    stored = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for path, scale in scales.items():
            a, b = (stored[f"base_model.model.{path}.lora_{letter}.weight"].double() for letter in "AB")
            added = scale * torch.einsum("or,ri->oi", b, a)
            expected.get_submodule(path).weight += added.T if transposed else added
    return expected


def require_same(found: Any, expected: Any) -> None:
    tokens = [found.encode(text) for text in TEXTS[:3]]
    options: dict[str, Any] = {"ablate": "layers,heads.1,neuron.2.3", "read": "layers,heads.1"}
    one, other = (hs.sweep(each, tokens, hs.Zero(), **options) for each in (found, hs.load_model(expected)))
    for name in ("total", "direct", "unembed", "unembed_ablated", "logit"):
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("case", "shapes", "ranks", "more", "scales"),
    [
        ("llama", LLAMA, {}, {}, [7 / 3] * 3),
        ("llama", LLAMA, {}, {"use_rslora": True}, [7 / math.sqrt(3)] * 3),
        (
            "llama",
            LLAMA,
            {"model.layers.1.self_attn.o_proj": 2, "model.layers.2.mlp.down_proj": 5},
            {
                "rank_pattern": {"layers.1.self_attn.o_proj": 2, r"layers\.2\.mlp\.\w+": 5, "o_proj": 4},
                "alpha_pattern": {"o_proj": 11, "k_proj": 1},
            },
            [7 / 3, 11 / 2, 7 / 5],
        ),
        ("gpt2", GPT2, {}, {"fan_in_fan_out": True}, [7 / 3] * 2),
    ],
)
def test_an_adapter_is_merged_by_the_plain_formula(
    case: str,
    shapes: dict[str, tuple[int, int]],
    ranks: dict[str, int],
    more: dict[str, Any],
    scales: list[float],
    tmp_path: Path,
) -> None:
    model = save_tiny(tmp_path / "model", case)
    adapter = save_adapter(tmp_path / "mine", shapes, ranks, **more)
    found = hs.load_model(model, dtype="float64", adapter=adapter)
    expected = merged_by_hand(model, adapter, dict(zip(shapes, scales, strict=True)), transposed=case == "gpt2")
    require_same(found, expected)
    plain = hs.load_model(model, dtype="float64")
    assert any(not torch.equal(*pair) for pair in zip(found.hf.parameters(), plain.hf.parameters(), strict=True))


def test_a_result_names_the_adapter_and_has_its_hash(tmp_path: Path) -> None:
    model, adapter = save_tiny(tmp_path / "model"), save_adapter(tmp_path / "mine", LLAMA)
    plain = hs.load_model(model).revision
    first = hs.load_model(model, adapter=str(adapter))
    results = hs.sweep(first, TEXTS[:2], hs.Zero(), ablate="attn", out=tmp_path / "r.zarr")
    assert results.attrs["revision"].startswith(f"{plain} + adapter sha256:")
    assert results.attrs["weights_changed"] == "adapter merged: mine"
    other = save_adapter(tmp_path / "other", LLAMA, lora_alpha=8)
    assert hs.load_model(model, adapter=other).revision != first.revision
    options: dict[str, Any] = {"ablate": "attn", "out": tmp_path / "r.zarr", "resume": True}
    hs.sweep(hs.load_model(model, adapter=adapter), TEXTS[:2], hs.Zero(), **options)
    with pytest.raises(HydrascopeError, match=r"cannot resume .*revision was"):
        hs.sweep(hs.load_model(model), TEXTS[:2], hs.Zero(), **options)


def test_the_command_line_takes_an_adapter() -> None:
    from hydrascope.cli.options import LoadOptions

    assert LoadOptions(model="m", adapter="folder").loading["adapter"] == "folder"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


def refused(base: Path, adapter: Any, match: str, **options: Any) -> None:
    with pytest.raises(HydrascopeError, match=match) as caught:
        hs.load_model(base, adapter=adapter, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"peft_type": "IA3"}, "is of the type IA3, not LORA: merge it with PEFT"),
        ({"use_dora": True}, r"is more than LoRA of projections \(use_dora\): merge it with PEFT"),
        ({"modules_to_save": ["lm_head"]}, r"more than LoRA of projections \(modules_to_save\)"),
        ({"bias": "lora_only"}, r"more than LoRA of projections \(bias=lora_only\)"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa, which changes the base weights"),
        ({"r": 4}, r"is damaged: model\.layers\.0\.self_attn\.q_proj has rank 3, its settings say 4"),
        ({"lora_alpha": "many"}, "is damaged: lora_alpha or alpha_pattern of"),
        ({"rank_pattern": {"(": 3}}, "is damaged: r or rank_pattern of"),
    ],
)
def test_more_than_lora_is_refused(more: dict[str, Any], match: str, base: Path, tmp_path: Path) -> None:
    refused(base, save_adapter(tmp_path / "mine", LLAMA, **more), match)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (GPT2, r"is for another model than .*model, which has no module transformer.h.0.attn.c_attn: .*\(org/base\)"),
        (
            {"model.layers.0.mlp.down_proj": (32, 40)},
            r"another model than .*down_proj is \[32, 48\], the adapter is for",
        ),
        ({"model.norm": (32, 32)}, r"adapts model\.norm, a LlamaRMSNorm: only projections are supported"),
        ({"model.embed_tokens": (61, 32)}, r"adapts model\.embed_tokens, a Embedding: only projections"),
        ({}, "is damaged: it has no weights"),
    ],
)
def test_an_adapter_for_another_model_is_refused(
    shapes: dict[str, tuple[int, int]], match: str, base: Path, tmp_path: Path
) -> None:
    refused(base, save_adapter(tmp_path / "mine", shapes), match)


def change(key: str, how: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, torch.Tensor]], None]:
    def changed(weights: dict[str, torch.Tensor]) -> None:
        found = how(weights.pop(f"base_model.model.model.layers.1.self_attn.o_proj.{key}"))
        if found is not None:
            weights[f"base_model.model.model.layers.1.self_attn.o_proj.{key}"] = found

    return changed


@pytest.mark.parametrize(
    ("how", "match"),
    [
        (change("lora_B.weight", lambda value: None), "is damaged: lora_A or lora_B of .*o_proj is missing"),
        (change("lora_B.weight", lambda value: value[:, :2].clone()), "is damaged: the shapes of .*o_proj don't fit"),
        (change("lora_A.weight", lambda value: value * torch.nan), "is damaged: NaN or infinity in .*o_proj"),
        (lambda weights: weights.update(extra=torch.ones(2)), r"more than LoRA of projections \(the weights extra\)"),
    ],
)
def test_damaged_weights_are_refused(how: Any, match: str, base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "mine", LLAMA)
    weights = load_file(adapter / "adapter_model.safetensors")
    how(weights)
    save_file(weights, adapter / "adapter_model.safetensors")
    refused(base, adapter, match)


def test_what_is_no_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "mine", LLAMA)
    refused(base, tmp_path / "absent", "no adapter at .*absent: give a folder")
    refused(base, base, r"there is no adapter in .*model: it has no adapter_config\.json")
    refused(base, adapter, "is merged in memory: leave out offload and device_map", offload="cpu")
    with pytest.raises(HydrascopeError, match="an adapter is merged into a model that is read"):
        hs.load_model(hs.load_model(base).hf, adapter=adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"cut")
    refused(base, adapter, "is damaged: ")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    refused(base, adapter, "has no adapter_model.safetensors; other formats can run code")
    (adapter / "adapter_config.json").write_text("[")
    refused(base, adapter, r"is damaged: adapter_config\.json is no JSON object")


def test_weights_that_are_shared_are_not_changed(tmp_path: Path) -> None:
    """The unembedding is the embedding here: an adapter of one would change the other, too."""
    model = save_tiny(tmp_path / "model", "llama-bias")
    refused(
        model, save_adapter(tmp_path / "mine", {"lm_head": (61, 32)}), "adapts lm_head, whose weights .* another module"
    )


def test_an_adapter_alone_says_what_to_do(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "mine", LLAMA)
    (adapter / "config.json").write_text("{}")
    with pytest.raises(HydrascopeError, match=r"it holds adapters .* give the base model, with these as the adapter"):
        hs.load_model(adapter)
