"""Experiments: lists of runs that answer a question together, once they are subtracted (`hydrascope.measures`).

    hs.sweep(model, prompts, ablate=hs.Mediation("attn", mediators="layers"))
    hs.run(model, prompts, ablate=hs.Interactions("heads"), out="pairs.zarr")

A result knows its experiment: its attributes say what was asked, and `Network` is what they need of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hydrascope.components.component import INPUT_KINDS, Component, Run
from hydrascope.components.selection import Parts, Selection, answering, selected, selected_mediators, selected_runs
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class Mediated:
    """The runs that tell of one ablation who of its mediators restores what.

    Attributes:
        run: the ablation, all else free.
        none: everything downstream of it frozen.
        together: all mediators frozen.
        without: of each mediator that is downstream, the run in which it is frozen, all else free.
        alone: of each, the run in which it is free, all else downstream frozen.
    """

    run: Run
    none: Run
    together: Run
    without: Mapping[Component, Run]
    alone: Mapping[Component, Run]

    @classmethod
    def of(cls, model: Parts, run: Run, mediators: Sequence[Component]) -> "Mediated":
        """The runs of one ablation."""

        def frozen(chosen: Sequence[Component]) -> Run:
            return Run(run.ablated, tuple(chosen))

        parts, every = answering(model, run, mediators), _reacting(model, run)
        whole = [part for part in parts if not ({part.whole, part.head} - {part}) & {*parts}]
        return cls(
            run,
            frozen(every),
            frozen(whole),
            {part: frozen([part]) for part in parts},
            {part: frozen(_others(model, part, every)) for part in parts},
        )

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of them."""
        return (self.run, self.none, self.together, *self.without.values(), *self.alone.values())


def _reacting(model: Parts, run: Run) -> list[Component]:
    """All that can react: the layers downstream, and the other heads of those that hold an ablated one."""
    first = min(map(model.stage, run.ablated))
    holding = {part.whole for part in run.ablated if model.stage(part) > first} - {*run.ablated}
    layers = answering(model, run, model.components)
    return [*layers, *(head for layer in holding for head in model.units(layer) if head not in run.ablated)]


def _others(model: Parts, part: Component, every: Sequence[Component]) -> list[Component]:
    """All of `every` but what `part` writes: of its own layer the other heads, of its own head the other inputs."""
    if part.whole == part:
        return [each for each in every if each != part]
    head = part.head
    rest = [each for each in every if each not in (part.whole, head)]
    rest += [other for other in model.units(part.whole) if part.whole in every and other != head]
    return rest + [
        Component(part.layer, kind, part.unit) for kind in INPUT_KINDS if part.is_input and kind != part.kind
    ]


@dataclass(frozen=True)
class Mediation:
    """Who repairs: each ablation again with mediators frozen, one by one, all together, and all else but one.

    Read by `hydrascope.measures.mediation`.

    Attributes:
        ablate: what is ablated, one by one or together, nothing frozen.
        mediators: the layers, heads and inputs of heads (`query.9.6`, `keys.9`) whose reactions are asked for.
    """

    ablate: Selection = "attn"
    mediators: Selection = "layers"

    def each(self, model: Parts) -> list[Mediated]:
        """The runs, by what they ablate.

        Raises:
            HydrascopeError: a selection names what isn't there, freezes something, or names neurons as mediators.
        """
        runs, parts = selected_runs(model, self.ablate), selected_mediators(model, self.mediators)
        for run in runs:
            if run.frozen:
                raise HydrascopeError(
                    f"{run} freezes {run.frozen[0]}: name what is ablated only, mediators are frozen here"
                )
            neurons = [part for part in run.ablated if part.kind == "neuron"]
            if len({part.whole for part in run.ablated}) > 1 and neurons:
                raise HydrascopeError(f"{run} ablates {neurons[0]} with other layers: its MLP can't be frozen in part")
        return [Mediated.of(model, run, parts) for run in runs]

    def runs(self, model: Parts) -> tuple[Run, ...]:
        """All runs, each once."""
        return tuple(dict.fromkeys(run for one in self.each(model) for run in one.runs))

    def reads(self, model: Parts) -> tuple[Component, ...]:
        """The heads whose responses are read besides all layers'."""
        return tuple(part for part in selected_mediators(model, self.mediators) if part.is_unit)

    def settings(self, model: Parts) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "experiment": "mediation",
            "ablate": ",".join(str(one.run) for one in self.each(model)),
            "mediators": ",".join(map(str, selected_mediators(model, self.mediators))),
        }


@dataclass(frozen=True)
class Interactions:
    """Who covers for whom: some parts ablated one by one and in pairs.

    Read by `hydrascope.measures.interactions`.

    Attributes:
        parts: of which all pairs are ablated, but a layer together with a part of it.
    """

    parts: Selection = "layers"

    def runs(self, model: Parts) -> tuple[Run, ...]:
        """Each part, and each pair.

        Raises:
            HydrascopeError: the selection names what isn't there, or fewer than two parts.
        """
        parts = selected(model, self.parts)
        if len(parts) < 2:
            raise HydrascopeError(f"{parts[0]} alone can't interact: name at least two parts")
        pairs = [(u, v) for u, v in combinations(parts, 2) if u.whole != v and v.whole != u]
        return (*(Run((part,)) for part in parts), *map(Run, pairs))

    def reads(self, model: Parts) -> tuple[Component, ...]:
        """Nothing besides all layers: interactions are of effects."""
        return ()

    def settings(self, model: Parts) -> dict[str, Any]:
        """What a result says of it."""
        return {"experiment": "interactions", "ablate": ",".join(map(str, selected(model, self.parts)))}


Experiment = Mediation | Interactions
