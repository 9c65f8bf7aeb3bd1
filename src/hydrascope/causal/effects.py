"""Total, direct, indirect and path effects of a change on an outcome, by definition.

All effects take the same arguments. `change` is the intervention z → z′, a mapping such as `{"x": 0}` with any values
that `do` takes; several variables make a joint change. `outcome` is Y, and `context` is u. `start` is z; by default it
is z(u), the value of Z without an intervention. An effect has the form of Y: a number, or an array with one effect for
each element.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hydrascope.causal.model import CausalModel, Context, Value
from hydrascope.utils.errors import HydrascopeError

#: An intervention: the new value, or an `Intervention`, for each changed variable.
Change = Mapping[str, Any]


@dataclass(frozen=True)
class Effects:
    """The effects of one change on one outcome, in the outcome's units.

    Attributes:
        total: the effect when all variables downstream react.
        direct: the effect with all mediators frozen.
        indirect: the effect through the mediators alone.
    """

    total: Value
    direct: Value
    indirect: Value


def effects(model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None) -> Effects:
    """Return the total, direct and indirect effect together (Def. 3.2–3.4).

        >>> from hydrascope.causal import effects
        >>> from hydrascope.causal.motifs import erasure
        >>> effects(erasure(), {"x": 0}, "y", {"u": 1})
        Effects(total=0, direct=-1, indirect=1)

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        start: z; by default the value of Z in the context.

    Returns:
        The three effects, each in the form of Y.

    Raises:
        HydrascopeError: as for `total_effect`.
    """
    return Effects(
        total=total_effect(model, change, outcome, context, start),
        direct=direct_effect(model, change, outcome, context, start),
        indirect=indirect_effect(model, change, outcome, context, start),
    )


def total_effect(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None
) -> Value:
    """Return the total effect: all variables downstream react (Def. 3.2, Eq. 14).

    TE(z → z′, Y, u) = Y(u|do(Z=z′)) − Y(u|do(Z=z)).

        >>> from hydrascope.causal.motifs import erasure
        >>> total_effect(erasure(), {"x": 0}, "y", {"u": 1})
        0

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        start: z; by default the value of Z in the context.

    Returns:
        The effect, in the form of Y.

    Raises:
        HydrascopeError: a variable is unknown or exogenous, Y itself is changed, or the change is random.
    """
    before, after = _ends(model, change, outcome, context, start)
    return model.do(after).value(outcome, context) - model.do(before).value(outcome, context)


def direct_effect(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None
) -> Value:
    """Return the direct effect: all other variables are frozen (Def. 3.3, Eq. 19).

    DE(z → z′, Y, u) = Y(u|do(Z=z′, M=m)) − Y(u|do(Z=z)), with the mediators M = V∖{Z, Y}.

    m is the value of M under do(Z=z). For z = z(u), the paper's only case, it is the paper's m(u). For another z it
    gives Pearl's (2001) natural direct effect; with m(u), a variable without an edge to Y would seem to have a direct
    effect.

        >>> from hydrascope.causal.motifs import erasure
        >>> direct_effect(erasure(), {"x": 0}, "y", {"u": 1})
        -1

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        start: z; by default the value of Z in the context.

    Returns:
        The effect, in the form of Y.

    Raises:
        HydrascopeError: as for `total_effect`.
    """
    before, after = _ends(model, change, outcome, context, start)
    frozen = _mediators(model.do(before), change, outcome, context)
    return model.do({**frozen, **after}).value(outcome, context) - model.do(before).value(outcome, context)


def indirect_effect(
    model: CausalModel, change: Change, outcome: str, context: Context, start: Change | None = None
) -> Value:
    """Return the indirect effect: along all paths but the direct one (Def. 3.4, Eq. 29).

    IE(z → z′, Y, u) = Y(u|do(Z=z, M=m̃)) − Y(u|do(Z=z)), with m̃ the value of M = V∖{Z, Y} under do(Z=z′).

        >>> from hydrascope.causal.motifs import erasure
        >>> indirect_effect(erasure(), {"x": 0}, "y", {"u": 1})
        1

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        start: z; by default the value of Z in the context.

    Returns:
        The effect, in the form of Y.

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
    """Return the total effect with some mediators frozen at their values under do(Z=z).

    It is the effect along all paths that avoid the frozen mediators. With none frozen it is the total effect; with all
    of V∖{Z, Y} frozen it is the direct effect.

        >>> from hydrascope.causal.motifs import erasure
        >>> frozen_effect(erasure(), {"x": 0}, "y", {"u": 1}, frozen=["f"])
        -1

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        frozen: the names of the frozen mediators.
        start: z; by default the value of Z in the context.

    Returns:
        The effect, in the form of Y.

    Raises:
        HydrascopeError: as for `total_effect`; or `frozen` names Z or Y.
    """
    before, after = _ends(model, change, outcome, context, start)
    frozen = set(frozen)
    if wrong := frozen & {outcome, *change}:
        raise HydrascopeError(f"{min(wrong)!r} is the changed variable or the outcome: it cannot be frozen")
    base = model.do(before)
    values = {name: base.value(name, context) for name in frozen}
    return model.do({**values, **after}).value(outcome, context) - base.value(outcome, context)


