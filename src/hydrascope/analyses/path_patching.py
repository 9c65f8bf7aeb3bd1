"""Path patching: what of a part's effect goes through another part, and nowhere else.

Sender k, receiver d. What d would write if k were ablated and all else were as it is in the clean run is carried over
into another run: there d writes it, and k is clean. What that changes has gone from k to d and on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from hydrascope.ablations.ablation import Ablation, Patches, Resample, draw_patches
from hydrascope.components.component import INPUT_KINDS, LOGITS, Component, InputKind, Override
from hydrascope.components.selection import Selection, downstream, responding, select_components, select_mediators
from hydrascope.engines import Request, choose_engine
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.readouts import Logit, Readouts, Tokens
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import PathOptions
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

_DIMS = ("readout", "prompt", "sender", "receiver")


def path_patching(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    senders: Selection = "heads",
    receivers: Selection = "mlp,logits",
    at: str = "last",
    **options: Unpack[PathOptions],
) -> xr.Dataset:
    """The effect of each sender by way of each receiver (Wang et al. 2022; Goldowsky-Dill et al. 2023).

        >>> p = hs.analyses.path_patching(model, prompts, senders="heads.8", receivers="query.10.0")  # doctest: +SKIP
        >>> p["free"].mean("prompt")  # doctest: +SKIP

    Args:
        ablation: what senders write instead, as for `sweep`; by default `Resample()`.
        senders: layers, heads or neurons, one by one.
        receivers: layers, heads, what heads attend by (`query.9.6`, …), and `logits`: the direct path.
        at: `last` or `all`: at which positions senders are ablated, and receivers written.
        options: of `sweep`: readouts, target, engine, batch_size, progress.

    Returns:
        two definitions in use, each [readout, prompt, sender, receiver], means over patches, in the readouts' units:

        - `frozen`: π̂ of the clean run with d writing what it would, everything else held at clean, less π̂. What k does
          through d on the one path k → d → logits.
        - `free`: the same with everything downstream of d recomputed (as Wang et al. do for IOI): what goes from k
          to d, and from there wherever it goes.

        Both are the direct effect of k for `logits`, and 0 where d isn't downstream of k: see `downstream` [sender,
        receiver].

    Raises:
        HydrascopeError: as `sweep`; or another position is asked for.
    """
    if at not in ("last", "all"):
        raise HydrascopeError(f"path patching at {at!r}: ask for last or all, where what is carried over stands")
    ablation = Resample() if ablation is None else ablation
    sending, (components, to_logits) = select_components(model, senders), _receivers(model, receivers)
    names = [*map(str, components), *([LOGITS] if to_logits else [])]
    pieces: dict[str, xr.Dataset] = {}
    for kind in dict.fromkeys(component.kind if component.is_input else None for component in components):
        some = [component for component in components if (component.kind if component.is_input else None) == kind]
        writing = [component.head if component.is_input else component for component in some]
        carried = PathPatch(ablation, sending, tuple(writing), kind, options.get("engine", "auto"))  # type: ignore[arg-type]
        found = sweep(model, prompts, carried, ablate=writing, at=at, keep="effects", **options)
        for component, writes in zip(some, writing, strict=True):
            pieces[str(component)] = _by_sender(found.sel(ablated=str(writes)), len(sending))
    if to_logits:
        found = sweep(model, prompts, ablation, ablate=sending, at=at, keep="effects", **options)
        direct = found["direct"].mean("patch", dtype=np.float64).rename(ablated="sender")
        pieces[LOGITS] = xr.Dataset({"frozen": direct, "free": direct})
    reached = np.array([[*downstream(model, Override((each,)), components), *[True] * to_logits] for each in sending])
    effects = {
        name: np.stack([pieces[label][name].transpose(*_DIMS[:3]).values for label in names], -1)
        for name in ("frozen", "free")
    }
    return xr.Dataset(
        {
            **{name: (_DIMS, np.where(reached, values, 0.0)) for name, values in effects.items()},
            "downstream": (_DIMS[2:], reached),
        },
        {
            "sender": np.array([str(each) for each in sending], object),
            "receiver": np.array(names, object),
            **{name: found[name] for name in ("readout", "text", "target_text")},
        },
        {**found.attrs, "ablate": ",".join(map(str, sending))},
    )


def _receivers(model: LanguageModel, receivers: Selection) -> tuple[tuple[Component, ...], bool]:
    """The parts among the receivers, and whether the logits are."""
    given: Sequence[Any] = receivers.split(",") if isinstance(receivers, str) else list(receivers)  # type: ignore[arg-type]
    words = [each.strip() if isinstance(each, str) else each for each in given]
    parts = [each for each in words if each != LOGITS]
    return (select_mediators(model, parts) if parts else ()), LOGITS in words


def _by_sender(found: xr.Dataset, senders: int) -> xr.Dataset:
    """`frozen` and `free` [readout, prompt, sender] of one receiver, whose patches are every sender's in turn."""
    means = {}
    for name, effect in (("frozen", "direct"), ("free", "total")):
        values = found[effect].transpose("readout", "prompt", "patch").values.astype(np.float64)
        means[name] = (_DIMS[:3], values.reshape(*values.shape[:2], senders, -1).mean(-1))
    return xr.Dataset(means)


