"""Check identities of dictionary terms that hold for any numbers, at every site."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from asked import assert_same, assert_same_sums, heads, request, several_readouts, sizes
from dictionaries import ACTIVATIONS, SITES, has_site, runs_of, with_dictionary
from plain_terms import encode
from rest_slow import CORE
from term_faults import (
    Plant,
    encode_again_in_the_wavefront,
    read_before_the_override_in_the_wavefront,
    read_features_of_the_overridden_vector,
    read_without_the_post_norm_in_the_reference,
    read_without_the_post_norm_in_the_wavefront,
)
from tiny import CONFIGS, VOCABULARY, shared, tolerance
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines import ENGINES, Readings, Request, balance
from hydrascope.engines.clean.clean_pass import compute_clean_pass, compute_clean_pass_at
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.engines.readouts import FINAL, Logit, final_scale, is_below
from hydrascope.models.hooks import hooked, on_input, on_output
from hydrascope.models.language_model import LanguageModel

#: Whose sublayers are followed by norms, so that they have `raw` sites.
POST_NORMED = ("gemma2", "gemma3_text", "olmo2", "olmo2-bias", "olmo3")


#: Those that run always: with LayerNorm, post-norms and parallel blocks. Of experts there is no single projection.
FAST = ("gpt2", "gemma2", "gpt_neox")


def placed() -> list:
    """Every case and site with one activation, those of `CORE` with all; a few run always, the others are slow."""
    found = []
    for number, case in enumerate(CONFIGS):
        sites = [site for site in SITES if case in POST_NORMED or not site.startswith("raw.")]
        for place, site in enumerate(sites):
            first = ACTIVATIONS[(number + place) % len(ACTIVATIONS)]
            for activation in ACTIVATIONS if case in CORE else (first,):
                fast = case in FAST or (case, site) == ("mixtral", "transcoder.1")
                marks = () if fast and activation == first else pytest.mark.slow
                found.append(pytest.param(case, site, activation, marks=marks))
    return found


on_every_site = pytest.mark.parametrize(("case", "site", "activation"), placed())


def terms_of(site: str) -> list[Component]:
    """All features together, the error and the bias."""
    return [Component.parse(f"{kind}.{site}") for kind in ("feature", "error", "bias")]


def engines_of(model: LanguageModel) -> list[str]:
    return [name for name in ENGINES if name == "reference" or model.anatomy.supports_wavefront]


@cache
def measured(case: str, site: str, activation: str) -> tuple[LanguageModel, Request, dict[str, Readings]]:
    """Many runs, measured once by each engine: all terms, all single features and all heads of the block are read."""
    model = with_dictionary(case, site, activation)
    at = ("last", "all", "span")[SITES.index(site) % 3]
    single = [Component.parse(f"feature.{site}.{number}") for number in range(12)]
    units = [*terms_of(site), *single, *(head for head in heads(model) if head.block == 1)]
    asked = request(model, runs_of(model, site), (6, 3), at, units=units, readouts=several_readouts(model))
    asked = replace(asked, summed=(terms_of(site)[0],))
    return model, asked, {name: ENGINES[name](model, asked) for name in engines_of(model)}


def assert_zero(values: Tensor, readings: Readings, case: str) -> None:
    """`[readout, …]`, up to rounding."""
    size = sizes(readings).reshape(-1, *[1] * (values.ndim - 1))
    assert bool((values.abs() <= 2 * tolerance(case) * size).all()), f"off by {float((values.abs() / size).max()):.1e}"


@on_every_site
def test_the_site_is_there_where_it_should_be(case: str, site: str, activation: str) -> None:
    assert has_site(shared(case), site)


@on_every_site
def test_terms_add_up_to_what_stands_there_in_every_run(case: str, site: str, activation: str) -> None:
    """The sublayer, all of its heads, or the stream; and single features to all features."""
    model, asked, found = measured(case, site, activation)
    order = [*model.sublayers, *asked.units]
    terms = [order.index(term) for term in terms_of(site)]
    single = [order.index(unit) for unit in asked.units if unit.kind == "feature" and unit.unit >= 0]
    home = asked.units[0].sublayer
    # Of a sublayer that is overridden itself, what is inside has other terms.
    free = [number for number, run in enumerate(asked.overrides) if home not in run.overridden]
    if site.startswith(("attn", "mlp", "transcoder")):
        free = list(range(len(asked.overrides)))
    for readings in found.values():
        after, clean = readings.unembed_ablated, readings.unembed
        assert_zero(after[..., terms[0]] - after[..., single].sum(-1), readings, case)
        assert_zero(clean[..., terms[0]] - clean[..., single].sum(-1), readings, case)
        if home.kind == "stream":
            below = [is_below(sublayer, home.block) for sublayer in model.sublayers]
            whole = readings.embed[:, :, None, None] + after[..., : len(below)][..., below].sum(-1) + readings.own
            clean_whole = readings.embed + clean[..., : len(below)][..., below].sum(-1)
            seen = torch.tensor([row.before == FINAL or row.before >= home.block for row in asked.readouts.rows])
            whole, clean_whole = whole * seen[:, None, None, None], clean_whole * seen[:, None]
        else:
            parts = [home] if not site.startswith("heads") else [unit for unit in asked.units if unit.kind == "head"]
            columns = [order.index(part) for part in parts]
            whole, clean_whole = after[..., columns].sum(-1), clean[..., columns].sum(-1)
        assert_zero((after[..., terms].sum(-1) - whole)[:, :, free], readings, case)
        assert_zero(clean[..., terms].sum(-1) - clean_whole, readings, case)
        assert float(clean[0][:, terms].abs().min()) > 0


@on_every_site
def test_terms_balance(case: str, site: str, activation: str) -> None:
    model, asked, found = measured(case, site, activation)
    may = balance.may_change(model, asked.overrides)
    for readings in found.values():
        off = balance.imbalance(readings, may, asked.readouts.final)
        size = balance.balance_size(readings, may.shape[1], asked.readouts.final)
        assert bool((off / size <= tolerance(case)).all())
        rewrites = [any(c.place == "stream" for c in run.overridden) for run in asked.overrides]
        assert bool((readings.own[:, :, [not each for each in rewrites]] == 0).all())
        assert bool((readings.own[0, :, rewrites] != 0).any()) == any(rewrites)


@on_every_site
def test_nothing_changes_but_what_is_downstream(case: str, site: str, activation: str) -> None:
    """Other terms of the same vector aren't encoded again, and frozen ones are clean, but for a norm's scale."""
    model, asked, found = measured(case, site, activation)
    terms = [unit for unit in asked.units if unit.is_term]
    order = [*model.sublayers, *asked.units]
    normed = site.startswith(("raw.", "heads")) and case in POST_NORMED
    for number, override in enumerate(asked.overrides):
        touched = {*override.overridden, *(component.site for component in override.overridden)}
        kept = [c for c in terms if c in override.frozen]
        if all(component.is_term for component in override.ablated):
            kept += [c for c in terms if touched.isdisjoint({c, c.site})]
        columns = [] if normed else [order.index(component) for component in kept]
        still = ~balance.may_change(model, [override])[0]
        for name, readings in found.items():
            changes = readings.unembed_ablated[:, :, number] - readings.unembed[:, :, None]
            if name == "wavefront":
                assert bool((changes[..., : len(still)][..., still] == 0).all())
            assert_zero(changes[..., : len(still)][..., still], readings, case)
            assert_zero(changes[..., columns], readings, case)


@on_every_site
def test_both_engines_agree(case: str, site: str, activation: str) -> None:
    _, _, found = measured(case, site, activation)
    if "wavefront" in found:
        assert_same(found["wavefront"], found["reference"], tolerance(case))


@on_every_site
def test_sums_over_prompts_are_those_of_single_features(case: str, site: str, activation: str) -> None:
    """Also where nothing else is read of the dictionary."""
    model, asked, found = measured(case, site, activation)
    order = [*model.sublayers, *asked.units]
    single = [order.index(unit) for unit in asked.units if unit.kind == "feature" and unit.unit >= 0]
    alone = replace(asked, units=())
    for name, readings in found.items():
        clean, after = readings.unembed[..., single], readings.unembed_ablated[..., single]
        response = after.mean(3) - clean[:, :, None]
        sums = [each.sum(1) for each in (clean, response, response.abs(), response.square())]
        assert float(sums[1].abs().max()) > 0
        for measured_sums in (readings.sums[asked.summed[0]], ENGINES[name](model, alone).sums[asked.summed[0]]):
            assert_same_sums(measured_sums, FeatureSums(*sums), tolerance(case))


def given(model: LanguageModel, asked: Request, prompts: list[list[int]]) -> Callable[[Component], Tensor]:
    """Return activations of plain runs at the request's positions, `[prompt, 1, slot, columns]`."""
    place = torch.arange(len(prompts))[:, None].expand_as(asked.positions)
    sites = {c.site for override in asked.overrides for c in override.overridden}
    clean = compute_clean_pass_at(model, prompts, place.flatten(), asked.positions.flatten(), sites)

    def values(component: Component) -> Tensor:
        found = clean.values[component.site].unflatten(0, asked.positions.shape)
        return found[..., model.columns(component)][:, None]

    return values


