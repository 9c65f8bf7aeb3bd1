"""Steps of analyses of one prompt, beside others that its patches may come from."""

from dataclasses import replace

import numpy as np
import torch

from hydrascope.ablations.ablation import Ablation, Zero, draw_patches
from hydrascope.components.component import Override
from hydrascope.components.selection import select_overrides
from hydrascope.engines import Request
from hydrascope.engines.clean.activations import CleanActivations, collect_clean_activations, plain_pass
from hydrascope.engines.readouts import Readouts
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch, within_memory
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import AnyPrompts, Prompt, PromptSet
from hydrascope.runs.batches import activation_allocator, batches, given_targets
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.utils.errors import HydrascopeError


def with_others(model: LanguageModel, prompt: AnyPrompts, others: AnyPrompts | None, ablation: Ablation) -> PromptSet:
    """Return the set of the prompt, the first, and of the others if `ablation` uses them.

    Raises:
        HydrascopeError: there are several prompts.
    """
    own = PromptSet.of(prompt).fit_to(model)[0]
    if len(own.prompts) != 1:
        raise HydrascopeError(f"this is of one prompt, not of {len(own.prompts):,}: give one (others are for patches)")
    if others is None or not getattr(ablation, "uses_other_prompts", True):
        return own
    more: tuple[Prompt, ...] = PromptSet.of(others).fit_to(model)[0].prompts
    return replace(PromptSet.of([*own.prompts, *more], own.name), as_messages=own.as_messages)


def require_donors(plan: Plan, index: int) -> None:
    """Refuse an ablation by other prompts where none has the ablated positions of a prompt.

    Raises:
        HydrascopeError: none has.
    """
    if not getattr(plan.ablation, "uses_other_prompts", False):
        return
    name, length = type(plan.ablation).__name__.lower(), len(plan.tokens[index])
    if len(plan.tokens) == 1:
        raise HydrascopeError(
            f"{name} ablation takes its patches from other prompts, and this is one prompt: give others (--prompts), "
            "or ablate by zero, noise or counterfactual"
        )
    others = [positions for place, positions in enumerate(plan.positions) if place != index]
    if not any(positions.has(plan.positions[index].offsets) for positions in others):
        raise HydrascopeError(
            f"{name} ablation takes its patches from other prompts, and none of the others has as many tokens as the "
            f"prompt ({length}): give longer ones, or ablate by zero, noise or counterfactual"
        )


def plan_states(
    model: LanguageModel,
    prompt: AnyPrompts,
    override: str | Override,
    ablation: Ablation | None,
    at: At,
    others: AnyPrompts | None,
    engine: str,
) -> Plan:
    """Plan one override of one prompt, without its frozen components and with them.

    Raises:
        HydrascopeError: there are several prompts or overrides, or an option is wrong.
    """
    overrides = select_overrides(model, override)
    if len(overrides) != 1:
        raise HydrascopeError(f"{str(override)!r:.60} are {len(overrides)} overrides: give one, as attn.3+mlp.5|mlp.7")
    ablation = Zero() if ablation is None else ablation
    config = SweepConfig(ablate=states_of(overrides[0]), at=at, keep="effects", engine=engine)
    plan = make_plan(model, with_others(model, prompt, others, ablation), ablation, config)
    require_donors(plan, 0)
    return plan


def states_of(override: Override) -> tuple[Override, ...]:
    """Return the override without its frozen components and, if it has any, with them."""
    return tuple(dict.fromkeys((Override(override.ablated), override)))


def state_names(plan: Plan) -> np.ndarray:
    """Return the names of the clean state and of each override's."""
    return np.array(["clean", *map(str, plan.overrides)], object)


def request_of(plan: Plan, clean: CleanActivations, index: int) -> Request:
    """Return the request that runs one prompt with all overrides of a plan, and reads nothing."""
    return Request(
        [plan.tokens[index]],
        torch.from_numpy(clean.padded_positions([index])),
        plan.overrides,
        plan.ablation.patches,
        draw_patches(plan.ablation, clean, [index]).values,
        (),
        Readouts(()),
        (),
        torch.tensor([clean.targets[index]]),
        plan.routines or None,
    )


def clean_activations(plan: Plan) -> CleanActivations:
    """Run all prompts clean; patches need to be drawn for the first alone."""
    prompts, where = plan.prompts.prompts, (plan.tokens, plan.positions, plan.sites)

    def compute(batch: Batch) -> CleanActivations:
        each = batches(plan, range(len(prompts)), batch.prompts)
        run = plain_pass(plan.model, plan.tokens, plan.sites)
        targets, room = given_targets(plan), activation_allocator(plan)
        return collect_clean_activations(plan.model, prompts, *where, each, run, targets, room)

    return within_memory(compute, plan.batch("auto"))[0]
