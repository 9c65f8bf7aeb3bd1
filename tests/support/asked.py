"""Random requests to an engine, and how far two answers to one request are apart."""

from collections.abc import Sequence
from dataclasses import fields
from zlib import crc32

import torch
from hypothesis import strategies as st
from tiny import VOCABULARY
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines import Readings, Request
from hydrascope.engines.directions import Direction
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.engines.metrics import resolve_metrics
from hydrascope.engines.readouts import Logit, LogitDifference, Readout, Readouts, Tokens
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: Where components are ablated: at the last position, at one in the middle, at several there, everywhere.
PLACES = ("last", "middle", "span", "all")

#: What of `Readings` has a value for each readout, in its unit.
READ = ("unembed", "embed", "logit", "unembed_ablated", "logit_ablated", "logit_direct", "logit_indirect", "own")

#: The fields of `Readings` that are tensors, not sums of features.
TENSORS = tuple(field.name for field in fields(Readings) if field.name != "sums")

lengths = st.lists(st.integers(1, 10), min_size=1, max_size=3)


def request(
    model: LanguageModel,
    overrides: Sequence[Override | str],
    lengths: Sequence[int] = (7, 3),
    at: str = "last",
    *,
    patches: int = 2,
    seed: int = 0,
    units: Sequence[Component] = (),
    readouts: Sequence[Readout] = (Logit(),),
    metrics: Sequence = (),
    answers: Sequence[int] = (),
) -> Request:
    """These runs of random prompts, with random patches that differ at every position.

    Args:
        answers: the number of tokens of each prompt's answer, drawn as well; none by default.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    target, answer = torch.randint(VOCABULARY, (2, len(lengths)), generator=generator)
    foil = (answer + torch.randint(1, VOCABULARY, (len(lengths),), generator=generator)) % VOCABULARY
    whole = [torch.randint(VOCABULARY, (count,), generator=generator).tolist() for count in answers]
    slots = [_slots(length, at) for length in lengths]
    longest = max(map(len, slots))
    # A prompt with fewer positions than another has its last one repeated, and what is written there.
    place = torch.tensor([[*range(len(each)), *[len(each) - 1] * (longest - len(each))] for each in slots])
    positions = torch.tensor([[*each, *[each[-1]] * (longest - len(each))] for each in slots])
    kept: dict[Component, Tensor] = {}

    def values(component: Component) -> Tensor:
        if component not in kept:
            width = len(range(*model.columns(component).indices(model.site_width(component.site))))
            # Of its own seed: whichever engine asks first, and in whatever order.
            own = torch.Generator().manual_seed(seed + 1000 * crc32(str(component).encode()))
            drawn = torch.randn(len(lengths), patches, longest, width, generator=own, dtype=torch.float64)
            kept[component] = drawn.take_along_dim(place[:, None, :, None], 2).to(model.dtype)
        return kept[component]

    spoken = Tokens(target.tolist(), answer.tolist(), foil.tolist())
    return Request(
        tokens,
        positions,
        tuple(Override.parse(run) if isinstance(run, str) else run for run in overrides),
        patches,
        values,
        tuple(units),
        Readouts.of(model, readouts, spoken, range(len(lengths))),
        resolve_metrics(metrics),
        target,
        answers=whole,
    )


def _slots(length: int, at: str) -> list[int]:
    return {
        "last": [length - 1],
        "middle": [length // 2],
        "span": list(range(length // 3, (2 * length + 2) // 3)),
        "all": list(range(length)),
    }[at]


def neurons(model: LanguageModel) -> tuple[Component, ...]:
    """The first and the last neuron of every dense MLP."""
    found: list[Component] = []
    for sublayer in model.sublayers:
        if sublayer.kind == "mlp" and is_dense(model, sublayer):
            found += [model.units(sublayer)[0], model.units(sublayer)[-1]]
    return tuple(found)


def heads(model: LanguageModel) -> tuple[Component, ...]:
    """All heads."""
    return tuple(head for sublayer in model.sublayers if sublayer.kind == "attn" for head in model.units(sublayer))


def is_dense(model: LanguageModel, sublayer: Component) -> bool:
    """Whether the neurons of an MLP can be told apart."""
    try:
        return bool(model.units(sublayer))
    except HydrascopeError:
        return False


def several_readouts(model: LanguageModel, prompts: int = 2) -> list[Readout]:
    """A logit, a difference, and directions: one through the final norm, others within the network."""
    generator = torch.Generator().manual_seed(7)
    own = torch.randn(prompts, model.width, generator=generator, dtype=torch.float64)
    alike = torch.randn(3, model.width, generator=generator, dtype=torch.float64)
    return [
        Logit(),
        LogitDifference(),
        Direction(alike[0]),
        Direction(own, before=1, name="inner"),
        Direction(alike[1], before=2, name="later"),
        Direction(alike[2], before=0, name="embedding"),
    ]


@st.composite
def random_runs(draw, model: LanguageModel) -> list[Override]:
    """Runs with anything ablated and frozen at once, but no unit together with its sublayer."""
    pool = (*model.sublayers, *heads(model), *neurons(model))
    runs = []
    for _ in range(draw(st.integers(1, 5))):
        parts = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=5, unique=True))
        fitting = [part for part in parts if not (part.is_unit and part.sublayer in parts)]
        ablated = draw(st.integers(1, len(fitting)))
        runs.append(Override(tuple(fitting[:ablated]), tuple(fitting[ablated:])))
    return runs


def sizes(readings: Readings) -> Tensor:
    """`[readout]` the largest of its readings: what rounding is a share of."""
    return torch.stack([getattr(readings, name).flatten(1).abs().amax(1) for name in READ]).amax(0)


def assert_same(found: Readings, expected: Readings, tolerance: float) -> None:
    """Every reading is the same, up to a share of the size of its readout, or of its own."""
    size = sizes(expected)
    assert max(found.clean_error, expected.clean_error) <= tolerance * float(size.max())
    for name in (name for name in TENSORS if name != "clean_error"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape, name
        if not other.numel():
            continue
        error = (one - other).abs()
        if name in READ:
            error = error.flatten(1).amax(1) / size
        elif name == "scale":
            error = error / other
        else:
            error = error.flatten(1).amax(1) / expected.metrics_ablated.flatten(1).abs().amax(1).clamp_min(1)
        # Not `<=` of the largest, so that a NaN fails.
        assert bool((error <= tolerance).all()), f"{name}: off by {error.flatten().max():.1e}"
    assert found.sums.keys() == expected.sums.keys()
    for site, sums in expected.sums.items():
        assert_same_sums(found.sums[site], sums, tolerance)


def assert_same_sums(found: FeatureSums, expected: FeatureSums, tolerance: float) -> None:
    """Every sum is the same, up to a share of the largest contribution or response of a feature to its readout."""
    largest = torch.maximum(expected.clean.abs().amax(1), expected.absolute.flatten(1).amax(1))
    for each in fields(FeatureSums):
        one, other = getattr(found, each.name), getattr(expected, each.name)
        assert one.shape == other.shape, each.name
        error, size = (one - other).abs().flatten(1).amax(1), largest**2 if each.name == "square" else largest
        assert bool((error <= tolerance * size).all()), f"{each.name}: off by {float((error / size).max()):.1e}"
