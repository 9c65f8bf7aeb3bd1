"""How much does Z matter for Y in the context u? Total, direct, indirect and path effects, by definition.

All take the same arguments. `change` is the intervention z → z′ as a mapping, `{"x": 0}`, of whatever `do`
takes (several variables for a joint change); `outcome` is Y; `context` is u; `start` is z, by default z(u),
the value Z has anyway. They return a value like Y's: a number, or an array of effects, one for each element.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hydrascope.causal.model import CausalModel, Context, Value
from hydrascope.utils.errors import HydrascopeError

Change = Mapping[str, Any]


@dataclass(frozen=True)
class Effects:
    """The effects of one change on one outcome, in the outcome's units."""

    total: Value
    direct: Value
    indirect: Value


def effects(model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None) -> Effects:
    """Total, direct and indirect effect together (Def. 3.2–3.4)."""
    return Effects(
        total=total_effect(model, change, outcome, context, start),
        direct=direct_effect(model, change, outcome, context, start),
        indirect=indirect_effect(model, change, outcome, context, start),
    )


def total_effect(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None
) -> Value:
    """TE(z → z′, Y, u) = Y(u|do(Z=z′)) − Y(u|do(Z=z)) (Def. 3.2, Eq. 14): everything downstream reacts.

    Raises:
        HydrascopeError: an unknown or exogenous variable, Y among the changed ones, or a random change.
    """
    before, after = _ends(model, change, outcome, context, start)
    return model.do(after).value(outcome, context) - model.do(before).value(outcome, context)


def direct_effect(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None
) -> Value:
    """DE(z → z′, Y, u) = Y(u|do(Z=z′, M=m)) − Y(u|do(Z=z)), M = V∖{Z, Y} (Def. 3.3, Eq. 19): all else held.

    m is the value M has under do(Z=z): the paper's m(u) wherever z = z(u), the only case it uses. For another
    z it is Pearl's (2001) natural direct effect; with m(u) in its place a variable without an edge to Y would
    seem to have a direct effect.

    Raises:
        HydrascopeError: as for `total_effect`.
    """
    before, after = _ends(model, change, outcome, context, start)
    held = _mediators(model.do(before), change, outcome, context)
    return model.do({**held, **after}).value(outcome, context) - model.do(before).value(outcome, context)


def indirect_effect(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None
) -> Value:
    """IE(z → z′, Y, u) = Y(u|do(Z=z, M=m̃)) − Y(u|do(Z=z)) (Def. 3.4, Eq. 29): all paths but the direct one.

    m̃ is the value that M = V∖{Z, Y} has under do(Z=z′).

    Raises:
        HydrascopeError: as for `total_effect`.
    """
    before, after = _ends(model, change, outcome, context, start)
    moved = _mediators(model.do(after), change, outcome, context)
    return model.do({**moved, **before}).value(outcome, context) - model.do(before).value(outcome, context)


def frozen_effect(
    model: CausalModel,
    change: Change,
    outcome: str,
    context: Context,
    frozen: Iterable[str],
    start: Change | None = None,
) -> Value:
    """The total effect with the mediators in `frozen` held at their values under do(Z=z).

    It is the effect along all paths that avoid them. With none frozen it is the total effect, with all of
    V∖{Z, Y} the direct one.

    Raises:
        HydrascopeError: as for `total_effect`; or Z or Y itself is to be frozen.
    """
    before, after = _ends(model, change, outcome, context, start)
    frozen = set(frozen)
    if wrong := frozen & {outcome, *change}:
        raise HydrascopeError(f"{min(wrong)!r} is the changed variable or the outcome: it cannot be frozen")
    base = model.do(before)
    held = {name: base.value(name, context) for name in frozen}
    return model.do({**held, **after}).value(outcome, context) - base.value(outcome, context)


