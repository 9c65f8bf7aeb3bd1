"""A loaded language model: its weights, tokenizer and anatomy."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydrascope.components.component import SUBLAYER_KINDS, UNIT_OF, Component
from hydrascope.components.order import stage
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.models import fingerprint
from hydrascope.models.architectures import Anatomy, anatomy_of
from hydrascope.models.attached_dictionary import AttachedDictionary, attach_dictionaries
from hydrascope.models.offload import compute_device, fetch
from hydrascope.models.projection import Projection, weight_of
from hydrascope.models.rotary import context_length, fresh_tables, table_key, varying_tables
from hydrascope.models.text import ReadsText
from hydrascope.utils.errors import HydrascopeError

#: The attribute of a transformers model that counts its active overrides (`hydrascope.override`).
OVERRIDDEN = "_hydrascope_overrides"


class LanguageModel(ReadsText):
    """A causal language model of transformers with its components.

    `hydrascope.load_model` makes one.

        >>> model = hs.load_model("phantom")
        >>> [str(head) for head in model.units(model.sublayers[0])]
        ['head.0.0', 'head.0.1', 'head.0.2', 'head.0.3']

    Attributes:
        hf: the model of transformers, which is never changed.
        tokenizer: its tokenizer; None if prompts are given as token ids.
        anatomy: its module names.
        name: the name that it was loaded by.
        revision: the hub's commit, or `sha256:…` of the weights in a local folder.
        quantization: the number format of a GGUF file's weights and of the model's; "" for other files.
        change: how the weights differ from those of the model that it is named after; "" if they don't.
        dictionaries: its dictionaries, by the sublayer that each takes apart (`with_dictionaries`).
        dictionaries_checked: whether they have passed the self-check.
        sublayers: its sublayers, attention and MLP of each block in turn.
        blocks, final_norm, unembedding: the modules.
        parallel: whether the MLP of a block reads the same residual stream as its attention.
        verified_state: the `weights_state` when the model was made or last proven.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: Any = None,
        *,
        anatomy: Anatomy | None = None,
        name: str = "",
        revision: str = "",
        quantization: str = "",
        change: str = "",
    ) -> None:
        """Find the modules of `hf`.

        Args:
            hf: the model of transformers.
            tokenizer: its tokenizer.
            anatomy: its module names; None for those declared for its architecture.
            name: a name for messages and results; by default the architecture.
            revision: the version of the weights.
            quantization: the number format of the weights in their file, if they were dequantised.
            change: how the weights differ from those of the model `name`.

        Raises:
            HydrascopeError: the architecture is unknown, or the anatomy names a module that doesn't exist.
        """
        self.hf: Any = hf
        self.tokenizer = tokenizer
        self.config = hf.config.get_text_config()
        get_unembedding: Any = hf.get_output_embeddings
        self.unembedding: Any = get_unembedding()
        if not isinstance(getattr(self.unembedding, "weight", None), Tensor):
            raise HydrascopeError(
                f"a {type(hf).__name__} predicts no tokens, since it has no unembedding: load the model with "
                "AutoModelForCausalLM"
            )
        self.anatomy = anatomy or anatomy_of(self.config.model_type, getattr(self.config, "layer_types", None) or ())
        self.name = name or self.config.model_type
        self.revision = revision
        self.quantization = quantization
        self.change = change
        self.dictionaries: dict[Component, AttachedDictionary] = {}
        self.dictionaries_checked = False
        self.blocks = list(self._module(hf, self.anatomy.blocks).children())
        self.final_norm: Any = self._final_norm(hf)
        hidden = getattr(self.config, "hidden_size", self.width)
        if hidden != self.width:
            raise HydrascopeError(
                f"{self.name} projects its residual stream of {hidden} numbers to {self.width} before the unembedding "
                "(as OPT-350M does): such models aren't supported"
            )
        self.sublayers = tuple(Component(block, kind) for block in range(len(self.blocks)) for kind in SUBLAYER_KINDS)
        self.parallel = self.anatomy.parallel(self.config)
        self.residual_scale = self.anatomy.residual_scale(self.config)
        self.logit_scale = self.anatomy.logit_scale(self.config)
        self.norm_eps = self.eps_of(self.final_norm)
        self._attention = [self._module(block, self.anatomy.attention) for block in self.blocks]
        self._outputs = {component: self._output(component) for component in self.sublayers}
        self._projections = {component: self._projection(component) for component in self.sublayers}
        self.verified_state = self.weights_state()

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {len(self.blocks)} blocks, {self.dtype}, {self.device})"

    def reattach(self) -> None:
        """Find the modules of `hf` again after a change, and forget all cached numbers.

        Raises:
            HydrascopeError: the anatomy doesn't fit the changed model.
        """
        hf, tokenizer = self.hf, self.tokenizer
        kept: dict[str, Any] = {name: getattr(self, name) for name in ("anatomy", "name", "quantization", "change")}
        dictionaries = [attached.declared for attached in self.dictionaries.values()]
        vars(self).clear()
        LanguageModel.__init__(self, hf, tokenizer, **kept)
        attach_dictionaries(self, dictionaries)

    def with_dictionaries(self, *dictionaries: Dictionary) -> "LanguageModel":
        """Return the same model with the terms of dictionaries as components.

            >>> model = hs.load_model("phantom").with_dictionaries(sae)                        # doctest: +SKIP
            >>> [str(each) for each in model.dictionaries]                                     # doctest: +SKIP
            ['mlp.1']

        The weights are shared; the model that it is called on stays without them.

        Raises:
            HydrascopeError: a dictionary has another width than its site or a site that the model lacks, or two are of
                one sublayer.
        """
        model = copy(self)
        model.dictionaries, model.dictionaries_checked = {}, False
        attach_dictionaries(model, [*(each.declared for each in self.dictionaries.values()), *dictionaries])
        return model

    @property
    def feature_counts(self) -> dict[str, int]:
        """The number of features of the dictionary at each site."""
        return {each.declared.site: each.declared.features for each in self.dictionaries.values()}

    def weights_state(self) -> tuple[Any, Any]:
        """Return fingerprints of weights and hooks, to detect changes.

        Offloaded weights, which are fetched for each pass (`offload`), are left out: a file holds them.
        """
        return fingerprint.model_state(self.hf)

    @staticmethod
    def _module(parent: nn.Module, path: str) -> nn.Module:
        try:
            return parent.get_submodule(path)
        except AttributeError as error:
            raise HydrascopeError(
                f"{type(parent).__name__} has no module {path!r}: its anatomy does not fit this model ({error})"
            ) from None

    def module_of(self, block: int, path: str) -> nn.Module:
        """Return a module of a block by its path in it.

        Raises:
            HydrascopeError: there is none.
        """
        return self._module(self.blocks[block], path)

    def _final_norm(self, hf: nn.Module) -> nn.Module:
        try:
            return self._module(hf, self.anatomy.norm)
        except HydrascopeError:
            parent, _, name = self.anatomy.norm.rpartition(".")
            if hasattr(self._module(hf, parent), name):  # it is there, and None
                raise HydrascopeError(
                    f"{self.name} has no final norm, since its norms follow the sublayers (as in OPT-350M): such "
                    "models aren't supported"
                ) from None
            raise

    def _output(self, sublayer: Component) -> nn.Module:
        block = self.blocks[sublayer.block]
        if sublayer.kind == "mlp":
            return self._module(block, self.anatomy.mlp_out)
        return self._module(block, self.anatomy.attention_out or self.anatomy.attention)

    def _projection(self, sublayer: Component) -> Projection | None:
        """Return the projection of a sublayer's units; None for a mixture of experts."""
        block, output = self.blocks[sublayer.block], self._outputs[sublayer]
        attends = sublayer.kind == "attn"
        path = self.anatomy.heads_out if attends else self.anatomy.neurons_out
        try:
            module = self._module(block, path)
        except HydrascopeError:
            if attends:
                raise
            return None  # a mixture of experts
        wrong = f"its anatomy ({self.config.model_type}) names another module"
        if _dimensions(module) != 2 or weight_of(module).shape[0] != self.width:
            raise HydrascopeError(f"{path!r} of {self.name} is no projection to {self.width} numbers: {wrong}")
        after = None if any(part is module for part in output.modules()) else output
        if after is not None and _dimensions(after) != 1:
            raise HydrascopeError(
                f"the output of {sublayer} of {self.name}, {type(after).__name__}, neither holds {path!r} nor is a "
                f"norm after it: {wrong}"
            )
        units = self.config.num_attention_heads if attends else None
        return Projection.of(
            module, after, units, self.anatomy.norm_offset, 0.0 if after is None else self.eps_of(after)
        )

    def eps_of(self, norm: nn.Module) -> float:
        """Return the epsilon of a norm, which it adds to the square of its scale.

        Raises:
            HydrascopeError: the norm has no attribute for it.
        """
        for name in ("variance_epsilon", "eps", "epsilon"):
            if hasattr(norm, name):
                return float(getattr(norm, name))
        raise HydrascopeError(f"the norm {type(norm).__name__} of {self.name} has no epsilon: it is not supported")

    def output(self, sublayer: Component) -> nn.Module:
        """Return the module of a sublayer that writes to the residual stream.

        Its output is multiplied by `residual_scale`.
        """
        return self._outputs[sublayer]

    def attention(self, block: int) -> nn.Module:
        """Return the module of a block that reads other positions."""
        return self._attention[block]

    def projection(self, sublayer: Component) -> Projection:
        """Return the projection from a sublayer's units to the residual stream.

        Raises:
            HydrascopeError: the sublayer is a mixture of experts, which has no single projection.
        """
        projection = self._projections[sublayer]
        if projection is None:
            raise HydrascopeError(f"{sublayer} of {self.name} is no dense MLP: its neurons cannot be taken apart")
        return projection

    def is_dense(self, sublayer: Component) -> bool:
        """Whether a sublayer has units; a mixture of experts has none."""
        return self._projections[sublayer] is not None

    def units(self, sublayer: Component) -> tuple[Component, ...]:
        """Return the heads or neurons of a sublayer.

        Raises:
            HydrascopeError: the sublayer is a mixture of experts, which has no units.
        """
        kind = UNIT_OF["attn" if sublayer.kind == "attn" else "mlp"]
        return tuple(Component(sublayer.block, kind, unit) for unit in range(self.projection(sublayer).units))

    def columns(self, component: Component) -> slice:
        """Return the columns of a component at its site; all of them for a sublayer."""
        if component.is_term:
            return slice(None) if component.unit < 0 else slice(component.unit, component.unit + 1)
        return self.projection(component.sublayer).columns(component.unit) if component.is_unit else slice(None)

    def site_width(self, site: Component) -> int:
        """Return the number of columns at a site."""
        if site.is_term:
            dictionary = self.dictionaries[site.sublayer].dictionary
            return dictionary.features if site.kind == "feature" else dictionary.outputs
        if site.sublayer == site:
            return self.width
        projection = self.projection(site.sublayer)
        return projection.units * projection.width

    def site_dtype(self, site: Component) -> torch.dtype:
        """Return the dtype of activations at a site; terms add up exactly only in float32 or wider."""
        return wider(self.dtype) if site.is_term else self.dtype

    def stage(self, component: Component) -> int:
        """Return the stage of a component, as `hydrascope.components.order.stage` does."""
        return stage(component, parallel=self.parallel)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Turn off dropout and gradients for the length of the context, then restore the model.

        All forward passes are made in this context.

        Raises:
            HydrascopeError: an override of the model is active, which would change what is measured.
        """
        # On the base model, which a text part shares with the model of images that it was taken from.
        if getattr(self.hf.base_model, OVERRIDDEN, 0):
            raise HydrascopeError(f"{self.name} is overridden: leave the with block of hs.override, then measure")
        training = [module for module in self.hf.modules() if module.training]
        tables = fresh_tables(self._varying_tables) if self._varying_tables else nullcontext()
        experts = self.hf.get_experts_implementation() if self._grouped_experts else None
        try:
            if training:
                self.hf.eval()
            if experts is not None:
                self.hf.set_experts_implementation("eager")
            with torch.no_grad(), tables:
                yield
        finally:
            for module in training:
                module.training = True
            if experts is not None:
                self.hf.set_experts_implementation(experts)

    @cached_property
    def _varying_tables(self) -> list[nn.Module]:
        return varying_tables(self.hf)

    def batch_key(self, length: int) -> tuple[int, ...]:
        """Return a key for a prompt of `length` tokens; prompts of one batch must have equal keys.

        transformers chooses some tables by the longest prompt of a batch (`hydrascope.models.rotary`). Prompts with
        equal keys get the tables that they would get alone. For most models all keys are equal.
        """
        return table_key(self._varying_tables, length)

    @cached_property
    def _grouped_experts(self) -> bool:
        """Whether transformers may multiply experts in groups, which doesn't support float64."""
        return bool(self.hf.dtype == torch.float64 and self.hf._can_set_experts_implementation())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        dtype: torch.dtype = self.hf.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the token embeddings, on which measured numbers are kept."""
        return compute_device(self.hf.get_input_embeddings())

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return int(self.unembedding.weight.shape[-1])

    @property
    def kv_heads(self) -> int:
        """The number of keys and values of a block, each shared by as many heads."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads)

    @property
    def vocabulary(self) -> int:
        """The number of tokens; the unembedding may have more rows than the tokenizer has tokens."""
        rows = int(self.unembedding.weight.shape[0])
        return rows if self.tokenizer is None else min(rows, len(self.tokenizer))

    @property
    def known_tokens(self) -> int:
        """The number of token ids that have both an embedding and an unembedding."""
        return min(int(self.hf.get_input_embeddings().weight.shape[0]), int(self.unembedding.weight.shape[0]))

    @cached_property
    def mean_unembedding(self) -> Float[Tensor, "width"]:
        """The mean unembedding vector, which centres the logits (Eq. 9), in float32 or wider."""
        weight = fetch(self.unembedding)
        assert weight is not None
        return weight.detach().mean(0, dtype=wider(self.dtype)).to(self.device)

    @property
    def context_length(self) -> int | None:
        """The longest prompt that the model takes, in tokens; None if there is no limit."""
        return context_length(self.config, self._varying_tables)

    def unembedded(self, normed: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows vocabulary"]:
        """Return the logits of the final norm's output, before any final soft-cap."""
        logits: Tensor = self.unembedding(normed).to(normed.device) * self.logit_scale
        return logits

    @property
    def devices(self) -> set[torch.device]:
        """The devices of the blocks, mostly one."""
        return {compute_device(self.projection(each).module) for each in self.sublayers if each.kind == "attn"}


def _dimensions(module: nn.Module) -> int:
    """Return the number of dimensions of a module's weight; 0 if it has none."""
    weight = getattr(module, "weight", None)
    return weight.ndim if isinstance(weight, Tensor) else 0


def wider(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which numbers of `dtype` are read, float32 or wider."""
    return torch.promote_types(dtype, torch.float32)
