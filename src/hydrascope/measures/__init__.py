"""What a run's results say: pure functions on the dataset, with confidence intervals over prompts.

A measure takes the effects on one readout, which `per_prompt` reads once from results as `hydrascope.open_results`
gives them: by default those on the first readout, with ablated runs read at the clean run's σ.

    effects = per_prompt(results)                         # or per_prompt(results, "difference", "own")
    restoration(effects), compensation_regression(effects)

Of results themselves are what needs several readouts, or single runs: `mediation`, `interactions`, `self_repair`.
"""

from hydrascope.components.component import SublayerKind
from hydrascope.measures.agreement import agreement
from hydrascope.measures.attention_mlp_shift import response_shift
from hydrascope.measures.bootstrap import BOUNDS, Bootstrap, difference, interval, mean_interval, simultaneous
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.depth_profile import repair_profile
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
from hydrascope.measures.prompt_consistency import profile_agreement
from hydrascope.measures.ranking import rank
from hydrascope.measures.regression import compensation_regression, regression
from hydrascope.measures.responses import responses
from hydrascope.measures.restoration import budget, budget_shares, effects_only, outcome, outcome_bounds, restoration
from hydrascope.measures.rushing_nanda import self_repair

__all__ = [
    "BOUNDS",
    "FEWEST",
    "MIN_SHARE",
    "SIGMA_NAME",
    "WRITTEN",
    "Bootstrap",
    "ComponentKind",
    "Effects",
    "EffectsOnly",
    "HeldOut",
    "Sigma",
    "SublayerKind",
    "above_threshold",
    "agreement",
    "best_sublayer",
    "best_sublayer_held_out",
    "block_numbers",
    "budget",
    "budget_shares",
    "by_patch",
    "candidates",
    "change",
    "compensable",
    "compensation",
    "compensation_regression",
    "depth",
    "difference",
    "direct_effect",
    "effects_only",
    "erasure",
    "held_out",
    "interactions",
    "interval",
    "kinds",
    "localisation",
    "mean_interval",
    "mediation",
    "most_restored",
    "none_above_threshold",
    "of_kind",
    "outcome",
    "outcome_bounds",
    "own_change",
    "per_prompt",
    "profile_agreement",
    "rank",
    "reactions",
    "readings",
    "regression",
    "repair_profile",
    "require_complete",
    "response_shift",
    "responses",
    "restoration",
    "scores",
    "select_readout",
    "self_repair",
    "simultaneous",
    "single_ablations",
    "strength",
    "strongest",
    "sublayer_labels",
    "takes_effects",
    "unit_numbers",
    "with_direct_effect",
]
