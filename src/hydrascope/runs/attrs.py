"""The attributes of a result."""

import hashlib
import os
import shlex
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from hydrascope._version import __version__
from hydrascope.ablations.ablation import Ablation
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.engines.directions import Direction, Directions
from hydrascope.engines.kernels.differences import has_experts, weights_are_exact
from hydrascope.engines.metrics import BUILT_IN
from hydrascope.engines.readouts import Readout
from hydrascope.loading import self_check
from hydrascope.models import fingerprint
from hydrascope.prompts.chat import template_hash
from hydrascope.prompts.prompt import Prompt
from hydrascope.runs.plan import Plan


def settings_of(plan: Plan) -> dict[str, Any]:
    """Return the attributes that decide the numbers of a result, and name its model and prompts."""
    own = {each.name: each.function for each in plan.metrics if BUILT_IN.get(each.name) != each}
    return {
        **_parameters(plan.ablation),
        **({"metrics_hash": fingerprint.hash_declared(own)} if own else {}),
        "model": plan.model.name,
        "revision": self_check.revision(plan.model),
        **({"quantization": plan.model.quantization} if plan.model.quantization else {}),
        **({"weights_changed": plan.model.change} if plan.model.change else {}),
        "config_hash": fingerprint.hash_config(plan.model.hf.config),
        "dtype": str(plan.model.dtype).removeprefix("torch."),
        "device": plan.model.device.type,
        "engine": plan.engine.name,
        "products": _products(plan),
        "ablation": type(plan.ablation).__name__.lower(),
        **({"patching": plan.prompts.patching} if plan.patches_from_twins else {}),
        **plan.selection_attrs,
        "readouts": [_describe_readout(readout) for readout in plan.readouts],
        "metrics": [metric.name for metric in plan.metrics],
        "target": plan.target,
        "keep": plan.kept,
        "prompts": plan.prompts.name,
        **({"chat_template": template_hash(plan.model)} if plan.prompts.as_messages else {}),
        "prompt_count": len(plan.prompts.prompts),
        "prompts_hash": plan.prompts.hash,
        "tokens_hash": _tokens_hash(plan),
        **_dictionaries(plan),
        "depth": len(plan.model.blocks),
        "heads": len(plan.model.units(plan.model.sublayers[0])),
        "kv_heads": plan.model.kv_heads,
        "parallel": plan.model.parallel,
        "units": "unit of the readout"
        if any(isinstance(each, Direction | Directions) for each in plan.readouts)
        else "logits",
        "hydrascope": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _products(plan: Plan) -> dict[str, str]:
    """Return how rows are multiplied by weights, and whether bfloat16 holds the weights."""
    if plan.products == "float32":
        return {"mode": plan.products}
    weights = "exact" if weights_are_exact(plan.model) else "rounded"
    return {"mode": plan.products, "weights": weights, **({"experts": "float32"} if has_experts(plan.model) else {})}


def _tokens_hash(plan: Plan) -> str:
    """Return the hash of all tokens and positions of the prompts."""
    places = [[*positions.positions, positions.end, positions.start] for positions in plan.positions]
    twins = [_twin(plan, prompt) for prompt in plan.prompts.prompts]
    # Left out where no metric reads them, so that older results keep their hash.
    whole = [plan.whole_answers] if plan.whole_answers else []
    return fingerprint.hash_json([plan.tokens, places, plan.answers, plan.foils, twins, *whole])


def _twin(plan: Plan, prompt: Prompt) -> list[int]:
    """Return the tokens of a prompt's counterfactual; none where it has none."""
    twin = prompt.counterfactual
    if isinstance(twin, str):
        return [] if plan.model.tokenizer is None else plan.model.encode(twin)
    return list(twin or ())


def _parameters(ablation: Ablation) -> dict[str, Any]:
    """Return an ablation's numbers and texts, and the hash of its other fields."""
    values = {f.name: getattr(ablation, f.name) for f in fields(ablation)} if is_dataclass(ablation) else vars(ablation)
    kept = {name: value for name, value in values.items() if isinstance(value, int | float | str)}
    others = {name: value for name, value in values.items() if name not in kept}
    if "scale" in kept:
        kept["noise_scale"] = kept.pop("scale")
    hashed = {"ablation_hash": fingerprint.hash_declared(others)} if others else {}
    return {"patches": ablation.patches, **kept, **hashed}


def patch_source_of(ablation: Ablation) -> dict[str, str]:
    """Return the attribute `patch_source`, if the ablation says where its patches come from."""
    source = getattr(ablation, "patch_source", None)
    return {"patch_source": source} if isinstance(source, str) else {}


def _describe_readout(readout: Readout) -> str:
    """Return one line that identifies a readout and its numbers."""
    if not isinstance(readout, Direction | Directions):
        return repr(readout)
    content = readout.numbers.contiguous().numpy().tobytes()
    if isinstance(readout, Directions) and readout.names is not None:
        content += "\n".join(readout.labels).encode()
    digest = hashlib.sha256(content).hexdigest()
    kind = type(readout).__name__
    return f"{kind}(name={readout.name!r}, before={readout.before}, sha256:{digest[:16]})"


def command_line() -> str:
    """Return the command that runs, with `~` for the user's folder."""
    words = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    home = os.path.expanduser("~")  # "~" for a user without a folder, where Path.home() raises; "/" in containers
    return words if home.strip(os.sep) == "" else words.replace(home, "~")


def _dictionaries(plan: Plan) -> dict[str, Any]:
    """Return the attributes of the model's dictionaries, each by site."""
    declared = [attached.declared for attached in plan.model.dictionaries.values()]
    if not declared:
        return {}
    return {
        "dictionaries": {each.site: each.features for each in declared},
        "dictionary_hashes": {each.site: each.sha256 for each in declared},
        "dictionary_names": {each.site: each.name for each in declared},
        "dictionary_bos": {each.site: _training_bos(each) for each in declared},
        "prompts_with_bos": plan.prompts_with_bos,
    }


def _training_bos(dictionary: Dictionary) -> str:
    """Return whether the prompts of a dictionary's training began with BOS."""
    return {True: "yes", False: "no", None: "unknown"}[dictionary.begins_with_bos]
