"""Write units, readings and texts of any kind on figures."""

import pytest
import synthetic
from drawn_figures import written

from hydrascope.measures import Bootstrap, per_prompt
from hydrascope.reports.figures import figure1, figure2, figure3, figure7, figure8, figure_heads, figure_responses
from hydrascope.reports.figures.panels import printable

FEW = Bootstrap(resamples=30)


def test_a_direction_s_unit_stands_at_the_axes() -> None:
    results = synthetic.results(3, 8, 2, readouts={"probe": -1})
    results.attrs["units"] = "unit of the readout"
    effects = per_prompt(results)
    for draw in (figure2, figure7, figure8, figure_responses):
        figure = draw(effects, FEW)
        assert "logits" not in written(figure)
        assert "(unit of the readout)" in written(figure).replace("\n", " ")


def test_figures_name_their_reading() -> None:
    results = synthetic.results(3, 6, 2, heads=2, readouts={"difference": -1})
    effects = per_prompt(results, sigma="own")
    for figure in (
        figure1(effects, results),
        figure3(effects, results),
        figure2(effects, FEW),
        figure7(effects, FEW),
        figure8(effects, FEW),
        figure_heads(effects),
        figure_responses(effects, FEW),
    ):
        assert figure.get_suptitle().startswith("synthetic · ")
        assert "Readout: difference, at each run’s own σ" in " ".join(figure.get_suptitle().split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("costs $5 or $6_2^", "costs $5 or $6_2^"),
        ("two\nlines\tand\r\nmore", "two⏎lines and⏎more"),
        ("東京 is", "□□ is"),
        ("null\x00 bell\x07", "null□ bell□"),
        ("Zürich, Łódź, Ελλάδα, Москва", "Zürich, Łódź, Ελλάδα, Москва"),
    ],
)
def test_text_that_is_safe_to_draw(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_loses_its_middle() -> None:
    shown = printable("A" * 50 + " " + "B" * 50, 30)
    assert len(shown) <= 30
    assert shown.startswith("AAA")
    assert shown.endswith("BBB")
    assert "…" in shown
