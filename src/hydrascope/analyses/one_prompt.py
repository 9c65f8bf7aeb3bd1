"""Steps of analyses of one prompt, beside others that its patches may come from."""

from dataclasses import replace

from hydrascope.ablations.ablation import Ablation
from hydrascope.engines.clean.activations import CleanActivations, collect_clean_activations, plain_pass
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch, within_memory
from hydrascope.prompts.prompt import AnyPrompts, Prompt, PromptSet
from hydrascope.runs.batches import activation_allocator, batches, given_targets
from hydrascope.runs.plan import Plan
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


def clean_activations(plan: Plan) -> CleanActivations:
    """Run all prompts clean; patches need to be drawn for the first alone."""
    prompts, where = plan.prompts.prompts, (plan.tokens, plan.positions, plan.sites)

    def compute(batch: Batch) -> CleanActivations:
        each = batches(plan, range(len(prompts)), batch.prompts)
        run = plain_pass(plan.model, plan.tokens, plan.sites)
        targets, room = given_targets(plan), activation_allocator(plan)
        return collect_clean_activations(plan.model, prompts, *where, each, run, targets, room)

    return within_memory(compute, plan.batch("auto"))[0]
