"""Path patching: the effect of a component that goes through another component alone.

The sender k is ablated while everything else stays as in the clean pass; this gives the activation that the receiver d
would write. In another pass d writes this activation and k is clean. The change went from k to d and on.
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
from hydrascope.components.order import downstream, responding
from hydrascope.components.selection import Selection, refuse_terms, select_components, select_mediators
from hydrascope.engines import Request, choose_engine
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.readouts import Logit, Readouts, Tokens
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import PathOptions
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

_DIMS = ("readout", "prompt", "sender", "receiver")


@takes_any_model
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
    """Measure the effect of each sender that goes through each receiver.

    Sources: Wang et al. 2022; Goldowsky-Dill et al. 2023.

        >>> p = hs.analyses.path_patching(model, prompts, hs.Resample(3), senders="heads.3", receivers="mlp.4,logits")
        >>> free = p["free"].mean("prompt")

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: the ablation of the senders, as for `sweep`; by default `Resample()`.
        senders: sublayers, heads or neurons, one by one.
        receivers: sublayers, heads, inputs of heads (`query.9.6`, …), and `logits` for the direct path.
        at: the positions at which senders are ablated and receivers written: `last` or `all`.
        options: options of `sweep`: readouts, target, engine, batch_size, progress.

    Returns:
        two definitions in use, each [readout, prompt, sender, receiver], means over patches, in the readouts' units:

        - `frozen`: the change in π̂ when d writes what it would and everything else is frozen: the effect of k on the
          one path k → d → logits.
        - `free`: the same with everything downstream of d recomputed, as Wang et al. do for IOI: the effect from k to
          d, and from there on any path.

        For `logits` both are the direct effect of k. Both are 0 where d isn't downstream of k, see `downstream`
        [sender, receiver].

    Raises:
        HydrascopeError: as `sweep`; or `at` is another position.
    """
    if at not in ("last", "all"):
        raise HydrascopeError(f"path patching can't be at {at!r}: give last or all")
    ablation = Resample() if ablation is None else ablation
    sending, (components, to_logits) = select_components(model, senders), _receivers(model, receivers)
    refuse_terms((*sending, *components), "path patching")
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
    """Return the components among the receivers, and whether the logits are among them."""
    items: Sequence[Any] = receivers.split(",") if isinstance(receivers, str) else list(receivers)  # type: ignore[arg-type]
    words = [each.strip() if isinstance(each, str) else each for each in items]
    components = [each for each in words if each != LOGITS]
    return (select_mediators(model, components) if components else ()), LOGITS in words


def _by_sender(found: xr.Dataset, senders: int) -> xr.Dataset:
    """Return `frozen` and `free` [readout, prompt, sender] of one receiver.

    The patches of the receiver are those of all senders, one sender after another.
    """
    means = {}
    for name, effect in (("frozen", "direct"), ("free", "total")):
        values = found[effect].transpose("readout", "prompt", "patch").values.astype(np.float64)
        means[name] = (_DIMS[:3], values.reshape(*values.shape[:2], senders, -1).mean(-1))
    return xr.Dataset(means)


@dataclass(frozen=True)
class PathPatch:
    """An ablation that writes what a component would write if one sender were ablated.

    Attributes:
        ablation: the ablation of the senders.
        senders: the senders; their patches follow each other.
        receivers: the sublayers and heads that are ablated so.
        head_input: the one input of heads that differs, the others being frozen; None if all may differ.
        engine: the engine that computes what receivers would write.
    """

    ablation: Ablation
    senders: tuple[Component, ...]
    receivers: tuple[Component, ...]
    head_input: InputKind | None = None
    engine: str = "auto"

    @property
    def patches(self) -> int:
        """Return the number of patches: those of the ablation for each sender."""
        return len(self.senders) * self.ablation.patches

    @property
    def sites(self) -> tuple[Component, ...]:
        """Return the sites whose clean activations the patches of senders are drawn from."""
        return tuple(dict.fromkeys(sender.site for sender in self.senders))

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return what receivers would write, for each prompt and each patch of each sender."""
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
            tuple(self._freezing_downstream(model, sender) for sender in self.senders),
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

    def _freezing_downstream(self, model: LanguageModel, sender: Component) -> Override:
        """Return the override that ablates a sender and freezes everything downstream of it."""
        override = Override((sender,))
        below = responding(model, override, model.sublayers)
        inputs = [
            Component(head.block, kind, head.unit)
            for head in self.receivers
            for kind in INPUT_KINDS
            if self.head_input not in (None, kind) and head.sublayer in below
        ]
        return Override(override.ablated, (*below, *inputs))
