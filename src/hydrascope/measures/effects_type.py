"""The argument of most measures: the effects on one readout, per prompt, read from a result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Literal, ParamSpec, Self, TypeVar

import xarray as xr

from hydrascope.utils.errors import HydrascopeError

#: The σ at which an ablated row is read: the clean pass's, or the row's own.
Sigma = Literal["clean", "own"]

#: The names of the two readings of σ.
SIGMA_NAME: dict[Sigma, str] = {"clean": "at the clean run’s σ", "own": "at each run’s own σ"}

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


@dataclass(frozen=True, eq=False)
class EffectsOnly:
    """The effects on one readout, averaged over patches, without what components write.

    `hydrascope.measures.effects_only` makes it from any result.

    >>> alone = hs.measures.effects_only(results)
    >>> mean = alone["total"].mean("prompt")

    Attributes:
        readout: the label of the readout.
        readout_before: the block before which it is read, −1 after the last block.
        data: `total` and `direct` [prompt, ablated] and `logit` [prompt], in the readout's unit, with the coordinates
            and attributes of the result.
    """

    readout: str
    readout_before: int
    data: xr.Dataset

    def __getitem__(self, name: str) -> xr.DataArray:
        """Return a variable or coordinate of the data."""
        return self.data[name]

    @property
    def sizes(self) -> Mapping[Any, int]:
        """The length of each dimension of the data."""
        return self.data.sizes

    def isel(self, indexers: Mapping[Any, Any] | None = None, **by_name: Any) -> Self:
        """Select prompts, ablated components or components by index, as `xarray.Dataset.isel`."""
        return replace(self, data=self.data.isel(indexers, **by_name))

    def sel(self, indexers: Mapping[Any, Any] | None = None, **by_name: Any) -> Self:
        """Select ablated components or components by label, as `xarray.Dataset.sel`."""
        return replace(self, data=self.data.sel(indexers, **by_name))

    @property
    def unit(self) -> str:
        """The unit of the effects: logits, or the unit of a direction."""
        return str(self.data.attrs.get("units", "logits")) if self.readout != "logit" else "logits"

    @property
    def read_at(self) -> Sigma | None:
        """The reading of σ that the effects depend on; None if they depend on none."""
        return None

    @property
    def caption(self) -> str:
        """The readout and the reading of σ, for tables and figures: `logit, at the clean run’s σ`."""
        if self.readout_before >= 0:
            return f"{self.readout}, before block {self.readout_before}, without a norm"
        return self.readout if self.read_at is None else f"{self.readout}, {SIGMA_NAME[self.read_at]}"


@dataclass(frozen=True, eq=False)
class Effects(EffectsOnly):
    """The effects on one readout and the direct effects of sublayers, at one reading of σ.

    `hydrascope.measures.per_prompt` makes it from a result, and documents its `data`.

    >>> effects = hs.measures.per_prompt(results, sigma="own")
    >>> shares = hs.measures.restoration(effects.isel(prompt=[0, 1]))

    Attributes:
        sigma: the reading of σ in ablated rows.
    """

    sigma: Sigma

    @property
    def read_at(self) -> Sigma | None:
        """The reading of σ that the effects depend on; None before a block, where there is no norm."""
        return self.sigma if self.readout_before < 0 else None


def takes_effects(measure: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Make a measure refuse a first argument `effects` of another type than it declares."""
    expected: type[EffectsOnly] = measure.__annotations__["effects"]

    @wraps(measure)
    def checked(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Output:
        given = (*args, kwargs.get("effects"))[0]
        if not isinstance(given, expected):
            raise HydrascopeError(_refusal(measure.__name__, given))
        return measure(*args, **kwargs)

    return checked


def _refusal(name: str, given: object) -> str:
    if isinstance(given, EffectsOnly):
        return f"{name} needs the effects of components, too: give measures.per_prompt(results)"
    return f"{name} takes effects, not a {type(given).__name__}: give measures.per_prompt(results)"
