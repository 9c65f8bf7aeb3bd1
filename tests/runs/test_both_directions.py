"""Patching with counterfactuals in both directions: the normalised share by plain passes, in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from plain import Parts, Reader, loaded, plain_run

import hydrascope as hs
from hydrascope.measures import Bootstrap, effects_only, normalised, per_prompt
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import as_csv, as_json, as_markdown
from hydrascope.storage.reader import open_results
from hydrascope.utils.errors import HydrascopeError

#: Token ids: clean, corrupt, answer, foil.
PAIRS = [
    ((5, 6, 7, 8), (5, 9, 7, 8), 11, 12),
    ((4, 20, 30), (4, 21, 31), 13, 14),
    ((9, 8, 7, 6, 5), (9, 8, 3, 6, 5), 15, 16),
]
LABELS = ["attn.0", "mlp.1", "head.1.2"]


def prompts() -> hs.prompts.PromptSet:
    return hs.prompts.PromptSet.of(
        [hs.Prompt(tokens=own, answer=answer, foil=foil, counterfactual=twin) for own, twin, answer, foil in PAIRS]
    )


def by_hand(model: Any, probe: Any, at: str, denoising: bool) -> dict[tuple[str, int, str], tuple[float, float, float]]:
    """Clean, corrupt and patched by readout, prompt and component: plain passes with plain hooks."""
    found = {}
    for number, (clean_ids, corrupt_ids, answer, foil) in enumerate(PAIRS):
        clean, corrupt = (plain_run(model, ids, units=["head.1.2"]) for ids in (clean_ids, corrupt_ids))
        base, source = (corrupt_ids, clean) if denoising else (clean_ids, corrupt)
        where = range(len(base)) if at == "all" else [len(base) - 1]
        readers = {"difference": Reader.of_logit(model, answer, foil), "probe": Reader(probe, before=2)}
        for label in LABELS:
            patched = plain_run(model, base, {label: (list(where), source.values[label][list(where)])})
            for name, reader in readers.items():
                found[name, number, label] = tuple(map(reader.whole, (clean, corrupt, patched)))
    return found


@pytest.mark.parametrize("denoising", [False, True])
@pytest.mark.parametrize(("at", "engine"), [("last", "wavefront"), ("all", "wavefront"), ("all", "reference")])
def test_the_share_is_that_of_plain_passes(denoising: bool, at: str, engine: str) -> None:
    model = loaded("gpt2")
    probe = np.random.default_rng(0).normal(size=model.width)
    readouts = [hs.LogitDifference(), hs.Direction(probe, before=2, name="probe")]
    chosen = prompts().swapped() if denoising else prompts()
    options = {"ablate": LABELS, "at": at, "readouts": readouts, "engine": engine}
    results = hs.sweep(model, chosen, hs.Counterfactual(), **options)
    known = by_hand(model, torch.from_numpy(probe), at, denoising)
    table = hs.tidy(results).set_index(["readout", "prompt", "ablated"])
    # Answer and foil are exchanged with the prompts, so the difference is read the other way round.
    sign = {"difference": -1 if denoising else 1, "probe": 1}
    for (readout, number, label), (clean, corrupt, patched) in known.items():
        row = table.loc[readout, number, label]
        np.testing.assert_allclose(row["clean"], sign[readout] * clean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(row["corrupt"], sign[readout] * corrupt, rtol=0, atol=1e-9)
        np.testing.assert_allclose(row["normalised"], (patched - corrupt) / (clean - corrupt), rtol=1e-8, atol=1e-9)
    for readout in ("difference", "probe"):
        for effects in (effects_only(results, readout), per_prompt(results, readout)):
            shares = normalised(effects, Bootstrap(resamples=20))
            for label in LABELS:
                clean, corrupt, patched = np.array([known[readout, n, label] for n in range(len(PAIRS))]).T
                expected = (patched.mean() - corrupt.mean()) / (clean.mean() - corrupt.mean())
                np.testing.assert_allclose(shares.sel(ablated=label)[0], expected, rtol=1e-8, atol=1e-9)


def test_patching_everything_before_the_last_norm_is_the_other_run() -> None:
    """All sublayers by the twin's, at all positions, beside the same embeddings at the end."""
    model = loaded("llama")
    pairs = [((5, 6, 7, 8), (5, 9, 7, 8)), ((4, 20, 30), (4, 21, 30))]
    chosen = hs.prompts.PromptSet.of([hs.Prompt(tokens=own, counterfactual=twin) for own, twin in pairs])
    everything = "+".join(Parts.of(model).layers)
    for each, share in ((chosen, 0.0), (chosen.swapped(), 1.0)):
        table = hs.tidy(hs.sweep(model, each, hs.Counterfactual(), ablate=everything, at="all"))
        np.testing.assert_allclose(table["normalised"], share, rtol=0, atol=1e-9)


def test_summaries_say_the_share_and_its_direction(tmp_path: Any) -> None:
    model = loaded("gpt2")
    for chosen, patching in ((prompts(), "noising"), (prompts().swapped(), "denoising")):
        out = tmp_path / patching
        options = {"ablate": "attn", "readouts": hs.LogitDifference(), "metrics": ["kl"], "keep": "effects"}
        hs.sweep(model, chosen, hs.Counterfactual(), out=out, **options)
        results = open_results(out)
        assert results.attrs["patching"] == patching
        assert results["logit_twin"].dims == ("readout", "prompt")
        few = Bootstrap(resamples=30)
        summary = summarise(results, few)
        shares = normalised(effects_only(results), few)
        for row in summary.components:
            value = row.normalised
            np.testing.assert_array_equal([value.estimate, value.low, value.high], shares.sel(ablated=row.ablated))
        assert summary.run["patching"] == patching
        assert '"normalised": {' in as_json(summary)
        assert "normalised_low" in as_csv(summary)
        assert "| normalised |" in as_markdown(summary)


def test_other_ablations_have_no_share() -> None:
    results = hs.sweep(loaded("gpt2"), prompts(), hs.Zero(), ablate="attn")
    assert "logit_twin" not in results
    assert "patching" not in results.attrs
    assert "normalised" not in hs.tidy(results)
    assert "normalised |" not in as_markdown(summarise(results, Bootstrap(resamples=20)))
    with pytest.raises(HydrascopeError, match="only a result of the ablation counterfactual has a clean and a corrupt"):
        normalised(effects_only(results))


def test_texts_of_unequal_length_are_one_line() -> None:
    chosen = hs.prompts.PromptSet.of([hs.Prompt(tokens=(5, 6, 7), counterfactual=(5, 6))])
    for each in (chosen, chosen.swapped()):
        with pytest.raises(
            HydrascopeError, match=r"prompt 1 .* tokens long and its counterfactual \d: at positions"
        ) as error:
            hs.sweep(loaded("gpt2"), each, hs.Counterfactual(), at="all")
        assert "\n" not in str(error.value)
    # At the last position alone each has its own.
    assert np.isfinite(hs.tidy(hs.sweep(loaded("gpt2"), chosen, hs.Counterfactual()))["normalised"]).all()


def test_a_run_goes_on_only_in_the_same_direction(tmp_path: Any) -> None:
    model = loaded("gpt2")
    hs.sweep(model, prompts(), hs.Counterfactual(), ablate="attn", out=tmp_path / "run")
    with pytest.raises(HydrascopeError, match="patching was 'noising', now 'denoising'"):
        hs.sweep(model, prompts().swapped(), hs.Counterfactual(), ablate="attn", out=tmp_path / "run", resume=True)
