"""Metrics: any function of the logits, one number a run. They have total effects only: nothing of them adds up.

A metric is called with what the model itself gives at the final position, soft-cap included:

    def surprise(logits, clean, target):    # [run, vocabulary], [vocabulary], a token's id
        return -logits.log_softmax(-1)[:, target]

    hs.sweep(model, prompts, metrics=["kl", surprise])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.memory import is_out_of_memory
from hydrascope.utils.errors import HydrascopeError

MetricFunction = Callable[[Float[Tensor, "run vocabulary"], Float[Tensor, "vocabulary"], int], Float[Tensor, "run"]]

#: Logits that stand in memory at a time, in numbers.
POSITIONS_AT_ONCE = 2**24


def log_prob(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """`[run]` The logarithm of the target's probability, in nats."""
    return logits[:, target] - logits.logsumexp(-1)


def prob(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """`[run]` The target's probability."""
    return log_prob(logits, clean, target).exp()


def rank(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """`[run]` How many tokens are more likely than the target: 0 is best."""
    return (logits > logits[:, target, None]).sum(-1)


def kl(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """`[run]` Σ p_clean log(p_clean / p_ablated) over the vocabulary, in nats; never below 0."""
    log_clean = clean.log_softmax(-1)
    return ((log_clean - logits.log_softmax(-1)) @ log_clean.exp()).clamp_min(0)


def fisher(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """`[run]` Σ p_clean (δ − Σ p_clean δ)², δ = logits − clean, in logits²: to second order in δ twice the `kl`.

    The energy ‖√p₀ ⊙ (δz − E δz)‖² of conditional co-ablation (CoAx, arXiv 2607.01940).
    """
    weight = clean.softmax(-1)
    change = logits - clean
    return ((change - (change @ weight)[:, None]) ** 2) @ weight


def top(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """`[run]` The most likely token's id."""
    return logits.argmax(-1)


METRICS: dict[str, MetricFunction] = {each.__name__: each for each in (log_prob, prob, rank, kl, fisher, top)}
#: What each is measured in.
UNITS = {"log_prob": "nats", "prob": "1", "rank": "tokens", "kl": "nats", "fisher": "logits²", "top": "token id"}


@dataclass(frozen=True)
class Metric:
    """A function of the logits, and what it is called."""

    name: str
    function: MetricFunction


def resolve_metrics(metrics: Sequence[str | MetricFunction]) -> tuple[Metric, ...]:
    """The metrics of these names, or functions of the user's, called by their own names.

    Raises:
        HydrascopeError: a name is unknown, or stands for two.
    """
    found = []
    for metric in metrics:
        if not (callable(metric) or (isinstance(metric, str) and metric in METRICS)):
            raise HydrascopeError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}, or give a function")
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
        found.append(Metric(name, METRICS[metric] if isinstance(metric, str) else metric))
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise HydrascopeError(f"two metrics are called {max(names, key=names.count)!r}: each needs a name of its own")
    return tuple(found)


def evaluate(
    model: LanguageModel,
    metrics: Sequence[Metric],
    residual: Float[Tensor, "run width"],
    clean: Float[Tensor, "width"],
    target: int,
) -> Float[Tensor, "metric run"]:
    """Each metric of each of one prompt's runs, from their final residual streams and the clean run's.

    The logits are made and forgotten a piece at a time.

    Raises:
        HydrascopeError: a user's function fails, or gives no number a run.
    """
    clean_logits = logits_of(model, clean[None])[0]
    pieces = residual.split(max(POSITIONS_AT_ONCE // len(clean_logits), 1))
    return torch.cat([_piece(metrics, logits_of(model, piece), clean_logits, target) for piece in pieces], -1)


def _piece(metrics: Sequence[Metric], logits: Tensor, clean: Tensor, target: int) -> Tensor:
    found = []
    for metric in metrics:
        try:
            values = torch.as_tensor(metric.function(logits, clean, target)).to(logits)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise HydrascopeError(f"the metric {metric.name} fails: {error}") from error
        if values.shape != logits.shape[:1]:
            shape = list(values.shape)
            raise HydrascopeError(f"the metric {metric.name} gives {shape} for {len(logits)} runs: give a number a run")
        found.append(values)
    return torch.stack(found)


def logits_of(model: LanguageModel, residual: Float[Tensor, "run width"]) -> Float[Tensor, "run vocabulary"]:
    """The logits that the model makes of final residual streams, soft-cap included, in float32 or wider."""
    logits = model.unembedded(model.final_norm(residual.to(model.dtype))).to(residual.device)
    logits = logits.to(wider(logits.dtype))
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap
