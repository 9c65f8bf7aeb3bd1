"""Readout directions of all tokens, their common mode, and the tokens that a prompt is read at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import hydrascope as hs
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.readouts import through_norm
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prepare import prepare

#: Rows of the unembedding, or positions, that are in memory at a time.
_ROWS = 4096
_POSITIONS = 256


def directions(model: LanguageModel, tokens: Int[np.ndarray, "*some"]) -> Float[Tensor, "*some width"]:
    """Return a_v of some tokens: a_v·y/σ is what a write y adds to the centred logit of v.

    Args:
        model: the language model.
        tokens: ids of tokens.
    """
    weight = model.unembedding.weight.detach()
    rows = weight[torch.from_numpy(tokens).flatten()].float() - model.mean_unembedding
    return through_norm(model, rows)[0].unflatten(0, tokens.shape)


@dataclass(frozen=True)
class Geometry:
    """Sums over the whole vocabulary, in float64.

    Attributes:
        square: `[width, width]` Σ_v a_v a_vᵀ.
        common: `[width]` the first principal direction, of length 1.
        energy: its share of Σ_v |a_v|².
        along_frequency: `[width]` Σ_v a_v (log f(v) − mean log f).
        frequency_square: Σ_v (log f(v) − mean log f)².
    """

    square: Float[np.ndarray, "width width"]
    common: Float[np.ndarray, "width"]
    energy: float
    along_frequency: Float[np.ndarray, "width"]
    frequency_square: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: LanguageModel, log_frequency: Float[np.ndarray, "token"]) -> "Geometry":
        """Return the sums of a model's tokens."""
        width, centred = model.width, log_frequency - log_frequency.mean()
        square, along, total = np.zeros((width, width)), np.zeros(width), np.zeros(width)
        for start in range(0, len(centred), _ROWS):
            ids = np.arange(start, min(start + _ROWS, len(centred)))
            rows = directions(model, ids).double().numpy()
            square += rows.T @ rows
            along += rows.T @ centred[ids]
            total += rows.sum(0)
        # Rows of the unembedding without a token leave a mean, which no constant explains twice.
        square -= np.outer(total, total) / len(centred)
        values, vectors = np.linalg.eigh(square)
        common = vectors[:, -1] * np.sign(vectors[:, -1] @ along or 1)
        return cls(square, common, float(values[-1] / values.sum()), along, float((centred**2).sum()))


def log_frequencies(model: LanguageModel, passages: Sequence[Any]) -> Float[np.ndarray, "token"]:
    """Return the log of the mean next-token probability over all positions of some passages.

    Args:
        model: the language model.
        passages: the prompts.
    """
    tokens = prepare(model, hs.prompts.PromptSet.of(list(passages), "passages")).tokens
    total, count = np.zeros(model.vocabulary), 0
    for ids in tokens:
        last = torch.arange(len(ids))
        normed = compute_clean_pass_at(model, [ids], torch.zeros_like(last), last, ()).normed
        for piece in normed.split(_POSITIONS):
            with torch.no_grad():
                logits = model.unembedded(piece)[:, : model.vocabulary]
            total += logits.softmax(-1).sum(0, dtype=torch.float64).numpy()
        count += len(ids)
    return np.asarray(np.log(total / count))


def choose_tokens(
    logits: Float[np.ndarray, "token"],
    log_frequency: Float[np.ndarray, "token"],
    pushed: Sequence[int],
    counts: Sequence[int],
    generator: np.random.Generator,
) -> Int[np.ndarray, "chosen"]:
    """Return the tokens that a prompt is read at, each once.

    Args:
        logits: the clean logits.
        log_frequency: the log frequency of each token.
        pushed: tokens that must be among the drawn ones, where they aren't chosen before.
        counts: the numbers of most likely tokens, which come first; of tokens of nearest log frequency, for the
            likeliest first; and of others, drawn.
        generator: draws the others.
    """
    likely, matched, drawn = counts
    chosen = np.argsort(-logits, kind="stable")[:likely].tolist()
    taken = np.zeros(len(logits), bool)
    taken[chosen] = True
    order = np.argsort(log_frequency, kind="stable")
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    for token in chosen[:matched]:
        chosen.append(_nearest(log_frequency, order, place, taken, token))
        taken[chosen[-1]] = True
    others = [token for token in dict.fromkeys(pushed) if not taken[token]]
    taken[others] = True
    rest = generator.choice(np.flatnonzero(~taken), drawn - len(others), replace=False)
    return np.array([*chosen, *others, *rest.tolist()])


def _nearest(log_frequency: np.ndarray, order: np.ndarray, place: np.ndarray, taken: np.ndarray, token: int) -> int:
    """Return the free token whose log frequency is nearest to that of `token`."""
    found = []
    for step in (-1, 1):
        at = place[token] + step
        while 0 <= at < len(order) and taken[order[at]]:
            at += step
        if 0 <= at < len(order):
            found.append(int(order[at]))
    return min(found, key=lambda each: abs(log_frequency[each] - log_frequency[token]))
