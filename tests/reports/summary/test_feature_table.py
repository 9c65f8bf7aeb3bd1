"""The rows of an analysis of features: the numbers of its measures, in the table as in CSV."""

import csv
import io

import numpy as np
import pytest
from feature_numbers import ABLATED, FEATURES, PARTS, made
from rich.console import Console

from hydrascope.measures import BOUNDS, Bootstrap, feature_shares, mean_interval
from hydrascope.reports.summary.feature_table import feature_rows, feature_share_rows, features_in_text, reacts
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.serialize import rows_as_csv
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=100)
NAMES = ("response", "response_share", "restored_by", "restored_share")


def bounds(value: Interval) -> list[float]:
    return [value.estimate, value.low, value.high]


@pytest.mark.parametrize("readout", [None, "probe"])
def test_rows_of_shares(readout: str | None) -> None:
    rows = feature_share_rows(made(), readout, FEW)
    shares, data = feature_shares(made(), readout, FEW), made().sel(readout=readout or "logit")
    assert [(row.ablated, row.part) for row in rows] == [(each, part) for each in ABLATED for part in PARTS]
    assert {row.readout for row in rows} == {readout or "logit"}
    for row in rows:
        for name in NAMES:
            expected = shares[name].sel(ablated=row.ablated, part=row.part)
            np.testing.assert_array_equal(bounds(getattr(row, name)), expected)
        removed = data["removed"].sel(ablated=row.ablated)
        assert row.removed.estimate == pytest.approx(float(removed.mean()))
        alone = mean_interval(removed, FEW)
        assert row.removed.high - row.removed.low > float(alone.sel(bound="high") - alone.sel(bound="low"))


@pytest.mark.parametrize("readout", [None, "probe"])
def test_rows_of_features(readout: str | None) -> None:
    rows, data = feature_rows(made(), readout, FEW), made().sel(readout=readout or "logit")
    assert {(row.ablated, row.feature) for row in rows} == {(each, name) for each in ABLATED for name in FEATURES}
    sizes = [abs(row.response.estimate) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert (rows[0].ablated, rows[0].feature) == ("attn.1", FEATURES[1])
    for row in rows:
        response = data["feature_response"].sel(ablated=row.ablated, feature=row.feature)
        assert row.response.estimate == pytest.approx(float(response.mean()))
        assert row.unembed.estimate == pytest.approx(float(data["feature_unembed"].sel(feature=row.feature).mean()))
        alone = mean_interval(response, FEW)
        assert row.response.high - row.response.low > float(alone.sel(bound="high") - alone.sel(bound="low"))
        assert row.unembed.low < row.unembed.estimate < row.unembed.high


def test_csv_holds_every_number() -> None:
    for rows in (feature_share_rows(made(), None, FEW), feature_rows(made(), None, FEW)):
        read = list(csv.DictReader(io.StringIO(rows_as_csv(list(rows)))))
        for line, row in zip(read, rows, strict=True):
            for name, value in vars(row).items():
                if not isinstance(value, Interval):
                    assert line[name] == value
                    continue
                for bound, number in zip(("", "_low", "_high"), bounds(value), strict=True):
                    assert float(line[name + bound] or "nan") == pytest.approx(number, rel=1e-6, nan_ok=True)


def test_the_table_shows_the_same_numbers() -> None:
    data = made()
    shares, rows = feature_share_rows(data, None, FEW), feature_rows(data, None, FEW)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(features_in_text(data, shares, rows, FEW))
    text = console.export_text()
    lines = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]
    reacting = [row for row in shares if reacts(row)]
    assert 0 < len(reacting) < len(shares)  # a bias that is constant is left out
    first, second = lines[: len(reacting)], lines[len(reacting) :]
    assert "of the dictionary at mlp.1" in text
    assert "means over 40 prompts" in " ".join(text.split())
    assert "chosen on 30 others" in " ".join(text.split())
    for line, row in zip(first, reacting, strict=True):
        cells = [cell for cell in line if cell]
        assert cells[:2] == [row.ablated, row.part]
        # Of the sublayer itself all shares are 1, and are left out.
        names = [name for name in NAMES if row.part != "sublayer" or not name.endswith("share")]
        for cell, name in zip(cells[2:], names, strict=True):
            value = getattr(row, name)
            if np.isnan(value.estimate):
                assert cell == "–"
            else:
                assert float(cell.split(" ")[0].replace("−", "-")) == pytest.approx(value.estimate, abs=0.006)
    for line, other in zip(second, rows, strict=True):
        cells = [cell for cell in line if cell]
        assert cells[:2] == [other.ablated, other.feature]
        assert float(cells[3].split(" ")[0].replace("−", "-")) == pytest.approx(other.response.estimate, abs=0.006)
    dashes = sum(line.count("–") for line in first)
    assert dashes == 2 * sum(row.ablated == "mlp.0" and row.part != "sublayer" for row in reacting)
    assert len(BOUNDS) == 3


def test_an_unknown_readout_is_refused() -> None:
    for make in (feature_rows, feature_share_rows):
        with pytest.raises(HydrascopeError, match="there is no readout 'taste'"):
            make(made(), "taste")
