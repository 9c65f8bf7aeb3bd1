"""Gradients of readouts with respect to activations, by autograd on the model itself."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.readouts import FINAL, Readouts
from hydrascope.models.batching import padded
from hydrascope.models.gradients import start_graph, with_gradients
from hydrascope.models.hooks import (
    Handle,
    as_given,
    by_prompt,
    hooked,
    on_input,
    on_output,
    on_site,
)
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: A function that returns σ of the final norm at each residual stream.
Scale = Callable[[LanguageModel, Float[Tensor, "row width"]], Float[Tensor, "row"]]


@dataclass(frozen=True)
class Graph:
    """Passes with the graph that autograd needs to differentiate them.

    Attributes:
        values: the activations of each site, `[row, position, columns]`.
        read: π̂ `[row, readout]`.
        readouts: the readouts of the same rows.
    """

    values: dict[Component, Float[Tensor, "row position columns"]]
    read: Float[Tensor, "row readout"]
    readouts: Readouts

    def slopes(self, number: int) -> dict[Component, Float[Tensor, "row position columns"]]:
        """Return ∂π̂/∂activation at every site for one readout; 0 at sites above the readout.

        Args:
            number: the number of the readout.

        Raises:
            HydrascopeError: a site is below the readout, and yet no gradient reaches it.
        """
        gradients: Sequence[Tensor | None] = [None] * len(self.values)
        if self.read.requires_grad:
            # Rows are independent, so the gradient of the sum over rows is the gradient of each row.
            above = torch.zeros_like(self.read)
            above[:, number] = 1
            gradients = torch.autograd.grad(
                self.read, list(self.values.values()), above, retain_graph=True, allow_unused=True
            )
        slopes = {}
        for (site, value), slope in zip(self.values.items(), gradients, strict=True):
            before = self.readouts.rows[number].before
            if slope is None and (before == FINAL or site.block < before):
                raise _no_gradient(site)
            slopes[site] = torch.zeros_like(value) if slope is None else slope
        return slopes


def differentiable_scale(model: LanguageModel, residual: Float[Tensor, "row width"]) -> Float[Tensor, "row"]:
    """Return σ of the final norm (Eq. 8), differentiably.

    The fused kernels of `final_scale` pass no gradient.
    """
    if model.anatomy.norm_kind == "layer":
        residual = residual - residual.mean(-1, keepdim=True)
    return (residual.square().mean(-1) + model.norm_eps).sqrt()


def record_graph(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    readouts: Readouts,
    sites: Collection[Component],
    write: Callable[[Tensor], Tensor] | None = None,
    scale: Scale = differentiable_scale,
) -> Graph:
    """Run prompts of any lengths; record how readouts depend on the activations at sites.

    Args:
        model: the model.
        tokens: the token ids of each prompt.
        readouts: the readouts of the same prompts.
        sites: the sites.
        write: maps the activations of a site, `[row, position, columns]`, to those that replace them. Then the graph
            starts at the sites, else at the residual stream before block 0.
        scale: σ of the final norm.
    """
    ids, last = padded(model, tokens)
    rows = torch.arange(len(tokens), device=model.device)
    values: dict[Component, Tensor] = {}
    streams: dict[int, Tensor] = {}

    def visit(site: Component, hidden: Tensor) -> Tensor:
        value = by_prompt(hidden, len(tokens))
        values[site] = value if write is None else start_graph(write(value))
        # Return a copy: some blocks write into their input.
        return as_given(values[site].clone(), hidden)

    def keep(block: int, hidden: Tensor) -> None:
        streams[block] = by_prompt(hidden, len(tokens))[rows, last]

    def hooks() -> Iterator[Handle]:
        if write is None:
            yield on_input(model.blocks[0], lambda hidden: start_graph(hidden).clone())
        for block in readouts.blocks:
            yield on_input(model.blocks[block], partial(keep, block))
        yield on_input(model.final_norm, partial(keep, FINAL))
        for site in sites:
            yield on_site(model, site, partial(visit, site))

    with with_gradients(model), hooked(hooks()):
        model.hf.base_model(input_ids=ids, use_cache=False)
        return Graph(values, read_streams(model, readouts, streams, scale), readouts)


def require_gradients(model: LanguageModel, tokens: Sequence[int]) -> None:
    """Refuse a model in which no gradient goes through a sublayer, by a pass on one prompt.

    Raises:
        HydrascopeError: a sublayer's output has no gradient with respect to its block's input; or the blocks are on
            several devices.
    """
    if len(model.devices) > 1:
        devices = " and ".join(sorted(map(str, model.devices)))
        raise HydrascopeError(
            f"the blocks of {model.name} are on {devices}: attribution needs one device; load it with offload"
        )
    if any(parameter.is_inference() for parameter in model.hf.parameters()):
        raise HydrascopeError(
            f"the weights of {model.name} were made under torch.inference_mode, through which no gradient goes: load "
            "the model outside of it"
        )
    entering: dict[int, Tensor] = {}
    written: dict[Component, Tensor] = {}

    def enter(block: int, hidden: Tensor) -> Tensor:
        entering[block] = start_graph(hidden) if block == 0 else hidden
        return entering[block].clone()

    def hooks() -> Iterator[Handle]:
        for block, module in enumerate(model.blocks):
            yield on_input(module, partial(enter, block))
        for sublayer in model.sublayers:
            yield on_output(model.output(sublayer), partial(_keep, written, sublayer))

    with with_gradients(model), hooked(hooks()):
        model.hf.base_model(input_ids=torch.tensor([list(tokens)], device=model.device), use_cache=False)
        for sublayer, output in written.items():
            if not output.requires_grad:
                raise _no_gradient(sublayer)
            try:
                found = torch.autograd.grad(
                    output.sum(), entering[sublayer.block], retain_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                raise _no_gradient(sublayer, f" ({error})") from error
            if found[0] is None:
                raise _no_gradient(sublayer)


def _keep(written: dict[Component, Tensor], sublayer: Component, hidden: Tensor) -> Tensor:
    written[sublayer] = hidden
    return hidden.clone()


def _no_gradient(component: Component, why: str = "") -> HydrascopeError:
    return HydrascopeError(
        f"no gradient goes through {component}{why}: attribution needs modules that PyTorch can differentiate; measure "
        "its effects with sweep"
    )


def read_streams(
    model: LanguageModel,
    readouts: Readouts,
    streams: dict[int, Float[Tensor, "row width"]],
    scale: Scale = differentiable_scale,
) -> Float[Tensor, "row readout"]:
    """Return readouts of residual streams, differentiably."""
    columns = []
    for readout in readouts.rows:
        stream = streams[readout.before].to(readout.direction.dtype)
        read = (stream * readout.direction).sum(-1)
        columns.append(read if readout.before != FINAL else read / scale(model, stream) + readout.constant)
    return torch.stack(columns, -1)
