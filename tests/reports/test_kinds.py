"""Every kind of result has a summary, figures and a page; a kind that isn't known is refused."""

from pathlib import Path
from typing import get_args

import pytest
import synthetic
from opened import FEW

from hydrascope.components.experiments import ResultKind, result_kind
from hydrascope.reports import draw_all, page_data, summarise
from hydrascope.reports.kinds import KINDS
from hydrascope.utils.errors import HydrascopeError


def test_every_kind_is_in_the_table() -> None:
    assert set(KINDS) == set(get_args(ResultKind))


def test_the_kind_is_found_in_the_attributes() -> None:
    assert [result_kind({}), result_kind({"experiment": ""}), result_kind({"experiment": "mediation"})] == [
        "sweep",
        "sweep",
        "mediation",
    ]


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    results = synthetic.results(2, 3, 1).assign_attrs(experiment="telepathy")
    for use in (lambda: summarise(results, FEW), lambda: page_data(results, FEW), lambda: draw_all(results, tmp_path)):
        with pytest.raises(HydrascopeError, match="unknown experiment, 'telepathy'"):
            use()
