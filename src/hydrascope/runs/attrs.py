"""The attributes and coordinates of a result."""

import hashlib
import shlex
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import xarray as xr

from hydrascope._version import __version__
from hydrascope.ablations.ablation import Ablation
from hydrascope.components.selection import downstream
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.kernels import hardware
from hydrascope.engines.metrics import METRICS, UNITS
from hydrascope.engines.readouts import Direction, Readout, Readouts
from hydrascope.loading import self_check
from hydrascope.models import fingerprint
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import Prompt, texts
from hydrascope.prompts.token_coords import coordinates
from hydrascope.runs.plan import Plan


def settings_of(plan: Plan) -> dict[str, Any]:
    """The attributes that decide the numbers of the result, and name what it is of."""
    own = {each.name: each.function for each in plan.metrics if METRICS.get(each.name) is not each.function}
    return {
        **_parameters(plan.ablation),
        **({"metrics_hash": fingerprint.hash_declared(own)} if own else {}),
        "model": plan.model.name,
        "revision": self_check.revision(plan.model),
        "config_hash": fingerprint.hash_config(plan.model.hf.config),
        "dtype": str(plan.model.dtype).removeprefix("torch."),
        "device": plan.model.device.type,
        "engine": plan.engine.name,
        "ablation": type(plan.ablation).__name__.lower(),
        **plan.selection_attrs,
        "readouts": [_describe_readout(readout) for readout in plan.readouts],
        "metrics": [metric.name for metric in plan.metrics],
        "target": plan.target,
        "keep": plan.kept,
        "prompts": plan.prompts.name,
        "prompt_count": len(plan.prompts.prompts),
        "prompts_hash": plan.prompts.hash,
        "tokens_hash": _tokens_hash(plan),
        "depth": len(plan.model.blocks),
        "heads": len(plan.model.units(plan.model.sublayers[0])),
        "parallel": plan.model.parallel,
        "units": "unit of the readout" if any(isinstance(each, Direction) for each in plan.readouts) else "logits",
        "hydrascope": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _tokens_hash(plan: Plan) -> str:
    """Of what the tokenizer makes of all prompts: their tokens, where they are ablated, and what else is read."""
    places = [[*positions.positions, positions.end, positions.start] for positions in plan.positions]
    twins = [_twin(plan, prompt) for prompt in plan.prompts.prompts]
    return fingerprint.hash_json([plan.tokens, places, plan.answers, plan.foils, twins])


def _twin(plan: Plan, prompt: Prompt) -> list[int]:
    """The tokens of a prompt's twin, fitting or not; none where it has none or nothing can read it."""
    twin = prompt.counterfactual
    if isinstance(twin, str):
        return [] if plan.model.tokenizer is None else plan.model.encode(twin)
    return list(twin or ())


def stored_dtype(plan: Plan, variable: str) -> str:
    """The dtype of a measured variable in the result."""
    return "int64" if variable == "patch_prompt" else plan.dtype


def initial_dataset(plan: Plan, clean: CleanActivations) -> xr.Dataset:
    """What of the result is known before anything is measured: coordinates, targets, `downstream`, attributes."""
    model, alone = (
        plan.model,
        [override.ablated[0] if len(override.overridden) == 1 else None for override in plan.overrides],
    )
    linear = Readouts.of(model, plan.readouts, plan.tokens_of(clean), [0]).rows
    below = np.array([downstream(model, override, plan.components) for override in plan.overrides])
    result = xr.Dataset(
        {"target": ("prompt", np.array(clean.targets, np.int64)), "downstream": (("ablated", "component"), below)},
        {
            "component": _text(map(str, plan.components)),
            "component_kind": ("component", _text(component.kind for component in plan.components)),
            "component_layer": ("component", np.array([component.block for component in plan.components])),
            "component_unit": ("component", np.array([component.unit for component in plan.components])),
            "ablated": _text(map(str, plan.overrides)),
            "ablated_kind": ("ablated", _text("joint" if component is None else component.kind for component in alone)),
            "ablated_layer": (
                "ablated",
                np.array([min(c.block for c in override.ablated) for override in plan.overrides]),
            ),
            "ablated_unit": ("ablated", np.array([-1 if component is None else component.unit for component in alone])),
            "readout": _text(plan.labels),
            "readout_before": ("readout", np.array([each.before for each in linear])),
            "text": ("prompt", _text(texts(model, plan.prompts.prompts))),
            "target_text": ("prompt", _text(map(_decoder(model), clean.targets))),
            **coordinates(model, plan.prompts.prompts, plan.tokens, plan.positions, _decoder(model)),
        },
        {
            **settings_of(plan),
            "engine_reason": plan.engine.reason,
            "command": _command_line(),
            "machines": [hardware.kind(model.device)],
            "routines": dict(plan.routines),
        },
    )
    if plan.metrics:
        names = [metric.name for metric in plan.metrics]
        units = _text(UNITS.get(name, "") for name in names)
        result = result.assign_coords(metric=_text(names), metric_units=("metric", units))
    return result


def _decoder(model: LanguageModel) -> Any:
    return str if model.tokenizer is None else model.decode


def _text(values: Iterable[str]) -> np.ndarray:
    return np.array(list(values), object)


def _parameters(ablation: Ablation) -> dict[str, Any]:
    """The numbers and texts that an ablation is declared with, and the hash of all else, as of tensors."""
    values = {f.name: getattr(ablation, f.name) for f in fields(ablation)} if is_dataclass(ablation) else vars(ablation)
    kept = {name: value for name, value in values.items() if isinstance(value, int | float | str)}
    others = {name: value for name, value in values.items() if name not in kept}
    if "scale" in kept:
        kept["noise_scale"] = kept.pop("scale")
    hashed = {"ablation_hash": fingerprint.hash_declared(others)} if others else {}
    return {"patches": ablation.patches, **kept, **hashed}


def _describe_readout(readout: Readout) -> str:
    """What decides the numbers of a readout, in a line."""
    if not isinstance(readout, Direction):
        return repr(readout)
    digest = hashlib.sha256(readout.numbers.contiguous().numpy().tobytes()).hexdigest()
    return f"Direction(name={readout.name!r}, before={readout.before}, sha256:{digest[:16]})"


def _command_line() -> str:
    """The command that runs, without the name of the user's folder."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]).replace(str(Path.home()), "~")
