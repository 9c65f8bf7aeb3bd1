"""Draw all figures that a run has, whatever its size, into small reproducible files."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import synthetic

from hydrascope.measures import Bootstrap, per_prompt
from hydrascope.reports.figures import figure1, figure2, figure3, figure7, figure8, figure_heads
from hydrascope.reports.figures.style import save
from hydrascope.reports.kinds import draw_all
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=30)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "prompts", "patches", "options"),
    [
        (1, 1, 1, {}),
        (2, 2, 1, {"ablated": ["attn.0", "attn.1"]}),
        (3, 4, 2, {"ablated": ["mlp.0", "mlp.2"], "parallel": True}),
        (3, 5, 2, {"ablated": ["mlp.2"]}),
        (3, 4, 2, {"noise": 0, "patch_noise": 0}),
        (48, 3, 2, {}),
        (3, 4, 2, {"heads": 2, "read_heads": False}),
        (3, 4, 2, {"readouts": {"probe": 2}, "ablated": ["attn.0", "attn.2"]}),
    ],
)
def test_every_size_is_drawn_without_a_warning(layers: int, prompts: int, patches: int, options: dict) -> None:
    results = synthetic.results(layers, prompts, patches, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effects = per_prompt(results)
        for draw in (figure2, figure7, figure8):
            draw(effects).canvas.draw()
        for trace in (figure1, figure3):
            trace(effects, results).canvas.draw()


@pytest.mark.slow
def test_drawn_files_are_small_reproducible_and_keep_their_text(tmp_path: Path) -> None:
    results = synthetic.results(6, 400, 2)
    effects = per_prompt(results)
    paths = save(figure7(effects, FEW), tmp_path / "a", "figure7")
    again = save(figure7(effects, FEW), tmp_path / "b", "figure7")
    assert [path.suffix for path in paths] == [".png", ".pdf", ".svg"]
    assert all(path.stat().st_size < 2_000_000 for path in paths)
    assert paths[0].read_bytes() == again[0].read_bytes()
    assert "Compensatory effect (logits)" in paths[2].read_text()


@pytest.mark.slow
def test_draw_all_writes_seven_figures_in_three_formats(tmp_path: Path) -> None:
    results = synthetic.results(2, 4, 2)
    drawn = draw_all(results, tmp_path, prompt=1, ablated="attn.0")
    assert sorted(path.name for path in drawn.paths) == sorted(
        f"{name}.{suffix}"
        for name in ("flow", "responses", *(f"figure{number}" for number in (1, 2, 3, 7, 8)))
        for suffix in ("png", "pdf", "svg")
    )
    assert all(path.stat().st_size for path in drawn.paths)
    assert str(drawn) == f"21 files and captions.md in {tmp_path}"


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
@pytest.mark.parametrize(
    ("ablated", "names", "reason"),
    [
        (
            ["head.0.1", "head.1.0"],
            "figure1 figure3 flow heads responses",
            "figures 2, 7 and 8, which show ablated sublayers",
        ),
        (["attn.0", "head.1.0"], "figure1 figure2 figure3 figure7 figure8 flow heads responses", None),
        (["attn.0", "attn.0+mlp.1"], "figure1 figure2 figure3 figure7 figure8 responses", "the repair flow"),
    ],
)
def test_draw_all_draws_what_the_run_has(tmp_path: Path, ablated: list[str], names: str, reason: str | None) -> None:
    results = synthetic.results(2, 4, 2, heads=2, ablated=ablated, by_patch=False)
    drawn = draw_all(results, tmp_path, sigma="own")
    assert sorted({path.stem for path in drawn.paths}) == names.split()
    assert len(drawn.skipped) == (reason is not None)
    assert reason is None or f"\nleft out: {reason}" in str(drawn)


@pytest.mark.usefixtures("one_format")
def test_of_joint_ablations_the_responses_are_drawn(tmp_path: Path) -> None:
    results = synthetic.results(2, 4, 2, ablated=["attn.0+mlp.1"])
    drawn = draw_all(results, tmp_path)
    assert {path.stem for path in drawn.paths} == {"responses"}
    assert [why.split(",")[0] for why in drawn.skipped] == ["figures 1 and 3", "figures 2", "the repair flow"]
    effects = per_prompt(results)
    for trace in (figure1, figure3):
        with pytest.raises(HydrascopeError, match="the ablation of one component"):
            trace(effects, results)
    for draw in (figure2, figure7, figure8):
        with pytest.raises(HydrascopeError, match="show ablated sublayers, and this run ablated none"):
            draw(effects)
    with pytest.raises(HydrascopeError, match="this run ablated none: ablate heads"):
        figure_heads(effects)


def test_draw_all_refuses_an_unfinished_result(tmp_path: Path) -> None:
    results = synthetic.results(2, 4, 2)
    results["total"][0, 3:] = np.nan
    with pytest.raises(HydrascopeError, match="1 of 4 prompts"):
        draw_all(results, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("one_format")
def test_figures_of_direct_effects_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    results = synthetic.results(4, prompts=12)
    results["direct"] = 0 * results["direct"]
    drawn = draw_all(results, tmp_path)
    assert {path.stem for path in drawn.paths} == {"responses", "figure1", "figure3"}
    assert "figures 2, 7 and 8" in drawn.skipped[0]
