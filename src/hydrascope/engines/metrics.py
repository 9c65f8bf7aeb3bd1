"""Metrics: functions of the logits that give one number for each row.

Metrics have total effects only, since they don't add up over components. A metric is called with the logits at the
final position, soft-cap included:

    def surprise(logits, clean, target):    # [row, vocabulary], [vocabulary], a token's id
        return -logits.log_softmax(-1)[:, target]

    hs.sweep(model, prompts, metrics=["kl", surprise])

One metric reads several positions: `answer_log_prob` is Σ log p(token | prompt, tokens before) over the tokens of each
prompt's answer, teacher-forced. `hydrascope.engines.whole_answers` says how.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.memory import is_out_of_memory
from hydrascope.utils.errors import HydrascopeError

#: A function of the logits of some rows, the clean logits and the target, with one number for each row.
MetricFunction = Callable[[Float[Tensor, "row vocabulary"], Float[Tensor, "vocabulary"], int], Float[Tensor, "row"]]

#: A metric that also sees the run branched off: a fourth argument, `reference`, has its logits, `[vocabulary]`.
ReferenceFunction = Callable[..., Float[Tensor, "row"]]

#: The largest count of logits in memory at a time.
POSITIONS_AT_ONCE = 2**24


def log_prob(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """Return the logarithm of the target's probability, in nats, `[row]`."""
    return logits[:, target] - logits.logsumexp(-1)


