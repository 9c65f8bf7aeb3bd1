"""Compare what engines measure of a dictionary's terms with plain passes written from the definition alone."""

from collections.abc import Sequence

import torch
from asked import request
from dictionaries import runs_of
from plain_terms import PlainTerms, Run, standing
from tiny import tolerance
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.engines import ENGINES, Readings, Request
from hydrascope.engines.directions import Direction
from hydrascope.engines.readouts import Logit
from hydrascope.engines.reference.engine import ablated_activations
from hydrascope.models.language_model import LanguageModel

#: The readouts inside the network read the stream that enters these blocks.
INNER = (1, 2)


def vectors(model: LanguageModel) -> Tensor:
    return torch.randn(len(INNER), model.width, generator=torch.Generator().manual_seed(5)).double()


def asked_of(model: LanguageModel, site: str, at: str, seed: int, runs: Sequence[Override]) -> Request:
    terms = [f"feature.{site}.0", f"feature.{site}.3", f"feature.{site}", f"error.{site}", f"bias.{site}"]
    inner = [
        Direction(vector, before=block, name=f"d{block}") for vector, block in zip(vectors(model), INNER, strict=True)
    ]
    units = [Component.parse(term) for term in terms]
    readouts = [Logit(), *inner]
    return request(model, runs, (6, 3), at, patches=1, units=units, readouts=readouts, seed=seed)


def by_definition(
    plain: PlainTerms, asked: Request, prompt: int, override: Override, clean: Run
) -> tuple[dict[str, Tensor], Run]:
    """The effects of an override, own, the scale, and what each term adds, `[readout, …]`; and its run."""
    tokens, target = asked.tokens[prompt], int(asked.targets[prompt])
    places = asked.positions[prompt].tolist()
    everywhere = range(len(tokens))
    changes = {component: (places, asked.values(component)[prompt, 0]) for component in override.ablated}
    changes |= {component: (everywhere, standing(plain, clean, component)) for component in override.frozen}
    run = plain.run(tokens, changes)
    homes = {plain.home(component) for component in override.ablated}
    deltas = {}
    for home in homes:
        here = {component: change for component, change in changes.items() if plain.home(component) == home}
        # Upstream of it everything is clean: what it adds is changed by its own overrides alone.
        deltas[home] = plain.change(plain.run(tokens, here), clean, home)
    # A frozen sublayer freezes all that is in it.
    shown = {term: clean if plain.home(term) in override.frozen else run for term in asked.units}
    vector, final, changed = plain.token(target), clean.streams[-1], run.streams[-1]
    delta = sum(deltas.values())
    sigma, in_run = plain.sigma(final), plain.sigma(changed)
    before = plain.logit(final, vector)
    own = run.own if plain.kind == "stream" else torch.zeros(len(final), dtype=final.dtype)
    found = {
        "total": [plain.logit(changed, vector) - before],
        "direct": [plain.logit(final + delta, vector) - before],
        "indirect": [plain.logit(changed - delta, vector) - before],
        "own": [plain.read(own, vector, sigma)],
        "terms": [[plain.read(plain.written(shown[term], term), vector, sigma) for term in asked.units]],
    }
    for reader, block in zip(vectors(plain.model), INNER, strict=True):
        below = sum(
            (each for home, each in deltas.items() if (plain.block <= block if home is None else home.block < block)),
            start=torch.zeros_like(final),
        )
        total = (run.streams[block] - clean.streams[block]) @ reader
        seen = plain.block < block or (plain.kind == "stream" and plain.block == block)
        found["total"].append(float(total))
        found["direct"].append(float(below @ reader))
        found["indirect"].append(float(total - below @ reader))
        found["own"].append(float(own @ reader) * seen)
        found["terms"].append([float(plain.written(shown[term], term) @ reader) * seen for term in asked.units])
    numbers = {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}
    return numbers | {"scale": sigma / in_run}, run


def quantities(readings: Readings, prompt: int, run: int, units: int) -> dict[str, Tensor]:
    clean = readings.logit[:, prompt]
    return {
        "total": readings.logit_ablated[:, prompt, run, 0] - clean,
        "direct": readings.logit_direct[:, prompt, run, 0] - clean,
        "indirect": readings.logit_indirect[:, prompt, run, 0] - clean,
        "own": readings.own[:, prompt, run, 0],
        "terms": readings.unembed_ablated[:, prompt, run, 0, -units:],
        "scale": readings.scale[prompt, run, 0],
    }


def assert_by_definition(
    case: str, dictionary: Dictionary, at: str, seed: int = 0, runs: Sequence[Override] | None = None
) -> None:
    """Every number of every engine is what the definition gives, in these runs or in those of `runs_of`."""
    plain = PlainTerms(case, dictionary)
    model = plain.model.with_dictionaries(dictionary)
    asked = asked_of(model, dictionary.site, at, seed, runs or runs_of(model, dictionary.site))
    found = {name: engine(model, asked) for name, engine in ENGINES.items()}
    attached = model.dictionaries[asked.units[0].sublayer]
    sites = (*model.sublayers, *attached.term_sites, Component(1, "head"), Component(1, "neuron"))
    for prompt, tokens in enumerate(asked.tokens):
        clean = plain.run(tokens)
        activations = ablated_activations(model, asked, prompt, sites, range(len(tokens)))
        for number, override in enumerate(asked.overrides):
            expected, run = by_definition(plain, asked, prompt, override, clean)
            said = f"prompt {prompt}, {override}"
            for engine, readings in found.items():
                numbers = quantities(readings, prompt, number, len(asked.units))
                assert_close(numbers, expected, tolerance(case), f"{engine}, {said}")
            there = {
                str(site): standing(plain, clean if plain.home(site) in override.frozen else run, site)
                for site in sites
            }
            kept = {str(site): activations[site][number, 0] for site in sites}
            assert_close(kept, there, tolerance(case), f"activations, {said}")


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, said: str) -> None:
    size = max(float(values.abs().max()) for values in expected.values())
    for name, values in expected.items():
        off = float((found[name] - values).abs().max())
        assert off <= 3 * tolerance * size, f"{name} of {said}: off by {off:.1e} of {size:.1e}"
