"""Place a model's weights: on one device, on several, or in memory or on disk until needed."""

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

#: The stores that weights can wait in until their module runs.
Offload = Literal["cpu", "disk"]
#: A device for each module name: a CUDA index, a torch device, or "disk".
DeviceMap = Mapping[str, int | str]

_ROOM = "make room, or set TMPDIR to a folder with room"


@dataclass(frozen=True)
class Placement:
    """The devices of a model's weights and computation.

    Attributes:
        device: the computing device, unless `spread` names several.
        offload: the store that weights wait in until their module runs; None if they stay on the device.
        spread: the device of each module; or "auto": fill the GPUs first, then memory, then the disk; None if one
            device computes.
    """

    device: torch.device
    offload: Offload | None
    spread: DeviceMap | Literal["auto"] | None

    @classmethod
    def of(cls, device: str | None, offload: str | None, device_map: str | Path | DeviceMap | None) -> "Placement":
        """Return the placement that these arguments of `load_model` ask for.

        Raises:
            HydrascopeError: an argument is unknown or can't be read, or two exclude each other.
        """
        if offload is not None and offload not in get_args(Offload):
            raise HydrascopeError(f"unknown offload {offload!r}: choose {' or '.join(get_args(Offload))}")
        for name, value in (("device", None if device == "auto" else device), ("offload", offload)):
            if device_map is not None and value is not None:
                raise HydrascopeError(f"device_map and {name} exclude each other: the map sets both; leave one out")
        return cls(resolve_device(device or "auto"), offload, _read_map(device_map))  # type: ignore[arg-type]

    def fit_to(self, name: str, config: PretrainedConfig) -> "Placement":
        """Return this placement for the model `name`, checked before any weight is read.

        Raises:
            HydrascopeError: the map names a missing module, leaves one out, or splits a block.
        """
        if not isinstance(self.spread, Mapping):
            return self
        model_class: Any = AutoModelForCausalLM
        with init_empty_weights():
            hf = model_class.from_config(config)
        module_paths = {path for path, _ in hf.named_modules()}
        for path in self.spread:
            if path not in module_paths:
                raise HydrascopeError(f"the device map names {path}, but {name} has no such module: name its modules")
        for path, _ in [*hf.named_parameters(), *hf.named_buffers()]:
            if _device_of(path, self.spread) is None:
                raise HydrascopeError(f'the device map leaves out {path} of {name}: add it, or map all others by ""')
        require_whole_blocks(name, hf, self.spread)
        return replace(self, spread=dict(_flatten(hf, self.spread)))

    @cached_property
    def _folder(self) -> TemporaryDirectory[str]:
        """A temporary folder for offloaded weights, removed with the model."""
        with disk("cannot make a folder for weights", _ROOM):
            folder = TemporaryDirectory(prefix="hydrascope-")
        # Where no model comes to be placed.
        weakref.finalize(self, folder.cleanup)
        return folder

    def _delete_folder(self) -> None:
        self._folder.cleanup()

    @property
    def from_pretrained_args(self) -> dict[str, Any]:
        """The keyword arguments that pass this placement to `from_pretrained`."""
        if self.spread is None and self.offload != "disk":
            return {}
        return {"device_map": self.spread or {"": "disk"}, "offload_folder": self._folder.name}

    def place(self, name: str, hf: PreTrainedModel) -> PreTrainedModel:
        """Move a loaded model's weights to their devices and return the model.

        The model was read with `from_pretrained_args`, or built in memory.

        Raises:
            HydrascopeError: there is no room on disk, or a block lies on several devices.
        """
        if self.offload == "disk" or self.spread is not None:
            # The model keeps this method, which keeps this placement, which keeps the folder.
            weakref.finalize(hf, self._delete_folder)
        if self.spread is not None:
            require_whole_blocks(name, hf, getattr(hf, "hf_device_map", {}))
            return hf
        if self.offload == "disk":
            return self._on_disk(hf)
        placed: PreTrainedModel
        placed = cpu_offload(hf, self.device) if self.offload == "cpu" else hf.to(self.device)  # type: ignore[arg-type]
        return placed

    def _on_disk(self, hf: PreTrainedModel) -> PreTrainedModel:
        placed: PreTrainedModel
        index = _index(hf)
        if index is None:
            with disk(f"cannot put weights into {self._folder.name}", _ROOM):
                placed = disk_offload(hf, self._folder.name, self.device)
            return placed
        # from_pretrained has set it to compute on the CPU.
        remove_hook_from_submodules(hf)
        skipped = hf._skip_keys_device_placement
        placed = dispatch_model(hf, {"": "disk"}, str(self.device), offload_index=index, skip_keys=skipped)
        return placed