def prob(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """Return the target's probability, `[row]`."""
    return log_prob(logits, clean, target).exp()


def rank(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """Return the number of tokens more likely than the target, `[row]`; 0 is best."""
    return (logits > logits[:, target, None]).sum(-1)


def kl(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """Return Σ p_clean log(p_clean / p_ablated) over the vocabulary, in nats, `[row]`."""
    log_clean = clean.log_softmax(-1)
    return ((log_clean - logits.log_softmax(-1)) @ log_clean.exp()).clamp_min(0)


def energy(change: Float[Tensor, "row vocabulary"], weight: Float[Tensor, "vocabulary"]) -> Float[Tensor, "row"]:
    """Return the variance of a change of logits under given probabilities, in logits², `[row]`.

    A change of all logits by the same amount has none. It is the energy ‖√p₀ ⊙ (δz − E δz)‖² of conditional co-ablation
    (CoAx, arXiv 2607.01940).
    """
    return ((change - (change @ weight)[:, None]) ** 2) @ weight


def fisher(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """Return the `energy` of logits − clean under p_clean, in logits², `[row]`.

    To second order in the change it is twice the `kl`.
    """
    return energy(logits - clean, clean.softmax(-1))


def top(logits: Tensor, clean: Tensor, target: int) -> Tensor:
    """Return the most likely token's id, `[row]`."""
    return logits.argmax(-1)


#: The built-in metrics by name.
METRICS: dict[str, MetricFunction] = {metric.__name__: metric for metric in (log_prob, prob, rank, kl, fisher, top)}
#: The unit of each built-in metric.
UNITS = {
    "log_prob": "nats",
    "prob": "1",
    "rank": "tokens",
    "kl": "nats",
    "fisher": "logits²",
    "top": "token id",
    "answer_log_prob": "nats",
}


@dataclass(frozen=True)
class Metric:
    """A metric: a function of the logits, with its name.

    Attributes:
        name: the name in results.
        function: the function.
        of_answer: whether it is a sum over the tokens of the prompt's answer; then `function` gives the share of the
            first token, as its target.
    """

    name: str
    function: MetricFunction
    of_answer: bool = False


#: The metric of whole answers.
ANSWER_LOG_PROB = Metric("answer_log_prob", log_prob, of_answer=True)
#: All built-in metrics by name, that of whole answers among them.
BUILT_IN = {name: Metric(name, function) for name, function in METRICS.items()} | {
    ANSWER_LOG_PROB.name: ANSWER_LOG_PROB
}


def resolve_metrics(metrics: Sequence[str | MetricFunction]) -> tuple[Metric, ...]:
    """Return the metrics given by name or as functions; a function keeps its own name.

    Raises:
        HydrascopeError: a name is unknown or used twice.
    """
    found = []
    for metric in metrics:
        if isinstance(metric, str) and metric in BUILT_IN:
            found.append(BUILT_IN[metric])
        elif callable(metric):
            found.append(Metric(getattr(metric, "__name__", type(metric).__name__), metric))
        else:
            raise HydrascopeError(f"unknown metric {metric!r}: choose from {', '.join(BUILT_IN)}, or give a function")
    names = [metric.name for metric in found]
    if len(set(names)) < len(names):
        raise HydrascopeError(f"two metrics are called {max(names, key=names.count)!r}: each needs a name of its own")
    return tuple(found)


def reference_metrics(metrics: str | Sequence[ReferenceFunction]) -> dict[str, ReferenceFunction]:
    """Return metrics that see the run branched off, by their functions' names.

    Raises:
        HydrascopeError: one can't be called with a `reference`, or two have one name.
    """
    found: dict[str, ReferenceFunction] = {}
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        name = getattr(metric, "__name__", type(metric).__name__)
        if not callable(metric) or "reference" not in inspect.signature(metric).parameters:
            raise HydrascopeError(
                f"the metric {metric if isinstance(metric, str) else name} sees no reference run: give a function "
                "f(logits, clean, target, reference)"
            )
        if name in found:
            raise HydrascopeError(f"two metrics are called {name!r}: each needs a name of its own")
        found[name] = metric
    return found


def evaluate(
    model: LanguageModel,
    metrics: Sequence[Metric],
    residual: Float[Tensor, "row width"],
    clean: Float[Tensor, "width"],
    target: int,
    answer: Sequence[int] = (),
) -> Float[Tensor, "metric row"]:
    """Compute metrics from final residual streams, `[metric, row]`.

    Only a piece of the logits is in memory at a time.

    Args:
        model: the language model.
        metrics: the metrics.
        residual: `[row, width]` the final residual streams of one prompt's rows.
        clean: `[width]` the final residual stream of the clean pass.
        target: the target token's id.
        answer: the answer's token ids; a metric of whole answers is computed for the first of them.

    Raises:
        HydrascopeError: a user's function fails, or returns anything but a number for each row.
    """
    clean_logits = logits_of(model, clean[None])[0]
    targets = [answer[0] if metric.of_answer else target for metric in metrics]
    pieces = torch.split(residual, max(POSITIONS_AT_ONCE // len(clean_logits), 1))
    return torch.cat([values_of(metrics, logits_of(model, piece), clean_logits, targets) for piece in pieces], -1)


def answer_log_prob(
    model: LanguageModel, residual: Float[Tensor, "row token width"], answer: Sequence[int]
) -> Float[Tensor, "row"]:
    """Return the logarithm of the probability of a whole answer, in nats, `[row]`.

    Args:
        model: the language model.
        residual: `[row, token, width]` the final residual streams that predict each of the answer's tokens.
        answer: the answer's token ids.
    """
    first = Metric("log_prob", log_prob)
    # The clean stream makes no difference to `log_prob`.
    each = [evaluate(model, [first], residual[:, i], residual[0, i], token)[0] for i, token in enumerate(answer)]
    return torch.stack(each).sum(0)


def values_of(
    metrics: Sequence[Metric],
    logits: Float[Tensor, "row vocabulary"],
    clean: Float[Tensor, "vocabulary"],
    targets: Sequence[int],
) -> Float[Tensor, "metric row"]:
    """Compute metrics from logits, `[metric, row]`, each with its own target.

    Raises:
        HydrascopeError: a user's function fails, or returns anything but a number for each row.
    """
    found = []
    for metric, target in zip(metrics, targets, strict=True):
        try:
            values = torch.as_tensor(metric.function(logits, clean, target)).to(logits)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise HydrascopeError(f"the metric {metric.name} fails: {error}") from error
        if values.shape != logits.shape[:1]:
            shape = list(values.shape)
            raise HydrascopeError(f"the metric {metric.name} gives {shape} for {len(logits)} rows: give a number a row")
        found.append(values)
    return torch.stack(found)


def logits_of(model: LanguageModel, residual: Float[Tensor, "row width"]) -> Float[Tensor, "row vocabulary"]:
    """Return the logits of final residual streams, soft-cap included, in float32 or wider."""
    logits = model.unembedded(model.final_norm(residual.to(model.dtype))).to(residual.device)
    return soft_capped(model, logits.to(wider(logits.dtype)))


def soft_capped(model: LanguageModel, logits: Float[Tensor, "row vocabulary"]) -> Float[Tensor, "row vocabulary"]:
    """Bound logits smoothly by the model's final soft-cap, if it has one."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap
