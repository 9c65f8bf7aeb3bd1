"""The self-check: what must hold for any model if its anatomy is right. Nothing is believed.

Every identity is tested on short prompts of the model's own tokens, when a model is loaded and by `hydrascope check`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hydrascope.components import Component
from hydrascope.engines import CLEAN, Effects, Request, Row, reference, wavefront
from hydrascope.engines.clean import clean_run
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel, padded, wider
from hydrascope.readout import Readout

#: How far an identity may be off, as a share of the quantities' size, for rounding in the model's own dtype. Many
#: models compute norms in float32 even in float64.
TOLERANCE = {
    torch.float64: 1e-5,
    torch.float32: 1e-3,
    torch.float16: 3e-2,
    torch.bfloat16: 1e-1,
}


@dataclass(frozen=True)
class Identity:
    """One identity, and how far the model is from it.

    Attributes:
        name: what must hold, in words.
        error: the largest deviation, as a share of the size of what is compared.
        tolerance: the largest share that rounding explains.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the identity holds up to rounding; a NaN doesn't."""
        return self.error <= self.tolerance


def require(model: LanguageModel) -> None:
    """Refuse `model` unless every identity holds.

    Raises:
        HydrascopeError: one doesn't; the message names it and says by how much.
    """
    for identity in identities(model):
        if not identity.passed:
            raise HydrascopeError(
                f"the model {model.name} fails the self-check: {identity.name} does not hold (off by "
                f"{identity.error:.1e}, allowed {identity.tolerance:.0e}); its anatomy ({model.config.model_type}) "
                "is declared wrongly, or the model is broken"
            )


def check(model: LanguageModel) -> list[Identity]:
    """Every identity of the self-check, in the order in which they build on each other."""
    return list(identities(model))


def identities(model: LanguageModel) -> Iterator[Identity]:
    """The identities one by one, each tested when it is asked for."""
    tolerance = TOLERANCE[model.dtype]
    tokens = _prompts(model)
    wide = wider(model.dtype)
    clean = clean_run(model, tokens)
    total = clean.embed.to(wide) + clean.written.to(wide).sum(1)
    yield Identity("the parts sum to the final residual stream", _error(total, clean.final.to(wide)), tolerance)

    logits = clean.logits(model)
    yield Identity(
        "the parts give the model's own logits",
        _error(_capped(model, logits), _own(model, tokens)),
        tolerance,
    )

    targets = logits.argmax(-1)
    centred = logits.to(wide).gather(1, targets[:, None])[:, 0] - logits.to(wide).mean(1)
    read = Readout.of(model, targets).logit(clean.final)
    yield Identity("reading the residual stream gives the centred logit", _error(read, centred), tolerance)

    request = _ablations(model, tokens, targets, clean.written)
    effects = reference.measure(model, request)
    yield Identity("an ablation with its own clean value changes nothing", _own_value(effects), tolerance)
    yield Identity("what is not downstream never changes", _upstream(model, request, effects), tolerance)
    if not model.parallel:
        still = 0.0 if _mlp_follows(model, request, effects) else 1.0
        yield Identity("an MLP reads what attention of its block writes", still, tolerance)
    yield Identity("the books balance", _imbalance(model, effects), tolerance)
    if model.anatomy.fast:
        fast = wavefront.measure(model, request)
        yield Identity("row 0 of the wavefront is the clean run", fast.clean_error / _size(fast.logit), tolerance)
        yield Identity("the wavefront gives what plain forward passes give", _difference(fast, effects), tolerance)


def _prompts(model: LanguageModel) -> list[list[int]]:
    """Four short prompts of different lengths, of tokens drawn from the whole vocabulary."""
    generator = torch.Generator().manual_seed(0)
    longest = min(7, model.context_length or 7)
    size = model.unembedding.weight.shape[0]
    return [
        torch.randint(size, (length,), generator=generator).tolist()
        for length in (longest, max(longest - 3, 1), longest, max(longest - 5, 1))
    ]


def _ablations(model: LanguageModel, tokens: list[list[int]], targets: Tensor, written: Tensor) -> Request:
    """Rows that ablate the components of the first, the middle and the last block, by the next prompt's values."""
    depth = len(model.layers)
    blocks = sorted({0, depth // 2, depth - 1})
    ablated = [component for component in model.components if component.layer in blocks]
    rows = (Row(((model.components[0], CLEAN),)), *(Row(((component, 0),)) for component in ablated))
    index = {component: i for i, component in enumerate(model.components)}
    patches = {component: written.roll(1, dims=0)[:, index[component], None] for component in ablated}
    return Request(tokens, targets, rows, patches)


@torch.no_grad()
def _own(model: LanguageModel, tokens: list[list[int]]) -> Tensor:
    """The logits that the model itself gives at the final position."""
    ids, last = padded(tokens, model.device)
    return model.hf(input_ids=ids, use_cache=False).logits[torch.arange(len(tokens)), last]


def _capped(model: LanguageModel, logits: Tensor) -> Tensor:
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap


def _size(values: Tensor) -> float:
    return float(values.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _error(found: Tensor, expected: Tensor) -> float:
    """The largest deviation, as a share of the largest value; NaN where there is one."""
    return float((found - expected).abs().max()) / _size(expected)


def _scale(effects: Effects) -> float:
    """The size of the largest contribution to the logit, which rounding is a share of."""
    return max(_size(effects.unembed), _size(effects.row_unembed), _size(effects.embed), _size(effects.logit))


def _own_value(effects: Effects) -> float:
    changed = (effects.row_unembed[:, 0] - effects.unembed).abs().max()
    total = (effects.row_logit[:, 0] - effects.logit).abs().max()
    return float(torch.maximum(changed, total)) / _scale(effects)


def _changes(effects: Effects) -> Tensor:
    """`[row, component]` the largest change of each component's unembedding in each row.

    Against row 0, which overrides a component with its own value: it ran in the same batch, so rounding is alike.
    """
    return (effects.row_unembed - effects.row_unembed[:, :1]).abs().amax(0)


def _upstream(model: LanguageModel, request: Request, effects: Effects) -> float:
    changes, worst = _changes(effects), 0.0
    for number, row in enumerate(request.rows):
        below = {*model.downstream(row.start), row.start}
        fixed = [i for i, component in enumerate(model.components) if component not in below]
        if fixed:
            worst = max(worst, float(changes[number, fixed].max()))
    return worst / _scale(effects)


def _mlp_follows(model: LanguageModel, request: Request, effects: Effects) -> bool:
    """Whether ablating attention moves the MLP of the same block, anywhere, by more than rounding."""
    rounding = 4 * torch.finfo(model.dtype).eps * _scale(effects)
    changes, places = _changes(effects), {component: i for i, component in enumerate(model.components)}
    return any(
        float(changes[number, places[Component(row.start.layer, "mlp")]]) > rounding
        for number, row in enumerate(request.rows)
        if row.start.kind == "attn" and row.overrides[0][1] is not CLEAN
    )


def _imbalance(model: LanguageModel, effects: Effects) -> float:
    """total = Σ changes of the components + norm, for every row."""
    total = effects.row_logit - effects.logit[:, None]
    changes = (effects.row_unembed - effects.unembed[:, None]).sum(-1)
    norm = effects.row_logit - effects.row_frozen
    return float((total - changes - norm).abs().max()) / _scale(effects)


def _difference(found: Effects, expected: Effects) -> float:
    size = _scale(expected)
    names = [name for name in Effects.__dataclass_fields__ if name != "clean_error"]
    return max(float((getattr(found, name) - getattr(expected, name)).abs().max()) / size for name in names)
