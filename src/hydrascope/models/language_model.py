"""A loaded language model: the weights, the tokenizer and the anatomy, as the engines need them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydrascope.components.component import SUBLAYER_KINDS, UNIT_OF, Component, stage
from hydrascope.models import fingerprint
from hydrascope.models.architectures import Anatomy, anatomy_of
from hydrascope.models.offload import compute_device, fetch
from hydrascope.models.projection import Projection, weight_of
from hydrascope.models.rotary import fresh_tables, stretch, table_key, varying_tables
from hydrascope.utils.errors import HydrascopeError


class LanguageModel:
    """A causal language model of transformers, with its parts found; `hydrascope.load_model` is the way to one.

    Attributes:
        hf: the model of transformers, which stays as it is.
        tokenizer: its tokenizer; None where prompts are given as token ids.
        anatomy: where its parts are.
        name: what it was loaded as.
        revision: the hub's commit, or `sha256:…` of a local folder's weights.
        sublayers: its layers, attention and MLP in turn.
        blocks, final_norm, unembedding: the modules.
        parallel: whether a block's MLP reads the same residual stream as its attention.
        verified_state: how it stood when it was found, or last proven (`weights_state`).
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: Any = None,
        *,
        anatomy: Anatomy | None = None,
        name: str = "",
        revision: str = "",
    ) -> None:
        """Find the parts of `hf`.

        Raises:
            HydrascopeError: the architecture is unknown, or a part isn't where its anatomy says.
        """
        self.hf: Any = hf
        self.tokenizer = tokenizer
        self.config = hf.config.get_text_config()
        self.anatomy = anatomy or anatomy_of(self.config.model_type)
        self.name = name or self.config.model_type
        self.revision = revision
        self.blocks = list(self._part(hf, self.anatomy.blocks).children())
        self.final_norm: Any = self._part(hf, self.anatomy.norm)
        self.unembedding: Any = hf.get_output_embeddings()
        if self.unembedding is None:
            raise HydrascopeError(
                f"a {type(hf).__name__} predicts no tokens: give a causal language model, as AutoModelForCausalLM makes"
            )
        self.sublayers = tuple(Component(block, kind) for block in range(len(self.blocks)) for kind in SUBLAYER_KINDS)
        self.parallel = self.anatomy.parallel(self.config)
        self.residual_scale = self.anatomy.residual_scale(self.config)
        self.logit_scale = self.anatomy.logit_scale(self.config)
        self.norm_eps = self.eps_of(self.final_norm)
        self._attention = [self._part(layer, self.anatomy.attention) for layer in self.blocks]
        self._outputs = {component: self._output(component) for component in self.sublayers}
        self._projections = {component: self._projection(component) for component in self.sublayers}
        self.verified_state = self.weights_state()

    def __repr__(self) -> str:
        return f"LanguageModel({self.name!r}, {len(self.blocks)} blocks, {self.dtype}, {self.device})"

    def reattach(self) -> None:
        """Find the parts of `hf` again, once it was changed, and forget what was computed from its weights.

        Raises:
            HydrascopeError: as when it was found first.
        """
        hf, tokenizer, anatomy, name = self.hf, self.tokenizer, self.anatomy, self.name
        vars(self).clear()
        LanguageModel.__init__(self, hf, tokenizer, anatomy=anatomy, name=name)

    def weights_state(self) -> tuple[Any, Any]:
        """What differs once a weight is changed, however, or replaced or moved; what does once a hook comes or goes.

        Weights that are fetched for each pass (`offload`) are a file's.
        """
        weights = [each for each in self.hf.parameters() if not each.is_meta]
        hooks = {
            number: (*_foreign(each._forward_hooks), *_foreign(each._forward_pre_hooks), vars(each).get("forward"))
            for number, each in enumerate(self.hf.modules())
        }
        return (
            [(each.data_ptr(), each.dtype, fingerprint.weight_sums(each)) for each in weights],
            {number: each for number, each in hooks.items() if each != (None,)},
        )

    @staticmethod
    def _part(parent: nn.Module, path: str) -> nn.Module:
        try:
            return parent.get_submodule(path)
        except AttributeError as error:
            raise HydrascopeError(
                f"{type(parent).__name__} has no part {path!r}: its anatomy does not fit this model ({error})"
            ) from None

    def _output(self, sublayer: Component) -> nn.Module:
        block = self.blocks[sublayer.block]
        if sublayer.kind == "mlp":
            return self._part(block, self.anatomy.mlp_out)
        return self._part(block, self.anatomy.attention_out or self.anatomy.attention)

    def _projection(self, sublayer: Component) -> Projection | None:
        """How the units of `layer` write to the residual stream; None where it has none that can be told apart."""
        block, output = self.blocks[sublayer.block], self._outputs[sublayer]
        attends = sublayer.kind == "attn"
        path = self.anatomy.heads_out if attends else self.anatomy.neurons_out
        try:
            module = self._part(block, path)
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
        """What a norm of this model adds to the square of its scale.

        Raises:
            HydrascopeError: it doesn't say.
        """
        for name in ("variance_epsilon", "eps", "epsilon"):
            if hasattr(norm, name):
                return float(getattr(norm, name))
        raise HydrascopeError(f"the norm {type(norm).__name__} of {self.name} has no epsilon")

    def output(self, sublayer: Component) -> nn.Module:
        """The module whose output, times `residual_scale`, a layer adds to the residual stream."""
        return self._outputs[sublayer]

    def attention(self, block: int) -> nn.Module:
        """The module of block `layer` that reads other positions."""
        return self._attention[block]

    def projection(self, sublayer: Component) -> Projection:
        """How the heads or neurons of `layer` write to the residual stream.

        Raises:
            HydrascopeError: it is a mixture of experts, whose neurons write through no one projection.
        """
        found = self._projections[sublayer]
        if found is None:
            raise HydrascopeError(f"{sublayer} of {self.name} is no dense MLP: its neurons cannot be taken apart")
        return found

    def is_dense(self, sublayer: Component) -> bool:
        """Whether the heads or neurons of `layer` can be told apart."""
        return self._projections[sublayer] is not None

    def units(self, sublayer: Component) -> tuple[Component, ...]:
        """The heads or neurons of `layer`.

        Raises:
            HydrascopeError: as `projection`.
        """
        kind = UNIT_OF["attn" if sublayer.kind == "attn" else "mlp"]
        return tuple(Component(sublayer.block, kind, unit) for unit in range(self.projection(sublayer).units))

    def columns(self, component: Component) -> slice:
        """Which columns of what stands at its site are the value of `component`: all of a layer's."""
        return self.projection(component.sublayer).columns(component.unit) if component.is_unit else slice(None)

    def site_width(self, site: Component) -> int:
        """How many columns stand at a site."""
        if site.sublayer == site:
            return self.width
        projection = self.projection(site.sublayer)
        return projection.units * projection.width

    def stage(self, component: Component) -> int:
        """When `component` computes, as `hydrascope.components.component.stage`."""
        return stage(component, parallel=self.parallel)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Everything that is computed on the model happens in here: without dropout and gradients.

        The model comes back as it was.
        """
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
        """Return a key that all prompts of one batch must share, from the `length` of a prompt in tokens.

        transformers decides some things by the longest prompt of a batch (`hydrascope.models.rotary`): prompts with
        equal keys get there what they get alone. For most models all keys are equal.
        """
        return table_key(self._varying_tables, length)

    @cached_property
    def _grouped_experts(self) -> bool:
        """Whether experts would be multiplied in groups, which is for narrower numbers than float64 only."""
        return self.hf.dtype == torch.float64 and self.hf._can_set_experts_implementation()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.hf.dtype

    @property
    def device(self) -> torch.device:
        """Where token ids enter the model, and what is measured stays."""
        return compute_device(self.hf.get_input_embeddings())

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return int(self.unembedding.weight.shape[-1])

    @property
    def vocabulary(self) -> int:
        """How many tokens there are: the unembedding may have rows beyond the tokenizer's."""
        rows = int(self.unembedding.weight.shape[0])
        return rows if self.tokenizer is None else min(rows, len(self.tokenizer))

    @property
    def known_tokens(self) -> int:
        """How many token ids it both reads and predicts, whatever its configuration says."""
        return min(int(self.hf.get_input_embeddings().weight.shape[0]), int(self.unembedding.weight.shape[0]))

    @cached_property
    def mean_unembedding(self) -> Float[Tensor, "width"]:
        """mean_j W_U[:, j], which centres the logits (Eq. 9), in float32 or wider."""
        weight = fetch(self.unembedding)
        assert weight is not None
        return weight.detach().mean(0, dtype=wider(self.dtype)).to(self.device)

    @property
    def context_length(self) -> int | None:
        """The longest prompt that the model takes, in tokens; None where it sets no limit."""
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if getattr(self.config, name, None) is not None:
                return int(getattr(self.config, name) * stretch(self._varying_tables))
        return None

    def unembedded(self, normed: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows vocabulary"]:
        """The logits of what the final norm gives, before any final soft-cap."""
        return self.unembedding(normed).to(normed.device) * self.logit_scale

    @property
    def devices(self) -> set[torch.device]:
        """The devices that blocks compute on: most often one."""
        return {
            compute_device(self.projection(sublayer).module) for sublayer in self.sublayers if sublayer.kind == "attn"
        }

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, as the tokenizer makes them by default, special tokens included.

        What the tokenizer appends is left out, since a prompt is read at its last token; and a text that begins with
        the beginning-of-text token gets no second one.
        """
        # Of what is too long, transformers would warn; the caller refuses it.
        ids = list(self._tokenizer(text, verbose=False)["input_ids"])
        return ids[self._own(text, ids)]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of `text`, as `encode` makes them, and the characters of each: first, and end.

            model.encode_with_offsets("The capital")  # ([0, 306, 490], [(0, 0), (0, 3), (3, 11)])

        A special token stands for none. Some tokenizers count the space before a word, as here, others don't.

        Raises:
            HydrascopeError: the tokenizer doesn't keep them.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise HydrascopeError(
                f"the tokenizer of {self.name} does not say where its tokens stand: give positions by number, or take "
                "a model with a fast tokenizer (tokenizer.json)"
            )
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        own = self._own(text, list(encoded["input_ids"]))
        return list(encoded["input_ids"])[own], [(start, end) for start, end in encoded["offset_mapping"]][own]

    def _own(self, text: str, ids: list[int]) -> slice:
        """Return the part of `ids` that `encode` keeps."""
        bos, begin = self._tokenizer.bos_token, self._tokenizer.bos_token_id
        twice = bos is not None and text.startswith(bos) and ids[:2] == [begin, begin]
        appended = len(self.appended) if self.appended and tuple(ids[-len(self.appended) :]) == self.appended else 0
        return slice(int(twice), len(ids) - appended)

    @cached_property
    def appended(self) -> tuple[int, ...]:
        """The tokens that the tokenizer appends to every text; none for most, and none without a tokenizer."""
        if self.tokenizer is None:
            return ()
        whole = list(self.tokenizer("a")["input_ids"])
        own = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        places = [start for start in range(len(whole) - len(own) + 1) if whole[start : start + len(own)] == own]
        return tuple(whole[places[0] + len(own) :]) if own and places else ()

    def decode(self, token: int) -> str:
        """The text of one token, with the spaces before it.

        SentencePiece marks these by ▁, and its decoding drops the first one of a text.
        """
        text, piece = str(self._tokenizer.decode([token])), str(self._tokenizer.convert_ids_to_tokens(token))
        spaces = len(piece) - len(piece.lstrip("▁"))
        return " " * spaces + text.lstrip(" ") if spaces else text

    @property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise HydrascopeError(f"the model {self.name} was made without a tokenizer: give token ids")
        return self.tokenizer


def _dimensions(module: nn.Module) -> int:
    """Of a module's weight; 0 where it has none."""
    weight = getattr(module, "weight", None)
    return weight.ndim if isinstance(weight, Tensor) else 0


def wider(dtype: torch.dtype) -> torch.dtype:
    """The dtype that numbers of `dtype` are read in: never less than float32."""
    return torch.promote_types(dtype, torch.float32)


def _foreign(hooks: Mapping[int, Any]) -> list[int]:
    """The hooks that aren't hydrascope's own, which come and go with what is measured."""
    functions = {number: getattr(hook, "func", hook) for number, hook in hooks.items()}
    return [number for number, each in functions.items() if not str(each.__module__).startswith("hydrascope.")]
