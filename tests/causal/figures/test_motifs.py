import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import image

from hydrascope.causal.figures.motifs import CONTEXTS, draw_all, figure6
from hydrascope.utils.errors import HydrascopeError


def test_figure6_plots_the_closed_form():
    figure = figure6()
    for axes in (figure.axes[2], figure.axes[5]):
        lines = {line.get_label(): line for line in axes.lines}
        x = np.asarray(lines["total"].get_xdata())
        assert len(x) == CONTEXTS
        assert np.array_equal(lines["total"].get_ydata(), np.zeros(CONTEXTS))
        assert np.array_equal(lines["direct"].get_ydata(), -x)
        assert np.array_equal(lines["compensatory"].get_ydata(), x)
    plt.close(figure)


@pytest.mark.slow
def test_draw_all_writes_pictures_that_open(tmp_path):
    written = draw_all(tmp_path / "new")
    assert {path.name for path in written} == {
        f"figure{number}.{suffix}" for number in (4, 5, 6) for suffix in ("png", "pdf", "svg")
    }
    for path in written:
        assert path.stat().st_size > 5000
        if path.suffix == ".png":
            assert image.imread(path).std() > 0.05
    assert not plt.get_fignums()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HydrascopeError, match="cannot write figures to"):
        draw_all(tmp_path / "file")
