"""The repair flow: a picture of what an ablation removes, who makes up for it, what is lost."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope.reports.flow.measured import repair_flow as repair_flow
    from hydrascope.reports.flow.repair import RepairFlow as RepairFlow

export_lazily(
    globals(),
    {
        "measured": ("repair_flow",),
        "repair": ("RepairFlow",),
    },
)