def path_effect(
    model: CausalModel,
    change: Change,
    outcome: str,
    context: Context,
    edges: Iterable[tuple[str, str]],
    start: Change | None = None,
) -> Value:
    """Return the path-specific effect: the effect along the given edges alone.

    Along all other edges, variables keep their values under do(Z=z). It is the path-specific effect of Avin, Shpitser &
    Pearl (2005), called path patching on language models. All edges together give the total effect, the edge (Z, Y)
    alone the direct effect, all other edges the indirect effect.

        >>> from hydrascope.causal.motifs import erasure
        >>> path_effect(erasure(), {"x": 0}, "y", {"u": 1}, edges=[("x", "f"), ("f", "y")])
        1

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        edges: pairs of a parent and its child.
        start: z; by default the value of Z in the context.

    Returns:
        The effect, in the form of Y.

    Raises:
        HydrascopeError: as for `total_effect`; or an edge isn't in the causal graph.
    """
    before, after = _ends(model, change, outcome, context, start)
    active = set(edges)
    if missing := [edge for edge in sorted(active) if not model.graph.has_edge(*edge)]:
        raise HydrascopeError(f"the causal graph has no edge {missing[0][0]} → {missing[0][1]}")
    base = model.do(before)
    unchanged = {**context, **base.evaluate(context)}
    changed = dict(after)
    for name, variable in base.endogenous.items():
        inputs = {p: changed[p] for p in variable.parents if p in changed and (p, name) in active}
        if inputs and name not in changed:
            changed[name] = variable.function(*(inputs.get(p, unchanged[p]) for p in variable.parents))
    return changed.get(outcome, unchanged[outcome]) - unchanged[outcome]


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
    """Return the mean effect over draws of a random change (Eq. 39).

    The mean is taken over effects, never over patches.

        >>> from hydrascope.causal import resample
        >>> from hydrascope.causal.motifs import erasure
        >>> expected_effect(total_effect, erasure(), {"x": resample()}, "y", {"u": 1}, draws=15)
        0.0

    Args:
        effect: an effect function of this module.
        model: the causal model.
        change: the random intervention, such as `{"x": resample()}`.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        draws: the number of draws.
        seed: the seed of the draws.
        options: further arguments of `effect`.

    Returns:
        The mean effect, in the form of Y.

    Raises:
        HydrascopeError: as for the effect; or `draws` is below 1.
    """
    if draws < 1:
        raise HydrascopeError(f"an expected effect needs at least one draw, not {draws}")
    changed = model.do(change)
    contexts = [changed.sample(context, seed=seed, draw=draw) for draw in range(draws)]
    patches = [{name: changed.value(name, u) for name in change} for u in contexts]
    first, *rest = (effect(model, patch, outcome, context, **options) for patch in patches)
    return sum(rest, first) / draws


def contribution(model: CausalModel, variable: str, outcome: str, context: Context) -> Value:
    """Return a variable's own contribution to the outcome, −DE(z → 0, Y, u) (Eq. 25–28).

    It is the causal counterpart of the unembedding: positive if the variable raises Y.

        >>> from hydrascope.causal.motifs import erasure
        >>> contribution(erasure(), "f", "y", {"u": 1})
        -1

    Args:
        model: the causal model.
        variable: the name of the variable.
        outcome: the variable Y.
        context: the value of each exogenous variable.

    Returns:
        The contribution, in the form of Y.

    Raises:
        HydrascopeError: as for `total_effect`.
    """
    # 0 − x instead of −x, which would be −0 for x = 0.
    return 0 - direct_effect(model, {variable: 0}, outcome, context)


def compensatory_effect(
    model: CausalModel,
    change: Change,
    outcome: str,
    context: Context,
    among: Iterable[str] | None = None,
) -> Value:
    """Return the compensatory effect: the change of contributions downstream (Eq. 33, 34).

    CE(z′, u) = Σ_c [contribution of c after do(Z=z′) − before], over the components c downstream of Z.

        >>> from hydrascope.causal.motifs import erasure
        >>> compensatory_effect(erasure(), {"x": 0}, "y", {"u": 1})
        1

    Args:
        model: the causal model.
        change: the intervention z → z′.
        outcome: the variable Y.
        context: the value of each exogenous variable.
        among: the variables that count as components; by default all parents of Y, since no other variable
            contributes to Y itself.

    Returns:
        The effect, in the form of Y.

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
    """Return z and z′ as plain values."""
    if outcome in change:
        raise HydrascopeError(f"{outcome!r} is the outcome: ask for the effect of another variable on it")
    if start is not None and set(start) != set(change):
        raise HydrascopeError("start must give a value to each changed variable and to no other")
    started, changed = model.do(start or {}), model.do(change)
    before = {name: started.value(name, context) for name in change}
    return before, {name: changed.value(name, context) for name in change}


def _mediators(intervened: CausalModel, change: Change, outcome: str, context: Context) -> dict[str, Value]:
    values = intervened.evaluate(context)
    return {name: value for name, value in values.items() if name != outcome and name not in change}