@on_every_site
def test_its_own_clean_values_change_nothing(case: str, site: str, activation: str) -> None:
    model = with_dictionary(case, site, activation)
    feature, error, bias = (str(term) for term in terms_of(site))
    runs = [f"{feature}.3", feature, error, bias, f"{feature}.1+{feature}.4+{error}", f"{feature}+{error}+{bias}"]
    asked = request(model, runs, (6, 3), "all", patches=1, units=terms_of(site), readouts=several_readouts(model))
    asked = replace(asked, values=given(model, asked, [list(ids) for ids in asked.tokens]))
    for name in engines_of(model):
        readings = ENGINES[name](model, asked)
        assert_zero(readings.unembed_ablated - readings.unembed[:, :, None, None], readings, case)
        for each in (readings.logit_ablated, readings.logit_direct, readings.logit_indirect):
            assert_zero(each - readings.logit[..., None, None], readings, case)
        assert_zero(readings.own, readings, case)


@on_every_site
def test_all_terms_of_a_patch_are_the_patch(case: str, site: str, activation: str) -> None:
    """Zeros, and what another prompt's run has there: as if the sublayer, its heads or the stream were replaced."""
    model = with_dictionary(case, site, activation)
    feature, error, bias = (str(term) for term in terms_of(site))
    together = [f"{feature}+{error}+{bias}", "+".join([*(f"{feature}.{j}" for j in range(12)), error, bias])]
    home = Component.parse(feature).sublayer
    inside = site.startswith("heads")
    whole = "+".join(str(head) for head in model.units(home)) if inside else str(home)
    runs = together if home.kind == "stream" else [whole, *together]
    if site.endswith("1") and home.kind != "stream":
        runs = [*runs, *(f"attn.0+{run}" for run in runs)]
    asked = request(model, runs, (6, 3), "all", patches=2, readouts=[Logit(), *several_readouts(model)])
    generator = torch.Generator().manual_seed(9)
    others = [torch.randint(VOCABULARY, (len(ids),), generator=generator).tolist() for ids in asked.tokens]
    resampled = given(model, asked, others)
    # Of a stream of zeros, norms would make rounding errors as large as anything: half of it instead.
    least = 0.5 if home.kind == "stream" else 0.0
    asked = replace(asked, values=lambda c: torch.cat([least * resampled(c), resampled(c)], 1))
    for name in engines_of(model):
        readings = ENGINES[name](model, asked)
        if home.kind == "stream":
            expected = replaced_streams(model, asked, home.block, others)
            assert_zero(readings.logit_ablated[:1] - expected[None, :, None], readings, case)
            continue
        each = len(runs) // (2 if len(runs) > 3 else 1)
        for start in range(0, len(runs), each):
            for number in range(start + 1, start + each):
                for field in ("logit_ablated", "logit_direct", "logit_indirect", "unembed_ablated"):
                    values = getattr(readings, field)
                    assert_zero(values[:, :, number] - values[:, :, start], readings, case)
                assert bool((readings.scale[:, number] - readings.scale[:, start]).abs().max() <= 2 * tolerance(case))
        assert float((readings.logit_ablated[0] - readings.logit[0, :, None, None]).abs().max()) > 1e-3


