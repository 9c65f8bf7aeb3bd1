"""Measure how far ablations push the residual stream from where clean runs are.

μ and s are the mean and the standard deviation of each dimension of the residual stream after a block, over the clean
runs of all prompts but the measured one and the patch's source. The distance of a stream x is d(x) = mean over
dimensions of ((x − μ)/s)².
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from hydrascope.ablations.ablation import Ablation, draw_patches
from hydrascope.ablations.same_size import SameSize
from hydrascope.components.selection import Selection
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.interface import Request
from hydrascope.engines.readouts import Readouts
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.assemble import initial_dataset
from hydrascope.runs.batches import batches, compute_clean_activations
from hydrascope.runs.config import AnalysisOptions, SweepConfig
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.sweep import sweep, tell
from hydrascope.storage.reader import split_range
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress

#: The fewest other prompts from which a distribution is estimated.
FEWEST = 20
#: A dimension whose standard deviation is at most this share of its mean size is left out.
CONSTANT = 1e-6


@takes_any_model
def distance(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection = "layers",
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure the distance of ablated residual streams from the clean ones, after each block.

        >>> found = hs.analyses.distance(model, prompts, hs.Zero(), ablate="attn")             # doctest: +SKIP
        >>> found["kick"].dims                                                                 # doctest: +SKIP
        ('prompt', 'ablated', 'block')

    A distance as small as a clean run's doesn't mean that a stream is natural: zero and mean take variance away. So
    `rank` and `kick` stand beside it, and the effects of a control, `hs.ablations.SameSize(ablation)`: a random
    direction of the same size at the same place.

    Args:
        model: the model.
        prompts: as for `sweep`, at least 21 besides a patch's source.
        ablation: as for `sweep`.
        ablate: the ablations, one by one or several components at once.
        options: as for `sweep`; the readouts are those of the control.

    Returns:
        means over patches, at each prompt's last position; block l is after l blocks, the last what the final norm
        reads:

        - `relative` [prompt, ablated, block]: d of the ablated stream over d of the prompt's own clean stream;
        - `rank` [prompt, ablated, block]: the share of clean runs whose d lies at least as far from the clean median,
          in log; 1 is typical, 0 unlike any;
        - `kick` [prompt, ablated, block]: half the mean of the squared change in units of s; 0 is untouched, 1 as far
          apart as two prompts;
        - `constant` [block]: the number of dimensions that don't vary and are left out;
        - `control_total` and `control_direct` [readout, prompt, ablated]: effects of the control;
        - `first_block` [ablated]: the block after the first ablated component's.

    Raises:
        HydrascopeError: there are too few prompts, something is frozen, or as `sweep`.
    """
    chosen = {name: value for name, value in options.items() if name not in ("batch_size", "progress")}
    plan = make_plan(model, prompts, ablation, SweepConfig(ablate=ablate, **chosen))  # type: ignore[arg-type]
    tell([*plan.notices, *plan.dictionary_notices], None)
    if len(plan.tokens) < FEWEST + 2:
        raise HydrascopeError(
            f"a distance compares a prompt with {FEWEST} others, besides the patch's source, and there are "
            f"{len(plan.tokens)} prompts: give at least {FEWEST + 2}"
        )
    for override in plan.overrides:
        if override.frozen:
            raise HydrascopeError(f"{override} freezes {override.frozen[0]}: name only what is ablated")
    batch = plan.batch(options.get("batch_size", "auto"))
    chunks = split_range(len(plan.tokens), batch.prompts * 4)
    clean = compute_clean_activations(plan, batch, chunks)
    each = [indices for chunk in chunks for indices in batches(plan, chunk, batch.prompts)]
    spreads = [Spread(streams) for streams in _clean_streams(plan, each)]
    shape = (len(plan.tokens), len(plan.overrides), len(model.blocks))
    found = {name: np.zeros(shape) for name in ("relative", "rank", "kick")}
    with show_progress(len(plan.tokens), 0, options.get("progress", False)) as advance:
        for indices in each:
            patches = draw_patches(plan.ablation, clean, indices)

            def visit(
                block: int,
                before: torch.Tensor,
                after: torch.Tensor,
                indices: Sequence[int] = indices,
                sources: np.ndarray = patches.sources,
            ) -> None:
                measured = spreads[block - 1].measure(indices, sources, _numpy(before), _numpy(after))
                for name, values in measured.items():
                    found[name][indices, :, block - 1] = values

            request = Request(
                [plan.tokens[index] for index in indices],
                torch.from_numpy(clean.padded_positions(indices)),
                plan.overrides,
                plan.ablation.patches,
                patches.values,
                (),
                Readouts(()),
                (),
                torch.tensor([clean.targets[index] for index in indices]),
                plan.routines,
            )
            plan.engine.visit_streams(model, request, visit)
            advance(len(indices))
    control = sweep(model, plan.prompts, SameSize(plan.ablation), ablate=ablate, keep="effects", **options)
    return _assemble(plan, initial_dataset(plan, clean), found, spreads, control)


