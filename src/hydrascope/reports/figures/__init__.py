"""Figures of results, the paper's among them.

Each function returns a matplotlib figure; `hydrascope.reports.draw_all` writes every figure that a result has data for.
"""

from hydrascope.reports.figures.backups import figure_backups
from hydrascope.reports.figures.edges import figure_edges
from hydrascope.reports.figures.faithfulness import figure_circuit
from hydrascope.reports.figures.features import figure_features
from hydrascope.reports.figures.figure2 import figure2
from hydrascope.reports.figures.figure7 import figure7
from hydrascope.reports.figures.figure8 import figure8
from hydrascope.reports.figures.figures_1_3 import examples, figure1, figure3
from hydrascope.reports.figures.flow import figure_flow
from hydrascope.reports.figures.heads import figure_heads
from hydrascope.reports.figures.mediation import figure_interactions, figure_mediation, figure_paths
from hydrascope.reports.figures.position_map import figure_map
from hydrascope.reports.figures.responses import figure_responses
from hydrascope.reports.figures.split import figure_split
from hydrascope.reports.figures.trajectory import figure_trajectory

__all__ = [
    "examples",
    "figure1",
    "figure2",
    "figure3",
    "figure7",
    "figure8",
    "figure_backups",
    "figure_circuit",
    "figure_edges",
    "figure_features",
    "figure_flow",
    "figure_heads",
    "figure_interactions",
    "figure_map",
    "figure_mediation",
    "figure_paths",
    "figure_responses",
    "figure_split",
    "figure_trajectory",
]
