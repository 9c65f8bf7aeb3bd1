"""Give activations and writes of components, clean and ablated, to probes and other tools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from hydrascope._version import __version__
from hydrascope.ablations.ablation import Ablation, Zero, draw_patches
from hydrascope.components.component import Component
from hydrascope.components.selection import Selection, select_components
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.interface import Request
from hydrascope.engines.readouts import Readouts
from hydrascope.engines.reference.engine import ablated_activations
from hydrascope.loading import self_check
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.prompts.positions import At, format_positions, resolve_positions
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.prompts.token_ids import texts
from hydrascope.runs.batches import compute_clean_activations
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.sweep import Say, tell
from hydrascope.storage.activation_file import open_activations, require_new_file, writing
from hydrascope.storage.reader import split_range
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress

#: `activation`, what stands at the component's site; `write`, what it adds to the residual stream.
Kept = Literal["activation", "write"]
KEPT: tuple[Kept, ...] = ("activation", "write")

_LONG_NAMES = {
    "activation": "activation of the component",
    "write": "what the component adds to the residual stream",
}
_AFTER = ", after the ablation"


@takes_any_model
def activations(
    model: LanguageModel,
    prompts: AnyPrompts,
    components: Selection = "layers",
    *,
    at: At = "last",
    ablation: Ablation | None = None,
    ablate: Selection | None = None,
    ablate_at: At = "last",
    keep: Sequence[Kept] = KEPT,
    batch_size: int = 16,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
    say: Say | None = None,
) -> xr.Dataset:
    """Return the activations and writes of components on every prompt, clean and ablated.

        >>> found = hs.activations(model, prompts, "mlp", ablation=hs.Zero(), ablate="attn.3")
        >>> found["write"].dims, found["write_ablated"].dims[:3]
        (('prompt', 'slot', 'component', 'width'), ('prompt', 'ablated', 'patch'))

    Args:
        model: the model.
        prompts: as for `sweep`.
        components: what is read, of one width: sublayers, heads, or neurons.
        at: the positions where it is read: `last`, `all`, `subject`, `subject-last`, a number, or several.
        ablation: what ablated components write instead; None for clean activations alone.
        ablate: the components ablated, one by one or several at once, as for `sweep`.
        ablate_at: the positions of the ablation.
        keep: what is kept: `activation`, `write`, or both.
        batch_size: prompts that are run at a time.
        out: a file that ends in .safetensors, which is written as the prompts are run; the dataset then reads from it
            what is used. By default everything is in memory.
        overwrite: whether to replace an existing file.
        progress: show progress on standard error.
        say: takes each line about the prompts; by default notices are warnings. Prompts with the same tokens are left
            out, so that there may be fewer than were given: `text` says which there are.

    Returns:
        These variables, in the model's dtype or, if that is narrower, float32:

        - `activation` [prompt, slot, component, column]: what stands at the component's site, as an ablation
          overrides it: a sublayer's output, a head's columns of the projection's input, a neuron's value.
        - `write` [prompt, slot, component, width]: what the component adds to the residual stream. In rows that ablate
          its whole sublayer a head or neuron has what it would have added: nothing of it reaches the stream.
        - `activation_ablated`, `write_ablated` [prompt, ablated, patch, slot, component, …]: the same in ablated rows.

        A slot is one of the positions; the coordinate `position` [prompt, slot] says which, counted from 0. A prompt
        with fewer has −1 and NaN at its last slots. `token` [prompt, slot] is the token's id.

    Raises:
        HydrascopeError: the components are of several widths, an option or a prompt is wrong, or `out` can't be
            written.
    """
    path = None if out is None else require_new_file(out, overwrite=overwrite)
    if (ablation is None) != (ablate is None):
        raise HydrascopeError("ablation and ablate belong together: give both, or neither for clean activations alone")
    if not keep or not set(keep) <= set(KEPT):
        raise HydrascopeError(f"unknown keep {list(keep)}: choose activation, write, or both")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise HydrascopeError(f"a batch of {batch_size!r} prompts: ask for at least 1")
    # Without an ablation the plan is only that of the prompts.
    plan = make_plan(
        model,
        prompts,
        ablation or Zero(),
        SweepConfig(ablate=ablate or "attn.0", at=ablate_at, engine="reference"),
    )
    tell(plan.notices, say)
    reading = _Reading.of(plan, components, at, tuple(name for name in KEPT if name in keep), ablation is not None)
    empty = reading.empty()
    if path is None:
        arrays = {str(name): variable.values.copy() for name, variable in empty.data_vars.items()}
        reading.fill(arrays, batch_size, progress)
        return empty.copy(data=arrays)
    with writing(path, empty) as files:
        reading.fill(files, batch_size, progress)
    return open_activations(path)


@dataclass(frozen=True)
class _Reading:
    """A reading of the prompts of a plan.

    Attributes:
        plan: the plan of the prompts, and of the ablation.
        components: the components that are read.
        at: the positions of each prompt, ascending.
        keep: the names of the variables that are kept.
        ablated: whether the plan's ablation is made.
        width: the number of columns of a component's activation; 0 if it isn't kept.
        where: the positions as they were asked for.
    """

    plan: Plan
    components: tuple[Component, ...]
    at: tuple[tuple[int, ...], ...]
    keep: tuple[Kept, ...]
    ablated: bool
    width: int
    where: str

    @classmethod
    def of(cls, plan: Plan, components: Selection, at: At, keep: tuple[Kept, ...], ablated: bool) -> "_Reading":
        """Return what is read.

        Raises:
            HydrascopeError: there are no such components or positions, or the components are of several widths.
        """
        model, chosen = plan.model, select_components(plan.model, components)
        positions = resolve_positions(model, plan.prompts.prompts, plan.tokens, at)
        widths = {_columns(model, component) for component in chosen} if "activation" in keep else {0}
        if len(widths) > 1:
            raise HydrascopeError(
                "sublayers, heads and neurons have activations of different widths: read one kind at a time, or only "
                "the writes, with keep=['write']"
            )
        each = tuple(position.positions for position in positions)
        return cls(plan, chosen, each, keep, ablated, widths.pop(), format_positions(at))

    @property
    def sites(self) -> tuple[Component, ...]:
        return tuple(dict.fromkeys(component.site for component in self.components))

    def empty(self) -> xr.Dataset:
        """Return the dataset without numbers: its variables take no memory."""
        plan, model = self.plan, self.plan.model
        slots, count = max(map(len, self.at)), len(self.at)
        last = {"activation": ("column", self.width), "write": ("width", model.width)}
        sizes = {"prompt": count, "slot": slots, "component": len(self.components)}
        rows = {"prompt": count, "ablated": len(plan.overrides), "patch": plan.ablation.patches}
        dtype = np.dtype(str(wider(model.dtype)).removeprefix("torch."))
        variables = {}
        for suffix, shape in (("", sizes), *((("_ablated", rows | sizes),) if self.ablated else ())):
            for name in self.keep:
                whole = {**shape, last[name][0]: last[name][1]}
                nothing = np.broadcast_to(dtype.type(np.nan), tuple(whole.values()))
                attrs = {"long_name": _LONG_NAMES[name] + (_AFTER if suffix else "")}
                variables[name + suffix] = (tuple(whole), nothing, attrs)
        return xr.Dataset(variables, self._coordinates(slots), self._attributes())

    def _coordinates(self, slots: int) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        plan = self.plan
        position = np.full((len(self.at), slots), -1)
        token = position.copy()
        for row, (own, ids) in enumerate(zip(self.at, plan.tokens, strict=True)):
            position[row, : len(own)] = own
            token[row, : len(own)] = [ids[each] for each in own]
        named = {
            "component": (("component",), _texts(self.components)),
            "text": (("prompt",), _texts(texts(plan.model, plan.prompts.prompts))),
            "position": (("prompt", "slot"), position),
            "token": (("prompt", "slot"), token),
        }
        if self.ablated:
            named["ablated"] = (("ablated",), _texts(plan.overrides))
        return named

    def _attributes(self) -> dict[str, str]:
        plan = self.plan
        ablation = {"ablation": type(plan.ablation).__name__.lower(), "ablate_at": plan.selection_attrs["positions"]}
        return {
            "model": plan.model.name,
            "revision": self_check.revision(plan.model),
            "prompts": plan.prompts.name,
            "prompts_hash": plan.prompts.hash,
            "at": self.where,
            **(ablation if self.ablated else {}),
            "hydrascope": __version__,
        }

    @torch.no_grad()
    def fill(self, arrays: Mapping[str, np.ndarray], batch_size: int, progress: bool) -> None:
        """Run the prompts, batch by batch, and put the numbers into `arrays`.

        Raises:
            HydrascopeError: patches can't be drawn, or numbers aren't finite.
        """
        plan = self.plan
        chunks = split_range(len(plan.tokens), batch_size)
        clean = compute_clean_activations(plan, plan.batch(batch_size), chunks) if self.ablated else None
        with show_progress(len(plan.tokens), 0, progress) as advance:
            for chunk in chunks:
                self._fill_clean(arrays, chunk)
                if clean is not None:
                    self._fill_ablated(arrays, chunk, clean)
                advance(len(chunk))

    def _fill_clean(self, arrays: Mapping[str, np.ndarray], chunk: range) -> None:
        tokens = [self.plan.tokens[index] for index in chunk]
        numbers = torch.tensor([number for number, index in enumerate(chunk) for _ in self.at[index]])
        at = torch.tensor([position for index in chunk for position in self.at[index]])
        found = compute_clean_pass_at(self.plan.model, tokens, numbers, at, self.sites)
        for number, index in enumerate(chunk):
            values = {site: each[(numbers == number).to(each.device)] for site, each in found.values.items()}
            self._put(arrays, "", index, values)

    def _fill_ablated(self, arrays: Mapping[str, np.ndarray], chunk: range, clean: CleanActivations) -> None:
        plan, indices = self.plan, list(chunk)
        request = Request(
            [plan.tokens[index] for index in indices],
            torch.from_numpy(clean.padded_positions(indices)),
            plan.overrides,
            plan.ablation.patches,
            draw_patches(plan.ablation, clean, indices).values,
            (),
            Readouts(()),
            (),
            torch.zeros(len(indices), dtype=torch.long),
        )
        for number, index in enumerate(indices):
            values = ablated_activations(plan.model, request, number, self.sites, self.at[index])
            self._put(arrays, "_ablated", index, values)

    def _put(
        self, arrays: Mapping[str, np.ndarray], suffix: str, index: int, values: Mapping[Component, Tensor]
    ) -> None:
        """Put the activations `[…, position, columns]` of one prompt into the arrays.

        Raises:
            HydrascopeError: one isn't finite.
        """
        model, slots = self.plan.model, len(self.at[index])
        for name in self.keep:
            read = _write if name == "write" else _activation
            found = torch.stack([read(model, component, values[component.site]) for component in self.components], -2)
            if not found.isfinite().all():
                raise HydrascopeError(
                    f"an activation of {self.plan.prompt_label(index)} is not finite: the model overflows; take a "
                    "wider dtype"
                )
            arrays[name + suffix][index][..., :slots, :, :] = found.to("cpu", wider(model.dtype)).numpy()
            # A file begins with zeros.
            arrays[name + suffix][index][..., slots:, :, :] = np.nan


def _columns(model: LanguageModel, component: Component) -> int:
    return len(range(*model.columns(component).indices(model.site_width(component.site))))


def _activation(
    model: LanguageModel, component: Component, values: Float[Tensor, "*rows columns"]
) -> Float[Tensor, "*rows width"]:
    return values[..., model.columns(component)]


def _write(
    model: LanguageModel, component: Component, values: Float[Tensor, "*rows columns"]
) -> Float[Tensor, "*rows width"]:
    """Return what a component adds to the residual stream, from the activations at its site.

    Raises:
        HydrascopeError: a norm follows the site of a term, and its scale isn't known here.
    """
    if component.is_term:
        return _write_of_term(model, component, values[..., model.columns(component)])
    written = model.projection(component.sublayer).written(values, component.unit) if component.is_unit else values
    return written.to(wider(model.dtype)) * model.residual_scale


def _write_of_term(
    model: LanguageModel, component: Component, values: Float[Tensor, "*rows columns"]
) -> Float[Tensor, "*rows width"]:
    attached = model.dictionaries[component.sublayer]
    if attached.projection is not None and attached.projection.norm is not None:
        raise HydrascopeError(
            f"{component} writes through a norm, at a scale that follows from the whole sublayer: keep its activation"
        )
    scale = 1.0 if attached.home.kind == "stream" else model.residual_scale
    return attached.output(attached.write(component, values), None) * scale


def _texts(values: Sequence[object]) -> np.ndarray:
    return np.array([str(value) for value in values], object)
