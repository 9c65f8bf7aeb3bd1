"""Read the attention of heads on a prompt's tokens, before and after an ablation."""

import numpy as np
import torch
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.one_prompt import clean_activations, plan_states, request_of, state_names
from hydrascope.components.component import Component, Override
from hydrascope.components.selection import Selection, select_components
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.prompts.token_text import visible_text
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError


@takes_any_model
def attention(
    model: LanguageModel,
    prompt: AnyPrompts,
    override: str | Override,
    heads: Selection,
    ablation: Ablation | None = None,
    *,
    at: At = "last",
    others: AnyPrompts | None = None,
    engine: str = "auto",
) -> xr.Dataset:
    """Return the attention of heads on a prompt's tokens, before and after an ablation.

    They attend from the last token, where the prompt is read. The weights are those that a head averages values by, in
    float32 or wider: masks, windows and soft-caps are in them. A head has weights even where its output is ablated or
    frozen.

        >>> found = hs.analyses.attention(model, "the fox is", "attn.0", "heads.1")
        >>> found["attention"].dims
        ('state', 'head', 'token')

    Args:
        model: the model.
        prompt: the prompt: a text, a `Prompt`, or a set of one.
        override: what is ablated and, after a `|`, frozen, as for `sweep`.
        heads: the heads to read, as `heads.23` or `head.23.4`.
        ablation: as for `sweep`; by default `Zero()`.
        at: the positions of the ablation, as for `sweep`.
        others: other prompts that patches come from, for `Mean` and `Resample`.
        engine: as for `sweep`.

    Returns:
        a dataset of the states `clean`, ablated, and ablated with components frozen if there are any, with

        - `attention` [state, head, token]: the weights, without unit, means over patches. They sum to 1 for each state
          and head, to less if the head has a sink, which takes the rest (gpt_oss).
        - `attention_patches` [state, head, token, patch]: the weights of each patch, if there are several; in the clean
          pass they are equal.
        - `token_id` and `token_text` [token].

    Raises:
        HydrascopeError: as `sweep`; or there are several prompts or overrides, or `heads` names another component.
    """
    chosen = select_heads(model, heads)
    plan = plan_states(model, prompt, override, ablation, at, others, engine)
    return measure_attention(plan, clean_activations(plan), 0, chosen)


def select_heads(model: LanguageModel, heads: Selection) -> tuple[Component, ...]:
    """Return the heads that a selection names.

    Raises:
        HydrascopeError: as `select_components`; or it names another component.
    """
    chosen = select_components(model, heads)
    if others := [component for component in chosen if component.kind != "head"]:
        raise HydrascopeError(f"{others[0]} has no attention of its own: name heads, as heads.3 or head.3.1")
    return chosen


@torch.no_grad()
def measure_attention(plan: Plan, clean: CleanActivations, index: int, heads: tuple[Component, ...]) -> xr.Dataset:
    """Return the attention of heads on one prompt of a plan; see `attention`."""
    model, tokens = plan.model, plan.tokens[index]
    request = request_of(plan, clean, index)
    before, after = plan.engine.attention_weights(model, request, heads)
    # [state, patch, head, token]
    each = torch.cat([before[:, None].expand_as(after[0, :1]), after[0]]).double().cpu().numpy()
    found = xr.Dataset(
        {"attention": (("state", "head", "token"), each.mean(1))},
        {
            "state": state_names(plan),
            "head": np.array(list(map(str, heads)), object),
            "token_id": ("token", np.array(tokens)),
            "token_text": ("token", np.array([visible_text(model, token) for token in tokens], object)),
        },
    )
    if plan.ablation.patches > 1:
        found["attention_patches"] = ("state", "head", "token", "patch"), np.moveaxis(each, 1, -1)
    return found