@dataclass(frozen=True)
class PathPatch:
    """An ablation: a part writes what it would if one sender were ablated, and all else were clean.

    Attributes:
        ablation: what senders write instead.
        senders: whose patches follow each other.
        receivers: the layers and heads that are to be ablated so.
        head_input: of heads the one input that differs: the others are frozen; None: all do.
        engine: which one tells what would be written.
    """

    ablation: Ablation
    senders: tuple[Component, ...]
    receivers: tuple[Component, ...]
    head_input: InputKind | None = None
    engine: str = "auto"

    @property
    def patches(self) -> int:
        """One for each sender and each of its patches."""
        return len(self.senders) * self.ablation.patches

    @property
    def sites(self) -> tuple[Component, ...]:
        """Where the clean values of senders stand, which their patches are drawn from."""
        return tuple(dict.fromkeys(sender.site for sender in self.senders))

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """What receivers would write: for each prompt of all senders, of all of its patches."""
        base = draw_patches(self.ablation, clean, prompts)
        found: dict[Component, Tensor] = {}

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            if not found:
                found.update(self._activations_before_override(clean, prompts, base))
            return found[component.site][..., clean.model.columns(component)].cpu()

        return Patches(np.tile(base.sources, (1, len(self.senders))), values)

    def _activations_before_override(
        self, clean: CleanActivations, prompts: Sequence[int], base: Patches
    ) -> dict[Component, Tensor]:
        model = clean.model
        targets = [clean.targets[index] for index in prompts]
        request = Request(
            [clean.tokens[index] for index in prompts],
            torch.from_numpy(clean.padded_positions(prompts)),
            tuple(self._held(model, sender) for sender in self.senders),
            self.ablation.patches,
            base.values,
            (),
            Readouts.of(model, [Logit()], Tokens(targets), range(len(prompts))),
            (),
            torch.tensor(targets),
        )
        sites = list(dict.fromkeys(receiver.site for receiver in self.receivers))
        found = choose_engine(model, self.engine).activations_before_override(model, request, sites)
        return {site: values.flatten(1, 2) for site, values in found.items()}

    def _held(self, model: LanguageModel, sender: Component) -> Override:
        """The run in which a sender is ablated, and everything downstream of it is clean."""
        override = Override((sender,))
        below = responding(model, override, model.sublayers)
        inputs = [
            Component(head.block, kind, head.unit)
            for head in self.receivers
            for kind in INPUT_KINDS
            if self.head_input not in (None, kind) and head.sublayer in below
        ]
        return Override(override.ablated, (*below, *inputs))
