"""Take SAELens' objects and settings, against its published forward pass in numpy."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_saes import FEATURES, IN, OUT, published, random_weights
from torch import Tensor, nn

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.hook_names import site_of
from hydrascope.dictionaries.objects import dictionary_of
from hydrascope.dictionaries.saelens import from_saelens
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

STREAM = {"hook_name": "blocks.2.hook_resid_pre"}
MLP = {"hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out"}


class SAE(nn.Module):
    """SAELens' base class: settings in `cfg`, weights under its names."""

    __module__ = "sae_lens.saes.sae"

    def __init__(self, cfg: dict[str, Any], weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(to_dict=lambda: cfg)
        for key, weight in weights.items():
            self.register_parameter(key, nn.Parameter(weight.clone()))

    def forward(self, x: Tensor) -> Tensor:
        out = published(self.cfg.to_dict(), {key: each.detach() for key, each in self.named_parameters()}, x.numpy())[1]
        return torch.from_numpy(out)


class StandardSAE(SAE):
    __module__ = "sae_lens.saes.standard_sae"


def sae_of(architecture: str = "standard", seed: int = 0, metadata: dict[str, Any] | None = None, **cfg: Any) -> SAE:
    hooks = MLP if "transcoder" in architecture else STREAM
    cfg = {
        "architecture": architecture,
        "apply_b_dec_to_input": "transcoder" not in architecture,
        "metadata": {**hooks, **(metadata or {})},
        **cfg,
    }
    return StandardSAE(cfg, random_weights(architecture, seed))


def require_published(dictionary: Dictionary, cfg: dict[str, Any], weights: dict[str, Tensor], x: np.ndarray) -> None:
    writes, out = published(cfg, weights, x)
    ours = dictionary.encode(torch.from_numpy(x))
    np.testing.assert_allclose((ours[..., None] * dictionary.decoder).numpy(), writes, atol=1e-12)
    np.testing.assert_allclose(
        (ours @ dictionary.decoder + dictionary.rest(torch.from_numpy(x))).numpy(), out, atol=1e-12
    )


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_it_encodes_and_decodes_as_sae_lens_publishes(data: st.DataObject) -> None:
    transcoders = ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
    autoencoders = ["standard", "topk", "jumprelu", "batchtopk", "matryoshka_batchtopk"]
    architecture = data.draw(st.sampled_from(autoencoders + transcoders))
    cfg: dict[str, Any] = {"architecture": architecture, "apply_b_dec_to_input": False}
    if architecture in autoencoders:
        cfg["apply_b_dec_to_input"] = data.draw(st.booleans())
    if "topk" in architecture:
        cfg["k"] = data.draw(st.integers(1, IN))
        cfg["rescale_acts_by_decoder_norm"] = data.draw(st.booleans())
    whole = not cfg.get("rescale_acts_by_decoder_norm")
    # A square encoder shows a wrong orientation no other way.
    features = data.draw(st.sampled_from([FEATURES, IN]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    weights = random_weights(architecture, seed, features, whole=whole)
    if not cfg.get("rescale_acts_by_decoder_norm") and data.draw(st.booleans()):
        cfg["finetuning_scaling_factor"] = True
        weights["scaling_factor"] = torch.tensor(np.random.default_rng(seed).normal(size=features))
    x = np.random.default_rng(seed + 1).integers(-3, 4, (7, IN)).astype(float)
    metadata = MLP if architecture in transcoders else STREAM
    found = from_saelens("it", {**cfg, "metadata": metadata, "d_in": IN, "d_sae": features}, weights)
    require_published(found, cfg, weights, x)


def test_a_live_object_says_where_it_belongs_and_is_copied() -> None:
    sae = sae_of(metadata={"prepend_bos": True})
    found = dictionary_of(sae, name="mine")
    assert (found.site, found.name, found.begins_with_bos, found.centred) == ("stream.2", "mine", True, False)
    assert dictionary_of(sae, site="stream.5").site == "stream.5"
    before = found.sha256
    for parameter in sae.parameters():
        parameter.data.add_(1)
    assert dictionary_of(found).sha256 == before != dictionary_of(sae).sha256


def test_half_precision_is_kept() -> None:
    sae = sae_of()
    cfg = sae.cfg.to_dict()
    found = from_saelens("it", cfg, {key: each.bfloat16() for key, each in sae.state_dict().items()})
    assert found.encoder.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("hook", "output", "site"),
    [
        ("blocks.3.hook_attn_out", None, "attn.3"),
        ("blocks.3.hook_mlp_out", None, "mlp.3"),
        ("blocks.3.attn.hook_z", None, "heads.3"),
        ("blocks.0.hook_resid_pre", None, "stream.0"),
        ("blocks.11.hook_resid_post", None, "stream.12"),
        ("blocks.3.hook_mlp_out", "blocks.3.hook_mlp_out", "mlp.3"),
        ("blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out", "transcoder.3"),
        ("blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out", "transcoder.3"),
        ("model.layers.3.output", "model.layers.3.output", "stream.4"),
        ("model.layers.3.self_attn.o_proj.input", None, "heads.3"),
        ("model.layers.3.post_feedforward_layernorm.output", None, "mlp.3"),
    ],
)
def test_sites(hook: str, output: str | None, site: str) -> None:
    assert site_of("it", hook, output) == site


@pytest.mark.parametrize(
    ("hook", "output"),
    [
        ("blocks.3.hook_resid_mid", None),
        ("blocks.3.hook_mlp_in", "blocks.3.hook_mlp_out"),  # the stream before the norm
        ("blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out"),
        ("blocks.3.mlp.hook_in", "blocks.4.hook_mlp_out"),
        ("blocks.3.mlp.hook_in", "blocks.3.hook_resid_post"),
        ("blocks.3.mlp.hook_in", "blocks.3.mlp.hook_out"),  # before a norm that may follow
        ("blocks.3.mlp.hook_in", None),
        ("hook_embed", None),
        ("model.layers.3", None),
    ],
)
def test_other_places_are_refused(hook: str, output: str | None) -> None:
    with pytest.raises(HydrascopeError, match=f"^my SAE was trained on {re.escape(hook)}.*, which is no site"):
        site_of("my SAE", hook, output)


@pytest.mark.parametrize(
    ("metadata", "centred"),
    [
        ({}, False),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, True),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": False}}, False),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}, "model_name": "gemma-2-2b"}, False),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}, "model_name": "gpt2-small"}, True),
    ],
)
def test_centred(metadata: dict[str, Any], centred: bool) -> None:
    assert dictionary_of(sae_of(metadata=metadata)).centred is centred
    heads = {**metadata, "hook_name": "blocks.2.attn.hook_z"}
    assert not dictionary_of(sae_of(metadata=heads)).centred


@pytest.mark.parametrize(
    ("metadata", "before"),
    [
        ({}, False),
        ({"hook_name": "blocks.2.ln2.hook_normalized"}, True),
        ({"model_from_pretrained_kwargs": {"fold_ln": True}}, True),
        ({"model_from_pretrained_kwargs": {"fold_ln": False}}, False),
    ],
)
def test_before_the_gain(metadata: dict[str, Any], before: bool) -> None:
    found = dictionary_of(sae_of("skip_transcoder", metadata=metadata))
    assert (found.site, found.before_gain) == ("transcoder.2", before)


def test_gemma_3_s_inputs_are_known_by_their_second_name() -> None:
    metadata = {
        "hook_name": "blocks.2.hook_mlp_in",
        "hf_hook_name": "model.layers.2.pre_feedforward_layernorm.output",
        "hf_hook_name_out": "model.layers.2.post_feedforward_layernorm.output",
    }
    found = dictionary_of(sae_of("jumprelu_transcoder", metadata=metadata))
    assert (found.site, found.before_gain) == ("transcoder.2", False)


def test_a_threshold_below_zero_acts_as_zero() -> None:
    sae = sae_of("jumprelu")
    sae.threshold.data[:5] = -1
    found = dictionary_of(sae)
    x = np.random.default_rng(0).normal(size=(20, IN))
    require_published(found, sae.cfg.to_dict(), sae.state_dict(), x)


def test_thresholds_of_older_checkpoints_are_logarithms() -> None:
    weights = sae_of("jumprelu").state_dict()
    weights["log_threshold"] = weights.pop("threshold")
    found = from_saelens("it", sae_of("jumprelu").cfg.to_dict(), weights)
    np.testing.assert_allclose(found.threshold.numpy(), np.exp(weights["log_threshold"].numpy()))


def test_a_scale_leaves_the_same_features_active() -> None:
    """In training x is multiplied by the scale, and so is what is compared to the threshold."""
    cfg = {"architecture": "batchtopk", "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": True}
    weights = random_weights("batchtopk", 2)
    settings = {**cfg, "metadata": STREAM, "normalize_activations": "expected_average_only_in"}
    found = from_saelens("it", settings, weights, scale=0.4)
    x = np.random.default_rng(3).normal(size=(30, IN))
    writes, out = published(cfg, weights, 0.4 * x)
    ours = found.encode(torch.from_numpy(x))
    np.testing.assert_allclose((ours[..., None] * found.decoder).numpy(), writes / 0.4, atol=1e-12)
    np.testing.assert_allclose((ours @ found.decoder + found.rest(torch.from_numpy(x))).numpy(), out / 0.4, atol=1e-12)


@pytest.mark.parametrize(
    ("architecture", "cfg", "message"),
    [
        ("gated", {}, "StandardSAE has the architecture 'gated', which isn't supported"),
        ("temporal", {}, "the architecture 'temporal'"),
        ("clt", {}, "the architecture 'clt', which isn't supported: a feature writes to several blocks"),
        ("newest", {}, "the architecture 'newest': known are standard"),
        ("standard", {"activation_fn": "tanh-relu"}, "activation_fn = 'tanh-relu'"),
        ("standard", {"activation_fn": "topk", "activation_fn_kwargs": {"k": 3, "signed": True}}, "'signed topk'"),
        ("standard", {"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm'"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, "'constant_norm_rescale'"),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "fold its scale"),
        ("standard", {"normalize_activations": True}, "fold its scale"),
        ("standard", {"normalize_activations": "covariance_whitening"}, "fold_activation_whitening"),
        ("standard", {"normalize_activations": ["new"]}, "known is none"),
        ("standard", {"d_in": 7}, "d_in = 7 and d_sae = None, but its W_enc has shape"),
        ("standard", {"metadata": {}}, "no hook_name: say where it belongs, as site='mlp.5'"),
        ("transcoder", {"metadata": STREAM}, "no hook_name_out"),
        ("standard", {"metadata": {**STREAM, "hook_head_index": 3}}, "reads head 3 alone"),
        ("standard", {"metadata": {"hook_name": "blocks.1.hook_resid_mid"}}, "no site that is supported"),
        ("topk", {"k": 3.5}, "k = 3.5: give a whole number"),
        ("topk", {"k": 300}, "keeps 300 of 10 features"),
    ],
)
def test_settings_that_are_refused(architecture: str, cfg: dict[str, Any], message: str) -> None:
    sae = sae_of(architecture)
    settings = {**sae.cfg.to_dict(), **cfg}
    sae.cfg.to_dict = lambda: settings
    with pytest.raises(HydrascopeError, match=f"StandardSAE.*{re.escape(message.removeprefix('StandardSAE '))}"):
        dictionary_of(sae)


@pytest.mark.parametrize("change", ["fold_value_biases", "refactor_factored_attn_matrices"])
def test_heads_of_a_changed_model_are_refused(change: str) -> None:
    metadata = {"hook_name": "blocks.1.attn.hook_z", "model_from_pretrained_kwargs": {change: True}}
    with pytest.raises(HydrascopeError, match=f"changed by {change}"):
        dictionary_of(sae_of(metadata=metadata))


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        ("standard", {"W_dec": None}, "lacks W_dec"),
        ("standard", {"r_mag": torch.ones(FEATURES)}, "holds weights that standard lacks: r_mag"),
        ("skip_transcoder", {"W_skip": None}, "lacks W_skip"),
        ("transcoder", {"W_skip": torch.ones(OUT, IN)}, "lacks: W_skip"),
        ("jumprelu", {"threshold": None}, "no threshold"),
        ("batchtopk", {"topk_threshold": torch.tensor(0.0)}, "no threshold, which batchtopk learns"),
        ("standard", {"W_enc": torch.ones(IN)}, "W_enc of shape [6]"),
        ("standard", {"scaling_factor": torch.full((FEATURES,), 2.0)}, "its finetuning_scaling_factor is false"),
        ("standard", {"b_enc": torch.full((FEATURES,), torch.nan)}, "holds NaN"),
        ("batchtopk", {"topk_threshold": torch.tensor(torch.inf)}, "below 0 or not finite"),
    ],
)
def test_weights_that_are_refused(architecture: str, weights: dict[str, Any], message: str) -> None:
    sae = sae_of(architecture)
    changed = {key: each for key, each in {**sae.state_dict(), **weights}.items() if each is not None}
    with pytest.raises(HydrascopeError, match=f"my file.*{re.escape(message)}"):
        from_saelens("my file", sae.cfg.to_dict(), changed)


def test_a_scale_without_a_use_is_refused_for_transcoders() -> None:
    sae = sae_of("transcoder", normalize_activations="expected_average_only_in")
    with pytest.raises(HydrascopeError, match="fold its scale"):
        from_saelens("it", sae.cfg.to_dict(), sae.state_dict(), scale=2.0)
