"""Dictionaries in files: a round trip, the formats of other tools, and files that are refused in one line."""

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.files import load_dictionary, save_dictionary
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

IN, FEATURES = 6, 10
ROWS = np.random.default_rng(0).normal(size=(30, IN))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng([seed, *shape]).normal(size=shape))


def require_output(found: Dictionary, acts: np.ndarray, decoder: Tensor, rest: np.ndarray | Tensor) -> None:
    """Compare the features' writes and the rest with numbers from plain numpy."""
    x = torch.from_numpy(ROWS)
    assert 0 < (acts > 0).sum() < acts.size
    np.testing.assert_allclose(found.encode(x).numpy(), acts, atol=1e-12)
    np.testing.assert_allclose(found.decoder.numpy(), decoder.numpy())
    np.testing.assert_allclose(found.rest(x).numpy(), np.broadcast_to(rest, (len(ROWS), found.outputs)), atol=1e-12)


@st.composite
def dictionaries(draw: st.DrawFn) -> Dictionary:
    kind = draw(st.sampled_from(["attn", "raw.mlp", "heads", "transcoder", "stream"]))
    outputs = 4 if kind == "transcoder" else IN
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    seed = draw(st.integers(0, 1000))
    optional = {"encoder_bias": (FEATURES,), "decoder_bias": (outputs,), "pre_bias": (IN,), "skip": (outputs, IN)}
    found: dict[str, Any] = {
        key: random(*shape, seed=seed).to(dtype) for key, shape in optional.items() if draw(st.booleans())
    }
    activation = draw(st.sampled_from(["relu", "jumprelu", "topk", "batchtopk"]))
    if activation in ("jumprelu", "batchtopk"):
        found["threshold"] = draw(st.sampled_from([random(FEATURES, seed=seed).abs().to(dtype), 0.1, 0.0]))
    if activation == "topk":
        found["k"] = draw(st.integers(1, FEATURES))
    return Dictionary(
        site=f"{kind}.{draw(st.integers(0, 99))}",
        encoder=random(FEATURES, IN, seed=seed).to(dtype),
        decoder=random(FEATURES, outputs, seed=seed).to(dtype),
        activation=activation,
        by_decoder_norm=draw(st.booleans()),
        centred=draw(st.booleans()),
        before_gain=kind == "transcoder" and draw(st.booleans()),
        begins_with_bos=draw(st.sampled_from([None, True, False])),
        name=draw(st.text(max_size=5)),
        **found,
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dictionary=dictionaries())
def test_what_is_written_is_read(tmp_path: Path, dictionary: Dictionary) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(dictionary, path)
    found = load_dictionary(path)
    for field in fields(Dictionary):
        ours, theirs = getattr(dictionary, field.name), getattr(found, field.name)
        if isinstance(ours, Tensor):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        else:
            assert (type(ours), ours) == (type(theirs), theirs)


def small(**more: Any) -> Dictionary:
    return Dictionary("mlp.1", encoder=random(FEATURES, IN), decoder=random(FEATURES, IN), **more)


def test_a_file_of_one_s_own_may_be_moved_and_named(tmp_path: Path) -> None:
    bias = random(IN)
    # The same vector at both ends, and a transposed matrix, which isn't contiguous.
    dictionary = replace(small(pre_bias=bias, decoder_bias=bias), encoder=random(IN, FEATURES).T)
    save_dictionary(dictionary, tmp_path / "sae.safetensors")
    found = load_dictionary(str(tmp_path / "sae.safetensors"), site="attn.2", name="mine")
    assert (found.site, found.name) == ("attn.2", "mine")
    assert replace(found, site="mlp.1").sha256 == dictionary.sha256


def test_a_file_of_one_s_own_beside_those_of_another_tool(tmp_path: Path) -> None:
    saelens(tmp_path, NEW)
    save_dictionary(small(), tmp_path / "sae.safetensors")
    assert load_dictionary(tmp_path / "sae.safetensors").sha256 == small().sha256


def saelens(folder: Path, config: dict[str, Any], **more: Tensor) -> dict[str, Tensor]:
    weights = {
        "W_enc": random(IN, FEATURES),
        "W_dec": random(FEATURES, IN),
        "b_enc": random(FEATURES),
        "b_dec": random(IN),
    }
    weights |= more
    save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return weights


NEW = {
    "architecture": "standard",
    "d_in": IN,
    "d_sae": FEATURES,
    "dtype": "float32",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {"sae_lens_version": "6.2.0", "hook_name": "blocks.4.hook_resid_post", "prepend_bos": False},
}


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


def circuit_tracer(folder: Path, config: dict[str, Any], **more: Tensor) -> dict[str, Tensor]:
    """Two layers with as many features as inputs, so that only the format says which way W_enc lies."""
    weights = {key: random(*shape, seed=3) for key, shape in {
        "W_enc": (IN, IN), "W_dec": (IN, IN), "b_enc": (IN,), "b_dec": (IN,), "W_skip": (IN, IN)}.items()}  # fmt: skip
    weights["W_dec"] = random(IN, IN, seed=4)
    weights["W_skip"] = random(IN, IN, seed=5)
    weights |= more
    for layer in range(2):
        save_file({key: weight + layer if key == "b_dec" else weight for key, weight in weights.items()},
                  folder / f"layer_{layer}.safetensors")  # fmt: skip
    lines = {"model_kind": "transcoder_set", "feature_output_hook": "hook_mlp_out", **config}
    (folder / "config.yaml").write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
    return weights


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


