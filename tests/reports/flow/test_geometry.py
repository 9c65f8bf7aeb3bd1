"""The geometry of the repair flow: widths add up, nothing leaves the canvas, labels keep apart."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import synthetic
from flows import made_up
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.measures import Bootstrap
from hydrascope.reports.flow.band import stream_of
from hydrascope.reports.flow.geometry import BOLD, lay_out
from hydrascope.reports.flow.layout import LAYOUTS, SLIDE, Layout
from hydrascope.reports.flow.measured import repair_flow
from hydrascope.reports.flow.plan import labelled, make_plan
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.flow.shapes import Picture, Shape, Text, points_of
from hydrascope.reports.flow.words import deck, short_deck, title, total
from hydrascope.reports.summary.interval import UNKNOWN, Interval

FLOW = made_up(
    8,
    "attn.2",
    1.0,
    {"mlp.3": 0.3, "attn.4": 0.2, "mlp.5": -0.1, "mlp.6": 0.02, "attn.6": -0.03},
    0.25,
    necessary=["mlp.3"],
    sufficient=["mlp.3", "attn.4"],
    clean={"mlp.5": -0.4, "attn.2": 1.5},
)

#: attn.3 has two labelled heads that nearly cancel, attn.5 one, attn.4 one that writes all.
HEADS = made_up(
    8,
    "attn.2",
    1.0,
    {"attn.3": 0.02, "attn.4": 0.3, "attn.5": 0.2, "mlp.6": 0.1},
    heads={"head.3.3": 0.3, "head.3.5": -0.25, "head.3.8": 0.01, "head.4.1": 0.3, "head.5.2": 0.18},
    necessary=["head.3.3"],
)


def points(shape: Shape) -> np.ndarray:
    return np.array([point for step in shape.steps for point in points_of(step)])


def of_role(picture: Picture, *roles: str) -> list[Shape]:
    return [shape for shape in picture.shapes if shape.role in roles]


def box(text: Text, layout: Layout) -> tuple[float, float, float, float]:
    """The estimated place of a text: left, right, top, bottom."""
    wide = sum(layout.measure(part, text.size, bold=role in BOLD) for part, role in text.parts)
    left = text.x - {"start": 0, "middle": 0.5, "end": 1}[text.anchor] * wide
    return left, left + wide, text.y - 0.74 * text.size, text.y + 0.2 * text.size


def check(picture: Picture, layout: Layout) -> None:
    """No number is missing, nothing is outside, and no two texts touch."""
    for shape in picture.shapes:
        at = points(shape)
        assert np.isfinite(at).all(), shape
        assert (at[:, 0] >= -0.5).all(), shape
        assert (at[:, 0] <= picture.width + 0.5).all(), shape
        assert (at[:, 1] >= picture.top - 0.5).all(), shape
        assert (at[:, 1] <= picture.bottom + 0.5).all(), shape
    boxes = [(text, box(text, layout)) for text in picture.all_texts if text.words.strip()]
    for text, (left, right, top, bottom) in boxes:
        assert math.isfinite(text.x + text.y + text.size), text
        assert "nan" not in text.words, text
        assert left >= -0.5, text
        assert right <= picture.width + 0.5, text
        assert top >= picture.top - 0.5, text
        assert bottom <= picture.bottom + 0.5, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = a[1] <= b[0] + 0.5 or b[1] <= a[0] + 0.5 or a[3] <= b[2] + 1 or b[3] <= a[2] + 1
        assert apart, (one, other)
    for shape in of_role(picture, "bracket"):
        for (_, *one), (letter, *other) in itertools.pairwise(shape.steps):
            if letter == "M":
                continue
            (x0, y0), (x1, y1) = np.minimum(one, other), np.maximum(one, other)
            for text, (left, right, top, bottom) in boxes:
                assert right <= x0 or left >= x1 or bottom <= y0 + 1 or top >= y1 - 1, (shape, text)
    # Bars of one column keep apart: rows don't overlap.
    rows = [
        (at[:, 1].min(), at[:, 1].max(), at[:, 0].mean(), shape)
        for shape in of_role(picture, "quiet", "bar")
        for at in [points(shape)]
    ]
    middle = layout.mlp[0] - 0.5 * (layout.stream[1] - layout.stream[0])
    for side in (True, False):
        own = sorted((row for row in rows if (row[2] < middle) == side), key=lambda row: row[0])
        for (_, below, _, one), (above, _, _, other) in itertools.pairwise(own):
            assert below <= above + 0.01 or one.component == other.component, (one, other)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_widths_add_up(layout: Layout) -> None:
    picture = lay_out(FLOW, layout)
    start = points(of_role(picture, "edge")[0])
    zero = next(x for x, count in zip(*np.unique(start[:, 0].round(6), return_counts=True), strict=True) if count == 2)
    removed = np.ptp(start[np.isclose(start[:, 0], zero)][:, 1])
    assert removed == pytest.approx(FLOW.removed.estimate * picture.band)
    lost = np.ptp(points(of_role(picture, "cap")[0])[:, 0])
    assert lost == pytest.approx(FLOW.lost.estimate * picture.band)
    plan = make_plan(FLOW, layout, 6)
    stream = stream_of(plan)
    branches = sum(branch.value for branch in stream.branches) * picture.band
    quiet = sum(plan.step[each.label] for each in FLOW.sublayers if each.downstream and each.label not in plan.shown)
    assert branches + quiet * picture.band + lost == pytest.approx(removed)
    for branch in stream.branches:
        # The level stretch of a branch is as high as the response.
        drawn = next(
            shape
            for shape in picture.shapes
            if shape.component == branch.component
            and shape.role in ("response", "necessary", "both", "sufficient", "worse")
        )
        tip = points(drawn)[np.isclose(points(drawn)[:, 0], branch.tip)]
        assert np.ptp(tip[:, 1]) == pytest.approx(abs(branch.value) * picture.band)


def test_the_band_is_as_wide_as_what_is_missing() -> None:
    """At the height where a branch has left, its width is what is removed less all responses below."""
    plan = make_plan(FLOW, SLIDE, 6)
    stream = stream_of(plan)
    branch = next(each for each in stream.branches if each.component == "mlp.5")
    made = 0.3 + 0.2 - 0.1
    height = stream.right[[x for x, _ in stream.right].index(branch.moved)][1]
    left = np.interp(-height, [-y for _, y in stream.left], [x for x, _ in stream.left])
    quiet = sum(plan.step[label] for label in ("attn.3", "mlp.2", "mlp.4"))
    assert branch.moved - left == pytest.approx((1 - made - quiet) * plan.band, abs=0.02 * plan.band)


def test_frozen_runs_decide_the_fill() -> None:
    shapes = lay_out(FLOW).shapes
    roles = {each.component: each.role for each in shapes if each.fade or (each.role == "worse" and each.component)}
    assert roles == {"mlp.3": "both", "attn.4": "sufficient", "mlp.5": "worse", "": "response"}
    alone = made_up(responses={"mlp.2": 0.4}, mediated=False)
    picture = lay_out(alone)
    assert not of_role(picture, "necessary", "sufficient", "both")
    assert any("No frozen runs" in text.words for text in picture.heading)


def test_what_moves_the_norm_has_an_arrow_and_its_fill() -> None:
    flow = made_up(responses={"mlp.3": 0.02}, norm=0.5, necessary=["mlp.3"], by_norm=["mlp.3"])
    picture = lay_out(flow)
    assert [shape.component for shape in of_role(picture, "arrow")] == ["mlp.3"]
    assert [shape.role for shape in picture.shapes if shape.fade and not shape.component] == ["necessary"]
    # It writes too little for a label otherwise.
    assert not of_role(lay_out(made_up(responses={"mlp.3": 0.02}, norm=0.5)), "arrow")


def test_an_eraser_that_pushes_less_makes_up() -> None:
    flow = made_up(responses={"mlp.3": 0.2, "mlp.4": -0.2}, clean={"mlp.3": -0.6, "mlp.4": -0.6})
    picture = lay_out(flow)
    words = " ".join(text.words for text in picture.texts)
    assert "mlp.3 pushes down 0.20 less" in words
    assert "mlp.4 pushes down 0.20 more" in words
    assert [shape.component for shape in of_role(picture, "more gone")] == ["mlp.3"]
    assert [shape.component for shape in of_role(picture, "less")] == ["mlp.4"]


def test_more_than_all_is_drawn_as_surplus() -> None:
    flow = made_up(responses={"mlp.2": 0.7, "mlp.4": 0.6})
    picture = lay_out(flow)
    assert of_role(picture, "surplus")
    assert not of_role(lay_out(FLOW), "surplus")
    assert any("gained 0.30" in text.words for text in picture.texts)
    check(picture, SLIDE)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize(
    ("flow", "says"),
    [
        (made_up(removed=-1.0), "attn.1 holds the answer back by 1.00"),
        (made_up(removed=0.0), "attn.1 adds nothing sure to the answer"),
        (made_up(removed=-1.0, bounded=False), "attn.1 holds the answer back by 1.00 logits"),
    ],
    ids=["negative", "nothing", "negative on one prompt"],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(flow: RepairFlow, says: str, layout: Layout) -> None:
    picture = lay_out(flow, layout)
    assert not picture.shapes
    assert says in " ".join(text.words for text in picture.heading)
    check(picture, layout)


def test_one_prompt_has_no_intervals() -> None:
    picture = lay_out(made_up(responses={"mlp.2": 0.4}, mediated=False, bounded=False))
    words = " ".join(text.words for text in picture.all_texts)
    assert "[" not in words
    assert "surely" not in words
    assert "1.00 logits go missing on this prompt, 0.60 in the end" in picture.title
    assert not of_role(picture, "whisker")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize(
    "flow",
    [
        FLOW,
        made_up(1, "attn.0"),
        made_up(1, "mlp.0"),
        made_up(5, "mlp.1", responses={"mlp.2": 0.5, "attn.3": 0.2}),
        made_up(80, "attn.20", responses={f"mlp.{block}": 0.1 for block in range(21, 30)}),
        made_up(130, "mlp.3", responses={f"attn.{block}": 0.3 for block in range(60, 70)}),
        made_up(6, "attn.1", responses={f"mlp.{block}": -2.0 for block in range(2, 6)}),
        made_up(12, "head.3.11", responses={"mlp.4": 0.4}),
        made_up(12, "attn.3", also=["mlp.5"], responses={"mlp.4": 0.4, "mlp.7": 0.2}),
        made_up(12, "attn.3", frozen=["mlp.5"], responses={"mlp.4": 0.4, "mlp.7": 0.2}),
        made_up(8, "attn.2", parallel=True, responses={"attn.3": 0.3, "mlp.3": 0.3, "attn.4": -0.2}),
        made_up(30, "attn.3", removed=0.001, responses={"mlp.9": 5.0, "mlp.20": -4.9}),
        HEADS,
        made_up(9, "mlp.1", responses={"attn.3": 0.4}, heads={f"head.3.{n}": 0.1 for n in range(9)}, parallel=True),
        made_up(300, "mlp.150", responses={"mlp.160": 0.4, "attn.200": 0.3}, heads={"head.200.3": 0.3}),
        made_up(30, "attn.0", removed=1e-4, responses={f"attn.{block}": 1.0 for block in range(1, 7)}, parallel=True),
    ],
    ids=[
        "usual",
        "1 block",
        "last",
        "5",
        "80",
        "130",
        "spreads",
        "head",
        "two",
        "frozen",
        "parallel",
        "huge response",
        "heads",
        "parallel heads",
        "300",
        "crowded",
    ],
)
def test_edge_cases_stay_in_the_picture(flow: RepairFlow, layout: Layout) -> None:
    picture = lay_out(flow, layout)
    check(picture, layout)
    check(picture.bare, layout)


def test_a_labelled_head_opens_its_block() -> None:
    picture, plan = lay_out(HEADS), make_plan(HEADS, SLIDE, 6)
    labels = [each.label for each in plan.flow.sublayers if each.kind == "attn"]
    opened = ["other 7 heads of attn.3", "head.3.3", "head.3.5", "other 8 heads of attn.4", "head.4.1"]
    opened += ["other 8 heads of attn.5", "head.5.2"]
    assert labels == ["attn.0", "attn.1", "attn.2", *opened, "attn.6", "attn.7"]
    moved = {each.label: each.response.estimate for each in plan.flow.sublayers}
    assert moved["other 7 heads of attn.3"] == pytest.approx(0.02 - 0.3 + 0.25)
    assert moved["other 8 heads of attn.5"] == pytest.approx(0.2 - 0.18)
    branches = {each.component: (each.role, each.value) for each in stream_of(plan).branches}
    assert branches["head.3.3"] == ("necessary", pytest.approx(0.3))
    assert branches["head.3.5"] == ("worse", pytest.approx(-0.25))
    assert branches["other 7 heads of attn.3"][0] == "worse"
    words = [text.words for text in picture.texts]
    assert words.count("other 7 heads") == 1
    # Heads 3 to 5 share keys and values, so one bracket holds the two.
    bracket = [shape for shape in of_role(picture, "bracket") if shape.about]
    assert [shape.about for shape in bracket] == ["head.3.3 and head.3.5 share keys and values"]
    assert "Bracket: heads that share keys and values." in words
    assert "By head: head.3.3 0.30 [0.29, 0.31]; " in picture.description
    closed = make_plan(HEADS, SLIDE, 0)
    assert [each.label for each in closed.flow.sublayers] == [each.label for each in HEADS.sublayers]


def test_frozen_runs_of_a_sublayer_keep_its_heads_together() -> None:
    """Heads that no run froze would hide what frozen runs show of the sublayer."""
    flow = made_up(6, "attn.1", responses={"attn.3": 0.3}, necessary=["attn.3"], heads={"head.3.1": 0.3})
    closed = replace(flow, mediators=tuple(each for each in flow.mediators if each.label != "head.3.1"))
    assert labelled(closed, 6) == ["attn.3"]
    assert labelled(flow, 6) == ["head.3.1"]


def test_the_largest_have_labels_head_or_sublayer() -> None:
    heads = {"head.3.1": 0.3, "head.3.2": 0.1, "head.4.0": 0.06, "head.4.1": 0.07}
    responses = {"attn.3": 0.4, "attn.4": 0.35, "mlp.3": 0.2, "mlp.4": 0.08}
    flow = made_up(6, "attn.1", responses=responses, heads=heads, mediated=False)
    # The largest head of attn.4 stands for all of attn.4.
    assert labelled(flow, 9) == ["head.3.1", "head.4.1", "mlp.3", "head.3.2", "mlp.4", "head.4.0"]
    assert labelled(flow, 3) == ["head.3.1", "head.4.1", "mlp.3"]


@pytest.mark.parametrize(("depth", "most"), [(60, 1), (120, 2), (126, 2), (300, 4)])
def test_quiet_blocks_of_a_deep_network_share_rows(depth: int, most: int) -> None:
    first = round(0.6 * depth)
    results = synthetic.results(depth, 60, 1, ablated=[f"attn.{first}"], noise=0, patch_noise=0)
    flow = repair_flow(results, f"attn.{first}", bootstrap=Bootstrap(resamples=20), found=())
    for layout in LAYOUTS.values():
        picture, plan = lay_out(flow, layout), make_plan(flow, layout, 6)
        check(picture, layout)
        check(picture.bare, layout)
        spans = list(dict.fromkeys(plan.drawn.blocks.values()))
        assert len(spans) <= 120
        assert max(map(len, spans)) == most
        assert [block for span in spans for block in span] == list(range(depth))
        assert plan.shown
        loud = {first, *(int(label.split(".")[1]) for label in plan.shown)}
        assert all(len(span) == 1 for span in spans if loud & set(span))
        # All that is written and all that is made up for is still there, by kind.
        for kind in ("attn", "mlp"):
            for part in ("clean", "response"):
                whole, drawn = (
                    np.nansum([getattr(each, part).estimate for each in of.sublayers if each.kind == kind])
                    for of in (flow, plan.flow)
                )
                assert drawn == pytest.approx(whole, abs=1e-9)
        assert sum(plan.step.values()) == pytest.approx(flow.attention.estimate + flow.mlp.estimate, abs=1e-9)
        cap = np.ptp(points(of_role(picture, "cap")[0])[:, 0])
        assert cap == pytest.approx(abs(flow.lost.estimate) * picture.band, abs=1e-3)
        said = f"Quiet blocks: up to {most} a row, with the sum of what they write."
        assert (said in [text.words for text in picture.texts]) == (most > 1)


def test_several_ablated_are_all_crossed_and_frozen_ones_cut() -> None:
    two = lay_out(made_up(12, "attn.3", also=["mlp.5"]))
    assert {shape.component for shape in of_role(two, "cross")} == {"attn.3", "mlp.5"}
    assert two.title.startswith("With attn.3 and mlp.5 set to zero")
    frozen = lay_out(made_up(12, "attn.3", frozen=["mlp.5"]))
    assert {shape.component for shape in of_role(frozen, "cut")} == {"mlp.5"}
    assert "and mlp.5 frozen" in frozen.title


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_random_ledgers_keep_in_the_picture(data: st.DataObject) -> None:
    depth = data.draw(st.sampled_from([1, 2, 3, 6, 12, 30, 61]))
    labels = [f"{kind}.{block}" for block in range(depth) for kind in ("attn", "mlp")]
    heads = [f"head.{block}.{unit}" for block in range(depth) for unit in range(9)]
    size = st.floats(-3, 3).map(lambda value: round(value, 3))
    flow = made_up(
        depth,
        data.draw(st.sampled_from(labels)),
        data.draw(st.sampled_from([1e-4, 0.01, 0.3, 1.0, 12.0, 2000.0])),
        data.draw(st.dictionaries(st.sampled_from(labels), size, max_size=12)),
        data.draw(size),
        necessary=data.draw(st.lists(st.sampled_from(labels), max_size=3)),
        sufficient=data.draw(st.lists(st.sampled_from(labels), max_size=3)),
        by_norm=data.draw(st.lists(st.sampled_from(labels), max_size=3)),
        clean=data.draw(st.dictionaries(st.sampled_from(labels), size, max_size=12)),
        mediated=data.draw(st.booleans()),
        bounded=data.draw(st.booleans()),
        parallel=data.draw(st.booleans()),
        heads=data.draw(st.dictionaries(st.sampled_from(heads), size, max_size=5)),
    )
    layout = data.draw(st.sampled_from(list(LAYOUTS.values())))
    picture = lay_out(flow, layout, data.draw(st.integers(0, 9)))
    check(picture, layout)


def test_a_long_title_is_whole_on_a_phone() -> None:
    unsure = replace(
        FLOW, source=replace(FLOW.source, readout="difference"), share=Interval(0.05, -0.1, 0.2), held_out=UNKNOWN
    )
    for flow, rows in ((FLOW, 2), (unsure, 3)):
        picture = lay_out(flow, LAYOUTS["phone"])
        titles = [text.words for text in picture.heading if text.parts[0][1] == "bold"]
        assert len(titles) == rows
        assert " ".join(titles) == " ".join(title(flow))
        check(picture, LAYOUTS["phone"])


def test_the_printed_sum_adds_up() -> None:
    """0.87 = −0.05 + 0.06 + 0.74 + 0.14 would be wrong by 0.02: then there are more decimals."""
    flow = made_up(responses={"mlp.2": -0.0549, "attn.2": 0.0551}, removed=0.8716, norm=0.7351)
    text = total(flow)
    left, right = text.split(" = ")
    numbers = right.replace("− ", "−").replace("+ ", "").replace("−", "-").split()
    amounts = [float(each) for each in numbers if any(char.isdigit() for char in each)]
    decimals = len(left.split()[0].split(".")[1])
    assert round(sum(amounts), decimals) == float(left.split()[0])


def test_the_line_below_the_title_names_who_acts_through_the_norm() -> None:
    flow = made_up(necessary=("mlp.3", "mlp.4"), sufficient=("attn.3",), by_norm=("mlp.4",))
    assert deck(flow).endswith("Necessary: mlp.3, mlp.4 (through the norm); sufficient: attn.3")
    assert short_deck(flow)[1] == "Necessary: mlp.3, mlp.4; sufficient: attn.3"
