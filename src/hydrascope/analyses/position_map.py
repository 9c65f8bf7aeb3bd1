"""The position map: the cost of ablating each component at each token of one prompt.

Every cell is an ablated run of its own, not an estimate. The runs of a few neighbouring tokens share a pass: each of
their patches changes one token, and keeps the component's clean activation at the others, where nothing has changed.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from hydrascope.ablations.ablation import Ablation, Patches, Zero, draw_patches
from hydrascope.analyses.one_prompt import clean_activations, require_donors, with_others
from hydrascope.components.component import Component
from hydrascope.components.selection import Selection, select_components
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.metrics import logits_of
from hydrascope.engines.readouts import Logit, Readout
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.positions import AblationPositions
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.assemble import initial_dataset
from hydrascope.runs.batches import measure_chunks
from hydrascope.runs.config import SweepConfig, Target
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning
from hydrascope.utils.progress import Advance, show_progress

#: The tokens whose runs share a pass. More would compute more positions before the ablated token, which don't change;
#: fewer would make smaller matrix products.
_TOKENS_AT_ONCE = 4

#: What a position map takes over from a result, of its components and of its prompt.
_COMPONENTS = ("component_kind", "component_block", "component_unit")
_OF_COMPONENTS = {name.replace("component", "ablated"): name for name in _COMPONENTS}
_OF_TOKENS = ("token_id", "token_text")
_OF_PROMPT = ("text", "target_text")


@takes_any_model
def position_map(
    model: LanguageModel,
    prompt: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    components: Selection = "layers",
    readout: Readout | None = None,
    target: Target = "argmax",
    others: AnyPrompts | None = None,
    engine: str = "auto",
    progress: bool = False,
) -> xr.Dataset:
    """Measure the cost of ablating each component at each token of a prompt alone.

    Each cell says how much worse the readout gets without what the component writes at that one token. Causal tracing
    (Meng et al. 2022) asks another question: it adds noise to the subject, and restores one clean activation.

        >>> m = hs.analyses.position_map(model, "the fox is")
        >>> most = m["cost"].max("token").to_pandas().nlargest(3)

    Args:
        model: the model to measure.
        prompt: the prompt: a text, a `Prompt`, or a set of one.
        ablation: what the component writes at the token instead; by default `Zero()`. `Noise` needs nothing else,
            `Counterfactual` a twin with as many tokens, `Mean` and `Resample` other prompts.
        components: sublayers, heads or neurons, one by one.
        readout: what is read at the last position; by default `Logit()`.
        target: the token of `Logit()`, as for `sweep`.
        others: other prompts, for patches of `Mean` and `Resample`. Positions correspond by their distance from the
            end, so those with fewer tokens than `prompt` give no patch to `Resample`.
        engine: as for `sweep`.
        progress: show progress on standard error.

    Returns:
        a dataset with

        - `cost` [token, component]: by how much the readout falls, mean over patches; below 0 where it rises.
        - `total` [token, component, patch]: the total effect (Eq. 12) of each patch. The cost is minus its mean.
        - `logit`, the readout in the clean pass, in the same unit; `probability` of the target there.
        - `token_id`, `token_text` of the prompt's tokens; `target`, `target_text`, `text`, `readout`; attributes that
          name the run.

    Raises:
        HydrascopeError: as `sweep`; or there are several prompts or readouts, or the ablation needs other prompts.
    """
    chosen, ablation = select_components(model, components), Zero() if ablation is None else ablation
    config = SweepConfig(
        list(chosen), "layers", "all", Logit() if readout is None else readout, (), target, "effects", engine
    )
    plan = make_plan(model, with_others(model, prompt, others, ablation), ablation, config)
    for notice in plan.notices:
        warnings.warn(notice, HydrascopeWarning, stacklevel=3)
    if len(plan.labels) != 1:
        raise HydrascopeError(f"a map shows one readout, not {len(plan.labels)}: give one")
    require_donors(plan, 0)
    clean = clean_activations(plan)
    with show_progress(len(plan.tokens[0]), 0, progress) as advance:
        return measure_positions(plan, clean, 0, advance)


def measure_positions(
    plan: Plan, clean: CleanActivations, index: int, advance: Advance = lambda count: None
) -> xr.Dataset:
    """Measure the position map of one prompt of a plan, whose clean activations are known.

    Args:
        plan: a plan with one readout, single components and `at="all"`.
        clean: the clean activations of all its prompts.
        index: the prompt's index.
        advance: called with the number of tokens measured since the last call.

    Returns:
        the dataset of `position_map`.

    Raises:
        HydrascopeError: as `position_map`.
    """
    drawn = draw_patches(plan.ablation, clean, [index])
    alone, own, length = plan_of_one(plan, index), clean.select([index], plan.sites), len(plan.tokens[index])
    totals, worst = [], 0.0
    for window in _windows(length):
        here = (AblationPositions(tuple(window), length),)
        part = replace(alone, positions=here, ablation=_EachTokenAlone(drawn, window, plan.ablation.patches))
        batch = Batch(1, part.batch(1).overrides)
        (chunk,) = measure_chunks(part, replace(own, positions=here), [range(1)], batch)
        # [component, token · patch]
        total = chunk.measured["total"][0, 0]
        totals.append(total.reshape(len(total), len(window), -1))
        worst = max(worst, float(chunk.measured["imbalance"].max()))
        logit = float(chunk.measured["logit"][0, 0])
        advance(len(window))
    return _dataset(alone, own, np.concatenate(totals, 1), logit).assign_attrs(
        _patch_attrs(plan), worst_imbalance=worst
    )


@dataclass(frozen=True)
class _EachTokenAlone:
    """An ablation whose patches change one token each.

    Attributes:
        drawn: the patches of the whole prompt.
        window: the tokens that are changed, one after another, each by all of its patches.
        draws: the number of patches of each token.
    """

    drawn: Patches
    window: range
    draws: int

    @property
    def patches(self) -> int:
        """Return the number of patches: those of each token."""
        return len(self.window) * self.draws

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return patches that are clean at all tokens but one."""
        changed = torch.eye(len(self.window), dtype=torch.bool)[:, None, :, None]

        def values(component: Component) -> Float[torch.Tensor, "prompt patch slot columns"]:
            patches = self.drawn.values(component)[:, :, self.window.start : self.window.stop].cpu()
            return torch.where(changed, patches, clean.own_activations(component, prompts)).flatten(0, 1)[None]

        return Patches(np.tile(self.drawn.sources, (1, len(self.window))), values)


