"""Random dictionaries at the sites of tiny models."""

from zlib import crc32

import torch
from tiny import shared

import hydrascope as hs
from hydrascope.components.dictionary_site import SUBLAYER_AT, parse_site
from hydrascope.components.selection import select_overrides
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.models.language_model import LanguageModel

FEATURES = 12

#: One site of each kind, in block 1 but for one at the very first stream.
SITES = ("attn.1", "mlp.1", "raw.attn.1", "raw.mlp.1", "heads.1", "transcoder.1", "stream.1", "stream.0")

ACTIVATIONS = ("relu", "jumprelu", "topk", "batchtopk")


def has_site(model: LanguageModel, site: str) -> bool:
    """Whether a model has a site: `raw` ones only where a norm follows the sublayer, and only dense MLPs' outputs."""
    kind, block = parse_site(site)
    if not kind.startswith("raw."):
        return True
    sublayer = hs.Component(block, SUBLAYER_AT[kind])
    return model.is_dense(sublayer) and model.projection(sublayer).norm is not None


def outputs(model: LanguageModel, site: str) -> int:
    """The number of numbers that stand at a site."""
    kind, block = parse_site(site)
    if kind != "heads":
        return model.width
    projection = model.projection(hs.Component(block, "attn"))
    return projection.units * projection.width


def random_dictionary(
    model: LanguageModel, site: str, activation: str = "relu", *, seed: int = 0, **settings
) -> Dictionary:
    """A dictionary with everything turned on that its activation and its site can have."""
    generator = torch.Generator().manual_seed(seed + crc32(f"{site}{activation}".encode()))
    width, transcodes = outputs(model, site), site.startswith("transcoder")

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    options = {
        "encoder": drawn(FEATURES, width) / width**0.5,
        "decoder": drawn(FEATURES, width) / width**0.5,
        "encoder_bias": 0.3 * drawn(FEATURES),
        "decoder_bias": 0.3 * drawn(width),
        "pre_bias": 0.3 * drawn(width),
        "skip": 0.3 * drawn(width, width) / width**0.5 if transcodes else None,
        "threshold": 0.2 * drawn(FEATURES).abs() if activation in ("jumprelu", "batchtopk") else None,
        "k": 4 if activation == "topk" else None,
        "by_decoder_norm": activation in ("topk", "jumprelu"),
    }
    return Dictionary(site, activation=activation, **{**options, **settings})


def with_dictionary(case: str, site: str, activation: str = "relu", **settings) -> LanguageModel:
    """A shared tiny model with a random dictionary."""
    model = shared(case)
    return model.with_dictionaries(random_dictionary(model, site, activation, **settings))


def runs_of(model: LanguageModel, site: str) -> tuple[hs.Override, ...]:
    """Runs with terms of a site: alone, joint, frozen, with units and sublayers before, at and after it."""
    kind, _, block = site.rpartition(".")
    one, two, other = (f"feature.{site}.{number}" for number in (3, 5, 2))
    every, error, bias = f"feature.{site}", f"error.{site}", f"bias.{site}"
    runs = [one, every, error, bias, f"{every}+{error}+{bias}", f"{one}+{two}+{error}", f"{other}|mlp.2"]
    runs += [f"{one}+attn.2"]
    if kind in ("attn", "mlp", "transcoder"):
        runs += ["attn.1", "mlp.1"]
    if block == "1":
        runs += ["mlp.0", f"attn.0|{one}", f"mlp.0|{error}+{bias}", f"attn.0|{every}", f"attn.0+{every}+{error}"]
    if kind in ("attn", "raw.attn", "heads"):
        runs += [f"head.1.1|{one}", f"head.1.2+{one}|{error}", f"head.1.0+{every}", f"attn.0+head.1.0|{two}+{error}"]
    if kind in ("mlp", "raw.mlp") and model.is_dense(hs.Component(1, "mlp")):
        runs += ["neuron.1.1", f"neuron.1.1|{one}", f"neuron.1.2+{one}|{error}", f"attn.0+neuron.1.1|{two}"]
    if kind == "transcoder" and model.is_dense(hs.Component(1, "mlp")):
        runs += ["neuron.1.1", f"neuron.1.1|{error}", f"neuron.1.2+{one}+{error}"]
    if kind == "stream":
        runs += [f"{one}+attn.{block}|mlp.1", f"{error}|attn.1", f"{every}+mlp.2", "attn.1"]
    return select_overrides(model, runs)
