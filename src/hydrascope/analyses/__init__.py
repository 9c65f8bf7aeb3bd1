"""Analyses of many overrides: who repairs, importance, paths, circuits, attribution."""

# Imported eagerly: with a lazy import, a function that shares its module's name would turn into the module.
from hydrascope.analyses import attribution
from hydrascope.analyses.activations import activations
from hydrascope.analyses.attention import attention
from hydrascope.analyses.backups import backups
from hydrascope.analyses.distance import distance
from hydrascope.analyses.edges import edges
from hydrascope.analyses.faithfulness import faithfulness
from hydrascope.analyses.features import feature_sums, features
from hydrascope.analyses.generation import override
from hydrascope.analyses.mediation import interactions, mediation
from hydrascope.analyses.next_tokens import next_tokens
from hydrascope.analyses.path_patching import path_patching
from hydrascope.analyses.position_map import position_map
from hydrascope.analyses.responsibility import responsibility
from hydrascope.analyses.shapley import shapley
from hydrascope.analyses.trajectory import trajectory

__all__ = [
    "activations",
    "attention",
    "attribution",
    "backups",
    "distance",
    "edges",
    "faithfulness",
    "feature_sums",
    "features",
    "interactions",
    "mediation",
    "next_tokens",
    "override",
    "path_patching",
    "position_map",
    "responsibility",
    "shapley",
    "trajectory",
]
