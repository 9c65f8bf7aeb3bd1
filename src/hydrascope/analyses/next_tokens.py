"""Compare the likeliest next tokens, clean, ablated, and with components frozen."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.one_prompt import clean_activations, plan_states, request_of, state_names
from hydrascope.components.component import Override
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.metrics import logits_of
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.prompts.token_text import visible_text
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError

#: How many tokens are listed.
LISTED = 10


@takes_any_model
def next_tokens(
    model: LanguageModel,
    prompt: AnyPrompts,
    override: str | Override,
    ablation: Ablation | None = None,
    *,
    at: At = "last",
    others: AnyPrompts | None = None,
    engine: str = "auto",
    count: int = LISTED,
) -> xr.Dataset:
    """Return the likeliest next tokens of a prompt: clean, ablated, and with components frozen.

        >>> found = hs.analyses.next_tokens(model, "the fox is", "attn.3|mlp.5")
        >>> found["state"].values.tolist()
        ['clean', 'attn.3', 'attn.3|mlp.5']

    Args:
        model: the model.
        prompt: the prompt: a text, a `Prompt`, or a set of one.
        override: what is ablated and, after a `|`, frozen, as for `sweep`.
        ablation: as for `sweep`; by default `Zero()`.
        at: the positions of the ablation, as for `sweep`.
        others: other prompts that patches come from, for `Mean` and `Resample`.
        engine: as for `sweep`.
        count: how many tokens are listed.

    Returns:
        a dataset of the states `clean`, ablated, and ablated with components frozen if there are any, with `token`
        (ids), `text` and `probability` [state, place], the likeliest first; `rank` [state, place]: how many tokens were
        likelier in the state before, 0 is best; in the clean pass the place itself. Probabilities are means over
        patches; tokens of equal probability are in the order of their ids.

    Raises:
        HydrascopeError: as `sweep`; or there are several prompts or overrides, or `count` is no positive number.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise HydrascopeError(f"{count!r} tokens to list: ask for at least 1")
    plan = plan_states(model, prompt, override, ablation, at, others, engine)
    return measure_next_tokens(plan, clean_activations(plan), 0, count)


@torch.no_grad()
def measure_next_tokens(plan: Plan, clean: CleanActivations, index: int, count: int = LISTED) -> xr.Dataset:
    """Return the likeliest next tokens of one prompt of a plan, after each override."""
    model = plan.model
    request = request_of(plan, clean, index)
    before, after = plan.engine.final_streams(model, request)
    shares = [_shares(model, before), *(_shares(model, streams) for streams in after[0])]
    listed = [_ranked(share)[:count] for share in shares]
    places = [_places(share) for share in shares]
    ranks = [listed_ranks[tokens] for tokens, listed_ranks in zip(listed, [places[0], *places], strict=False)]
    tokens = np.stack(listed)
    likely = np.stack([share[ids] for share, ids in zip(shares, listed, strict=True)])
    return xr.Dataset(
        {
            "token": (("state", "place"), tokens),
            "probability": (("state", "place"), likely),
            "rank": (("state", "place"), np.stack(ranks)),
        },
        {
            "state": state_names(plan),
            "text": (("state", "place"), _texts(model, tokens)),
        },
    )


def _shares(model: LanguageModel, streams: Float[Tensor, "row width"]) -> Float[np.ndarray, "vocabulary"]:
    """Return the probability of each token, the mean over rows."""
    return np.asarray(logits_of(model, streams).double().softmax(-1).mean(0).cpu())


def _ranked(shares: Float[np.ndarray, "vocabulary"]) -> np.ndarray:
    """Return all tokens, the likeliest first."""
    return np.argsort(-shares, kind="stable")


def _places(shares: Float[np.ndarray, "vocabulary"]) -> np.ndarray:
    """Return the place of each token among all, 0 for the likeliest."""
    places = np.empty(len(shares), int)
    places[_ranked(shares)] = np.arange(len(shares))
    return places


def _texts(model: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    rows: Sequence[Sequence[int]] = tokens.tolist()
    return np.array([[visible_text(model, token) for token in row] for row in rows], object)
