"""Reports of results: summaries, figures, and the HTML page."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope.reports import figures as figures
    from hydrascope.reports import flow as flow
    from hydrascope.reports.kinds import draw_all as draw_all
    from hydrascope.reports.kinds import summarise as summarise
    from hydrascope.reports.pages import page_data as page_data
    from hydrascope.reports.pages import page_html as page_html
    from hydrascope.reports.pages import report as report
    from hydrascope.reports.pages import report_comparison as report_comparison
    from hydrascope.reports.summary.citations import citations as citations
    from hydrascope.reports.summary.comparison import compare as compare
    from hydrascope.reports.summary.terminal import render as render

export_lazily(
    globals(),
    {
        "figures": (),
        "flow": (),
        "kinds": ("draw_all", "summarise"),
        "pages": ("page_data", "page_html", "report", "report_comparison"),
        "summary.citations": ("citations",),
        "summary.comparison": ("compare",),
        "summary.terminal": ("render",),
    },
)
