"""Analyses of many runs: mediation, interactions, importance, path patching, circuits, attribution."""

# Imported at once: a function that shares its module's name would otherwise change its meaning at the second access.
from hydrascope.analyses import attribution
from hydrascope.analyses.faithfulness import faithfulness
from hydrascope.analyses.mediation import interactions, mediation
from hydrascope.analyses.path_patching import path_patching
from hydrascope.analyses.responsibility import responsibility
from hydrascope.analyses.shapley import shapley

__all__ = [
    "attribution",
    "faithfulness",
    "interactions",
    "mediation",
    "path_patching",
    "responsibility",
    "shapley",
]
