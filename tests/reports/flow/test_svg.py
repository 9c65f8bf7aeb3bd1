"""The repair flow as SVG: well formed, inert whatever the names, in any colours; and the files that are saved."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import synthetic
from flows import made_up
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.text import Text as Written
from opened import HOSTILE

from hydrascope.measures import Bootstrap
from hydrascope.reports import draw_all
from hydrascope.reports.figures.flow import figure_flow, save_flow
from hydrascope.reports.flow.colours import DARK, INK, LIGHT, LOOKS
from hydrascope.reports.flow.geometry import lay_out
from hydrascope.reports.flow.layout import LAYOUTS
from hydrascope.reports.flow.measured import repair_flow
from hydrascope.reports.flow.naming import model_name
from hydrascope.reports.flow.svg import as_svg
from hydrascope.reports.flow.words import about

FEW = Bootstrap(resamples=100)
FLOW = made_up(
    8,
    "mlp.2",
    1.0,
    {"mlp.3": 0.3, "attn.4": 0.2, "mlp.5": -0.1},
    0.1,
    necessary=["mlp.3"],
    sufficient=["mlp.3", "attn.4"],
)
DRAWN = {"svg", "title", "desc", "metadata", "style", "defs", "pattern", "rect", "path", "text", "tspan"}
DRAWN |= {"linearGradient", "stop"}
SPACE = "{http://www.w3.org/2000/svg}"


def luminance(colour: str) -> float:
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("colours", ["light", "dark", "auto"])
def test_it_is_one_picture_with_a_title_and_all_numbers(layout, colours) -> None:
    picture = lay_out(FLOW, layout)
    root = ElementTree.fromstring(as_svg(picture, colours, about(FLOW)))
    assert root.find(f"{SPACE}title").text == picture.title
    described = root.find(f"{SPACE}desc").text
    assert all(
        each in described for each in ("Removed 1.00 [0.90, 1.10]", "mlp.3 0.30", "lost 0.50", "1.00 removed = ")
    )
    assert json.loads(root.find(f"{SPACE}metadata").text) == about(FLOW)
    assert len(root.findall(f"{SPACE}text")) == len([text for text in picture.all_texts if text.words])
    assert ("prefers-color-scheme" in root.find(f"{SPACE}style").text) == (colours == "auto")
    used = set(re.findall(r"var\(--hs-([\w-]+)\)", ElementTree.tostring(root, encoding="unicode")))
    assert used <= LIGHT.keys()


def test_every_role_has_a_look() -> None:
    for layout in LAYOUTS.values():
        picture = lay_out(FLOW, layout)
        assert {shape.role for shape in picture.shapes} <= LOOKS.keys()
        assert {role for text in picture.all_texts for _, role in text.parts} <= INK.keys()


def test_two_pictures_in_one_page_share_no_name() -> None:
    texts = [as_svg(lay_out(FLOW, layout)) for layout in LAYOUTS.values()]
    names = [set(re.findall(r'id="([^"]+)"', text)) for text in texts]
    assert not names[0] & names[1]
    assert all(f"#{name}" in texts[0] or f'"{name}' in texts[0] or f" {name}" in texts[0] for name in names[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_inert(name: str) -> None:
    named = {"model": model_name({"model": name}), "unit": name[:200] or "logits", "responses": {"mlp.2": 0.4}}
    # The title of a single prompt names the unit.
    for layout, bounded in itertools.product(LAYOUTS.values(), (True, False)):
        flow = made_up(**named, bounded=bounded)
        root = ElementTree.fromstring(as_svg(lay_out(flow, layout), "auto", about(flow)))
        assert {each.tag.removeprefix(SPACE) for each in root.iter()} <= DRAWN
        assert not any(key.lower().startswith("on") or "href" in key for each in root.iter() for key in each.attrib)
        assert "url(http" not in root.find(f"{SPACE}style").text


def test_colours_can_be_told_apart_in_grey_and_texts_read() -> None:
    for colours in (LIGHT, DARK):
        assert contrast(colours["gap"], colours["fix"]) > 3
        for ink in ("ink", "soft", "faint", "hit"):
            assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
        assert contrast(colours["on-gap"], colours["gap"]) >= 4.5


def test_files_say_what_they_are_of(tmp_path: Path) -> None:
    paths = save_flow(FLOW, tmp_path)
    assert [path.name for path in paths] == ["flow.png", "flow.pdf", "flow.svg"]
    from PIL import Image

    with Image.open(paths[0]) as image:
        assert image.text["Title"] == lay_out(FLOW).title
        assert json.loads(image.text["Description"]) == about(FLOW)
    assert b"/Subject" in paths[1].read_bytes()
    assert ElementTree.parse(paths[2]).getroot().find(f"{SPACE}metadata") is not None
    again = save_flow(FLOW, tmp_path / "again")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


@pytest.mark.slow
def test_matplotlib_draws_the_same_texts_in_the_picture(tmp_path: Path) -> None:
    picture, figure = lay_out(FLOW), figure_flow(FLOW)
    written = [text.get_text() for text in figure.findobj(Written) if text.get_text()]
    assert written == [part for text in picture.all_texts for part, _ in text.parts]
    figure.canvas.draw()
    wide, high = figure.canvas.get_width_height()
    for text in figure.findobj(Written):
        if text.get_text():
            extent = text.get_window_extent()
            assert min(extent.x0, extent.y0) >= -1, text
            assert extent.x1 <= wide + 1, text
            assert extent.y1 <= high + 1, text
    path = save_flow(FLOW, tmp_path)[0]
    image = imread(path)[..., :3]
    assert tuple(image.reshape(-1, 3).max(0)) == (1, 1, 1)
    for name in ("gap", "fix", "hit"):
        assert (abs(image - to_rgb(LIGHT[name])).max(-1) < 0.01).any(), name


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_figures_draw_the_flow_of_the_chosen_component(tmp_path: Path) -> None:
    results = synthetic.results(4, 40, 2)
    names = {path.stem for path in draw_all(results, tmp_path / "all").paths}
    assert "flow" in names
    one_prompt = draw_all(results.isel(prompt=[0]), tmp_path / "one")
    assert any("the repair flow" in why for why in one_prompt.skipped)
    assert "flow" in {path.stem for path in draw_all(results.isel(prompt=[0]), tmp_path / "n", ablated="mlp.1").paths}


def test_no_path_of_the_machine_is_shown(tmp_path: Path) -> None:
    results = synthetic.results(4, 20, 2).assign_attrs(
        model="/home/someone/models/tiny.gguf",
        prompts="/home/someone/facts.json",
        command="hydrascope run /home/someone/models/tiny.gguf",
        revision="sha256:0123456789abcdef",
    )
    flow = repair_flow(results, "attn.1", bootstrap=FEW)
    for path in save_flow(flow, tmp_path):
        assert b"someone" not in path.read_bytes()
    assert "tiny" in as_svg(lay_out(flow))
    assert "facts.json" in as_svg(lay_out(flow))
