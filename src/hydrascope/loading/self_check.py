"""The self-check: identities that hold for every model if its anatomy is right.

They are tested on short prompts of the model's own tokens, at every load and by `hydrascope check`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hydrascope.components.component import SUBLAYER_KINDS, Component, Override
from hydrascope.engines import Readings, Request, reference, wavefront
from hydrascope.engines.balance import imbalance, may_change
from hydrascope.engines.clean.clean_pass import CleanPass, compute_clean_pass
from hydrascope.engines.override_change import units_site
from hydrascope.engines.readouts import Logit, Readouts, Tokens, final_scale
from hydrascope.loading.dictionary_check import dictionary_identities
from hydrascope.loading.failure_causes import cause_of_error, known_cause
from hydrascope.models import fingerprint
from hydrascope.models.batching import padded
from hydrascope.models.float64 import float64_copy
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.torch_state import plain_torch
from hydrascope.utils.errors import HydrascopeError

#: The largest relative error that rounding explains, by the model's dtype. Many models compute norms in float32 even
#: in float64.
TOLERANCE = {
    torch.float64: 1e-5,
    torch.float32: 1e-3,
    torch.float16: 3e-2,
    torch.bfloat16: 1e-1,
}


@dataclass(frozen=True)
class Identity:
    """One identity of the self-check, with the model's deviation from it.

    Attributes:
        name: the identity in words.
        error: the largest deviation, relative to the largest of the compared values.
        tolerance: the largest relative deviation that rounding explains.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the identity holds up to rounding; False for NaN."""
        return self.error <= self.tolerance


@plain_torch()
def require_valid(model: LanguageModel) -> None:
    """Refuse `model` unless every identity holds, of its dictionaries as well.

    Raises:
        HydrascopeError: an identity doesn't hold; the message names it and gives its error.
    """
    for identity in _identities_of_model(model):
        if not identity.passed:
            raise HydrascopeError(
                f"the model {model.name} fails the self-check: {identity.name} does not hold (off by "
                f"{identity.error:.1e}, allowed {identity.tolerance:.0e}); {explain_failure(model)}"
            )
    model.dictionaries_checked = False
    _require_valid_dictionaries(model)


def revalidate_if_changed(model: LanguageModel) -> None:
    """Repeat the self-check, and hash the weights again, if weights or hooks have changed.

    Raises:
        HydrascopeError: as for `require_valid`.
    """
    weights, hooks = model.verified_state
    now = model.weights_state()
    if now == (weights, hooks):
        _require_valid_dictionaries(model)
        return
    revision = model.revision
    model.reattach()
    model.revision, model.verified_state = revision, (weights, None)  # until the check passes
    require_valid(model)
    if now[0] != weights:
        model.revision = fingerprint.hash_parameters(model.hf)
    model.verified_state = now


def _require_valid_dictionaries(model: LanguageModel) -> None:
    """Refuse a model whose dictionaries were attached since its check and fail theirs."""
    if not model.dictionaries or model.dictionaries_checked:
        return
    for name, error in dictionary_identities(model, _prompts(model)):
        if not error <= TOLERANCE[model.dtype]:
            raise HydrascopeError(
                f"a dictionary of {model.name} fails the self-check: {name} does not hold (off by {error:.1e}, allowed "
                f"{TOLERANCE[model.dtype]:.0e}); its numbers may be too large for {model.dtype}"
            )
    model.dictionaries_checked = True


def revision(model: LanguageModel) -> str:
    """Return the revision of `model`: the hub's commit or a hash of its files or weights.

    The hash of a model built in memory is computed once; `revalidate_if_changed` renews it.
    """
    model.revision = model.revision or fingerprint.hash_parameters(model.hf)
    return model.revision


def explain_failure(model: LanguageModel) -> str:
    """Return why `model` fails the self-check: a known cause, its dtype, or its anatomy."""
    if found := known_cause(model, _holds):
        return found
    dtype, exact = str(model.dtype).removeprefix("torch."), float64_copy(model)
    if exact is not None and _holds(exact):
        return f"it holds in float64, so {dtype} is too coarse for this model: take a wider dtype"
    coarse = "" if model.dtype == torch.float64 or exact is not None else f", or {dtype} is too coarse for it"
    return (
        f"its anatomy ({model.config.model_type}) is declared wrongly, or the model is broken or changed by other code"
        f"{coarse}"
    )


def _holds(model: LanguageModel) -> bool:
    """Whether a model passes; a trial that can't be run doesn't."""
    try:
        return all(identity.passed for identity in identities(model))
    except Exception:  # of the model's own code
        return False


def check(model: LanguageModel) -> list[Identity]:
    """Run the self-check and return every identity; later ones build on earlier ones."""
    return list(identities(model))


def identities(model: LanguageModel) -> Iterator[Identity]:
    """Yield the identities, each tested when it is asked for."""
    yield from _identities_of_model(model)
    for name, error in dictionary_identities(model, _prompts(model)):
        yield Identity(name, error, TOLERANCE[model.dtype])


def _identities_of_model(model: LanguageModel) -> Iterator[Identity]:
    """Yield the identities but for those of dictionaries."""
    tolerance = TOLERANCE[model.dtype]
    tokens, wide = _prompts(model), wider(model.dtype)
    own = _own_logits(model, tokens)
    dense = [sublayer for sublayer in model.sublayers if sublayer.kind == "attn" or model.is_dense(sublayer)]
    clean = compute_clean_pass(model, tokens, dict.fromkeys([*model.sublayers, *map(units_site, dense)]))
    alive = _alive(model, clean)
    blocks = {0, len(model.blocks) // 2, len(model.blocks) - 1, *alive[:1]}
    sublayers, dense = (
        [sublayer for sublayer in group if sublayer.block in blocks] for group in (model.sublayers, dense)
    )
    total = clean.embed.to(wide) + clean.written(model).to(wide).sum(1)
    yield Identity("the components sum to the final residual stream", _error(total, clean.final.to(wide)), tolerance)
    yield Identity("heads and neurons sum to their sublayers", _units_error(model, clean, dense), tolerance)

    with torch.no_grad():
        logits = clean.logits(model)
    computed = _capped(model, logits)
    yield Identity("the components give the model's own logits", _error(computed, own), tolerance)

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
    yield Identity("components that are not downstream never change", _upstream(model, request, readings), tolerance)
    # In a pruned block, a sublayer writes only zeros and so never changes.
    if not model.parallel and alive:
        error = 0.0 if _mlp_follows(model, request, readings) else 1.0
        yield Identity("an MLP reads the output of its block's attention", error, tolerance)
    yield Identity("heads sum to their sublayers when ablated", _heads_error(model, request, readings), tolerance)
    error = _all_heads_error(request, readings)
    yield Identity("ablating all heads of a sublayer is ablating the sublayer", error, tolerance)
    changing = may_change(model, request.overrides).to(readings.scale.device)
    error = float(imbalance(readings, changing, readouts.final).max()) / _scale(readings)
    yield Identity("total effects balance with their terms", error, tolerance)
    if model.anatomy.supports_wavefront:
        fast = wavefront.measure(model, request)
        error = float(fast.clean_error) / _size(fast.logit)
        yield Identity("row 0 of the wavefront is the clean pass", error, tolerance)
        yield Identity("the wavefront agrees with plain forward passes", _difference(fast, readings), tolerance)
        earlier = replace(request, positions=last // 2)
        error = _difference(wavefront.measure(model, earlier), reference.measure(model, earlier))
        yield Identity("both engines agree at an earlier position", error, tolerance)


def _prompts(model: LanguageModel) -> list[list[int]]:
    """Return four short prompts of different lengths, with tokens drawn from the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    longest = min(7, model.context_length or 7)
    size = model.known_tokens
    lengths = [longest, max(longest - 3, 1), longest, max(longest - 5, 1)]
    # All four must be computed in one batch.
    lengths = [length if model.batch_key(length) == model.batch_key(longest) else longest for length in lengths]
    return [torch.randint(size, (length,), generator=generator).tolist() for length in lengths]