GEMMA = {
    "W_enc": (IN, FEATURES),
    "W_dec": (FEATURES, IN),
    "b_enc": (FEATURES,),
    "b_dec": (IN,),
    "threshold": (FEATURES,),
}


def gemma_scope(**renamed: str) -> dict[str, Tensor]:
    weights = {renamed.get(key, key): random(*shape, seed=7) for key, shape in GEMMA.items()}
    weights["threshold"].abs_()
    return weights


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


def test_a_plain_file_of_weights(tmp_path: Path) -> None:
    save_file({"W_enc": random(IN, FEATURES), "W_dec": random(FEATURES, IN)}, tmp_path / "mine.safetensors")
    assert torch.equal(load_dictionary(tmp_path / "mine.safetensors", site="mlp.2").encoder, random(IN, FEATURES).T)


# Files that are refused.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sae.pt", "a .pt file can run code. Where you trust it, convert it with safetensors.torch.save_file"),
        ("sae.pkl", "a .pkl file can run code"),
        ("missing.safetensors", "cannot read a dictionary from .*missing.safetensors: No such file"),
        ("missing.npz", "cannot read a dictionary from .*missing.npz: No such file"),
        ("missing", "cannot read a dictionary from .*missing: No such file"),
        ("text.txt", "give a folder, or a .safetensors or .npz file"),
        ("empty", "it has none of sae_weights.safetensors, sae.safetensors, params.safetensors, config.yaml"),
    ],
)
def test_paths_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("sae")
    with pytest.raises(HydrascopeError, match=message):
        load_dictionary(tmp_path / name)


class Touching:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_objects_in_npz_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.array([Touching(tmp_path / "touched")], dtype=object))
    with pytest.raises(HydrascopeError, match=r"params.npz: it is damaged or holds objects"):
        load_dictionary(tmp_path / "params.npz", site="mlp.1")
    assert not (tmp_path / "touched").exists()


def test_it_is_written_as_safetensors_alone(tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match=r"name it with the ending .safetensors"):
        save_dictionary(small(), tmp_path / "sae.pt")
    with pytest.raises(HydrascopeError, match="cannot write the dictionary to"):
        save_dictionary(small(), tmp_path / "missing" / "sae.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"newer": 1}, "holds newer, which no dictionary has"),
        ({"site": None}, "site = None: write it again"),
        ({"site": "resid.3"}, "'resid.3' is no site"),
        ({"activation": "gelu"}, "the activation 'gelu'"),
        ({"k": "3"}, "k = '3': write it again"),
        ({"centred": "yes"}, "centred = 'yes'"),
        ({"threshold": [1]}, r"threshold = \[1\]"),
        ({"encoder": "big"}, "encoder = 'big'"),
    ],
)
def test_settings_of_one_s_own_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"site": "mlp.1", "activation": "relu", **changes}
    metadata = {"hydrascope.dictionary": json.dumps(given)}
    save_file({"encoder": random(FEATURES, IN), "decoder": random(FEATURES, IN)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(HydrascopeError, match=message):
        load_dictionary(tmp_path / "a.safetensors")


def test_a_file_without_a_decoder_is_refused(tmp_path: Path) -> None:
    metadata = {"hydrascope.dictionary": '{"site": "mlp.1"}'}
    save_file({"encoder": random(FEATURES, IN)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(HydrascopeError, match="lacks decoder"):
        load_dictionary(tmp_path / "a.safetensors")


def own(folder: Path) -> Path:
    save_dictionary(small(activation="jumprelu", threshold=0.5), folder / "sae.safetensors")
    return folder / "sae.safetensors"


def npz(folder: Path) -> Path:
    np.savez(folder / "params.npz", **{key: weight.numpy() for key, weight in gemma_scope().items()})
    return folder / "params.npz"


def config(folder: Path) -> Path:
    saelens(folder, NEW)
    return folder / "cfg.json"


def yaml_settings(folder: Path) -> Path:
    circuit_tracer(folder, {"feature_input_hook": "mlp.hook_in"})
    return folder / "config.yaml"


@pytest.mark.parametrize("make", [own, npz, config, yaml_settings])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], data: st.DataObject
) -> None:
    """Cut short, or with changed bytes; what isn't noticed, as in a weight, is a valid file."""
    path = make(tmp_path)
    content = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at] + data.draw(st.binary(min_size=1, max_size=3)) + content[at + 1 :])
    site = {own: "mlp.1", npz: "mlp.1", config: None, yaml_settings: "transcoder.1"}[make]
    message = ""
    try:
        load_dictionary(tmp_path if path.suffix in (".json", ".yaml") else path, site=site)
    except HydrascopeError as error:
        message = str(error)
    assert "\n" not in message
    assert not message or str(tmp_path) in message


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("make", [own, npz])
def test_weights_that_are_cut_short_are_refused(tmp_path: Path, make: Callable[[Path], Path], share: float) -> None:
    path = make(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(HydrascopeError, match=f"cannot read the dictionary .*{path.name}: it is damaged"):
        load_dictionary(path, site="mlp.1")
