"""Reports of results: summaries, figures, and the HTML page."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import lazy_names

if TYPE_CHECKING:
    from hydrascope.reports.figures import draw_all
    from hydrascope.reports.html import report
    from hydrascope.reports.summary.comparison import compare
    from hydrascope.reports.summary.summarise import summarise
    from hydrascope.reports.summary.terminal import render

__all__ = ["compare", "draw_all", "render", "report", "summarise"]

__getattr__ = lazy_names(
    __name__,
    {
        "figures": ("draw_all",),
        "html": ("report",),
        "summary.comparison": ("compare",),
        "summary.summarise": ("summarise",),
        "summary.terminal": ("render",),
    },
)
