"""Who covers for whom, in a sentence: which pairs count, and that their numbers show why."""

import numpy as np
import synthetic
from opened import FEW

from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary.verdict_text import headlines, sentences

PARTS = ["attn.0", "attn.1", "mlp.1", "head.2.1"]


def changed(by):
    """Pairs of which `mlp.1` and `head.2.1` alone do more together than one by one, so much on every prompt."""
    results = synthetic.pairs(PARTS, 30)
    total = results["total"].sel(ablated=PARTS)
    exact = results.copy(deep=True)
    for run in map(str, results["ablated"].values):
        if "+" in run:
            first, second = run.split("+")
            more = by if run == "mlp.1+head.2.1" else 0.0
            exact["total"].loc[{"ablated": run}] = total.sel(ablated=first) + total.sel(ablated=second) + more
    return summarise(exact, FEW)


def test_pairs_that_cover_for_each_other_are_counted_and_named():
    (told,) = sentences(changed(-0.4))
    assert told.startswith("Who covers for whom? Surely each for the other in 1 of 6 pairs. ")
    assert (
        "Ablated together 1 surely costs more than one by one, in logits: mlp.1 and head.2.1 −0.40 [−0.40, −0.40]."
        in told
    )


def test_pairs_that_need_each_other_are_told_apart():
    (told,) = sentences(changed(0.4))
    assert "Surely each for the other in 0 of 6 pairs" in told
    assert "1 surely costs less than one by one, in logits: mlp.1 and head.2.1 0.40 [0.40, 0.40]." in told


def test_what_is_little_beside_what_components_lose_does_not_count():
    assert headlines(changed(-0.005)) == headlines(changed(0.0))
    assert "0 of 6 pairs" in headlines(changed(-0.005))[0]


def test_bounds_that_are_not_0_do_not_read_as_0():
    results = synthetic.pairs(PARTS, 30)
    nearest = next(each.interaction.high for each in summarise(results, FEW).pairs if each.interaction.high < 0)
    (told,) = sentences(summarise(results.assign(total=results["total"] * np.float32(-0.0021 / nearest)), FEW))
    assert "−0.002]" in told
    assert "0.00]" not in told
    assert "[0.00" not in told