def _windows(length: int) -> Iterator[range]:
    """Cut positions into groups that share a pass; the last one is alone, which is the fastest."""
    ends = [*range(_TOKENS_AT_ONCE, length - 1, _TOKENS_AT_ONCE), length - 1, length]
    for start, end in zip([0, *ends], ends, strict=False):
        if end > start:
            yield range(start, end)


def plan_of_one(plan: Plan, index: int) -> Plan:
    """Return the plan of one prompt of a plan."""
    here = slice(index, index + 1)
    return replace(
        plan,
        prompts=replace(plan.prompts, prompts=plan.prompts.prompts[here]),
        tokens=plan.tokens[here],
        positions=plan.positions[here],
        answers=plan.answers[here],
        foils=plan.foils[here],
        whole_answers=plan.whole_answers[here],
    )


def _patch_attrs(plan: Plan) -> dict[str, str]:
    """Return the attribute that identifies the prompts that patches come from."""
    return {"patches_hash": plan.prompts.hash} if getattr(plan.ablation, "uses_other_prompts", False) else {}


@torch.no_grad()
def _dataset(
    plan: Plan, clean: CleanActivations, total: Float[np.ndarray, "component token patch"], logit: float
) -> xr.Dataset:
    """Return the map from the total effects of a plan of one prompt."""
    model, initial = plan.model, initial_dataset(plan, clean).isel(prompt=0)
    final = logits_of(model, compute_clean_pass(model, plan.tokens, []).final)[0]
    likely = float(final.softmax(-1)[clean.targets[0]])
    effects = ("token", "component", "patch"), total.transpose(1, 0, 2)
    found = xr.Dataset(
        {
            "cost": (effects[0][:2], -effects[1].mean(2, dtype=np.float64)),
            "total": effects,
            "logit": ((), logit),
            "probability": ((), likely),
        },
        {
            "token": np.arange(total.shape[1]),
            **{name: ("token", initial[name].values) for name in _OF_TOKENS},
            "component": initial["ablated"].values,
            **{name: ("component", initial[of].values) for of, name in _OF_COMPONENTS.items()},
            **{name: ((), initial[name].values[()]) for name in _OF_PROMPT},
            "target": ((), int(initial["target"])),
            "readout": ((), plan.labels[0]),
        },
        {**initial.attrs, "positions": "each token alone"},
    )
    for name in ("cost", "total", "logit"):
        found[name].attrs["units"] = initial.attrs["units"]
    return found
