"""The repair flow: a picture of what an ablation removes, who makes up for it, what is lost."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope.reports.flow.geometry import lay_out as lay_out
    from hydrascope.reports.flow.layout import LAYOUTS as LAYOUTS
    from hydrascope.reports.flow.measured import repair_flow as repair_flow
    from hydrascope.reports.flow.repair import RepairFlow as RepairFlow
    from hydrascope.reports.flow.svg import as_svg as as_svg

export_lazily(
    globals(),
    {
        "geometry": ("lay_out",),
        "layout": ("LAYOUTS",),
        "measured": ("repair_flow",),
        "repair": ("RepairFlow",),
        "svg": ("as_svg",),
    },
)
