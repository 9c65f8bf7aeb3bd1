"""Merge a LoRA adapter from disk into a model: W + s B A for each projection that it adapts.

The files are those that PEFT writes: `adapter_config.json` and `adapter_model.safetensors`. PEFT itself isn't needed.
The scale s is `lora_alpha / r`, or `lora_alpha / √r` with `use_rslora`; both may be set for each module by patterns.
What is more than that is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydrascope.loading.source import download
from hydrascope.models import fingerprint
from hydrascope.models.language_model import wider
from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError, cause

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"

#: Settings that make more of an adapter than W + s B A. `modules_to_save` lists modules that were trained as a whole.
_UNSUPPORTED = (
    *("use_dora", "modules_to_save", "lora_bias", "layer_replication", "target_parameters"),
    *("trainable_token_indices", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config"),
    *("monteclora_config",),
)
#: Ways to begin training that leave the base weights as they were. Others, such as `pissa`, change them.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        name: the name of its folder, or its name on the hub.
        config: its settings.
        weights: for each module's path, A `[rank, in]` and B `[out, rank]`.
        hash: `sha256:…` of its settings and weights.
    """

    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, tuple[Tensor, Tensor]]
    hash: str

    def scale(self, path: str) -> float:
        """Return the factor of B A for the module at `path`.

        Raises:
            HydrascopeError: the settings give another rank than the weights have, or no numbers.
        """
        rank = self._setting(path, "rank_pattern", "r")
        alpha = self._setting(path, "alpha_pattern", "lora_alpha")
        found = len(self.weights[path][0])
        if rank != found:
            raise HydrascopeError(
                f"the adapter {self.name} is damaged: {path} has rank {found}, its settings say {rank}"
            )
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _setting(self, path: str, patterns: str, default: str) -> float:
        """Return the value of the first pattern that the end of `path` matches, as PEFT chooses it."""
        try:
            named = dict(self.config.get(patterns) or {})
            matching = (value for key, value in named.items() if re.match(rf"(.*\.)?({key})$", path))
            return float(next(matching, self.config[default]))
        except (KeyError, TypeError, ValueError, re.error) as error:
            raise HydrascopeError(f"the adapter {self.name} is damaged: {default} or {patterns} of {path}") from error