@torch.no_grad()
def replaced_streams(model: LanguageModel, asked: Request, block: int, others: list[list[int]]) -> Tensor:
    """The logit, `[prompt, patch]`, where a block receives half of another prompt's stream, or all of it."""
    found = []
    for number, ids in enumerate(asked.tokens):
        places = asked.positions[number].tolist()
        kept: list[Tensor] = []
        normed: list[Tensor] = []

        def put(hidden: Tensor, value: Tensor, places: list[int] = places) -> Tensor:
            changed = hidden.clone()
            changed[0, places] = value[0, places]
            return changed

        with model.measuring():
            with hooked([on_input(model.blocks[block], lambda hidden, kept=kept: kept.append(hidden.clone()))]):
                model.hf.base_model(input_ids=torch.tensor([others[number]]), use_cache=False)
            for value in (0.5 * kept[0], kept[0]):
                hooks = [
                    on_input(model.blocks[block], lambda hidden, value=value: put(hidden, value)),
                    on_output(model.final_norm, lambda hidden, normed=normed: normed.append(hidden[0, -1])),
                ]
                with hooked(hooks):
                    model.hf.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        logits = model.unembedded(torch.stack(normed))
        found.append(logits[:, int(asked.targets[number])] - logits.mean(-1))
    return torch.stack(found)


