"""The gradients of readouts with respect to what stands at sites, by autograd on the model itself."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.readouts import FINAL, Readouts
from hydrascope.models.batching import padded
from hydrascope.models.hooks import Handle, as_given, by_prompt, hooked, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: σ of the final norm at each residual stream.
Scale = Callable[[LanguageModel, Float[Tensor, "row width"]], Float[Tensor, "row"]]


@dataclass(frozen=True)
class Graph:
    """Runs of which autograd remembers how they were computed.

    Attributes:
        values: per site `[row, position, columns]`, what stands there.
        read: `[row, readout]` π̂.
        readouts: of the same rows.
    """

    values: dict[Component, Float[Tensor, "row position columns"]]
    read: Float[Tensor, "row readout"]
    readouts: Readouts

    def slopes(self, number: int) -> dict[Component, Float[Tensor, "row position columns"]]:
        """∂π̂/∂value of the readout of this number, at every site; 0 at sites above it.

        Raises:
            HydrascopeError: a site is below it, and yet no gradient comes back to it.
        """
        found: Sequence[Tensor | None] = [None] * len(self.values)
        if self.read.requires_grad:
            # A row depends on its own values alone, so the gradient of the sum over rows holds each row's own.
            above = torch.zeros_like(self.read)
            above[:, number] = 1
            found = torch.autograd.grad(
                self.read, list(self.values.values()), above, retain_graph=True, allow_unused=True
            )
        slopes = {}
        for (site, value), slope in zip(self.values.items(), found, strict=True):
            before = self.readouts.rows[number].before
            if slope is None and (before == FINAL or site.block < before):
                raise _detach(site)
            slopes[site] = torch.zeros_like(value) if slope is None else slope
        return slopes


def differentiable_scale(model: LanguageModel, residual: Float[Tensor, "row width"]) -> Float[Tensor, "row"]:
    """σ of the final norm (Eq. 8), written out: the fused kernels of `final_scale` let no gradient through."""
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
    """Run prompts of any lengths, and remember how the readouts follow from what stands at `sites`.

    Args:
        readouts: of the same prompts.
        write: from what stands at a site, `[row, position, columns]`, to what stands there instead: the computation is
            then remembered from there on only, else from the residual stream before block 0 on.
        scale: σ of the final norm.
    """
    ids, last = padded(model, tokens)
    rows = torch.arange(len(tokens), device=model.device)
    values: dict[Component, Tensor] = {}
    streams: dict[int, Tensor] = {}

    def visit(site: Component, hidden: Tensor) -> Tensor:
        value = by_prompt(hidden, len(tokens))
        values[site] = value if write is None else _start_graph(write(value))
        # A copy goes on: some blocks write into the tensors they have read.
        return as_given(values[site].clone(), hidden)

    def keep(block: int, hidden: Tensor) -> None:
        streams[block] = by_prompt(hidden, len(tokens))[rows, last]

    def hooks() -> Iterator[Handle]:
        if write is None:
            yield on_input(model.blocks[0], lambda hidden: _start_graph(hidden).clone())
        for block in readouts.blocks:
            yield on_input(model.blocks[block], partial(keep, block))
        yield on_input(model.final_norm, partial(keep, FINAL))
        for site in sites:
            yield on_site(model, site, partial(visit, site))

    with _remembering(model), hooked(hooks()):
        model.hf.base_model(input_ids=ids, use_cache=False)
        return Graph(values, _read(model, readouts, streams, scale), readouts)


def require_gradients(model: LanguageModel, tokens: Sequence[int]) -> None:
    """Refuse a model in which no gradient goes through some layer, on one prompt.

    Raises:
        HydrascopeError: the gradient of what a layer writes, with respect to what enters its block, isn't there; or
            blocks are on several devices.
    """
    if len(model.devices) > 1:
        devices = " and ".join(sorted(map(str, model.devices)))
        raise HydrascopeError(
            f"the blocks of {model.name} are on {devices}: attribution needs one device; load it with offload"
        )
    entering: dict[int, Tensor] = {}
    written: dict[Component, Tensor] = {}

    def enter(block: int, hidden: Tensor) -> Tensor:
        entering[block] = _start_graph(hidden) if block == 0 else hidden
        return entering[block].clone()

    def hooks() -> Iterator[Handle]:
        for block, module in enumerate(model.blocks):
            yield on_input(module, partial(enter, block))
        for sublayer in model.sublayers:
            yield on_output(model.output(sublayer), partial(_keep, written, sublayer))

    with _remembering(model), hooked(hooks()):
        model.hf.base_model(input_ids=torch.tensor([list(tokens)], device=model.device), use_cache=False)
        for layer, output in written.items():
            if not output.requires_grad:
                raise _detach(layer)
            try:
                found = torch.autograd.grad(output.sum(), entering[layer.block], retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                raise _detach(layer, f" ({error})") from error
            if found[0] is None:
                raise _detach(layer)


def _keep(written: dict[Component, Tensor], sublayer: Component, hidden: Tensor) -> Tensor:
    written[sublayer] = hidden
    return hidden.clone()


def _start_graph(hidden: Tensor) -> Tensor:
    """`hidden`, as what a graph starts from."""
    return hidden.detach().requires_grad_()


def _detach(component: Component, why: str = "") -> HydrascopeError:
    return HydrascopeError(
        f"no gradient goes through {component}{why}: attribution needs modules that PyTorch can differentiate; measure "
        "its effects with sweep"
    )


@contextmanager
def _remembering(model: LanguageModel) -> Iterator[None]:
    """As `model.measuring`, with gradients: of activations, never of weights."""
    # By name: what is fetched when its module runs is another object afterwards.
    trained = [name for name, parameter in model.hf.named_parameters() if parameter.requires_grad]
    try:
        for name in trained:
            model.hf.get_parameter(name).requires_grad_(False)
        with model.measuring(), torch.enable_grad():
            yield
    finally:
        for name in trained:
            model.hf.get_parameter(name).requires_grad_(True)


def _read(
    model: LanguageModel, readouts: Readouts, streams: dict[int, Float[Tensor, "row width"]], scale: Scale
) -> Float[Tensor, "row readout"]:
    each = []
    for readout in readouts.rows:
        stream = streams[readout.before].to(readout.direction.dtype)
        read = (stream * readout.direction).sum(-1)
        each.append(read if readout.before != FINAL else read / scale(model, stream) + readout.constant)
    return torch.stack(each, -1)
