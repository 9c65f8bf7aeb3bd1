"""The rows of an analysis of features, as numbers with confidence intervals and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap, feature_shares, select_readout, simultaneous
from hydrascope.reports.summary.interval import Interval, format_interval, format_significant, number, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED

#: Mean changes of a bias up to this, in the readout's unit, are rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class FeatureShareRow:
    """The share of one part of a sublayer in its response and in what it restores.

    Attributes:
        readout: the readout's label.
        ablated: the label of the ablation.
        part: the part: `sublayer`, `features`, `error` or `bias`.
        removed: the mean of −direct, in the readout's unit.
        response: the mean change of what the part writes, in the readout's unit.
        response_share: the same as a share of the sublayer's.
        restored_by: the mean of what is lost again if the part alone is frozen, in the readout's unit.
        restored_share: the same as a share of the sublayer's.
    """

    readout: str
    ablated: str
    part: str
    removed: Interval
    response: Interval
    response_share: Interval
    restored_by: Interval
    restored_share: Interval


@dataclass(frozen=True)
class FeatureRow:
    """The response of one feature to one ablation, means over prompts in the readout's unit.

    Attributes:
        readout: the readout's label.
        ablated: the label of the ablation.
        feature: the feature's label.
        unembed: its contribution in the clean pass.
        response: the change of its contribution, with bounds that hold for all features and ablations at once.
    """

    readout: str
    ablated: str
    feature: str
    unembed: Interval
    response: Interval


def feature_share_rows(
    found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None
) -> tuple[FeatureShareRow, ...]:
    """Return a row for each ablation and part, in the order of the analysis.

    Args:
        found: the result of `hydrascope.analyses.features`.
        readout: the readout's label; by default the first.
        bootstrap: the resampling that gives the bounds.

    Raises:
        HydrascopeError: there is no such readout.
    """
    chosen, bootstrap = select_readout(found, readout), bootstrap or Bootstrap()
    shares = feature_shares(found, readout, bootstrap)
    removed = simultaneous(_itself, chosen[["removed"]].reset_coords(drop=True), bootstrap, "ablated")["removed"]
    names = ("response", "response_share", "restored_by", "restored_share")
    return tuple(
        FeatureShareRow(
            str(chosen["readout"].values),
            str(ablated),
            str(part),
            Interval.of(removed.isel(ablated=row)),
            *(Interval.of(shares[name].isel(ablated=row, part=column)) for name in names),
        )
        for row, ablated in enumerate(shares["ablated"].values)
        for column, part in enumerate(shares["part"].values)
    )


def feature_rows(
    found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None
) -> tuple[FeatureRow, ...]:
    """Return a row for each ablation and chosen feature, the largest |response| first.

    The arguments are those of `feature_share_rows`.

    Raises:
        HydrascopeError: there is no such readout.
    """
    chosen, bootstrap = select_readout(found, readout), bootstrap or Bootstrap()
    samples = chosen[["feature_unembed", "feature_response"]].reset_coords(drop=True)
    clean = simultaneous(_itself, samples[["feature_unembed"]], bootstrap, "feature")["feature_unembed"]
    flat = samples[["feature_response"]].stack(each=("ablated", "feature"), create_index=False)
    responses = simultaneous(_itself, flat.drop_vars(("ablated", "feature")), bootstrap, "each")["feature_response"]
    features = samples["feature"].values
    rows = [
        FeatureRow(
            str(chosen["readout"].values),
            str(ablated),
            str(feature),
            Interval.of(clean.isel(feature=column)),
            Interval.of(responses.isel(each=row * len(features) + column)),
        )
        for row, ablated in enumerate(samples["ablated"].values)
        for column, feature in enumerate(features)
    ]
    return tuple(sorted(rows, key=lambda row: -abs(row.response.estimate)))


def _itself(means: xr.Dataset) -> xr.Dataset:
    return means


def features_in_text(
    found: xr.Dataset,
    shares: Sequence[FeatureShareRow],
    rows: Sequence[FeatureRow],
    bootstrap: Bootstrap | None = None,
) -> Group:
    """Return tables for a terminal: shares of all parts, and the largest responses."""
    bootstrap = bootstrap or Bootstrap()
    site = str(found["feature"].values[0]).removeprefix("feature.").rpartition(".")[0]
    parts = numbers_table(
        f"Shares in the response and the restoration of the dictionary at {site}",
        ("ablated", "part"),
        ("response", "share", "restored by", "share"),
        ([row.ablated, row.part, *_cells(row)] for row in shares if reacts(row)),
    )
    single = numbers_table(
        f"The largest responses of single features, of {found.sizes['feature']:,} chosen on other prompts",
        ("ablated", "feature"),
        ("clean", "response"),
        ([row.ablated, row.feature, *map(format_significant, (row.unembed, row.response))] for row in rows[:PRINTED]),
    )
    notes = (
        f"In {found.attrs.get('units', 'logits')} of {shares[0].readout}, means over {found.sizes['prompt']:,} "
        f"prompts. The features were chosen on {found.attrs['chosen_on']:,} others, by their mean absolute response. "
        "Response: the change of what a part writes. Restored by: what is lost again if the part alone is frozen at "
        "its clean value; the parts need not add up. Bias: what no feature writes, the decoder's bias and a skip "
        f"matrix. Intervals: bootstrap over prompts, {percent(bootstrap.confidence)}; of means for all rows at once. A "
        "dash: the sublayer's own mean may be 0."
    )
    return Group(parts, Text(""), single, Text(""), Text(notes, style="dim"))


def reacts(row: FeatureShareRow) -> bool:
    """Whether a part reacts by more than rounding.

    The bias of a dictionary without a skip matrix can't.
    """
    return row.part != "bias" or max(abs(row.response.estimate), abs(row.restored_by.estimate)) > _ROUNDING


def _cells(row: FeatureShareRow) -> list[str]:
    """Return the numbers of a row: means of the sublayer, shares of its parts, with bounds."""
    if row.part == "sublayer":
        return [format_significant(row.response), "", format_significant(row.restored_by), ""]

    def share(value: Interval) -> str:
        return format_interval(value, 2) if np.isfinite(value.estimate) else "–"

    return [
        number(row.response.estimate, 2),
        share(row.response_share),
        number(row.restored_by.estimate, 2),
        share(row.restored_share),
    ]
