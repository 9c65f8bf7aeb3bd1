"""The self-check of dictionaries: identities that hold if each is at the right place."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines import Readings, Request, reference, wavefront
from hydrascope.engines.balance import imbalance, may_change
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.override_change import sites_of_change
from hydrascope.engines.readouts import Readouts
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.language_model import LanguageModel

#: A deviation from an identity, relative to the largest of the compared values, with the identity in words.
Deviation = tuple[str, float]


def dictionary_identities(
    model: LanguageModel, tokens: Sequence[Sequence[int]], readouts: Readouts, targets: Tensor
) -> Iterator[Deviation]:
    """Yield the identities of each dictionary, with the model's deviation.

    Args:
        model: the model.
        tokens: the token ids of some prompts.
        readouts: their readouts.
        targets: `[prompt]` their target tokens.
    """
    for attached in model.dictionaries.values():
        yield from _identities_of(model, attached, tokens, readouts, targets)


def _identities_of(
    model: LanguageModel,
    attached: AttachedDictionary,
    tokens: Sequence[Sequence[int]],
    readouts: Readouts,
    targets: Tensor,
) -> Iterator[Deviation]:
    request = _request(model, attached, tokens, readouts, targets)
    readings = reference.measure(model, request)
    size, site = _scale(readings), attached.declared.site
    own = (readings.unembed_ablated[:, :, :, 1] - readings.unembed[:, :, None]).abs().max()
    total = (readings.logit_ablated[:, :, :, 1] - readings.logit[:, :, None]).abs().max()
    yield f"terms at {site} with their own clean values change nothing", float(torch.maximum(own, total)) / size
    if attached.projection is None and attached.home.kind != "stream":
        read = readings.unembed_ablated
        place = model.sublayers.index(attached.home)
        error = read[..., len(model.sublayers) :].sum(-1) - read[..., place]
        yield f"features, error and bias at {site} sum to the sublayer", float(error.abs().max()) / size
    changing = may_change(model, request.overrides).to(readings.scale.device)
    error = imbalance(readings, changing, readouts.final)
    yield f"total effects of terms at {site} balance with their terms", float(error.max()) / size
    if model.anatomy.supports_wavefront:
        for positions in (request.positions, request.positions // 2):
            asked = replace(request, positions=positions)
            plain = readings if positions is request.positions else reference.measure(model, asked)
            yield f"both engines agree on terms at {site}", _difference(wavefront.measure(model, asked), plain) / size


def _request(
    model: LanguageModel,
    attached: AttachedDictionary,
    tokens: Sequence[Sequence[int]],
    readouts: Readouts,
    targets: Tensor,
) -> Request:
    """Return a request that ablates terms, one by one and all together, and something upstream.

    The first patch is the next prompt's activation, the second the prompt's own.
    """
    terms, home = attached.term_sites, attached.home
    first = Component(0, "attn")
    overrides = [*(Override((term,)) for term in (replace(terms[0], unit=0), *terms)), Override(terms)]
    if home.kind != "stream" and home != first:
        overrides += [Override((first,)), Override((first,), (terms[0],)), Override((home,))]
    components = tuple(each for override in overrides for each in override.overridden)
    sites = dict.fromkeys((*model.sublayers, *terms, *sites_of_change(model, components)))
    clean = compute_clean_pass(model, tokens, sites).values

    def values(component: Component) -> Tensor:
        own = clean[component.site][:, model.columns(component)]
        return torch.stack([own.roll(1, dims=0), own], 1)[:, :, None]

    positions = torch.tensor([[len(prompt) - 1] for prompt in tokens])
    return Request(tokens, positions, tuple(overrides), 2, values, terms, readouts, (), targets)


def _scale(readings: Readings) -> float:
    sizes = (readings.unembed, readings.unembed_ablated, readings.embed, readings.logit)
    return max(float(each.abs().max()) for each in sizes) or torch.finfo(torch.float32).tiny


def _difference(found: Readings, expected: Readings) -> float:
    names = ("unembed", "unembed_ablated", "logit_ablated", "logit_direct", "logit_indirect", "own")
    return max(float((getattr(found, name) - getattr(expected, name)).abs().max()) for name in names)
