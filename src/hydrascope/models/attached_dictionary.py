"""Dictionaries attached to a model: where each reads and writes, in the model's own numbers.

In every pass the vector that stands at a site is taken apart once:

    y = Σ_j f_j w_j + r(x) + error

An override replaces some of the terms and keeps all others: y changes by Σ (f_j′ − f_j) w_j + (error′ − error) +
(r′ − r). Nothing is encoded again.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hydrascope.components.component import Component, TermKind
from hydrascope.components.dictionary_site import SUBLAYER_AT
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.models.offload import fetch
from hydrascope.models.projection import Projection, gain_of
from hydrascope.utils.errors import HydrascopeError

if TYPE_CHECKING:
    from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class Terms:
    """The terms of a vector y, at any number of rows.

    Attributes:
        code: `[*rows, feature]` the activations of features.
        error: `[*rows, output]` the error.
        rest: `[*rows, output]` r(x), which no feature writes.
    """

    code: Float[Tensor, "*rows feature"]
    error: Float[Tensor, "*rows output"]
    rest: Float[Tensor, "*rows output"]

    @classmethod
    def of(cls, dictionary: Dictionary, x: Float[Tensor, "*rows input"], y: Float[Tensor, "*rows output"]) -> "Terms":
        """Take y apart by a dictionary that reads x."""
        code, rest = dictionary.encode(x), dictionary.rest(x)
        return cls(code, y.to(code.dtype) - code @ dictionary.decoder - rest, rest)

    def __getitem__(self, kind: TermKind) -> Tensor:
        return {"feature": self.code, "error": self.error, "bias": self.rest}[kind]

    def clone(self) -> "Terms":
        """Return a copy."""
        return Terms(self.code.clone(), self.error.clone(), self.rest.clone())

    def change_from(self, before: "Terms", dictionary: Dictionary) -> Float[Tensor, "*rows output"]:
        """Return the change of y where terms were `before` and are now these."""
        code = (self.code - before.code) @ dictionary.decoder
        return code + (self.error - before.error) + (self.rest - before.rest)


@dataclass(frozen=True)
class AttachedDictionary:
    """A dictionary at its site in a model.

    Attributes:
        declared: the dictionary as it was given.
        dictionary: the same in the model's dtype, float32 or wider, reading x as it stands in the model.
        home: the sublayer that it takes apart, or `stream.L`.
        factor: y divided by the vector that stands at the site: the model's multiplier of what sublayers add.
        projection: the sublayer's projection, of `heads` and `raw` sites.
        mlp_input: the module that receives x, of a transcoder.
    """

    declared: Dictionary
    dictionary: Dictionary
    home: Component
    factor: float
    projection: Projection | None
    mlp_input: nn.Module | None

    @property
    def term_sites(self) -> tuple[Component, Component, Component]:
        """The sites of its terms: all features, the error, the bias."""
        place, block = self.declared.place, self.declared.block
        return (
            Component(block, "feature", place=place),
            Component(block, "error", place=place),
            Component(block, "bias", place=place),
        )

    def terms(self, x: Float[Tensor, "*rows input"], standing: Float[Tensor, "*rows output"]) -> Terms:
        """Take apart what stands at the site; x is `standing` too, but for a transcoder."""
        y = standing.to(self.dictionary.encoder.dtype) * self.factor
        return Terms.of(self.dictionary, x if self.mlp_input is not None else y, y)

    def activations(
        self, component: Component, x: Float[Tensor, "*rows input"], standing: Float[Tensor, "*rows output"]
    ) -> Float[Tensor, "*rows columns"]:
        """Return the activations of one term, without those of other features if possible."""
        if component.unit < 0:
            return self.terms(x, standing)[component.kind]  # type: ignore[index]
        read = x if self.mlp_input is not None else standing.to(self.dictionary.encoder.dtype) * self.factor
        return self.dictionary.encode(read, slice(component.unit, component.unit + 1))

    def write(self, component: Component, values: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows output"]:
        """Return the share of y that a term writes, from its own activations."""
        if component.kind != "feature":
            return values
        decoder = self.dictionary.decoder
        rows = decoder if component.unit < 0 else decoder[component.unit : component.unit + 1]
        return values.to(decoder.dtype) @ rows

    def output(
        self, share: Float[Tensor, "*rows output"], projected: Float[Tensor, "*rows width"] | None
    ) -> Float[Tensor, "*rows width"]:
        """Return a share of y as a share of the sublayer's output, before the model's multiplier.

        Args:
            share: the share of y.
            projected: the output of the sublayer's projection in the same pass; its norm, if any, has that scale.
        """
        if self.projection is None:
            return share / self.factor
        if self.declared.place == "heads":
            share = share @ self.projection.weight(share).T
        if self.projection.norm is None:
            return share
        assert projected is not None
        return self.projection.scaled(share, projected.to(share.dtype))

    def read_vectors(
        self, directions: Float[Tensor, "*prompts width readout"]
    ) -> Float[Tensor, "*prompts output readout"]:
        """Return the vectors that read shares of y as `directions` read the sublayer's output.

        Where a norm follows, what they read must be divided by its scale.
        """
        if self.projection is None:
            return directions / self.factor
        vectors = directions.mT
        if self.declared.place == "heads":
            return self.projection.read_vector(vectors).mT
        return (vectors if self.projection.norm is None else vectors * self.projection.gain(vectors)).mT


def attach_dictionaries(model: "LanguageModel", dictionaries: Iterable[Dictionary]) -> None:
    """Attach dictionaries to a model, whose terms become its components.

    Raises:
        HydrascopeError: one doesn't fit the model, or two are of one sublayer.
    """
    for dictionary in dictionaries:
        if not isinstance(dictionary, Dictionary):
            raise HydrascopeError(
                f"{type(dictionary).__name__} is no dictionary: give hs.Dictionary(…), hs.Dictionary.of(sae) or "
                "hs.Dictionary.load(path)"
            )
        attached = _attach(model, dictionary)
        if other := model.dictionaries.get(attached.home):
            raise HydrascopeError(
                f"two dictionaries take {attached.home} apart, at {other.declared.site} and at {dictionary.site}: give "
                "one of them at a time"
            )
        model.dictionaries[attached.home] = attached
    # In the order of the blocks, whatever the order in which they were given.
    model.dictionaries = dict(sorted(model.dictionaries.items(), key=lambda item: (item[0].block, item[0].kind)))


def _attach(model: "LanguageModel", declared: Dictionary) -> AttachedDictionary:
    place, block = declared.place, declared.block
    home = Component(block, SUBLAYER_AT.get(place, "stream"))
    if block >= len(model.blocks):
        raise HydrascopeError(
            f"{model.name} has no site {declared.site} for {declared.label}: its blocks are 0 to "
            f"{len(model.blocks) - 1}"
        )
    projection = mlp_input = None
    outputs = model.width
    if place == "heads":
        projection = model.projection(home)
        outputs = projection.units * projection.width
    elif place in ("raw.attn", "raw.mlp"):
        projection = model.projection(home)
        if projection.norm is None:
            raise HydrascopeError(
                f"{model.name} has no site {declared.site} for {declared.label}, since no norm follows its sublayers: "
                f"write {place.removeprefix('raw.')}.{block}"
            )
    if declared.outputs != outputs:
        raise HydrascopeError(
            f"{declared.label} writes {declared.outputs} numbers, and {declared.site} of {model.name} has {outputs}: "
            "it was made for another model or site"
        )
    dtype = torch.promote_types(model.dtype, torch.float32)
    dictionary = declared.to(dtype, model.device)
    if place == "transcoder":
        mlp_input = mlp_receiver(model, block)
        if declared.before_gain:
            dictionary = _fold_gain(model, dictionary, mlp_input, block)
        if declared.inputs != model.width:
            raise HydrascopeError(
                f"{declared.label} reads {declared.inputs} numbers, and the MLP of {model.name} {model.width}: it was "
                "made for another model"
            )
    factor = model.residual_scale if projection is None and home.kind != "stream" else 1.0
    return AttachedDictionary(declared, dictionary, home, factor, projection, mlp_input)


def mlp_receiver(model: "LanguageModel", block: int) -> nn.Module:
    """Return the module that receives an MLP's input."""
    anatomy = model.anatomy
    path = anatomy.mlp_in or anatomy.neurons_out.rpartition(".")[0] or anatomy.mlp_out
    return model.module_of(block, path)


