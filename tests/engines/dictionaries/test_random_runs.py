"""Both engines give the same numbers, which balance, for random overrides of terms among all others."""

from dataclasses import replace

import pytest
from asked import PLACES, assert_same, heads, lengths, neurons, request, several_readouts
from by_definition import assert_by_definition
from dictionaries import ACTIVATIONS, SITES, has_site, random_dictionary
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_terms import plain_model
from rest_slow import rest_slow
from tiny import shared, tolerance

from hydrascope.components.component import INPUT_KINDS, Component, Override
from hydrascope.components.order import follows
from hydrascope.components.selection import select_overrides
from hydrascope.engines import ENGINES, balance, choose_engine
from hydrascope.models.language_model import LanguageModel

CASES = ("gpt2", "llama", "gemma2", "gpt_neox", "granite", "olmo2-bias", "opt", "gpt_oss", "cohere", "qwen3_moe")


def conflicts(part: Component, parts: list[Component]) -> bool:
    """Whether an override of a part would override it twice, by its sublayer or by all features."""
    wider = {part.sublayer, part.site} - {part}
    return part.sublayer != part and not wider.isdisjoint(parts)


def terms_of(site: str) -> tuple[Component, ...]:
    labels = (f"feature.{site}", f"feature.{site}.2", f"feature.{site}.7", f"error.{site}", f"bias.{site}")
    return tuple(map(Component.parse, labels))


@st.composite
def runs_with_terms(
    draw, model: LanguageModel, terms: tuple[Component, ...], inputs: tuple[Component, ...] = ()
) -> list[Override]:
    """Runs with anything ablated and frozen at once, a term of a dictionary in each; inputs of heads are frozen."""
    pool = (*model.sublayers, *heads(model), *neurons(model), *terms)
    runs = []
    for _ in range(draw(st.integers(1, 4))):
        parts = [draw(st.sampled_from(terms)), *draw(st.lists(st.sampled_from(pool), max_size=4))]
        parts = list(dict.fromkeys(parts))
        parts = draw(st.permutations([part for part in parts if not conflicts(part, parts)]))
        ablated = parts[: draw(st.integers(1, len(parts)))]
        free = [each for each in inputs if not conflicts(each, parts) and each.head not in parts]
        more = draw(st.lists(st.sampled_from(free), max_size=2, unique=True)) if free else []
        frozen = [
            part for part in (*parts[len(ablated) :], *more) if any(follows(model, part, other) for other in ablated)
        ]
        runs += select_overrides(model, Override(tuple(ablated), tuple(frozen)))
    return runs


@st.composite
def dictionaries(draw, model: LanguageModel) -> LanguageModel:
    """A model with one dictionary or several, of different sublayers."""
    made: dict[str, str] = {}
    sites = [site for site in (*SITES, "mlp.0", "attn.2", "stream.2") if has_site(model, site)]
    for site in draw(st.lists(st.sampled_from(sites), min_size=1, max_size=3, unique=True)):
        kind, _, block = site.rpartition(".")
        home = {"heads": "attn", "transcoder": "mlp"}.get(kind, kind.removeprefix("raw.")) + block
        made.setdefault(home, site)
    chosen = [random_dictionary(model, site, draw(st.sampled_from(ACTIVATIONS))) for site in made.values()]
    return model.with_dictionaries(*chosen)


@pytest.mark.parametrize("case", rest_slow(CASES, ("gemma2", "gpt_neox")))
def test_engines_agree_and_runs_balance(case: str) -> None:
    plain = shared(case)

    @settings(deadline=None, max_examples=15)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        model = data.draw(dictionaries(plain))
        terms = tuple(term for each in model.dictionaries.values() for term in terms_of(each.declared.site))
        inputs = tuple(Component(head.block, kind, head.unit) for head in heads(plain)[::3] for kind in INPUT_KINDS)
        runs = data.draw(runs_with_terms(model, terms, inputs))
        units = tuple(data.draw(st.lists(st.sampled_from((*terms, *heads(model), *neurons(model))), unique=True)))
        sizes, at, seed = data.draw(lengths), data.draw(st.sampled_from(PLACES)), data.draw(st.integers(0, 99))
        readouts = several_readouts(model, len(sizes))
        answers = [1 + length % 3 for length in sizes] if data.draw(st.booleans()) else []
        metrics = ["kl", "answer_log_prob"] if answers else []
        asked = request(
            model, runs, sizes, at, seed=seed, units=units, readouts=readouts, metrics=metrics, answers=answers
        )
        summed = tuple(term for term in terms if str(term) == f"feature.{term.place}.{term.block}")
        asked = replace(asked, summed=tuple(data.draw(st.lists(st.sampled_from(summed), unique=True))))
        reference, wavefront = (ENGINES[name](model, asked) for name in ("reference", "wavefront"))
        assert_same(wavefront, reference, tolerance(case))
        streams = [choose_engine(model, name).final_streams(model, asked) for name in ENGINES]
        for one, other in zip(*streams, strict=True):
            assert float((one - other).abs().max()) <= 10 * tolerance(case) * float(one.abs().max())
        may = balance.may_change(model, asked.overrides)
        off = balance.imbalance(wavefront, may, asked.readouts.final)
        size = balance.balance_size(wavefront, may.shape[1], asked.readouts.final)
        assert bool((off / size <= tolerance(case)).all())

    check()


@pytest.mark.parametrize("case", rest_slow(("gpt2", "llama", "granite", "gemma2", "olmo2-bias", "gpt_neox")))
def test_they_are_what_the_definition_gives(case: str) -> None:
    plain = plain_model(case)
    sites = [site for site in SITES if has_site(plain, site)]

    @settings(deadline=None, max_examples=8)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        site = data.draw(st.sampled_from(sites))
        dictionary = random_dictionary(plain, site, data.draw(st.sampled_from(ACTIVATIONS)))
        runs = data.draw(runs_with_terms(plain.with_dictionaries(dictionary), terms_of(site)))
        at, seed = data.draw(st.sampled_from(PLACES)), data.draw(st.integers(0, 99))
        assert_by_definition(case, dictionary, at, seed, runs)

    check()
