"""Read the formats of SAELens, circuit-tracer, Gemma Scope and sparsify, against numpy."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dictionary_files import FEATURES, IN, NEW, ROWS, circuit_tracer, gemma_scope, random, require_output, saelens
from safetensors.torch import save_file
from torch import Tensor

from hydrascope.dictionaries.files import load_dictionary
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


def test_a_folder_of_saelens(tmp_path: Path) -> None:
    w = saelens(tmp_path, NEW)
    found = load_dictionary(tmp_path)
    assert (found.site, found.begins_with_bos, found.centred) == ("stream.5", False, False)
    acts = np.maximum((ROWS - w["b_dec"].numpy()) @ w["W_enc"].numpy() + w["b_enc"].numpy(), 0)
    require_output(found, acts, w["W_dec"], w["b_dec"])
    assert load_dictionary(tmp_path / "sae_weights.safetensors").sha256 == found.sha256
    assert load_dictionary(tmp_path, site="mlp.3").site == "mlp.3"


OLD = {
    "model_name": "gpt2-small",
    "hook_point": "blocks.4.hook_resid_pre",
    "hook_point_layer": 4,
    "hook_point_head_index": None,
    "d_in": IN,
    "d_sae": FEATURES,
    "prepend_bos": True,
    "normalize_activations": False,
}


@pytest.mark.parametrize(("model", "centred"), [("gpt2-small", True), ("gemma-2b", False)])
def test_settings_from_before_version_3_are_of_a_centred_model(tmp_path: Path, model: str, centred: bool) -> None:
    """Every model was then loaded by TransformerLens' `from_pretrained`, which centres models with LayerNorm."""
    w = saelens(tmp_path, {**OLD, "model_name": model}, scaling_factor=torch.ones(FEATURES))
    found = load_dictionary(tmp_path)
    assert (found.site, found.centred, found.begins_with_bos) == ("stream.4", centred, True)
    x = ROWS - ROWS.mean(-1, keepdims=True) if centred else ROWS
    acts = np.maximum((x - w["b_dec"].numpy()) @ w["W_enc"].numpy() + w["b_enc"].numpy(), 0)
    require_output(found, acts, w["W_dec"], w["b_dec"])


def test_heads_from_before_version_3_are_refused(tmp_path: Path) -> None:
    saelens(tmp_path, {**OLD, "hook_point": "blocks.4.attn.hook_z"})
    with pytest.raises(HydrascopeError, match="changed by fold_value_biases"):
        load_dictionary(tmp_path)


def test_top_k_from_before_version_6(tmp_path: Path) -> None:
    config = {
        "architecture": "standard",
        "hook_name": "blocks.4.hook_mlp_out",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "apply_b_dec_to_input": False,
        "normalize_activations": None,
    }
    w = saelens(tmp_path, config)
    found = load_dictionary(tmp_path)
    assert (found.site, found.activation, found.k) == ("mlp.4", "topk", 3)
    z = ROWS @ w["W_enc"].numpy() + w["b_enc"].numpy()
    acts = np.where(z >= np.sort(z, -1)[:, [-3]], np.maximum(z, 0), 0)
    require_output(found, acts, w["W_dec"], w["b_dec"])


def test_a_scale_beside_the_weights_is_applied(tmp_path: Path) -> None:
    """A checkpoint of training: it was given 0.4 x, and its output is divided by 0.4."""
    w = saelens(tmp_path, {**NEW, "normalize_activations": "expected_average_only_in"})
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 0.4}')
    found = load_dictionary(tmp_path)
    acts = np.maximum((0.4 * ROWS - w["b_dec"].numpy()) @ w["W_enc"].numpy() + w["b_enc"].numpy(), 0)
    require_output(found, acts, w["W_dec"] / 0.4, w["b_dec"] / 0.4)