def require_whole_blocks(name: str, hf: Any, spread: DeviceMap) -> None:
    """Refuse a device map that splits a block: the rows of a pass stay on one device in a block.

    Raises:
        HydrascopeError: a block is split; the message names it and its devices.
    """
    if not spread:
        return
    path = anatomy_of(hf.config.get_text_config().model_type).blocks
    for number, block in enumerate(hf.get_submodule(path)):
        block_path = f"{path}.{number}"
        devices = {str(_device_of(f"{block_path}.{weight}", spread)) for weight, _ in block.named_parameters()}
        if len(devices) > 1:
            raise HydrascopeError(
                f"the device map of {name} splits {block_path} between {' and '.join(sorted(devices))}: keep "
                "each block in one place"
            )


def resolve_device(name: str) -> torch.device:
    """Return the torch device of this name; for "auto", CUDA if there is one, else the CPU.

    Raises:
        HydrascopeError: the device isn't there, or stores no numbers.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # torch knows devices that are not there, and meta, which stores no numbers.
        torch.zeros(1, device=device).add(1).cpu()
    except Exception as error:  # each kind of device raises its own
        raise HydrascopeError(f"the device {name!r} cannot be used: {cause(error)}") from None
    return device


def _read_map(given: str | Path | DeviceMap | None) -> DeviceMap | str | None:
    if given is None or given == "auto":
        return given
    spread: Any = given
    if isinstance(given, str | Path):
        try:
            spread = json.loads(input_files.read(Path(given), "the device map"))
        except (ValueError, RecursionError) as error:
            raise HydrascopeError(f"the device map {given} is not valid JSON: {cause(error)}") from error
    if not isinstance(spread, Mapping) or not spread:
        raise HydrascopeError("the device map is empty or no mapping: give auto, or a device for each module")
    for path, device in spread.items():
        if not isinstance(path, str) or isinstance(device, bool) or not isinstance(device, int | str):
            raise HydrascopeError(f"the device map puts {path!r} on {device!r}: give a CUDA index, a device, or disk")
        if device != "disk":
            resolve_device(f"cuda:{device}" if isinstance(device, int) else device)
    return dict(spread)


def _device_of(path: str, spread: DeviceMap) -> int | str | None:
    """Return the device of a module or weight: that of the nearest mapped module above it."""
    while path not in spread and path:
        path = path.rpartition(".")[0]
    return spread.get(path)


def _flatten(hf: Any, spread: DeviceMap, path: str = "") -> Iterator[tuple[str, int | str]]:
    """Return an equal map without nested modules, which accelerate's hooks don't support."""
    inside = f"{path}." if path else ""
    if not any(other != path and other.startswith(inside) for other in spread):
        device = _device_of(path, spread)
        if device is not None:
            yield path, device
        return
    for name, _ in hf.get_submodule(path).named_children():
        yield from _flatten(hf, spread, f"{inside}{name}")


def _index(hf: PreTrainedModel) -> dict[str, Any] | None:
    """Return accelerate's index of a model's weights on disk; None if the model is in memory."""
    maps = (getattr(getattr(module, "_hf_hook", None), "weights_map", None) for module in hf.modules())
    return next((weights.dataset.index for weights in maps if weights is not None), None)