def _fold_gain(model: "LanguageModel", dictionary: Dictionary, mlp_input: nn.Module, block: int) -> Dictionary:
    """Let a dictionary that reads an input before the gain of its norm read the input itself.

    The norm gives x = G x̂ + B, so that E (x̂ − p) = E G⁻¹ (x − (B + G p)).
    """
    norm = norm_before(model, mlp_input, block)
    encoder = dictionary.encoder
    gain = gain_of(norm, model.anatomy.norm_offset, encoder)
    if (gain == 0).any():
        raise HydrascopeError(
            f"{dictionary.label} reads the MLP's input before the gain of its norm, and some of the gains of "
            f"{model.name} are 0: what it read can't be told from the input"
        )
    layer_norm = model.anatomy.norm_kind == "layer"
    if dictionary.centred and not layer_norm:
        raise HydrascopeError(f"{dictionary.label} reads a centred input, and {model.name} doesn't centre its stream")
    bias = fetch(norm, "bias") if getattr(norm, "bias", None) is not None else None
    shift = encoder.new_zeros(dictionary.inputs) if bias is None else bias.to(encoder)
    skip, rest = dictionary.skip, dictionary.decoder_bias
    if skip is not None:
        skip = skip / gain
        rest = (encoder.new_zeros(dictionary.outputs) if rest is None else rest) - skip @ shift
    before = encoder.new_zeros(dictionary.inputs) if dictionary.pre_bias is None else dictionary.pre_bias
    return replace(
        dictionary,
        encoder=encoder / gain,
        pre_bias=shift + gain * before,
        skip=skip,
        decoder_bias=rest,
        centred=False,
        before_gain=False,
    )


def norm_before(model: "LanguageModel", receiver: nn.Module, block: int) -> nn.Module:
    """Return the norm that gives a module of a block its input, found in a pass of one token.

    Raises:
        HydrascopeError: there is none.
    """
    outputs: dict[nn.Module, Tensor] = {}
    received: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[module] = output.detach().clone()

    def receive(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        received.append((args[0] if args else kwargs["hidden_states"]).detach().clone())

    norms = [each for each in model.blocks[block].modules() if getattr(each, "weight", None) is not None]
    norms = [each for each in norms if isinstance(each.weight, Tensor) and each.weight.ndim == 1]
    with ExitStack() as stack, model.measuring():
        for norm in norms:
            stack.callback(norm.register_forward_hook(keep).remove)
        stack.callback(receiver.register_forward_pre_hook(receive, with_kwargs=True).remove)
        model.hf.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    for norm, output in outputs.items():
        if output.numel() == received[0].numel() and torch.equal(output.flatten(), received[0].flatten()):
            return norm
    raise HydrascopeError(
        f"no norm stands right in front of {type(receiver).__name__} in block {block} of {model.name}: neither a "
        "transcoder that reads before its gain nor slopes of edges are supported"
    )
