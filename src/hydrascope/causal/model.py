"""Structural causal models and the `do` operator (Def. 3.1 and section 3 of the paper)."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np

from hydrascope.utils.errors import HydrascopeError

#: A number, a numpy array or a torch tensor. An exogenous variable may have any value, such as a prompt.
Value = Any

#: A context u: the values of the exogenous variables, by name.
Context = Mapping[str, Value]


@dataclass(frozen=True)
class Exogenous:
    """A variable of U, determined by P(u) alone.

    Exogenous variables are drawn independently of each other. Values that belong together form one variable with a
    tuple or an array as its value.

        >>> u = Exogenous("u", lambda rng: rng.normal())

    Attributes:
        name: the variable's name.
        sample: a function that draws a value; without it, every context must give the value.
    """

    name: str
    sample: Callable[[np.random.Generator], Value] | None = None


@dataclass(frozen=True)
class Endogenous:
    """A variable of V: v = f(pa), a deterministic function of its parents.

        >>> y = Endogenous("y", lambda x, f: x + f)
        >>> y.parents
        ('x', 'f')

    Attributes:
        name: the variable's name.
        function: a function from the parents' values, in the order of `parents`, to the variable's value. It must not
            change them in place.
        parents: the names of the parents; by default the names of the function's parameters without a default value.

    Raises:
        HydrascopeError: the parents are neither given nor readable from the function.
    """

    name: str
    function: Callable[..., Value]
    parents: tuple[str, ...] = None  # type: ignore[assignment]  # never None after __post_init__

    def __post_init__(self) -> None:
        parents = _parameter_names(self) if self.parents is None else tuple(self.parents)
        if len(set(parents)) < len(parents):
            raise HydrascopeError(f"{self.name!r} names one parent twice: {', '.join(parents)}")
        object.__setattr__(self, "parents", parents)


Variable = Exogenous | Endogenous


@dataclass(frozen=True)
class Intervention:
    """A replacement for a variable's function that is more than a constant.

    Attributes:
        replace: a function from the model before the intervention and the variable's name to the new variables: an
            `Endogenous` of the same name and, for a random intervention, its `Exogenous` parent `do(name)`.
    """

    replace: Callable[["CausalModel", str], tuple[Variable, ...]]


def constant(value: Value) -> Intervention:
    """Set a variable to a constant, do(Z = z′), so that it loses its parents."""
    return Intervention(lambda model, name: (Endogenous(name, lambda: value, ()),))


class CausalModel:
    """A structural causal model M = ⟨U, V, F, P(u)⟩ (Def. 3.1).

    A model never changes; `do` returns a new one.

        >>> scm = CausalModel(Exogenous("u"), Endogenous("x", lambda u: 2 * u), Endogenous("y", lambda x: x + 1))
        >>> scm.value("y", {"u": 3}), scm.do(x=0).value("y", {"u": 3})
        (7, 1)

    Attributes:
        exogenous: the variables U, by name.
        endogenous: the variables V, by name, parents before their children.
        intervened: the names of the variables with a function replaced by an intervention.

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
        """The causal graph, read-only, with an edge from every parent to its child.

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
        """Return the variables with a directed path to `name`, without `name` itself."""
        return frozenset(nx.ancestors(self.graph, self._require(name)))

    def descendants(self, name: str) -> frozenset[str]:
        """Return the variables with a directed path from `name`, without `name` itself."""
        return frozenset(nx.descendants(self.graph, self._require(name)))

    # Values

    def evaluate(self, context: Context) -> dict[str, Value]:
        """Return the value of every endogenous variable in a context, V(u).

        Args:
            context: the value of each exogenous variable.

        Raises:
            HydrascopeError: the context lacks an exogenous variable, or names any other.
        """
        return self._solve(frozenset(self.endogenous), context)

    def value(self, name: str, context: Context) -> Value:
        """Return the value of one variable in a context, Y(u).

        Only the variable and its ancestors are computed.

        Args:
            name: the variable's name.
            context: the value of each exogenous variable that it depends on.

        Raises:
            HydrascopeError: there is no such variable; or the context lacks an exogenous variable, or names any
                other.
        """
        needed = self.ancestors(name) | {name}
        values = self._solve(needed & set(self.endogenous), context)
        return values[name] if name in values else self._given(name, context)

    def sample(self, given: Context | None = None, *, seed: int = 0, draw: int = 0) -> dict[str, Value]:
        """Draw a context u from P(u).

        Each variable has its own stream of random numbers, so a model and its intervened versions draw the same u from
        the same `seed` and `draw`.

        Args:
            given: values that some exogenous variables are fixed to.
            seed: the seed of the draws.
            draw: the number of the draw.

        Raises:
            HydrascopeError: a variable is neither given nor has a distribution.
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
        """Return the Monte-Carlo mean of a variable over P(u).

        Without `given` it is E[Z(u)] (Eq. 36). With a whole context given, in a model with a random intervention, it
        is the average over interventions of Eq. 39.

        Args:
            name: the variable's name.
            given: values that some exogenous variables are fixed to.
            draws: the number of draws.
            seed: the seed of the draws.

        Raises:
            HydrascopeError: there is no such variable, `draws` is below 1, or a variable is neither given nor has a
                distribution.
        """
        if draws < 1:
            raise HydrascopeError(f"an expectation needs at least one draw, not {draws}")
        first, *rest = (self.value(name, self.sample(given, seed=seed, draw=draw)) for draw in range(draws))
        return sum(rest, first) / draws

    # Interventions

    def do(self, interventions: Mapping[str, Any] | None = None, /, **by_name: Any) -> "CausalModel":
        """Return a new model M_Z with the functions of some variables replaced (Eq. 11, 14).

        `scm.do(x=0)` sets x to 0, as zero ablation does (Eq. 35). `scm.do({"attn.3": patch})` sets a variable with a
        name that is no Python name. Several interventions apply at once; each reads the model before all of them.

            >>> scm = CausalModel(Exogenous("u"), Endogenous("x", lambda u: 2 * u))
            >>> scm.do(x=0).value("x", {"u": 3})
            0

        Args:
            interventions: a value, or an `Intervention`, for each variable: `value_in`, `mean`, `noise`, `resample` or
                your own.
            by_name: the same as keywords.

        Raises:
            HydrascopeError: a name is unknown, exogenous, or given twice.
        """
        requested = {**(interventions or {}), **by_name}
        if twice := set(interventions or {}) & set(by_name):
            raise HydrascopeError(f"do() sets {min(twice)!r} twice: set it once")
        replaced: dict[str, tuple[Variable, ...]] = {}
        for name, new_value in requested.items():
            if name in self.exogenous:
                raise HydrascopeError(f"{name!r} is exogenous: do() cannot set it; set it in the context")
            self._require(name)
            intervention = new_value if isinstance(new_value, Intervention) else constant(new_value)
            replaced[name] = intervention.replace(self, name)
        new = [variable for variables in replaced.values() for variable in variables]
        # A second intervention on Z drops the random variable of the first, unless it still reads it.
        read = {parent for variable in new if isinstance(variable, Endogenous) for parent in variable.parents}
        dropped = {variable.name for variable in new} | (set(map(randomness, replaced)) - read)
        kept = [variable for name, variable in self.exogenous.items() if name not in dropped]
        changed = [v for name, variable in self.endogenous.items() for v in replaced.get(name, (variable,))]
        return CausalModel(*kept, *changed, intervened=self.intervened | set(replaced))

    # Checks

    def _solve(self, needed: frozenset[str] | set[str], context: Context) -> dict[str, Value]:
        self._check(context)
        values: dict[str, Value] = {}
        for name, variable in self.endogenous.items():
            if name in needed:
                arguments = [
                    values[parent] if parent in self.endogenous else self._given(parent, context)
                    for parent in variable.parents
                ]
                values[name] = variable.function(*arguments)
        return values

    def _require(self, name: str) -> str:
        if name not in self.endogenous and name not in self.exogenous:
            names = ", ".join([*self.exogenous, *self.endogenous])
            raise HydrascopeError(f"the model has no variable {name!r}; there are {names}")
        return name

    def _check(self, context: Context) -> None:
        for name in context:
            if name in self.endogenous:
                raise HydrascopeError(f"{name!r} is endogenous: a context cannot set it; use do()")
            self._require(name)

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
    """Return the name of the exogenous variable that a random intervention on `name` adds."""
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