def test_a_scale_of_nothing_is_refused(tmp_path: Path) -> None:
    saelens(tmp_path, {**NEW, "normalize_activations": "expected_average_only_in"})
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 0}')
    with pytest.raises(HydrascopeError, match=r"activation_scaler.json has scaling_factor = 0"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(("hook", "before"), [("ln2.hook_normalized", True), ("mlp.hook_in", False)])
@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_a_folder_of_circuit_tracer(tmp_path: Path, activation: str, hook: str, before: bool) -> None:
    threshold = random(IN, seed=6).abs()
    more = {"activation_function.threshold": threshold} if activation == "jumprelu" else {}
    config = {"feature_input_hook": hook}
    config |= {"activation": "topk", "k": 2} if activation == "topk" else {}
    w = circuit_tracer(tmp_path, config, **more)
    z = ROWS @ w["W_enc"].numpy().T + w["b_enc"].numpy()
    acts = np.maximum(z, 0)
    if activation == "jumprelu":
        acts = acts * (z > threshold.numpy())
    if activation == "topk":
        acts = np.where(z >= np.sort(z, -1)[:, [-2]], acts, 0)
    rest = w["b_dec"].numpy() + 1 + ROWS @ w["W_skip"].numpy().T
    for found in (load_dictionary(tmp_path / "layer_1.safetensors"), load_dictionary(tmp_path, site="transcoder.1")):
        assert (found.site, found.before_gain, found.activation) == ("transcoder.1", before, activation)
        require_output(found, acts, w["W_dec"], rest)


@pytest.mark.parametrize(
    ("config", "site", "message"),
    [
        ({"model_kind": "cross_layer_transcoder"}, "transcoder.0", "config.yaml has model_kind = 'cross_layer_tran"),
        ({}, None, "holds transcoders of several blocks: give one, as site='transcoder.5'"),
        ({}, "mlp.0", "holds transcoders of several blocks"),
        ({}, "transcoder.7", "layer_7.safetensors: No such file"),
        ({"activation": "gelu"}, "transcoder.0", "config.yaml has the activation 'gelu'"),
        ({"activation": "topk"}, "transcoder.0", "k = None"),
    ],
)
def test_folders_of_circuit_tracer_that_are_refused(
    tmp_path: Path, config: dict[str, Any], site: str | None, message: str
) -> None:
    circuit_tracer(tmp_path, {"feature_input_hook": "mlp.hook_in", **config})
    with pytest.raises(HydrascopeError, match=re.escape(message)):
        load_dictionary(tmp_path, site=site)


@pytest.mark.parametrize(("way", "hook"), [("input", "hook_resid_mid"), ("output", "mlp.hook_out")])
def test_other_hooks_of_circuit_tracer_need_a_site(tmp_path: Path, way: str, hook: str) -> None:
    circuit_tracer(tmp_path, {"feature_input_hook": "mlp.hook_in", f"feature_{way}_hook": hook})
    with pytest.raises(HydrascopeError, match=f"config.yaml was trained on .*{hook}.*, which is no site"):
        load_dictionary(tmp_path / "layer_0.safetensors")


def gemma_acts(w: dict[str, Tensor], encoder: str = "W_enc") -> np.ndarray:
    z = ROWS @ w[encoder].numpy() + w["b_enc"].numpy()
    return np.maximum(z, 0) * (z > w["threshold"].numpy())


def test_gemma_scope_s_params(tmp_path: Path) -> None:
    w = gemma_scope()
    np.savez(tmp_path / "params.npz", **{key: weight.numpy() for key, weight in w.items()})
    found = load_dictionary(tmp_path / "params.npz", site="mlp.3")
    assert (found.begins_with_bos, found.before_gain) == (True, False)
    require_output(found, gemma_acts(w), w["W_dec"], w["b_dec"])
    assert load_dictionary(tmp_path / "params.npz", site="transcoder.3").before_gain
    with pytest.raises(HydrascopeError, match=r"params.npz doesn't say where it belongs"):
        load_dictionary(tmp_path / "params.npz")


@pytest.mark.parametrize("affine", [True, False])
def test_a_folder_of_gemma_scope_2(tmp_path: Path, affine: bool) -> None:
    w = gemma_scope(W_enc="w_enc", W_dec="w_dec")
    if affine:
        w["affine_skip_connection"] = random(IN, IN, seed=8)  # [input, output]
    save_file(w, tmp_path / "params.safetensors")
    config = {
        "architecture": "jump_relu",
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_dictionary(tmp_path)
    assert (found.site, found.before_gain, found.begins_with_bos) == ("transcoder.3", False, True)
    skipped = ROWS @ w["affine_skip_connection"].numpy() if affine else 0
    require_output(found, gemma_acts(w, "w_enc"), w["w_dec"], w["b_dec"].numpy() + skipped)
    assert load_dictionary(tmp_path / "params.safetensors").sha256 == found.sha256


def test_gemma_scope_2_across_layers_is_refused(tmp_path: Path) -> None:
    save_file(
        {**gemma_scope(W_enc="w_enc", W_dec="w_dec"), "w_dec": random(FEATURES, 2, IN)}, tmp_path / "params.safetensors"
    )
    (tmp_path / "config.json").write_text('{"architecture": "jump_relu"}')
    with pytest.raises(HydrascopeError, match="a feature writes to several blocks"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("transcode", [False, True])
def test_a_folder_of_sparsify(tmp_path: Path, transcode: bool) -> None:
    folder = tmp_path / "layers.4"
    folder.mkdir()
    w = {
        "encoder.weight": random(FEATURES, IN),
        "encoder.bias": random(FEATURES),
        "W_dec": random(FEATURES, IN),
        "b_dec": random(IN),
    }
    save_file(w, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": IN, "k": 3, "activation": "topk", "transcode": transcode}))
    found = load_dictionary(folder, site="transcoder.4" if transcode else None)
    x = ROWS if transcode else ROWS - w["b_dec"].numpy()
    z = np.maximum(x @ w["encoder.weight"].numpy().T + w["encoder.bias"].numpy(), 0)
    require_output(found, np.where(z >= np.sort(z, -1)[:, [-3]], z, 0), w["W_dec"], w["b_dec"])
    assert found.site == ("transcoder.4" if transcode else "stream.5")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"activation": "groupmax"}, "the activation 'groupmax'"),
        ({"signed": True}, "the activation 'signed topk'"),
        ({"embed_skip": True}, "has embed_skip"),
        ({"transcode": True}, "doesn't say where it belongs"),
    ],
)
def test_folders_of_sparsify_that_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    folder = tmp_path / "layers.4"
    folder.mkdir()
    save_file({"encoder.weight": random(FEATURES, IN), "W_dec": random(FEATURES, IN)}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"k": 3, **more}))
    with pytest.raises(HydrascopeError, match=message):
        load_dictionary(folder)