def _alive(model: LanguageModel, clean: CleanPass) -> list[int]:
    """Return the blocks in which attention and MLP both depend on the prompt."""

    def differs(component: Component) -> bool:
        values = clean.values[component]
        return not torch.equal(values, values.roll(1, dims=0))

    return [
        block for block in range(len(model.blocks)) if all(differs(Component(block, kind)) for kind in SUBLAYER_KINDS)
    ]


@torch.no_grad()
def _units_error(model: LanguageModel, clean: CleanPass, sublayers: Sequence[Component]) -> float:
    """Return the largest error of the sum of units and bias against the sublayer's output."""
    worst = 0.0
    for sublayer in sublayers:
        projection, values = model.projection(sublayer), clean.values[units_site(sublayer)]
        output, bias = (projection.apply(inputs) for inputs in (values, torch.zeros_like(values)))
        if sublayer.kind == "attn":
            written = torch.stack([projection.written(values, unit) for unit in range(projection.units)]).sum(0)
        else:
            # One product sums over thousands of neurons.
            written = projection.scaled(output - bias, output)
        worst = max(worst, _error(written + projection.scaled(bias, output), clean.values[sublayer]))
    return worst


def _request(
    model: LanguageModel,
    tokens: list[list[int]],
    positions: Tensor,
    values: dict[Component, Tensor],
    sublayers: Sequence[Component],
    readouts: Readouts,
    targets: Tensor,
) -> Request:
    """Return a request that ablates sublayers, all heads of an attention, neurons and pairs.

    One override also freezes a component. The first patch is the next prompt's activation, the second the prompt's own.
    """
    heads = [model.units(sublayer) for sublayer in sublayers if sublayer.kind == "attn"]
    neurons = [
        model.units(sublayer)[-1] for sublayer in sublayers if sublayer.kind == "mlp" and model.is_dense(sublayer)
    ]
    overrides = [*(Override((component,)) for component in [*sublayers, *neurons]), *map(Override, heads)]
    overrides += [Override((sublayers[0], sublayers[-1])), Override((sublayers[0],), (sublayers[-1],))]
    units = tuple(head for group in heads for head in group) + tuple(neurons)

    def patches(component: Component) -> Tensor:
        own = values[component.site][:, model.columns(component)]
        return torch.stack([own.roll(1, dims=0), own], 1)[:, :, None]

    return Request(tokens, positions, tuple(overrides), 2, patches, units, readouts, (), targets)


