"""Take dictionaries of torch modules and of weights by name, or refuse them in one line."""

import re
from typing import Any

import pytest
import torch
from published_saes import FEATURES, IN, published, random_weights
from torch import Tensor, nn

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.objects import dictionary_of
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


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
