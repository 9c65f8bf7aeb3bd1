"""Dictionaries of other tools' objects: against SAELens' published forward in numpy, or refused in one line."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.hook_names import site_of
from hydrascope.dictionaries.objects import dictionary_of
from hydrascope.dictionaries.saelens import from_saelens
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

IN, FEATURES, OUT = 6, 10, 4
STREAM = {"hook_name": "blocks.2.hook_resid_pre"}
MLP = {"hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out"}


def random_weights(architecture: str, seed: int, features: int = FEATURES, *, whole: bool = False) -> dict[str, Tensor]:
    """Weights under SAELens' names in float64; whole numbers, if asked for, which make ties."""
    generator = np.random.default_rng(seed)
    outputs = OUT if "transcoder" in architecture else IN
    shapes = {"W_enc": (IN, features), "W_dec": (features, outputs), "b_enc": (features,), "b_dec": (outputs,)}
    if "jumprelu" in architecture:
        shapes["threshold"] = (features,)
    if "skip" in architecture:
        shapes["W_skip"] = (outputs, IN)
    draw = (lambda shape: generator.integers(-2, 3, shape)) if whole else (lambda shape: generator.normal(size=shape))
    weights = {key: torch.tensor(draw(shape), dtype=torch.float64) for key, shape in shapes.items()}
    if "batchtopk" in architecture:
        weights["topk_threshold"] = torch.tensor(1.5, dtype=torch.float64)
    return weights


