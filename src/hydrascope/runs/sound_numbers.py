"""Refuse measured numbers that aren't finite, or that don't balance."""

from collections.abc import Sequence

import numpy as np

from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError


def require_sound(
    plan: Plan,
    indices: Sequence[int],
    measured: dict[str, np.ndarray],
    clean_error: float,
    off: np.ndarray,
    allowed: np.ndarray,
) -> None:
    """Refuse numbers that aren't finite, or that are off by more than rounding.

    Args:
        plan: the plan of the run.
        indices: the prompts.
        measured: the values of each variable.
        clean_error: by how much the engine's clean row differs from the clean pass.
        off, allowed: `[readout, prompt, ablated, patch]` the imbalance, and how much rounding explains.

    Raises:
        HydrascopeError: they are.
    """
    require_finite(plan, indices, measured)
    # Comparisons so that a NaN fails.
    if not clean_error <= allowed.max():
        raise HydrascopeError(
            f"the {plan.engine.name} engine does not reproduce the clean run: off by {clean_error:.2g}, rounding "
            f"explains {allowed.max():.2g}; take a wider dtype or the reference engine"
        )
    worst = np.unravel_index((off / allowed).argmax(), off.shape)
    readout, prompt = int(worst[0]), int(worst[1])
    if not off[worst] <= allowed[worst]:
        raise HydrascopeError(
            f"total effects of {plan.prompt_label(indices[prompt])} on {plan.labels[readout]} and their parts do not "
            f"balance: off by {off[worst]:.2g}, rounding explains {allowed[worst]:.2g}; take a wider dtype, or see "
            "hydrascope check"
        )


def require_finite(plan: Plan, indices: Sequence[int], measured: dict[str, np.ndarray]) -> None:
    """Refuse values that aren't finite; metrics may be.

    Raises:
        HydrascopeError: one isn't.
    """
    for name, values in measured.items():
        by_prompt = np.moveaxis(values, plan.measured_variables[name].index("prompt"), 0).reshape(len(indices), -1)
        bad = np.flatnonzero(~np.isfinite(by_prompt).all(1))
        if len(bad) and not name.startswith("metric"):
            raise HydrascopeError(
                f"{name} of {plan.prompt_label(indices[bad[0]])} is not finite: the model overflows; take a wider dtype"
            )
