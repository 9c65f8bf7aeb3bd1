"""Dictionaries of features: sparse autoencoders and transcoders.

A dictionary reads a vector x and takes a vector y apart, at one site of the model:

    f = act(E (x − p) + b)        the features' activations, never below 0
    y = Σ_j f_j w_j + r + error,  r = d + S x

with the encoder E, the pre-bias p, the encoder's bias b, the decoder's rows w_j, its bias d, and the skip matrix S of
some transcoders. The site says what x and y are: for all but a transcoder they are the same vector.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components.dictionary_site import DictionarySite, parse_site
from hydrascope.utils.errors import HydrascopeError

Activation = Literal["relu", "jumprelu", "topk", "batchtopk"]

#: A function of rows, a weight `[out, in]` and a bias.
Linear = Callable[[Tensor, Tensor, Tensor], Tensor]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A dictionary of features at one site of a model.

    `model.with_dictionaries` makes its features components:

        >>> sae = hs.Dictionary("mlp.1", encoder=torch.randn(64, 32), decoder=torch.randn(64, 32))
        >>> model = hs.load_model("phantom").with_dictionaries(sae)                            # doctest: +SKIP
        >>> hs.sweep(model, prompts, ablate="attn", read="feature.mlp.1.7,error.mlp.1")        # doctest: +SKIP

    Attributes:
        site: the site: `attn.L` or `mlp.L`, what the sublayer adds to the residual stream; `raw.attn.L` or `raw.mlp.L`,
            its output before a norm that follows it; `heads.L`, the outputs of all heads side by side; `transcoder.L`,
            from the MLP's input to what it adds; `stream.L`, the residual stream that enters block L.
        encoder: `[feature, input]` the matrix that reads x.
        decoder: `[feature, output]` the vector that each feature writes for an activation of 1.
        encoder_bias: `[feature]` the number added to what the encoder reads.
        decoder_bias: `[output]` the vector that is written whatever x is.
        pre_bias: `[input]` the vector subtracted from x before it is encoded.
        skip: `[output, input]` the matrix of a skip transcoder.
        activation: `relu`; `jumprelu`, z where z > `threshold`, else 0; `topk`, the `k` largest z; `batchtopk`, as
            `jumprelu`, with the threshold found in training.
        threshold: `[feature]`, or one number for all, of `jumprelu` and `batchtopk`.
        k: the number of features that may be active, of `topk`.
        by_decoder_norm: whether z is ranked and compared to the threshold times the length of its decoder row.
        centred: whether x is centred over its dimensions before it is encoded; its mean is then part of the error.
        before_gain: whether a transcoder reads the MLP's input before the gain of the norm in front of it.
        begins_with_bos: whether the prompts of its training began with BOS; None if that isn't known.
        name: a name for messages and results.
    """

    site: str
    encoder: Float[Tensor, "feature input"]
    decoder: Float[Tensor, "feature output"]
    encoder_bias: Float[Tensor, "feature"] | None = None
    decoder_bias: Float[Tensor, "output"] | None = None
    pre_bias: Float[Tensor, "input"] | None = None
    skip: Float[Tensor, "output input"] | None = None
    activation: Activation = "relu"
    threshold: Float[Tensor, "feature"] | float | None = None
    k: int | None = None
    by_decoder_norm: bool = False
    centred: bool = False
    before_gain: bool = False
    begins_with_bos: bool | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no dictionary."""
        parse_site(self.site)
        if self.activation not in ACTIVATIONS:
            raise HydrascopeError(
                f"{self.label} has the activation {self.activation!r}: only {', '.join(ACTIVATIONS)} are supported"
            )
        self._require_shapes()
        for name, weight in self._tensors().items():
            if not weight.is_floating_point():
                raise HydrascopeError(f"the {name} of {self.label} is of {weight.dtype}: give floating-point numbers")
            if not weight.isfinite().all():
                raise HydrascopeError(f"the {name} of {self.label} holds NaN or infinity: its file may be damaged")
        self._require_settings()

    def _require_shapes(self) -> None:
        if self.encoder.ndim != 2 or self.decoder.ndim != 2 or len(self.encoder) != len(self.decoder):
            raise HydrascopeError(
                f"{self.label} has an encoder of shape {[*self.encoder.shape]} and a decoder of shape "
                f"{[*self.decoder.shape]}: give [feature, input] and [feature, output]"
            )
        wanted = {
            "encoder_bias": (self.features,),
            "decoder_bias": (self.outputs,),
            "pre_bias": (self.inputs,),
            "skip": (self.outputs, self.inputs),
            "threshold": (self.features,),
        }
        for name, shape in wanted.items():
            given = getattr(self, name)
            scalar = name == "threshold" and (not isinstance(given, Tensor) or given.ndim == 0)
            if given is not None and not scalar and tuple(given.shape) != shape:
                raise HydrascopeError(f"the {name} of {self.label} has shape {[*given.shape]}: give {[*shape]}")
        if not self.reads_elsewhere and self.inputs != self.outputs:
            raise HydrascopeError(
                f"{self.label} reads {self.inputs} numbers and writes {self.outputs}: only a transcoder may"
            )

    def _require_settings(self) -> None:
        thresholded = self.activation in ("jumprelu", "batchtopk")
        if thresholded and self.threshold is None:
            raise HydrascopeError(f"{self.label} has the activation {self.activation} and no threshold: give it")
        if not thresholded and self.threshold is not None:
            raise HydrascopeError(f"{self.label} has a threshold, which {self.activation} doesn't use: leave it out")
        if (self.activation == "topk") != (self.k is not None):
            raise HydrascopeError(f"{self.label} has the activation {self.activation} and k = {self.k}: k is for topk")
        if self.k is not None and not 1 <= self.k <= self.features:
            raise HydrascopeError(f"{self.label} keeps {self.k} of {self.features} features: give k from 1 on")
        if self.threshold is not None:
            threshold = torch.as_tensor(self.threshold)
            # Written so that NaN is refused, too.
            if not bool(((threshold >= 0) & threshold.isfinite()).all()):
                raise HydrascopeError(f"{self.label} has a threshold below 0 or not finite: give one from 0 on")
        if self.before_gain and not self.reads_elsewhere:
            raise HydrascopeError(f"{self.label} reads no MLP's input: before_gain is for transcoders")

    @classmethod
    def of(cls, sae: Any, site: str | None = None, name: str = "") -> "Dictionary":
        """Return the dictionary of another tool's object; see `dictionaries.objects`.

            >>> hs.Dictionary.of(sae_lens.SAE.from_pretrained("gpt2-small-res-jb", hook))      # doctest: +SKIP

        Args:
            sae: an SAE or transcoder of SAELens; a torch module, or a mapping, with weights under usual names.
            site: its site, such as `mlp.5`; None to take what the object says.
            name: a name for messages and results.

        Raises:
            HydrascopeError: it is no dictionary, or has a setting that isn't supported; or nothing says where it
                belongs.
        """
        from hydrascope.dictionaries.objects import dictionary_of

        return dictionary_of(sae, site, name)

    @classmethod
    def load(cls, path: str | Path, site: str | None = None, name: str = "") -> "Dictionary":
        """Return the dictionary in a local file or folder; see `dictionaries.files`.

            >>> hs.Dictionary.load("saes/blocks.8.hook_resid_pre")                             # doctest: +SKIP

        Args:
            path: a folder of SAELens, Gemma Scope 2, circuit-tracer or sparsify; a `.safetensors` or `.npz` file.
            site: its site; None to take what the file says.
            name: a name for messages and results.

        Raises:
            HydrascopeError: a file is missing, damaged or of another format, or a setting isn't supported.
        """
        from hydrascope.dictionaries.files import load_dictionary

        return load_dictionary(path, site, name)

    def save(self, path: str | Path) -> None:
        """Write the dictionary to a `.safetensors` file, which `load` reads.

            >>> sae.save("sae.safetensors")                                                    # doctest: +SKIP

        Raises:
            HydrascopeError: the file can't be written.
        """
        from hydrascope.dictionaries.files import save_dictionary

        save_dictionary(self, path)

    def __repr__(self) -> str:
        return f"Dictionary({self.site!r}, {self.features:,} features, {self.activation})"

    @property
    def label(self) -> str:
        """Its name and site, for messages."""
        return f"the dictionary {self.name!r} at {self.site}" if self.name else f"the dictionary at {self.site}"

    @property
    def place(self) -> DictionarySite:
        """The kind of its site, such as `mlp` or `raw.attn`."""
        return parse_site(self.site)[0]

    @property
    def block(self) -> int:
        """The block of its site."""
        return parse_site(self.site)[1]

    @property
    def reads_elsewhere(self) -> bool:
        """Whether x is another vector than y: the MLP's input, for a transcoder."""
        return self.place == "transcoder"

    @property
    def features(self) -> int:
        """The number of features."""
        return self.encoder.shape[0]

    @property
    def inputs(self) -> int:
        """The number of numbers that it reads."""
        return self.encoder.shape[1]

    @property
    def outputs(self) -> int:
        """The number of numbers that it writes."""
        return self.decoder.shape[1]

    def encode(
        self,
        x: Float[Tensor, "*rows input"],
        features: Tensor | slice = slice(None),
        linear: Linear = torch.nn.functional.linear,
    ) -> Float[Tensor, "*rows feature"]:
        """Return the activations of all features, or of some.

            >>> sae.encode(torch.randn(3, 32)).shape                                           # doctest: +SKIP
            torch.Size([3, 64])

        Args:
            x: the vectors that are read.
            features: the features.
            linear: the function that multiplies.
        """
        x = x.to(self.encoder.dtype)
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        if self.activation == "topk":
            return self._encode_top(x, linear)[..., features]
        z = linear(x, self.encoder[features], self._bias[features])
        if self.activation == "relu":
            return z.relu_()
        assert self.threshold is not None
        threshold = torch.as_tensor(self.threshold).to(z)
        ranked = z * self._lengths[features] if self.by_decoder_norm else z
        return z.clamp_min(0) * (ranked > (threshold[features] if threshold.ndim else threshold))

    def _encode_top(self, x: Float[Tensor, "*rows input"], linear: Linear) -> Float[Tensor, "*rows feature"]:
        """Return the activations of all features of which the `k` largest are kept."""
        z = linear(x, self.encoder, self._bias)
        ranked = z * self._lengths if self.by_decoder_norm else z
        assert self.k is not None
        # A stable sort: of equal numbers the lower index is kept.
        kept = torch.sort(ranked, dim=-1, descending=True, stable=True).indices[..., : self.k]
        return torch.zeros_like(z).scatter_(-1, kept, z.gather(-1, kept)).clamp_min_(0)

    def rest(self, x: Float[Tensor, "*rows input"]) -> Float[Tensor, "*rows output"]:
        """Return r(x), which no feature writes: the decoder's bias, and the skip matrix's output."""
        x = x.to(self.encoder.dtype)
        bias = x.new_zeros(self.outputs) if self.decoder_bias is None else self.decoder_bias
        if self.skip is None:
            return bias.expand(*x.shape[:-1], self.outputs)
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return torch.nn.functional.linear(x, self.skip, bias)

    @cached_property
    def _bias(self) -> Tensor:
        """The encoder's bias after the pre-bias is folded into it: b − E p."""
        bias = self.encoder.new_zeros(self.features) if self.encoder_bias is None else self.encoder_bias
        return bias if self.pre_bias is None else bias - self.encoder @ self.pre_bias

    @cached_property
    def _lengths(self) -> Float[Tensor, "feature"]:
        lengths: Tensor = torch.linalg.vector_norm(self.decoder, dim=-1)
        return lengths

    def _tensors(self) -> dict[str, Tensor]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def to(self, dtype: torch.dtype, device: torch.device | str) -> "Dictionary":
        """Return a copy with weights of another dtype on another device."""
        moved: dict[str, Any] = {name: weight.detach().to(device, dtype) for name, weight in self._tensors().items()}
        return replace(self, **moved)

    @cached_property
    def sha256(self) -> str:
        """A hash of its weights, in float32, and of its settings."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
            elif field.name == "name":
                continue
            digest.update(f"{field.name}:".encode() + (value if isinstance(value, bytes) else repr(value).encode()))
        return digest.hexdigest()
