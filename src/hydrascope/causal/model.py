"""What is a causal model, and what is `do`? Definition 3.1 and the interventions of section 3."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from hydrascope.utils.errors import HydrascopeError

#: A number, a numpy array or a torch tensor (an exogenous variable may be anything, a prompt for instance).
Value = Any

#: A context u: the values of the exogenous variables, by name.
Context = Mapping[str, Value]


@dataclass(frozen=True)
class Exogenous:
    """A variable of U: nothing in the model determines it but P(u).

    Exogenous variables are drawn independently of each other; those that belong together are one variable
    whose value is a tuple or an array.

    Attributes:
        name: its name.
        sample: draws a value from its distribution; without it every context must give the value.
    """

    name: str
    sample: Callable[[np.random.Generator], Value] | None = None


@dataclass(frozen=True)
class Endogenous:
    """A variable of V: v = f(pa), a deterministic function of its parents.

    Attributes:
        name: its name.
        function: from the parents' values, in the order of `parents`, to the variable's value. It must not
            change them in place.
        parents: the names of the variables that it reads; by default the function's own parameter names,
            those with a default value left out.

    Raises:
        HydrascopeError: the parents are neither given nor readable from the function.
    """

    name: str
    function: Callable[..., Value]
    parents: tuple[str, ...] = None  # type: ignore[assignment]  # never None once made

    def __post_init__(self) -> None:
        parents = _parameter_names(self) if self.parents is None else tuple(self.parents)
        if len(set(parents)) < len(parents):
            raise HydrascopeError(f"{self.name!r} names one parent twice: {', '.join(parents)}")
        object.__setattr__(self, "parents", parents)


Variable = Exogenous | Endogenous


@dataclass(frozen=True)
class Intervention:
    """What `do` puts in the place of a variable's function, when it is more than a constant.

    Attributes:
        replace: from the model before the intervention and the variable's name to the variables that replace
            it: an `Endogenous` of the same name and, where the intervention is random, the `Exogenous`
            `do(name)` that it reads.
    """

    replace: Callable[["CausalModel", str], tuple[Variable, ...]]


def constant(value: Value) -> Intervention:
    """do(Z = z′): the function becomes a constant, so Z loses its parents."""
    return Intervention(lambda model, name: (Endogenous(name, lambda: value, ()),))


class CausalModel:
    """A structural causal model M = ⟨U, V, F, P(u)⟩ (Def. 3.1). It never changes: `do` gives another model.

    Attributes:
        exogenous: U, by name.
        endogenous: V, by name, every variable after its parents.
        intervened: the names of those whose function an intervention has replaced.

    Raises:
        HydrascopeError: two variables have one name, a parent doesn't exist, or the variables form a cycle.
    """

    def __init__(self, *variables: Variable, intervened: Iterable[str] = ()) -> None:
        names = [variable.name for variable in variables]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise HydrascopeError(f"two variables are named {twice[0]!r}: a causal model's names are unique")
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(names)
        for variable in variables:
            for parent in variable.parents if isinstance(variable, Endogenous) else ():
                if parent not in graph:
                    raise HydrascopeError(
                        f"{variable.name!r} has the parent {parent!r}, which is no variable of the model; "
                        f"there are {', '.join(names)}"
                    )
                graph.add_edge(parent, variable.name)
        try:
            order = list(nx.lexicographical_topological_sort(graph, key=names.index))
        except nx.NetworkXUnfeasible:
            cycle = [edge[0] for edge in nx.find_cycle(graph)]
            raise HydrascopeError(
                f"the variables form a cycle: {' → '.join([*cycle, cycle[0]])}; a causal model has none"
            ) from None
        by_name = {variable.name: variable for variable in variables}
        self.exogenous: Mapping[str, Exogenous] = MappingProxyType(
            {name: v for name in order if isinstance(v := by_name[name], Exogenous)}
        )
        self.endogenous: Mapping[str, Endogenous] = MappingProxyType(
            {name: v for name in order if isinstance(v := by_name[name], Endogenous)}
        )
        self.intervened = frozenset(intervened)

    def __repr__(self) -> str:
        lines = [*self.exogenous]
        for name, variable in self.endogenous.items():
            lines.append(f"{name} ← {', '.join(variable.parents) or 'constant'}")
        return f"CausalModel({'; '.join(lines)})"

    # The graph

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """The causal graph, read-only: an edge from every parent to its child.

        Each node's attribute `kind` is "exogenous", "endogenous" or "intervened".
        """
        graph: nx.DiGraph[str] = nx.DiGraph()
        for name in self.exogenous:
            graph.add_node(name, kind="exogenous")
        for name in self.endogenous:
            graph.add_node(name, kind="intervened" if name in self.intervened else "endogenous")
        for name, variable in self.endogenous.items():
            graph.add_edges_from((parent, name) for parent in variable.parents)
        return nx.freeze(graph)

    def ancestors(self, name: str) -> frozenset[str]:
        """The variables with a directed path to `name`, which isn't one of them."""
        return frozenset(nx.ancestors(self.graph, self._known(name)))

    def descendants(self, name: str) -> frozenset[str]:
        """The variables with a directed path from `name`, which isn't one of them."""
        return frozenset(nx.descendants(self.graph, self._known(name)))

    # Values

    def evaluate(self, context: Context) -> dict[str, Value]:
        """V(u): the value of every endogenous variable in the context u.

        Raises:
            HydrascopeError: the context lacks an exogenous variable, or names another.
        """
        return self._solve(frozenset(self.endogenous), context)

    def value(self, name: str, context: Context) -> Value:
        """Y(u): the value of one variable; only it and its ancestors are computed.

        Raises:
            HydrascopeError: no such variable, or the context lacks an exogenous variable or names another.
        """
        wanted = self.ancestors(name) | {name}
        values = self._solve(wanted & set(self.endogenous), context)
        return values[name] if name in values else self._given(name, context)

    def sample(self, given: Context | None = None, *, seed: int = 0, draw: int = 0) -> dict[str, Value]:
        """A context u drawn from P(u), the variables in `given` fixed to their values there.

        Each variable has its own stream of random numbers, so a model and its intervened versions draw the
        same u from the same `seed` and `draw`.

        Raises:
            HydrascopeError: a variable that isn't given has no distribution.
        """
        context = dict(given or {})
        self._check(context)
        for name, variable in self.exogenous.items():
            if name in context:
                continue
            if variable.sample is None:
                raise HydrascopeError(f"{name!r} has no distribution to sample from: give its value")
            context[name] = variable.sample(np.random.default_rng([seed, draw, *name.encode()]))
        return context

    def expectation(self, name: str, given: Context | None = None, *, draws: int, seed: int = 0) -> Value:
        """The mean of a variable over P(u), the exogenous variables in `given` fixed: a Monte-Carlo average.

        With nothing given it is E[Z(u)] (Eq. 36). With a whole context given, in a model with a random
        intervention, it is the average over the interventions of Eq. 39.

        Raises:
            HydrascopeError: no such variable, no draws, or a variable without a distribution isn't given.
        """
        if draws < 1:
            raise HydrascopeError(f"an expectation needs at least one draw, not {draws}")
        first, *rest = (self.value(name, self.sample(given, seed=seed, draw=draw)) for draw in range(draws))
        return sum(rest, first) / draws

    # Interventions

    def do(self, interventions: Mapping[str, Any] | None = None, /, **by_name: Any) -> "CausalModel":
        """M_Z: this model with Z's function replaced (Eq. 11, 14); this model itself stays as it is.

        `model.do(x=0)` sets x to 0, which is also zero ablation (Eq. 35); names that are no Python names go in
        a mapping: `model.do({"attn.3": patch})`. Any value is set as it is; an `Intervention` is one of
        `value_in`, `mean`, `noise`, `resample` or your own. Several variables are intervened on at once: what
        an intervention reads of the model is the model before all of them.

        Raises:
            HydrascopeError: a name is unknown, exogenous, or given twice.
        """
        chosen = {**(interventions or {}), **by_name}
        if twice := set(interventions or {}) & set(by_name):
            raise HydrascopeError(f"do sets {min(twice)!r} twice")
        replaced: dict[str, tuple[Variable, ...]] = {}
        for name, what in chosen.items():
            if name in self.exogenous:
                raise HydrascopeError(f"{name!r} is exogenous: do() cannot set it; set it in the context")
            self._known(name)
            replaced[name] = (what if isinstance(what, Intervention) else constant(what)).replace(self, name)
        new = [variable for variables in replaced.values() for variable in variables]
        # A second intervention on Z takes the first one's random variable away, unless it still reads it.
        read = {parent for variable in new if isinstance(variable, Endogenous) for parent in variable.parents}
        dropped = {variable.name for variable in new} | (set(map(randomness, replaced)) - read)
        kept = [variable for name, variable in self.exogenous.items() if name not in dropped]
        changed = [v for name, variable in self.endogenous.items() for v in replaced.get(name, (variable,))]
        return CausalModel(*kept, *changed, intervened=self.intervened | set(replaced))

    # Checks

    def _solve(self, wanted: frozenset[str] | set[str], context: Context) -> dict[str, Value]:
        self._check(context)
        values: dict[str, Value] = {}
        for name, variable in self.endogenous.items():
            if name in wanted:
                arguments = [
                    values[parent] if parent in self.endogenous else self._given(parent, context)
                    for parent in variable.parents
                ]
                values[name] = variable.function(*arguments)
        return values

    def _known(self, name: str) -> str:
        if name not in self.endogenous and name not in self.exogenous:
            known = ", ".join([*self.exogenous, *self.endogenous])
            raise HydrascopeError(f"the model has no variable {name!r}; there are {known}")
        return name

    def _check(self, context: Context) -> None:
        for name in context:
            if name in self.endogenous:
                raise HydrascopeError(f"{name!r} is endogenous: a context cannot set it; use do()")
            self._known(name)

    def _given(self, name: str, context: Context) -> Value:
        if name not in context:
            hint = (
                "it is random: take expectation(), or sample() a whole context"
                if self.exogenous[name].sample
                else "add it"
            )
            raise HydrascopeError(f"the context gives no value to {name!r}; {hint}")
        return context[name]


def randomness(name: str) -> str:
    """The name of the exogenous variable that a random intervention on `name` adds to the model."""
    return f"do({name})"


def _parameter_names(variable: Endogenous) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(variable.function).parameters.values()
    except (TypeError, ValueError):
        parameters = None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters or () if p.default is p.empty]
    if parameters is None or any(p.kind not in positional for p in required):
        raise HydrascopeError(f"the parents of {variable.name!r} cannot be read from its function: give parents=")
    return tuple(p.name for p in required)