@torch.no_grad()
def _own_logits(model: LanguageModel, tokens: list[list[int]]) -> Tensor:
    """Return the logits `[prompt, vocabulary]` of a plain forward pass at the final position.

    Raises:
        HydrascopeError: the model can't be run, for a known cause.
    """
    ids, last = padded(model, tokens)
    with model.measuring():
        try:
            logits: Tensor = model.hf(input_ids=ids, use_cache=False).logits
        except Exception as error:  # of the model's own code
            if why := cause_of_error(model):
                raise HydrascopeError(
                    f"the model {model.name} can't be run, without hydrascope either: {why}"
                ) from error
            raise
        return logits[torch.arange(len(tokens)), last]


def _capped(model: LanguageModel, logits: Tensor) -> Tensor:
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap


def _size(values: Tensor) -> float:
    return float(values.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _error(found: Tensor, expected: Tensor) -> float:
    """Return the largest deviation relative to the largest expected value; NaN if there is one."""
    return float((found - expected).abs().max()) / _size(expected)


def _scale(readings: Readings) -> float:
    """Return the size of the largest contribution to the logit, to scale rounding errors."""
    return max(map(_size, (readings.unembed, readings.unembed_ablated, readings.embed, readings.logit)))


def _own_value(readings: Readings) -> float:
    """Return the error of ablations with the prompt's own activation against the clean pass."""
    changed = (readings.unembed_ablated[:, :, :, 1] - readings.unembed[:, :, None]).abs().max()
    total = (readings.logit_ablated[:, :, :, 1] - readings.logit[:, :, None]).abs().max()
    return float(torch.maximum(changed, total)) / _scale(readings)


def _changes(readings: Readings) -> Tensor:
    """Return the largest change of each component under each override, `[ablated, component]`.

    It is taken against the second patch, which changes nothing, since both are rounded alike in one batch.
    """
    return (readings.unembed_ablated[:, :, :, 0] - readings.unembed_ablated[:, :, :, 1]).abs().amax((0, 1))


def _upstream(model: LanguageModel, request: Request, readings: Readings) -> float:
    """Return the largest change of a component that an override neither covers nor reaches."""
    still = ~may_change(model, request.overrides)
    changes = _changes(readings)[:, : len(model.sublayers)]
    return float((changes * still.to(changes)).max()) / _scale(readings)


def _mlp_follows(model: LanguageModel, request: Request, readings: Readings) -> bool:
    """Whether ablating attention changes an MLP of the same block by more than rounding."""
    rounding = 4 * torch.finfo(model.dtype).eps * _scale(readings)
    changes = _changes(readings)
    return any(
        float(changes[number, model.sublayers.index(Component(override.ablated[0].block, "mlp"))]) > rounding
        for number, override in enumerate(request.overrides)
        if override.ablated[0].kind == "attn" and len(override.overridden) == 1
    )


def _heads_error(model: LanguageModel, request: Request, readings: Readings) -> float:
    """Return the largest error of the summed changes of heads against their sublayer's change."""
    changes, worst = readings.unembed_ablated - readings.unembed[:, :, None, None], 0.0
    components = (*model.sublayers, *request.units)
    for number, sublayer in enumerate(model.sublayers):
        heads = [index for index, unit in enumerate(components) if unit.kind == "head" and unit.sublayer == sublayer]
        biased = heads and getattr(model.projection(sublayer).module, "bias", None) is not None
        if not heads or (biased and model.projection(sublayer).norm is not None):
            continue
        # An override of the sublayer itself makes its heads irrelevant.
        free = [index for index, override in enumerate(request.overrides) if sublayer not in override.overridden]
        difference = changes[:, :, free][..., heads].sum(-1) - changes[:, :, free][..., number]
        worst = max(worst, float(difference.abs().max()))
    return worst / _scale(readings)


def _all_heads_error(request: Request, readings: Readings) -> float:
    """Return the largest logit difference between ablating all heads and the sublayer."""
    worst = 0.0
    for number, override in enumerate(request.overrides):
        if override.ablated[0].kind == "head":
            whole = request.overrides.index(Override((override.ablated[0].sublayer,)))
            difference = readings.logit_ablated[:, :, number] - readings.logit_ablated[:, :, whole]
            worst = max(worst, float(difference.abs().max()))
    return worst / _scale(readings)


def _difference(found: Readings, expected: Readings) -> float:
    size = _scale(expected)
    names = ("unembed", "embed", "logit", "unembed_ablated", "logit_ablated", "logit_direct", "logit_indirect", "scale")
    return max(float((getattr(found, name) - getattr(expected, name)).abs().max()) / size for name in names)
