"""Colours and strokes of the repair flow, in light and dark."""

from dataclasses import dataclass

#: Colours by name. Warm is missing, blue is made up for; they differ in lightness, too, so that grey keeps them apart.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#545c66",
    "faint": "#69717a",
    "hair": "#dfe3e7",
    "quiet": "#98a2ad",
    "bar": "#5f6873",
    "gap": "#f5c4b3",
    "edge": "#d4694a",
    "hit": "#bf2f12",
    "fix": "#14508c",
    "pale": "#e3edf7",
    "plate": "#eef0f3",
    "on-gap": "#8f1f08",
}
DARK = {
    "paper": "#14171b",
    "ink": "#eceef1",
    "soft": "#aab2bb",
    "faint": "#7c8690",
    "hair": "#2b3138",
    "quiet": "#636d78",
    "bar": "#8b95a0",
    "gap": "#74301f",
    "edge": "#c5634a",
    "hit": "#ff8b6e",
    "fix": "#7cbcf5",
    "pale": "#1b2b3b",
    "plate": "#20252b",
    "on-gap": "#ffd9cd",
}


@dataclass(frozen=True)
class Look:
    """The look of a role.

    Attributes:
        fill: the name of its colour; empty for none.
        stroke: the same of its outline.
        width: the width of the outline, in pixels on a slide.
        dash: the lengths of dashes and gaps; empty for a whole line.
        stripes: the share of a stripe's period that is blue; 0 without stripes.
    """

    fill: str = ""
    stroke: str = ""
    width: float = 0.0
    dash: tuple[float, ...] = ()
    stripes: float = 0.0


#: The period of stripes, in pixels on a slide.
STRIPES = 8.0

LOOKS = {
    "axis": Look(stroke="hair", width=1.2),
    "tick": Look(stroke="faint", width=1),
    "bracket": Look(stroke="faint", width=1.3),
    "scale": Look(stroke="ink", width=2),
    "plate": Look(fill="plate"),
    "band": Look(fill="gap"),
    "edge": Look(stroke="edge", width=1.2),
    "surplus": Look(fill="pale", stroke="fix", width=2),
    "worse": Look(fill="gap", stroke="edge", width=1.4),
    "response": Look(fill="paper", stroke="fix", width=2),
    "necessary": Look(fill="fix", stroke="fix", width=2),
    "sufficient": Look(fill="paper", stroke="fix", width=2, stripes=3.4 / 8),
    "both": Look(fill="paper", stroke="fix", width=2, stripes=6.2 / 8),
    "thin": Look(stroke="fix", width=2),
    "thin worse": Look(stroke="edge", width=2),
    "arrow": Look(stroke="fix", width=3),
    "arrow head": Look(fill="fix"),
    "quiet": Look(fill="quiet"),
    "bar": Look(fill="bar"),
    "ablated": Look(fill="paper", stroke="hit", width=2.4),
    "cross": Look(stroke="hit", width=1.6),
    "cut": Look(stroke="ink", width=2),
    "more": Look(fill="pale", stroke="fix", width=1.8),
    "more gone": Look(fill="paper", stroke="fix", width=1.8, dash=(3, 2)),
    "less": Look(fill="gap", stroke="edge", width=1.8),
    "less gone": Look(fill="paper", stroke="edge", width=1.8, dash=(3, 2)),
    "whisker": Look(stroke="hit", width=1.6),
    "cap": Look(stroke="hit", width=5),
    "cap gained": Look(stroke="fix", width=5),
}

#: The colour of text by role.
INK = {"ink": "ink", "bold": "ink", "soft": "soft", "faint": "faint", "hit": "hit", "on_band": "on-gap"}