def published(cfg: dict[str, Any], weights: dict[str, Tensor], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute SAELens' published forward pass in float64.

    Returns:
        the writes of features, `[row, feature, output]`, and the output.
    """
    w = {key: weight.double().numpy() for key, weight in weights.items()}
    sae_in = x - w["b_dec"] * cfg["apply_b_dec_to_input"] if cfg["apply_b_dec_to_input"] else x
    hidden = sae_in @ w["W_enc"] + w["b_enc"]
    norms = (
        np.linalg.norm(w["W_dec"], axis=-1) if cfg.get("rescale_acts_by_decoder_norm") else np.ones(hidden.shape[-1])
    )
    hidden = hidden * norms
    architecture = cfg["architecture"]
    if architecture == "topk":
        kept = np.zeros(hidden.shape)
        for row, values in enumerate(hidden):
            for unit in sorted(range(len(values)), key=lambda unit: (-values[unit], unit))[: cfg["k"]]:
                kept[row, unit] = 1
        acts = np.maximum(hidden, 0) * kept
    elif "batchtopk" in architecture:
        acts = np.maximum(hidden, 0) * (hidden > w["topk_threshold"])
    elif "jumprelu" in architecture:
        acts = np.maximum(hidden, 0) * (hidden > w["threshold"])
    else:
        acts = np.maximum(hidden, 0)
    writes = (acts / norms)[..., None] * w["W_dec"] * w.get("scaling_factor", np.ones(hidden.shape[-1]))[:, None]
    out = writes.sum(-2) + w["b_dec"]
    return writes, out + x @ w["W_skip"].T if "W_skip" in w else out


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


# Modules of other tools, or of the user's own.


class Linear(nn.Module):
    """Two linear maps, as in dictionary_learning and many papers' code."""

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder, self.decoder = nn.Linear(IN, features).double(), nn.Linear(features, IN).double()

    def forward(self, x: Tensor) -> Any:
        return self.decoder(self.encoder(x).relu())


class Subtracting(Linear):
    def forward(self, x: Tensor) -> Any:
        acts = self.encoder(x - self.decoder.bias).relu()
        return self.decoder(acts), acts


class OneBias(nn.Module):
    """Encode and decode with one bias at both ends, like dictionary_learning's AutoEncoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.bias = nn.Parameter(torch.randn(IN).double())
        self.encoder = nn.Linear(IN, FEATURES).double()
        self.decoder = nn.Linear(FEATURES, IN, bias=False).double()

    def forward(self, x: Tensor) -> Any:
        return self.decoder(self.encoder(x - self.bias).relu()) + self.bias


class Autoencoder(nn.Module):
    """Encode and decode like OpenAI's autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.pre_bias = nn.Parameter(torch.randn(IN).double())
        self.latent_bias = nn.Parameter(torch.randn(FEATURES).double())
        self.encoder = nn.Linear(IN, FEATURES, bias=False).double()
        self.decoder = nn.Linear(FEATURES, IN, bias=False).double()
        self.register_buffer("stats_last_nonzero", torch.zeros(FEATURES))

    def forward(self, x: Tensor) -> Any:
        latents = nn.functional.linear(x - self.pre_bias, self.encoder.weight, self.latent_bias).relu()
        return {"latents": latents, "out": self.decoder(latents) + self.pre_bias}


class AutoEncoderTopK(Linear):
    """Keep a threshold beside k, like dictionary_learning's BatchTopK."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k", torch.tensor(3))
        self.register_buffer("threshold", torch.tensor(-1.0))

    def forward(self, x: Tensor) -> Any:
        acts = self.encoder(x - self.decoder.bias).relu()
        top = acts.topk(3, dim=-1)
        return self.decoder(torch.zeros_like(acts).scatter_(-1, top.indices, top.values))


class BatchTopKSAE(AutoEncoderTopK):
    def __init__(self) -> None:
        super().__init__()
        self.threshold.fill_(0.4)

    def forward(self, x: Tensor) -> Any:
        acts = self.encoder(x - self.decoder.bias).relu()
        return self.decoder(acts * (acts > self.threshold))


class SingleLayerTranscoder(nn.Module):
    """Transcode like circuit-tracer, with `W_enc` as `[feature, input]` and square."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.W_enc, self.W_dec, self.W_skip = (nn.Parameter(torch.randn(IN, IN).double()) for _ in range(3))
        self.b_enc, self.b_dec = (nn.Parameter(torch.randn(IN).double()) for _ in range(2))
        self.activation_function = nn.Module()
        self.activation_function.threshold = nn.Parameter(torch.rand(IN).double())

    def forward(self, x: Tensor) -> Any:
        z = nn.functional.linear(x, self.W_enc, self.b_enc)
        acts = z * (z > self.activation_function.threshold)
        return acts @ self.W_dec + self.b_dec + x @ self.W_skip.T


class Told(nn.Module):
    """SAELens' names in a class of one's own, which says whether the bias is subtracted."""

    apply_b_dec_to_input = True

    def __init__(self) -> None:
        super().__init__()
        self.weights = random_weights("standard", 8)
        for key, weight in self.weights.items():
            self.register_buffer(key, weight)

    def forward(self, x: Tensor) -> Any:
        cfg = {"architecture": "standard", "apply_b_dec_to_input": True}
        return torch.from_numpy(published(cfg, self.weights, x.numpy())[1])


MODULES = [
    (Linear, "mlp.1"),
    (Subtracting, "mlp.1"),
    (OneBias, "attn.0"),
    (Autoencoder, "stream.3"),
    (AutoEncoderTopK, "mlp.1"),
    (BatchTopKSAE, "mlp.1"),
    (SingleLayerTranscoder, "transcoder.2"),
    (Told, "mlp.1"),
]


@pytest.mark.parametrize(("kind", "site"), MODULES)
def test_modules_by_their_weights_names(kind: type[nn.Module], site: str) -> None:
    module = kind()
    found = dictionary_of(module, site)
    x = torch.randn(40, IN, generator=torch.Generator().manual_seed(9)).double()
    with torch.no_grad():
        out = module(x)
    out = out["out"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
    acts = found.encode(x)
    assert 0 < int((acts > 0).sum()) < acts.numel()
    torch.testing.assert_close(acts @ found.decoder + found.rest(x), out)
    assert found.site == site


class Smooth(Linear):
    def forward(self, x: Tensor) -> Any:
        return self.decoder(nn.functional.gelu(self.encoder(x)))


class Broken(Linear):
    def forward(self, x: Tensor) -> Any:
        raise ValueError("give tokens")


class Silent(Linear):
    def forward(self, x: Tensor) -> Any:
        return None


@pytest.mark.parametrize(
    ("thing", "site", "message"),
    [
        (Smooth(), "mlp.1", "Smooth computes something else than relu of its weights"),
        (Broken(), "mlp.1", "Broken can't be run on vectors of 6 numbers, so it can't be compared (give tokens)"),
        (Silent(), "mlp.1", "Silent computes something else"),
        (nn.Linear(3, 4), "mlp.1", "Linear has no encoder: give encoder or W_enc"),
        (Linear(), None, "Linear doesn't say where it belongs"),
        (Linear(), "resid.1", "'resid.1' is no site"),
        ("sae.safetensors", None, "a str is no dictionary"),
        (None, None, "a NoneType is no dictionary"),
    ],
)
def test_other_objects_are_refused(thing: Any, site: str | None, message: str) -> None:
    with pytest.raises(HydrascopeError, match=re.escape(message)):
        dictionary_of(thing, site)


def test_a_compiled_module_is_the_module_inside() -> None:
    module = Subtracting()
    assert (
        dictionary_of(torch.compile(module, backend="eager"), "mlp.1").sha256 == dictionary_of(module, "mlp.1").sha256
    )


# Weights by name.


def test_a_mapping_in_each_orientation() -> None:
    weights = random_weights("jumprelu", 1)
    weights["threshold"].abs_()
    expected = Dictionary("mlp.1", encoder=weights["W_enc"].T, decoder=weights["W_dec"], activation="jumprelu",
                          threshold=weights["threshold"], encoder_bias=weights["b_enc"])  # fmt: skip
    common = {"activation": "jumprelu", "site": "mlp.1", "b_enc": weights["b_enc"].numpy()}
    for named in (
        {"W_enc": weights["W_enc"], "W_dec": weights["W_dec"], "threshold": weights["threshold"]},
        {"W_enc": weights["W_enc"].T, "W_dec": weights["W_dec"], "threshold": weights["threshold"]},
        {"encoder": weights["W_enc"].T, "decoder": weights["W_dec"], "threshold": weights["threshold"]},
        {"encoder.weight": weights["W_enc"].T, "decoder.weight": weights["W_dec"].T, "threshold": weights["threshold"]},
    ):
        assert dictionary_of({**common, **named}).sha256 == expected.sha256
    logged = dictionary_of({**common, "W_enc": weights["W_enc"], "W_dec": weights["W_dec"],
                            "log_threshold": weights["threshold"].log()})  # fmt: skip
    torch.testing.assert_close(logged.threshold, expected.threshold)


def test_the_activation_follows_from_what_is_given() -> None:
    weights = {"W_enc": torch.ones(IN, FEATURES), "W_dec": torch.ones(FEATURES, IN), "site": "mlp.1"}
    found = dictionary_of({**weights, "k": torch.tensor(3)})
    assert (found.activation, found.k) == ("topk", 3)
    assert dictionary_of({**weights, "threshold": 0.5}).activation == "jumprelu"
    assert dictionary_of(weights).activation == "relu"


BIASED = {"W_enc": torch.ones(IN, FEATURES), "W_dec": torch.ones(FEATURES, IN), "b_dec": torch.ones(IN)}


@pytest.mark.parametrize("subtracted", [True, False])
def test_a_decoders_bias_is_subtracted_if_said_so(subtracted: bool) -> None:
    found = dictionary_of({**BIASED, "apply_b_dec_to_input": subtracted}, "mlp.1")
    assert (found.pre_bias is not None) is subtracted
    assert dictionary_of(BIASED, "transcoder.1").pre_bias is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "doesn't say whether it is subtracted from x first: give apply_b_dec_to_input"),
        ({"encoder.weight": torch.ones(FEATURES, IN)}, "holds W_enc and encoder.weight, which are one part"),
        ({"W_gate": torch.ones(3)}, "holds W_gate, which no dictionary has"),
        ({"W_dec": None}, "has no decoder"),
        ({"W_dec": [[1.0]]}, "W_dec of type list: give a tensor"),
        ({"k": "3"}, "k = '3': give a whole number"),
        ({"k": 3, "threshold": 0.5, "apply_b_dec_to_input": False}, "k and a threshold"),
        ({"bias": torch.ones(IN)}, "a bias that is also written, and a decoder's bias"),
        ({"b_dec": None, "apply_b_dec_to_input": True}, "apply_b_dec_to_input and no decoder's bias"),
        ({"pre_bias": torch.ones(IN), "apply_b_dec_to_input": True}, "apply_b_dec_to_input and a pre_bias"),
        ({"activation": "gelu", "apply_b_dec_to_input": False}, "the activation 'gelu'"),
    ],
)
def test_mappings_that_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(HydrascopeError, match=f"the mapping.*{re.escape(message)}"):
        dictionary_of({**BIASED, **more}, "mlp.1")
