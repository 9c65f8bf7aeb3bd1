"""The self-check: what must hold for any model if its anatomy is right. Nothing is believed.

Every identity is tested on short prompts of the model's own tokens, when a model is loaded and by `hydrascope check`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hydrascope.components.component import SUBLAYER_KINDS, UNIT_OF, Component, Override
from hydrascope.engines import Readings, Request, reference, wavefront
from hydrascope.engines.balance import imbalance, may_change
from hydrascope.engines.clean.clean_pass import CleanPass, compute_clean_pass
from hydrascope.engines.readouts import Logit, Readouts, Tokens, final_scale
from hydrascope.models import fingerprint
from hydrascope.models.batching import padded
from hydrascope.models.float64 import float64_copy
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError

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


def require_valid(model: LanguageModel) -> None:
    """Refuse `model` unless every identity holds.

    Raises:
        HydrascopeError: one doesn't; the message names it and says by how much.
    """
    for identity in identities(model):
        if not identity.passed:
            raise HydrascopeError(
                f"the model {model.name} fails the self-check: {identity.name} does not hold (off by "
                f"{identity.error:.1e}, allowed {identity.tolerance:.0e}); {explain_failure(model)}"
            )


def revalidate_if_changed(model: LanguageModel) -> None:
    """Find `model` again, prove it, and hash it anew, if its weights or hooks were changed since it was found.

    Raises:
        HydrascopeError: as `require_valid`.
    """
    weights, hooks = model.verified_state
    now = model.weights_state()
    if now == (weights, hooks):
        return
    revision = model.revision
    model.reattach()
    model.revision, model.verified_state = revision, (weights, None)  # until it is proven
    require_valid(model)
    if now[0] != weights:
        model.revision = fingerprint.hash_parameters(model.hf)
    model.verified_state = now


def revision(model: LanguageModel) -> str:
    """What `model` was loaded from; of one that was made by hand the hash of its weights, computed once.

    `revalidate_if_changed` is what finds them changed.
    """
    model.revision = model.revision or fingerprint.hash_parameters(model.hf)
    return model.revision


def explain_failure(model: LanguageModel) -> str:
    """Why `model` fails the self-check: it may be its dtype alone."""
    dtype, exact = str(model.dtype).removeprefix("torch."), float64_copy(model)
    if exact is not None and all(identity.passed for identity in identities(exact)):
        return f"in float64 it does, so numbers in {dtype} are too coarse for this model: take a wider dtype"
    coarse = "" if model.dtype == torch.float64 or exact is not None else f", or {dtype} is too coarse for it"
    return (
        f"its anatomy ({model.config.model_type}) is declared wrongly, or the model is broken or changed by a hook"
        f"{coarse}"
    )


def check(model: LanguageModel) -> list[Identity]:
    """Every identity of the self-check, in the order in which they build on each other."""
    return list(identities(model))


def identities(model: LanguageModel) -> Iterator[Identity]:
    """The identities one by one, each tested when it is asked for."""
    tolerance = TOLERANCE[model.dtype]
    tokens, wide = _prompts(model), wider(model.dtype)
    whole = [sublayer for sublayer in model.sublayers if sublayer.kind == "attn" or model.is_dense(sublayer)]
    clean = compute_clean_pass(model, tokens, dict.fromkeys([*model.sublayers, *map(_units_site, whole)]))
    alive = _alive(model, clean)
    blocks = {0, len(model.blocks) // 2, len(model.blocks) - 1, *alive[:1]}
    sublayers, whole = (
        [sublayer for sublayer in each if sublayer.block in blocks] for each in (model.sublayers, whole)
    )
    total = clean.embed.to(wide) + clean.written(model).to(wide).sum(1)
    yield Identity("the parts sum to the final residual stream", _error(total, clean.final.to(wide)), tolerance)
    yield Identity("heads and neurons sum to their layers", _units_error(model, clean, whole), tolerance)

    with torch.no_grad():
        logits = clean.logits(model)
    own, given = _own(model, tokens), _capped(model, logits)
    yield Identity("the parts give the model's own logits", _error(given, own), tolerance)

    targets = logits.argmax(-1)
    readouts = Readouts.of(model, [Logit()], Tokens(targets.tolist()), range(len(tokens)))
    centred = logits.to(wide).gather(1, targets[:, None])[:, 0] - logits.to(wide).mean(1)
    final = clean.final.to(wide)
    read = (readouts.read(final[:, None])[:, 0] / final_scale(model, final)[:, None] + readouts.constants)[:, 0]
    yield Identity("reading the residual stream gives the centred logit", _error(read, centred), tolerance)

    last = torch.tensor([[len(prompt) - 1] for prompt in tokens])
    request = _request(model, tokens, last, clean.values, sublayers, readouts, targets)
    readings = reference.measure(model, request)
    yield Identity("an ablation with its own clean value changes nothing", _own_value(readings), tolerance)
    yield Identity("what is not downstream never changes", _upstream(model, request, readings), tolerance)
    # Nothing follows what never changes, and what never changes follows nothing: pruned layers write zeros.
    if not model.parallel and alive:
        still = 0.0 if _mlp_follows(model, request, readings) else 1.0
        yield Identity("an MLP reads what attention of its block writes", still, tolerance)
    yield Identity("heads sum to their layers in ablated runs", _heads_error(model, request, readings), tolerance)
    alike = _all_heads_error(request, readings)
    yield Identity("ablating all heads of a layer is ablating the layer", alike, tolerance)
    changing = may_change(model, request.overrides).to(readings.scale.device)
    off = float(imbalance(readings, changing, readouts.final).max()) / _scale(readings)
    yield Identity("total effects balance with their parts", off, tolerance)
    if model.anatomy.supports_wavefront:
        fast = wavefront.measure(model, request)
        off = float(fast.clean_error) / _size(fast.logit)
        yield Identity("row 0 of the wavefront is the clean run", off, tolerance)
        yield Identity("the wavefront gives what plain forward passes give", _difference(fast, readings), tolerance)
        earlier = replace(request, positions=last // 2)
        far = _difference(wavefront.measure(model, earlier), reference.measure(model, earlier))
        yield Identity("the same at an earlier position", far, tolerance)


def _prompts(model: LanguageModel) -> list[list[int]]:
    """Four short prompts of different lengths, of tokens drawn from the whole vocabulary."""
    generator = torch.Generator().manual_seed(0)
    longest = min(7, model.context_length or 7)
    size = model.known_tokens
    lengths = [longest, max(longest - 3, 1), longest, max(longest - 5, 1)]
    # Of one batch, whatever decides how a batch is computed.
    lengths = [length if model.batch_key(length) == model.batch_key(longest) else longest for length in lengths]
    return [torch.randint(size, (length,), generator=generator).tolist() for length in lengths]


def _alive(model: LanguageModel, clean: CleanPass) -> list[int]:
    """The blocks whose attention and MLP both write something else on another prompt."""

    def differs(component: Component) -> bool:
        values = clean.values[component]
        return not torch.equal(values, values.roll(1, dims=0))

    return [
        block for block in range(len(model.blocks)) if all(differs(Component(block, kind)) for kind in SUBLAYER_KINDS)
    ]


@torch.no_grad()
def _units_error(model: LanguageModel, clean: CleanPass, sublayers: Sequence[Component]) -> float:
    """How far units and bias are from the output of their layer."""
    worst = 0.0
    for sublayer in sublayers:
        projection, values = model.projection(sublayer), clean.values[_units_site(sublayer)]
        output, bias = (projection.apply(each) for each in (values, torch.zeros_like(values)))
        if sublayer.kind == "attn":
            written = torch.stack([projection.written(values, unit) for unit in range(projection.units)]).sum(0)
        else:
            # What thousands of neurons write is one product.
            written = projection.scaled(output - bias, output)
        worst = max(worst, _error(written + projection.scaled(bias, output), clean.values[sublayer]))
    return worst


def _units_site(sublayer: Component) -> Component:
    """Where the heads or neurons of `layer` stand."""
    return Component(sublayer.block, UNIT_OF["attn" if sublayer.kind == "attn" else "mlp"])


def _request(
    model: LanguageModel,
    tokens: list[list[int]],
    positions: Tensor,
    values: dict[Component, Tensor],
    sublayers: Sequence[Component],
    readouts: Readouts,
    targets: Tensor,
) -> Request:
    """Every one of `layers` ablated, all heads of each attention layer together, a neuron, two parts, and one frozen.

    The first patch is the next prompt's value, the second the prompt's own.
    """
    heads = [model.units(sublayer) for sublayer in sublayers if sublayer.kind == "attn"]
    neurons = [
        model.units(sublayer)[-1] for sublayer in sublayers if sublayer.kind == "mlp" and model.is_dense(sublayer)
    ]
    overrides = [*(Override((component,)) for component in [*sublayers, *neurons]), *map(Override, heads)]
    overrides += [Override((sublayers[0], sublayers[-1])), Override((sublayers[0],), (sublayers[-1],))]
    units = tuple(head for each in heads for head in each) + tuple(neurons)

    def patches(component: Component) -> Tensor:
        own = values[component.site][:, model.columns(component)]
        return torch.stack([own.roll(1, dims=0), own], 1)[:, :, None]

    return Request(tokens, positions, tuple(overrides), 2, patches, units, readouts, (), targets)


@torch.no_grad()
def _own(model: LanguageModel, tokens: list[list[int]]) -> Tensor:
    """The logits that the model itself gives at the final position."""
    ids, last = padded(model, tokens)
    with model.measuring():
        return model.hf(input_ids=ids, use_cache=False).logits[torch.arange(len(tokens)), last]


def _capped(model: LanguageModel, logits: Tensor) -> Tensor:
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap


def _size(values: Tensor) -> float:
    return float(values.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _error(found: Tensor, expected: Tensor) -> float:
    """The largest deviation, as a share of the largest value; NaN where there is one."""
    return float((found - expected).abs().max()) / _size(expected)


def _scale(readings: Readings) -> float:
    """The size of the largest contribution to the logit, which rounding is a share of."""
    return max(map(_size, (readings.unembed, readings.unembed_ablated, readings.embed, readings.logit)))


def _own_value(readings: Readings) -> float:
    """How far runs with the second patch, the prompt's own value, are from the clean run."""
    changed = (readings.unembed_ablated[:, :, :, 1] - readings.unembed[:, :, None]).abs().max()
    total = (readings.logit_ablated[:, :, :, 1] - readings.logit[:, :, None]).abs().max()
    return float(torch.maximum(changed, total)) / _scale(readings)