@dataclass(frozen=True)
class Spread:
    """The spread of clean residual streams after one block, in float64.

    Attributes:
        streams: `[prompt, width]` the streams.
    """

    streams: Float[np.ndarray, "prompt width"]

    @cached_property
    def total(self) -> Float[np.ndarray, "width"]:
        """The sum of the streams."""
        return np.asarray(self.streams.sum(0))

    @cached_property
    def centre(self) -> Float[np.ndarray, "width"]:
        """The mean of the streams."""
        return np.asarray(self.streams.mean(0))

    @cached_property
    def square(self) -> Float[np.ndarray, "width"]:
        """The sum of squares about the mean."""
        return np.asarray(((self.streams - self.centre) ** 2).sum(0))

    @cached_property
    def size(self) -> Float[np.ndarray, "width"]:
        """The mean absolute value."""
        return np.asarray(abs(self.streams).mean(0))

    @cached_property
    def distances(self) -> Float[np.ndarray, "prompt"]:
        """The distance of each clean stream from the others."""
        return np.array([float(self.distance(each, np.array([index]))) for index, each in enumerate(self.streams)])

    @property
    def constant(self) -> int:
        """The number of dimensions that don't vary."""
        deviation = np.sqrt(self.square / (len(self.streams) - 1))
        return int((deviation <= CONSTANT * self.size).sum())

    def of_others(
        self, left_out: Int[np.ndarray, "several"]
    ) -> tuple[Float[np.ndarray, "dimension"], Float[np.ndarray, "dimension"], np.ndarray]:
        """Return mean and standard deviation over all prompts but some, where they vary.

        Args:
            left_out: the indices of prompts; −1 stands for none.
        """
        out = self.streams[np.unique(left_out[left_out >= 0])]
        count = len(self.streams) - len(out)
        mean = (self.total - out.sum(0)) / count
        # Moments are taken about the mean of all, so that squares of large numbers don't cancel.
        square = self.square - ((out - self.centre) ** 2).sum(0) - count * (mean - self.centre) ** 2
        deviation = np.sqrt(np.maximum(square, 0) / (count - 1))
        varies = deviation > CONSTANT * self.size
        return mean[varies], deviation[varies], varies

    def distance(
        self, streams: Float[np.ndarray, "*rows width"], left_out: Int[np.ndarray, "several"]
    ) -> Float[np.ndarray, "*rows"]:
        """Return the distance of streams from the clean runs of all prompts but some."""
        mean, deviation, varies = self.of_others(left_out)
        return np.asarray((((streams[..., varies] - mean) / deviation) ** 2).mean(-1))

    def measure(
        self,
        indices: Sequence[int],
        sources: Int[np.ndarray, "prompt patch"],
        before: Float[np.ndarray, "prompt width"],
        after: Float[np.ndarray, "prompt ablated patch width"],
    ) -> dict[str, Float[np.ndarray, "prompt ablated"]]:
        """Return `relative`, `rank` and `kick` of some prompts, means over patches.

        Args:
            indices: the prompts.
            sources: the prompt of each patch, −1 for none.
            before: the clean streams of the prompts, of the same pass.
            after: the streams of all rows.
        """
        logs = np.log(self.distances)
        median = np.median(logs)
        offs = np.sort(abs(logs - median))
        found = {name: np.zeros(after.shape[:3]) for name in ("relative", "rank", "kick")}
        for row, index in enumerate(indices):
            for patch in range(after.shape[2]):
                left_out = np.array([index, sources[row, patch]])
                mean, deviation, varies = self.of_others(left_out)
                own, streams = before[row, varies], after[row, :, patch][:, varies]
                distances = (((streams - mean) / deviation) ** 2).mean(-1)
                found["relative"][row, :, patch] = distances / (((own - mean) / deviation) ** 2).mean()
                found["kick"][row, :, patch] = (((streams - own) / deviation) ** 2).mean(-1) / 2
                off = abs(np.log(np.maximum(distances, np.finfo(float).tiny)) - median)
                # Rounding must not make a clean run less typical than itself.
                found["rank"][row, :, patch] = 1 - np.searchsorted(offs, off * (1 - 1e-6)) / len(offs)
        return {name: values.mean(2) for name, values in found.items()}


def _clean_streams(plan: Plan, each: Sequence[Sequence[int]]) -> Float[np.ndarray, "block prompt width"]:
    """Return the residual streams after each block, at each prompt's last position."""
    model = plan.model
    streams = np.zeros((len(model.blocks), len(plan.tokens), model.width))
    with torch.no_grad():
        for indices in each:
            found = compute_clean_pass(model, [plan.tokens[index] for index in indices])
            written = found.written(model).double().unflatten(1, (len(model.blocks), -1)).sum(2)
            after = found.embed.double()[:, None] + written.cumsum(1)
            after[:, -1] = found.final.double()
            streams[:, indices] = _numpy(after).swapaxes(0, 1)
    return streams


def _assemble(
    plan: Plan, base: xr.Dataset, found: dict[str, np.ndarray], spreads: Sequence[Spread], control: xr.Dataset
) -> xr.Dataset:
    """Return the dataset of `distance`."""
    dims = ("prompt", "ablated", "block")
    first = [1 + min(component.block for component in override.ablated) for override in plan.overrides]
    effects = {
        f"control_{name}": control[name].mean("patch", dtype=np.float64).variable for name in ("total", "direct")
    }
    variables = {**{name: (dims, values) for name, values in found.items()}, **effects}
    kept = [
        name
        for name in ("ablated", "ablated_kind", "ablated_block", "readout", "text", "target_text")
        if name in base.coords
    ]
    coords = {name: base[name].variable for name in kept}
    attrs = {name: value for name, value in base.attrs.items() if name not in ("read", "keep", "readouts")}
    return xr.Dataset(
        {**variables, "constant": ("block", np.array([spread.constant for spread in spreads]))}, coords, attrs
    ).assign_coords(block=np.arange(1, len(spreads) + 1), first_block=("ablated", np.array(first)))


def _numpy(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu())
