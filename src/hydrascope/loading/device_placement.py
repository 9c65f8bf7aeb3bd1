"""Where a model's weights are put when it is loaded: on one device, elsewhere until they are needed, or on several."""

import json
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from accelerate import cpu_offload, disk_offload, dispatch_model, init_empty_weights
from accelerate.hooks import remove_hook_from_submodules
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from hydrascope.models.architectures import anatomy_of
from hydrascope.utils import input_files
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError, cause

#: Where weights wait until their module runs.
Offload = Literal["cpu", "disk"]
#: Devices by the names of modules: an index of CUDA, a device of torch, or "disk".
DeviceMap = Mapping[str, int | str]

_ROOM = "make room, or set TMPDIR to a place that has it"


@dataclass(frozen=True)
class Placement:
    """Where weights are, and what computes.

    Attributes:
        device: what computes, where that is one device.
        offload: where weights wait until their module runs; None where they are on the device.
        spread: which module is where, or "auto": what fits on the GPUs, then in memory, then on disk; None where one
            device computes.
    """

    device: torch.device
    offload: Offload | None
    spread: DeviceMap | Literal["auto"] | None

    @classmethod
    def of(cls, device: str | None, offload: str | None, device_map: str | Path | DeviceMap | None) -> "Placement":
        """What these arguments of `load_model` say.

        Raises:
            HydrascopeError: one is unknown or can't be read, or they exclude each other.
        """
        if offload is not None and offload not in get_args(Offload):
            raise HydrascopeError(f"unknown offload {offload!r}: choose {' or '.join(get_args(Offload))}")
        for name, value in (("device", None if device == "auto" else device), ("offload", offload)):
            if device_map is not None and value is not None:
                raise HydrascopeError(f"device_map and {name} exclude each other, as a map says both: leave one out")
        return cls(resolve_device(device or "auto"), offload, _read(device_map))  # type: ignore[arg-type]

    def fit_to(self, name: str, config: PretrainedConfig) -> "Placement":
        """The same for the model called `name`, before any weight of it is read.

        Raises:
            HydrascopeError: a map names a module that isn't there, leaves one out, or splits a block.
        """
        if not isinstance(self.spread, Mapping):
            return self
        with init_empty_weights():
            hf = AutoModelForCausalLM.from_config(config)
        known = {path for path, _ in hf.named_modules()}
        for path in self.spread:
            if path not in known:
                raise HydrascopeError(f"the device map names {path}, which {name} has not: name its modules")
        for path, _ in [*hf.named_parameters(), *hf.named_buffers()]:
            if _place(path, self.spread) is None:
                raise HydrascopeError(f'the device map says nothing of {path} of {name}: name it, or all else by ""')
        require_whole_blocks(name, hf, self.spread)
        return replace(self, spread=dict(_apart(hf, self.spread)))

    @cached_property
    def _folder(self) -> TemporaryDirectory:
        """For weights that are not on disk as the model computes with them; it goes with the model."""
        with disk("cannot make a folder for weights", _ROOM):
            return TemporaryDirectory(prefix="hydrascope-")

    @property
    def from_pretrained_args(self) -> dict[str, Any]:
        """What `from_pretrained` is told of it."""
        if self.spread is None and self.offload != "disk":
            return {}
        return {"device_map": self.spread or {"": "disk"}, "offload_folder": self._folder.name}

    def place(self, name: str, hf: PreTrainedModel) -> PreTrainedModel:
        """A model that was read as `reading` says, or made, with its weights where they are to be.

        Raises:
            HydrascopeError: there is no room on disk; a block came to be on several devices.
        """
        if self.offload == "disk" or self.spread is not None:
            weakref.finalize(hf, self._folder.cleanup)
        if self.spread is not None:
            require_whole_blocks(name, hf, getattr(hf, "hf_device_map", {}))
            return hf
        if self.offload == "cpu":
            return cpu_offload(hf, self.device)
        if self.offload == "disk":
            return self._on_disk(hf)
        return hf.to(self.device)  # type: ignore[arg-type]

    def _on_disk(self, hf: PreTrainedModel) -> PreTrainedModel:
        index = _index(hf)
        if index is None:
            with disk(f"cannot put weights into {self._folder.name}", _ROOM):
                return disk_offload(hf, self._folder.name, self.device)
        # As it was read, it computes on the CPU.
        remove_hook_from_submodules(hf)
        skipped = hf._skip_keys_device_placement
        return dispatch_model(hf, {"": "disk"}, str(self.device), offload_index=index, skip_keys=skipped)


def require_whole_blocks(name: str, hf: Any, spread: DeviceMap) -> None:
    """Refuse a map by which the parts of a block are in several places: its rows are on one device.

    Raises:
        HydrascopeError: the message says which block, and where its parts are.
    """
    if not spread:
        return
    path = anatomy_of(hf.config.get_text_config().model_type).blocks
    for number, block in enumerate(hf.get_submodule(path)):
        block_path = f"{path}.{number}"
        places = {str(_place(f"{block_path}.{part}", spread)) for part, _ in block.named_parameters()}
        if len(places) > 1:
            raise HydrascopeError(
                f"the device map of {name} splits {block_path} between {' and '.join(sorted(places))}: give each block "
                "one place"
            )


def resolve_device(name: str) -> torch.device:
    """The device of this name, or of "auto" CUDA where there is one.

    Raises:
        HydrascopeError: it isn't there, or holds no numbers.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # A device may be known and not there, or, as meta, hold no numbers.
        torch.zeros(1, device=device).add(1).cpu()
    except Exception as error:  # each kind of device has its own
        raise HydrascopeError(f"the device {name!r} cannot be used: {cause(error)}") from None
    return device


def _read(given: str | Path | DeviceMap | None) -> DeviceMap | str | None:
    if given is None or given == "auto":
        return given
    spread: Any = given
    if isinstance(given, str | Path):
        try:
            spread = json.loads(input_files.read(Path(given), "the device map"))
        except (ValueError, RecursionError) as error:
            raise HydrascopeError(f"the device map {given} is no JSON: {cause(error)}") from error
    if not isinstance(spread, Mapping) or not spread:
        raise HydrascopeError("the device map says nothing: give auto, or the place of each module by its name")
    for path, place in spread.items():
        if not isinstance(path, str) or isinstance(place, bool) or not isinstance(place, int | str):
            raise HydrascopeError(f"the device map puts {path!r} at {place!r}: give a CUDA number, a device, or disk")
        if place != "disk":
            resolve_device(f"cuda:{place}" if isinstance(place, int) else place)
    return dict(spread)


def _place(path: str, spread: DeviceMap) -> int | str | None:
    """Where a map puts what is at `path`: as the nearest module above it that it names."""
    while path not in spread and path:
        path = path.rpartition(".")[0]
    return spread.get(path)


def _apart(hf: Any, spread: DeviceMap, path: str = "") -> Iterator[tuple[str, int | str]]:
    """The same map without a module in another: accelerate's hooks know of none."""
    inside = f"{path}." if path else ""
    if not any(other != path and other.startswith(inside) for other in spread):
        place = _place(path, spread)
        if place is not None:
            yield path, place
        return
    for name, _ in hf.get_submodule(path).named_children():
        yield from _apart(hf, spread, f"{inside}{name}")


def _index(hf: PreTrainedModel) -> dict[str, Any] | None:
    """Where accelerate finds the weights of a model that is read from disk; None of one that is in memory."""
    maps = (getattr(getattr(module, "_hf_hook", None), "weights_map", None) for module in hf.modules())
    return next((found.dataset.index for found in maps if found is not None), None)
