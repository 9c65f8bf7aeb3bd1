"""The type of what measures take: the effects on one readout, per prompt, read from a result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Literal, ParamSpec, Self, TypeVar

import xarray as xr

from hydrascope.utils.errors import HydrascopeError

#: At which σ an ablated run is read: the clean run's, or its own.
Sigma = Literal["clean", "own"]

#: The two readings of σ, in words.
SIGMA_NAME: dict[Sigma, str] = {"clean": "at the clean run’s σ", "own": "at each run’s own σ"}

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


@dataclass(frozen=True, eq=False)
class EffectsOnly:
    """The effects on one readout, averaged over patches, and nothing of what parts write in ablated runs.

    Made by `hydrascope.measures.effects_only`, from any result.

    Attributes:
        readout: its label.
        readout_before: the block before which it is read inside the network, −1 after the last.
        data: `total` and `direct` [prompt, ablated] and `logit` [prompt], with the coordinates and attributes of the
            result.
    """

    readout: str
    readout_before: int
    data: xr.Dataset

    def __getitem__(self, name: str) -> xr.DataArray:
        """One variable or coordinate of the data."""
        return self.data[name]

    @property
    def sizes(self) -> Mapping[Any, int]:
        """How long each dimension of the data is."""
        return self.data.sizes

    def isel(self, indexers: Mapping[Any, Any] | None = None, **by_name: Any) -> Self:
        """Choose prompts, ablated parts or components by their indices, as `xarray.Dataset.isel` does."""
        return replace(self, data=self.data.isel(indexers, **by_name))

    def sel(self, indexers: Mapping[Any, Any] | None = None, **by_name: Any) -> Self:
        """Choose ablated parts or components by their labels, as `xarray.Dataset.sel` does."""
        return replace(self, data=self.data.sel(indexers, **by_name))

    @property
    def unit(self) -> str:
        """The unit of the effects: logits, or that of a direction that is read."""
        return str(self.data.attrs.get("units", "logits")) if self.readout != "logit" else "logits"

    @property
    def read_at(self) -> Sigma | None:
        """The reading of σ that the effects depend on; None inside the network, where there is no norm.

        None, too, where effects alone were kept, which depend on neither.
        """
        return None

    @property
    def caption(self) -> str:
        """How effects were read, in words for tables and figures: `logit, at the clean run’s σ`."""
        if self.readout_before >= 0:
            return f"{self.readout}, before block {self.readout_before}, without a norm"
        return self.readout if self.read_at is None else f"{self.readout}, {SIGMA_NAME[self.read_at]}"


@dataclass(frozen=True, eq=False)
class Effects(EffectsOnly):
    """The effects on one readout, averaged over patches, and what parts write, at one reading of σ.

    Measures take it; `hydrascope.measures.per_prompt` makes it from a result, and says what its `data` are.

        effects = per_prompt(results, "difference", "own")
        effects["total"].mean("prompt"), restoration(effects.isel(prompt=[0, 1]))

    Attributes:
        sigma: at which σ ablated runs are read.
    """

    sigma: Sigma

    @property
    def read_at(self) -> Sigma | None:
        """The reading of σ that the effects depend on; None inside the network, where there is no norm."""
        return self.sigma if self.readout_before < 0 else None


def takes_effects(measure: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Refuse in one clear line what is not of the type that a measure's argument `effects`, its first, has."""
    wanted: type[EffectsOnly] = measure.__annotations__["effects"]

    @wraps(measure)
    def checked(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Output:
        given = (*args, kwargs.get("effects"))[0]
        if not isinstance(given, wanted):
            raise HydrascopeError(_refusal(measure.__name__, given))
        return measure(*args, **kwargs)

    return checked


def _refusal(name: str, given: object) -> str:
    if isinstance(given, EffectsOnly):
        return f"{name} needs what parts write, and these are effects alone: give measures.per_prompt(results)"
    return f"{name} takes effects, not a {type(given).__name__}: give measures.per_prompt(results)"
