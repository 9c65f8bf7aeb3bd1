"""Measures of a run's results: pure functions, with confidence intervals over prompts.

Most measures take the effects on one readout. `per_prompt` reads these from results once; by default it takes the first
readout, and reads ablated rows at the clean pass's σ.

    >>> effects = hs.measures.per_prompt(results)
    >>> restored = hs.measures.restoration(effects)["restored"]

`mediation`, `interactions`, `split` and `self_repair` take the results themselves.
"""

from hydrascope.components.component import SublayerKind
from hydrascope.components.part import BOOST, Part
from hydrascope.measures.agreement import agreement
from hydrascope.measures.attention_mlp_shift import response_shift
from hydrascope.measures.backups import backup_scores, backups
from hydrascope.measures.bootstrap import (
    BOUNDS,
    Bootstrap,
    difference,
    interval,
    mean_interval,
    simultaneous,
    simultaneous_difference,
)
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.depth_profile import repair_profile
from hydrascope.measures.edge_scores import edge_scores
from hydrascope.measures.effects import (
    change,
    direct_effect,
    own_change,
    require_complete,
    strength,
    with_direct_effect,
)
from hydrascope.measures.effects_per_prompt import WRITTEN, by_patch, per_prompt, readings, select_readout
from hydrascope.measures.effects_type import SIGMA_NAME, Effects, EffectsOnly, Sigma, takes_effects
from hydrascope.measures.erasure import erasure
from hydrascope.measures.estimator_scores import scores
from hydrascope.measures.feature_shares import feature_shares
from hydrascope.measures.held_out_selection import (
    FEWEST,
    MIN_SHARE,
    HeldOut,
    above_threshold,
    best_sublayer,
    best_sublayer_held_out,
    candidates,
    held_out,
    most_restored,
    none_above_threshold,
)
from hydrascope.measures.interactions import interactions
from hydrascope.measures.kick import restoration_by_kick
from hydrascope.measures.labels import (
    ComponentKind,
    block_numbers,
    depth,
    kinds,
    of_kind,
    single_ablations,
    sublayer_labels,
    unit_numbers,
)
from hydrascope.measures.localisation import localisation, strongest
from hydrascope.measures.mediation import mediation, reactions
from hydrascope.measures.normalised import Patching, clean_and_corrupt, normalised, patching_of
from hydrascope.measures.optimal_loss import optimal_against
from hydrascope.measures.prompt_consistency import profile_agreement
from hydrascope.measures.questions import NEGLIGIBLE, Answered, ComponentAnswer, Question, answer_of, three_answers
from hydrascope.measures.ranking import rank
from hydrascope.measures.regression import compensation_regression, regression
from hydrascope.measures.responses import response_difference, responses
from hydrascope.measures.restoration import (
    PARTS,
    budget,
    budget_shares,
    effects_only,
    outcome,
    outcome_bounds,
    restoration,
)
from hydrascope.measures.routes import ROUTES, route_bounds, routes
from hydrascope.measures.rushing_nanda import self_repair
from hydrascope.measures.split import select_part, split
from hydrascope.measures.trajectory import trajectory

__all__ = [
    "BOOST",
    "BOUNDS",
    "FEWEST",
    "MIN_SHARE",
    "NEGLIGIBLE",
    "PARTS",
    "ROUTES",
    "SIGMA_NAME",
    "WRITTEN",
    "Answered",
    "Bootstrap",
    "ComponentAnswer",
    "ComponentKind",
    "Effects",
    "EffectsOnly",
    "HeldOut",
    "Part",
    "Patching",
    "Question",
    "Sigma",
    "SublayerKind",
    "above_threshold",
    "agreement",
    "answer_of",
    "backup_scores",
    "backups",
    "best_sublayer",
    "best_sublayer_held_out",
    "block_numbers",
    "budget",
    "budget_shares",
    "by_patch",
    "candidates",
    "change",
    "clean_and_corrupt",
    "compensable",
    "compensation",
    "compensation_regression",
    "depth",
    "difference",
    "direct_effect",
    "edge_scores",
    "effects_only",
    "erasure",
    "feature_shares",
    "held_out",
    "interactions",
    "interval",
    "kinds",
    "localisation",
    "mean_interval",
    "mediation",
    "most_restored",
    "none_above_threshold",
    "normalised",
    "of_kind",
    "optimal_against",
    "outcome",
    "outcome_bounds",
    "own_change",
    "patching_of",
    "per_prompt",
    "profile_agreement",
    "rank",
    "reactions",
    "readings",
    "regression",
    "repair_profile",
    "require_complete",
    "response_difference",
    "response_shift",
    "responses",
    "restoration",
    "restoration_by_kick",
    "route_bounds",
    "routes",
    "scores",
    "select_part",
    "select_readout",
    "self_repair",
    "simultaneous",
    "simultaneous_difference",
    "single_ablations",
    "split",
    "strength",
    "strongest",
    "sublayer_labels",
    "takes_effects",
    "three_answers",
    "trajectory",
    "unit_numbers",
    "with_direct_effect",
]