def _changes(readings: Readings) -> Tensor:
    """`[run, component]` the largest change of each component's readings in each run.

    Against the second patch, which changes nothing: it ran in the same batch, so rounding is alike.
    """
    return (readings.unembed_ablated[:, :, :, 0] - readings.unembed_ablated[:, :, :, 1]).abs().amax((0, 1))


def _upstream(model: LanguageModel, request: Request, readings: Readings) -> float:
    """How much anything changes that a run neither overrides nor reaches."""
    still = ~may_change(model, request.overrides)
    changes = _changes(readings)[:, : len(model.sublayers)]
    return float((changes * still.to(changes)).max()) / _scale(readings)


def _mlp_follows(model: LanguageModel, request: Request, readings: Readings) -> bool:
    """Whether ablating attention moves the MLP of the same block, anywhere, by more than rounding."""
    rounding = 4 * torch.finfo(model.dtype).eps * _scale(readings)
    changes = _changes(readings)
    return any(
        float(changes[number, model.sublayers.index(Component(override.ablated[0].block, "mlp"))]) > rounding
        for number, override in enumerate(request.overrides)
        if override.ablated[0].kind == "attn" and len(override.overridden) == 1
    )


def _heads_error(model: LanguageModel, request: Request, readings: Readings) -> float:
    """How far changes of heads are from the changes of their layers: a bias doesn't change."""
    changes, worst = readings.unembed_ablated - readings.unembed[:, :, None, None], 0.0
    components = (*model.sublayers, *request.units)
    for number, sublayer in enumerate(model.sublayers):
        heads = [place for place, unit in enumerate(components) if unit.kind == "head" and unit.sublayer == sublayer]
        biased = heads and getattr(model.projection(sublayer).module, "bias", None) is not None
        if not heads or (biased and model.projection(sublayer).norm is not None):
            continue
        # Where the layer itself is overridden, its heads have no say.
        free = [place for place, override in enumerate(request.overrides) if sublayer not in override.overridden]
        difference = changes[:, :, free][..., heads].sum(-1) - changes[:, :, free][..., number]
        worst = max(worst, float(difference.abs().max()))
    return worst / _scale(readings)


def _all_heads_error(request: Request, readings: Readings) -> float:
    """How far runs that ablate all heads of a layer are from those that ablate the layer."""
    worst = 0.0
    for number, override in enumerate(request.overrides):
        if override.ablated[0].kind == "head":
            block = request.overrides.index(Override((override.ablated[0].sublayer,)))
            difference = readings.logit_ablated[:, :, number] - readings.logit_ablated[:, :, block]
            worst = max(worst, float(difference.abs().max()))
    return worst / _scale(readings)


def _difference(found: Readings, expected: Readings) -> float:
    size = _scale(expected)
    names = ("unembed", "embed", "logit", "unembed_ablated", "logit_ablated", "logit_direct", "logit_indirect", "scale")
    return max(float((getattr(found, name) - getattr(expected, name)).abs().max()) / size for name in names)
