"""SAELens: its autoencoders and transcoders, live and saved, encode and decode as the dictionaries made of them."""

from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.files import load_dictionary
from hydrascope.dictionaries.objects import dictionary_of
from hydrascope.utils.errors import HydrascopeError

IN, FEATURES, OUT = 12, 40, 9
HOOKS = {"hook_name": "blocks.2.hook_resid_post", "prepend_bos": True, "model_name": "gpt2"}
TRANSCODED = {**HOOKS, "hook_name": "blocks.2.mlp.hook_in", "hook_name_out": "blocks.2.hook_mlp_out"}

AUTOENCODERS: dict[str, dict[str, Any]] = {
    "StandardSAE": {},
    "StandardTrainingSAE": {},
    "JumpReLUSAE": {},
    "JumpReLUTrainingSAE": {},
    "TopKSAE": {"k": 5},
    "TopKTrainingSAE": {"k": 5, "rescale_acts_by_decoder_norm": True},
    "BatchTopKTrainingSAE": {"k": 4.5},
    "MatryoshkaBatchTopKTrainingSAE": {"k": 4.5, "matryoshka_widths": [10, FEATURES]},
}
TRANSCODERS = ("Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder")


def made(kind: str, *, metadata: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Return an object of SAELens with random weights in float64."""
    config = getattr(sae_lens, f"{kind}Config")
    if kind in TRANSCODERS:
        settings = {"d_out": OUT, "apply_b_dec_to_input": False, **settings}
    hooks = metadata or (TRANSCODED if kind in TRANSCODERS else HOOKS)
    settings = {"d_in": IN, "d_sae": FEATURES, "dtype": "float64", **settings}
    sae = getattr(sae_lens, kind)(config(**settings, metadata=SAEMetadata(**hooks)))
    generator = torch.Generator().manual_seed(0)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    if hasattr(sae, "threshold"):
        sae.threshold.data.abs_().add_(0.5)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(3.0)
    return sae


def rows() -> Tensor:
    return torch.randn(50, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def require_same(dictionary: Dictionary, sae: Any) -> None:
    """Compare each feature's write, the rest and the output."""
    x = rows()
    with torch.no_grad():
        activations, expected = sae.encode(x), sae(x)
        directions = sae.W_dec
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            directions = directions / sae.W_dec.norm(dim=-1, keepdim=True)
    ours = dictionary.encode(x)
    assert 0 < int((ours > 0).sum()) < ours.numel()
    torch.testing.assert_close(ours[..., None] * dictionary.decoder, activations[..., None] * directions)
    torch.testing.assert_close(ours @ dictionary.decoder + dictionary.rest(x), expected)


@pytest.mark.parametrize("subtracted", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in AUTOENCODERS if "Batch" not in kind])
def test_autoencoders(kind: str, subtracted: bool, tmp_path: Path) -> None:
    sae = made(kind, apply_b_dec_to_input=subtracted, **AUTOENCODERS[kind])
    found = dictionary_of(sae)
    assert (found.site, found.begins_with_bos) == ("stream.3", True)
    require_same(found, sae)
    sae.save_model(tmp_path)
    assert load_dictionary(tmp_path).sha256 == found.sha256


@pytest.mark.parametrize("kind", [kind for kind in AUTOENCODERS if "Batch" in kind])
def test_batch_top_k_is_what_it_is_saved_as(kind: str, tmp_path: Path) -> None:
    """SAELens saves it as JumpReLU, with the decoder's lengths in the encoder."""
    sae = made(kind, **AUTOENCODERS[kind])
    sae.save_inference_model(tmp_path)
    saved = sae_lens.SAE.load_from_disk(tmp_path)
    for found in (dictionary_of(sae), load_dictionary(tmp_path)):
        require_same(found, saved)


@pytest.mark.parametrize("kind", TRANSCODERS)
def test_transcoders(kind: str, tmp_path: Path) -> None:
    sae = made(kind)
    found = dictionary_of(sae)
    assert (found.site, found.before_gain, found.skip is not None) == ("transcoder.2", False, "Skip" in kind)
    require_same(found, sae)
    sae.save_model(tmp_path)
    assert load_dictionary(tmp_path).sha256 == found.sha256


def test_heads_are_taken_side_by_side() -> None:
    hooks = {**HOOKS, "hook_name": "blocks.1.attn.hook_z"}
    sae = made("StandardSAE", metadata=hooks, reshape_activations="hook_z")
    found = dictionary_of(sae)
    assert found.site == "heads.1"
    x = rows()
    with torch.no_grad():
        torch.testing.assert_close(found.encode(x), sae.encode(x.unflatten(-1, (3, 4))))


@pytest.mark.parametrize("kind", ["StandardTrainingSAE", "BatchTopKTrainingSAE", "TopKTrainingSAE"])
def test_a_scale_beside_the_weights_is_what_sae_lens_folds(kind: str, tmp_path: Path) -> None:
    sae = made(kind, normalize_activations="expected_average_only_in", **AUTOENCODERS[kind])
    sae.save_model(tmp_path)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 0.4, "has_whitening": false}')
    found = load_dictionary(tmp_path)
    sae.fold_activation_norm_scaling_factor(0.4)
    expected = dictionary_of(sae)
    x = rows()
    torch.testing.assert_close(found.encode(x), expected.encode(x))
    torch.testing.assert_close(found.decoder, expected.decoder)
    torch.testing.assert_close(found.rest(x), expected.rest(x))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("GatedSAE", {}, "GatedSAE has the architecture 'gated'"),
        ("AbsTopKSAE", {"k": 3}, "AbsTopKSAE has the architecture 'abstopk'"),
        ("MatchingPursuitSAE", {}, "MatchingPursuitSAE has the architecture 'matching_pursuit'"),
        ("StandardSAE", {"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm'"),
        ("StandardSAE", {"normalize_activations": "constant_norm_rescale"}, "'constant_norm_rescale'"),
        ("StandardSAE", {"normalize_activations": "expected_average_only_in"}, "fold its scale"),
    ],
)
def test_others_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        dictionary_of(made(kind, **settings))


def test_hooks_that_change_it_are_noticed() -> None:
    sae = made("StandardSAE")
    sae.hook_sae_acts_post.add_hook(lambda acts, hook: acts * 2)
    with pytest.raises(HydrascopeError, match="remove its hooks"):
        dictionary_of(sae)
