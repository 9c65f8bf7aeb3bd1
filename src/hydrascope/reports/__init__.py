"""Reports of results: summaries, figures, and the HTML page."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import lazy_names

if TYPE_CHECKING:
    from hydrascope.reports.kinds import draw_all, page_data, report, summarise
    from hydrascope.reports.summary.comparison import compare
    from hydrascope.reports.summary.terminal import render

__all__ = ["compare", "draw_all", "page_data", "render", "report", "summarise"]

__getattr__ = lazy_names(
    __name__,
    {
        "kinds": ("draw_all", "page_data", "report", "summarise"),
        "summary.comparison": ("compare",),
        "summary.terminal": ("render",),
    },
)