@pytest.mark.parametrize("case", ["llama", "gpt2", pytest.param("granite", marks=pytest.mark.slow)])
@pytest.mark.parametrize("site", ["attn.1", "mlp.1"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_stands_after_an_override_of_the_sublayer_is_encoded(case: str, site: str, activation: str) -> None:
    """In the run of an overridden sublayer each term reads what the patch is encoded to, with its own encoder."""
    model = with_dictionary(case, site, activation)
    dictionary = model.dictionaries[Component.parse(site)].declared
    units = [Component.parse(f"feature.{site}.{number}") for number in range(12)]
    asked = request(model, [site], (5,), units=units)
    y = asked.values(Component.parse(site))[0, :, 0] * model.residual_scale
    code = encode(dictionary, y)
    reader = asked.readouts.rows[0].direction[0]
    for name in engines_of(model):
        readings = ENGINES[name](model, asked)
        read = readings.unembed_ablated[0, 0, 0, :, -12:]
        sigma = readings_sigma(model, asked)
        assert_zero((read - code * (dictionary.decoder @ reader) / sigma)[None], readings, case)
        assert int((code > 0).sum()) > 0


def readings_sigma(model: LanguageModel, asked: Request) -> Tensor:
    return final_scale(model, compute_clean_pass(model, asked.tokens).final)[0]


@pytest.mark.parametrize(
    ("plant", "check", "site"),
    [
        (encode_again_in_the_wavefront, test_both_engines_agree, "mlp.1"),
        (encode_again_in_the_wavefront, test_both_engines_agree, "stream.1"),
        (read_features_of_the_overridden_vector, test_nothing_changes_but_what_is_downstream, "mlp.1"),
        (read_without_the_post_norm_in_the_reference, test_terms_add_up_to_what_stands_there_in_every_run, "raw.mlp.1"),
        (read_without_the_post_norm_in_the_wavefront, test_terms_add_up_to_what_stands_there_in_every_run, "raw.mlp.1"),
        (read_before_the_override_in_the_wavefront, test_terms_add_up_to_what_stands_there_in_every_run, "attn.1"),
    ],
)
def test_a_planted_fault_is_caught(plant: Plant, check: Callable, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    measured.cache_clear()
    try:
        with pytest.raises(AssertionError):
            check("gemma2", site, "relu")
    finally:
        measured.cache_clear()
