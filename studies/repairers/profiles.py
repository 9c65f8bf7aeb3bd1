"""Read the reactions of stored sweeps, in means over the prompts of each unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import hydrascope as hs
from studies.repairers.estimator import in_units

#: The kinds of reactions: to the whole change, to its readout part, and the first less the second.
KINDS = ("full", "damping", "content")


@dataclass(frozen=True)
class Profiles:
    """The reactions of a context, in logits.

    Attributes:
        ablated: the ablated sublayers.
        reactors: the components downstream of any of them.
        reactions: for each kind, `[unit, ablated, reactor]`; NaN where a reactor isn't downstream.
        removed: what each ablation removes, `[unit, ablated]`.
    """

    ablated: tuple[str, ...]
    reactors: tuple[str, ...]
    reactions: dict[str, np.ndarray]
    removed: np.ndarray

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads among the reactors."""
        return tuple(label for label in self.reactors if label.startswith("head."))

    def of(self, kind: str, reactors: str) -> np.ndarray:
        """Return the reactions of the reactors of one kind, `head` or `mlp`: `[unit, ablated, reactor]`."""
        inside = [label.startswith(f"{reactors}.") for label in self.reactors]
        return self.reactions[kind][..., inside]

    @classmethod
    def read(cls, path: Path, units: Sequence[str]) -> "Profiles":
        """Read the reactions of a context.

        Args:
            path: the store of the reactions.
            units: the unit of each prompt, of the first ones or of all.
        """
        results = hs.open_results(path).isel(prompt=slice(len(units)))
        effects = results[["total", "direct"]].sel(readout="difference").astype(np.float64)
        effects = effects.transpose("patch", "prompt", "ablated").compute()
        row = {str(label): place for place, label in enumerate(results["ablated"].values)}
        ablated = tuple(label for label in row if "|" not in label)
        reactors = tuple(dict.fromkeys(label.split("|")[1] for label in row if "|" in label))
        total = effects["total"].values
        found = np.full((*total.shape[:2], len(ablated), len(reactors)), np.nan)
        for place, k in enumerate(ablated):
            for other, d in enumerate(reactors):
                if (frozen := f"{k}|{d}") in row:
                    found[:, :, place, other] = total[..., row[k]] - total[..., row[frozen]]
        full, damping = (in_units(each, units) for each in found)
        removed = -effects["direct"].values[0][:, [row[k] for k in ablated]]
        kinds = {"full": full, "damping": damping, "content": full - damping}
        return cls(ablated, reactors, kinds, in_units(removed, units))


def clean_writes(path: Path, units: Sequence[str], reactors: Sequence[str]) -> np.ndarray:
    """Return the clean direct effects of the reactors, `[unit, reactor]`, in logits.

    Args:
        path: the store of the responses, in which all heads were read.
        units: the unit of each prompt.
        reactors: the labels of the reactors.
    """
    results = hs.open_results(path).isel(prompt=slice(len(units)))
    unembed = results["unembed"].sel(readout="difference", component=list(reactors))
    return in_units(unembed.transpose("prompt", "component").values.astype(np.float64), units)


def responses(path: Path, units: Sequence[str], reactors: Sequence[str]) -> np.ndarray:
    """Return the change of each reactor's direct effect by the whole ablation, `[unit, ablated, reactor]`, in logits.

    Args:
        path: the store of the responses.
        units: the unit of each prompt.
        reactors: the labels of the reactors.
    """
    results = hs.open_results(path).isel(prompt=slice(len(units)))
    after = results["unembed_ablated_by_patch"].sel(readout="difference", component=list(reactors)).isel(patch=0)
    before = results["unembed"].sel(readout="difference", component=list(reactors))
    found = (after.astype(np.float64) - before.astype(np.float64)).transpose("prompt", "ablated", "component").values
    return in_units(found, units)