def path_effect(
    model: CausalModel,
    change: Change,
    outcome: str,
    context: Context,
    edges: Iterable[tuple[str, str]],
    start: Change | None = None,
) -> Value:
    """The effect along the paths that the given edges make; along all others every variable sees do(Z=z).

    It is the path-specific effect of Avin, Shpitser & Pearl (2005), "path patching" on a language model. All
    edges: the total effect. The edge (Z, Y) alone: the direct effect. All edges but it: the indirect effect.

    Raises:
        HydrascopeError: as for `total_effect`; or an edge isn't in the causal graph.
    """
    before, after = _ends(model, change, outcome, context, start)
    active = set(edges)
    if missing := [edge for edge in sorted(active) if not model.graph.has_edge(*edge)]:
        raise HydrascopeError(f"the causal graph has no edge {missing[0][0]} → {missing[0][1]}")
    base = model.do(before)
    still = {**context, **base.evaluate(context)}
    moved = dict(after)
    for name, variable in base.endogenous.items():
        seen = {p: moved[p] for p in variable.parents if p in moved and (p, name) in active}
        if seen and name not in moved:
            moved[name] = variable.function(*(seen.get(p, still[p]) for p in variable.parents))
    return moved.get(outcome, still[outcome]) - still[outcome]


def expected_effect(
    effect: Callable[..., Value],
    model: CausalModel,
    change: Change,
    outcome: str,
    context: Context,
    *,
    draws: int,
    seed: int = 0,
    **options: Any,
) -> Value:
    """The mean of an effect over the draws of a random change: of effects, never of patches (Eq. 39).

    `expected_effect(total_effect, model, {"x": resample()}, "y", u, draws=15)`; `options` go to the effect.

    Raises:
        HydrascopeError: as for the effect; or fewer than one draw.
    """
    if draws < 1:
        raise HydrascopeError(f"an expected effect needs at least one draw, not {draws}")
    changed = model.do(change)
    whole = [changed.sample(context, seed=seed, draw=draw) for draw in range(draws)]
    patches = [{name: changed.value(name, u) for name in change} for u in whole]
    first, *rest = (effect(model, patch, outcome, context, **options) for patch in patches)
    return sum(rest, first) / draws


def contribution(model: CausalModel, variable: str, outcome: str, context: Context) -> Value:
    """What a variable itself adds to the outcome: −DE(z → 0, Y, u), the unembedding's place in causal terms
    (Eq. 25–28; the sign makes a variable that raises Y positive)."""
    # 0 − x: the contribution of what contributes nothing is 0, not −0.
    return 0 - direct_effect(model, {variable: 0}, outcome, context)


def compensatory_effect(
    model: CausalModel,
    change: Change,
    outcome: str,
    context: Context,
    among: Iterable[str] | None = None,
) -> Value:
    """CE(z′, u) = Σ_c [contribution of c after do(Z=z′) − before], over the c downstream of Z (Eq. 33, 34).

    `among` names the variables that count as components; by default all parents of Y. (Without an edge to Y a
    variable contributes nothing itself.)

    Raises:
        HydrascopeError: as for `total_effect`.
    """
    _, after = _ends(model, change, outcome, context, None)
    ablated = model.do(after)
    components = model.endogenous[outcome].parents if among is None else among
    return sum(
        contribution(ablated, name, outcome, context) - contribution(model, name, outcome, context)
        for name in components
        if name not in change and model.ancestors(name) & set(change)
    )


def _ends(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None
) -> tuple[dict[str, Value], dict[str, Value]]:
    """z and z′ as plain values."""
    if outcome in change:
        raise HydrascopeError(f"{outcome!r} is the outcome: ask for the effect of another variable on it")
    if start is not None and set(start) != set(change):
        raise HydrascopeError("start must give a value to each changed variable and to no other")
    begun, changed = model.do(start or {}), model.do(change)
    before = {name: begun.value(name, context) for name in change}
    return before, {name: changed.value(name, context) for name in change}


def _mediators(intervened: CausalModel, change: Change, outcome: str, context: Context) -> dict[str, Value]:
    values = intervened.evaluate(context)
    return {name: value for name, value in values.items() if name != outcome and name not in change}