def read_adapter(name: str | Path) -> Adapter:
    """Read an adapter from a folder or the hub.

    Raises:
        HydrascopeError: it isn't there, is damaged, or is more than a LoRA adapter of projections.
    """
    folder = _find(str(name))
    if not (folder / _CONFIG).exists():
        raise HydrascopeError(f"there is no adapter in {name}: it has no {_CONFIG}; save it with save_pretrained")
    try:
        config = json.loads(input_files.read(folder / _CONFIG, "the adapter"))
        kind = config.get("peft_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise HydrascopeError(f"the adapter {name} is damaged: {_CONFIG} is no JSON object: fetch it again") from error
    if kind != "LORA":
        raise HydrascopeError(
            f"the adapter {name} is of the type {kind}, not LORA: merge it with PEFT and give the model"
        )
    for setting in _UNSUPPORTED:
        if config.get(setting):
            raise _more(name, setting)
    if config.get("bias", "none") != "none":
        raise _more(name, f"bias={config['bias']}")
    if config.get("init_lora_weights") not in _INITS:
        raise _more(name, f"init_lora_weights={config['init_lora_weights']}, which changes the base weights")
    if not (folder / _WEIGHTS).exists():
        raise HydrascopeError(f"the adapter {name} has no {_WEIGHTS}; other formats can run code and are not read")
    input_files.require_readable(folder / _WEIGHTS, "the adapter")
    try:
        stored = load_file(folder / _WEIGHTS)
    except Exception as error:  # safetensors raises its own
        raise HydrascopeError(f"the adapter {name} is damaged: {cause(error)}: fetch it again") from error
    hash_ = fingerprint.hash_json([input_files.hash_file(folder / file) for file in (_CONFIG, _WEIGHTS)])
    short = str(name) if not Path(str(name)).expanduser().is_dir() else folder.resolve().name
    return Adapter(short, config, _pairs(name, stored), hash_)


@torch.no_grad()
def merge(adapter: Adapter, name: str, hf: nn.Module) -> None:
    """Add an adapter to the weights of the model `name`, in place.

    Raises:
        HydrascopeError: the adapter is for another model, or adapts weights that another module shares.
    """
    for path in adapter.weights:
        _require_fits(adapter, path, name, hf)
    for path, (a, b) in adapter.weights.items():
        module: Any = hf.get_submodule(path)
        weight = module.weight
        wide = wider(weight.dtype)
        added = adapter.scale(path) * (b.to(weight.device, wide) @ a.to(weight.device, wide))
        weight.copy_(weight.to(wide) + (added.T if isinstance(module, Conv1D) else added))


def _require_fits(adapter: Adapter, path: str, name: str, hf: Any) -> None:
    a, b = adapter.weights[path]
    try:
        module = hf.get_submodule(path)
    except AttributeError:
        raise HydrascopeError(
            f"the adapter {adapter.name} is for another model than {name}, which has no module {path}: give its base "
            f"model{_base(adapter)}"
        ) from None
    if not isinstance(module, nn.Linear | Conv1D):
        raise HydrascopeError(
            f"the adapter {adapter.name} adapts {path}, a {type(module).__name__}: only projections are supported; "
            "merge it with PEFT and give the model"
        )
    shape = tuple(module.weight.T.shape if isinstance(module, Conv1D) else module.weight.shape)
    if (len(b), a.shape[1]) != shape:
        raise HydrascopeError(
            f"the adapter {adapter.name} is for another model than {name}: {path} is {list(shape)}, the adapter is for "
            f"{[len(b), a.shape[1]]}: give its base model{_base(adapter)}"
        )
    users = [other for other in hf.modules() if other._parameters.get("weight") is module.weight]
    if len(users) > 1:
        raise HydrascopeError(
            f"the adapter {adapter.name} adapts {path}, whose weights of {name} another module shares: merge it with "
            "PEFT and give the model"
        )


def _base(adapter: Adapter) -> str:
    base = adapter.config.get("base_model_name_or_path")
    return f" ({base})" if base else ""


def _pairs(name: str | Path, stored: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B for each module's path.

    Raises:
        HydrascopeError: there are other tensors, or one of a pair is missing or has a wrong shape or wrong numbers.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in stored.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight", key)
        if match is None:
            raise _more(name, f"the weights {key}")
        found.setdefault(match[1], {})[match[2]] = value
    if not found:
        raise HydrascopeError(f"the adapter {name} is damaged: it has no weights: fetch it again")
    for path, pair in found.items():
        if set(pair) != {"A", "B"}:
            raise HydrascopeError(
                f"the adapter {name} is damaged: lora_A or lora_B of {path} is missing: fetch it again"
            )
        if any(each.ndim != 2 for each in pair.values()) or len(pair["A"]) != pair["B"].shape[1]:
            raise HydrascopeError(f"the adapter {name} is damaged: the shapes of {path} don't fit: fetch it again")
        if not all(torch.isfinite(each).all() for each in pair.values()):
            raise HydrascopeError(f"the adapter {name} is damaged: NaN or infinity in {path}")
    return {path: (pair["A"], pair["B"]) for path, pair in found.items()}


def _more(name: str | Path, setting: str) -> HydrascopeError:
    return HydrascopeError(
        f"the adapter {name} is more than LoRA of projections ({setting}): merge it with PEFT (merge_and_unload) and "
        "give the model"
    )


def _find(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise HydrascopeError(
            f"no adapter at {name}: give a folder with {_CONFIG} and {_WEIGHTS}, or a name on the hub"
        )
    return download(name, None, None, "adapter")[0]
