"""Read dictionaries from files, and write them; weights are read as data only.

| given | format |
|---|---|
| folder with `cfg.json` and `sae_weights.safetensors` | SAELens, of any version |
| folder with `config.json` and `params.safetensors` | Gemma Scope 2 |
| folder with `config.yaml`, or one of its `layer_N.safetensors` | transcoders of circuit-tracer |
| folder with `cfg.json` and `sae.safetensors` | sparsify |
| `.safetensors` | `save_dictionary`'s, or weights under usual names |
| `params.npz` | Gemma Scope |
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hydrascope.components.dictionary_site import parse_site
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.hook_names import reads_before_gain, site_of
from hydrascope.dictionaries.saelens import build, from_saelens, whole
from hydrascope.dictionaries.weights import from_weights
from hydrascope.utils import input_files
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError

#: The key of the settings in the metadata of a file of `save_dictionary`.
_KEY = "hydrascope.dictionary"
_SAELENS, _SCALER = "sae_weights.safetensors", "activation_scaler.json"
_SPARSIFY, _GEMMA_SCOPE_2, _CIRCUIT_TRACER = "sae.safetensors", "params.safetensors", "config.yaml"
_Reader = Callable[[Path, dict[str, Tensor], str | None, str], Dictionary]
_LAYER = re.compile(r"layer_(\d{1,9})\.safetensors")
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


def load_dictionary(path: str | Path, site: str | None = None, name: str = "") -> Dictionary:
    """Return the dictionary in a local file or folder.

        sae = load_dictionary("saes/blocks.8.hook_resid_pre")
        transcoder = load_dictionary("gemma-scope-transcoders", site="transcoder.12")

    Args:
        path: a folder of SAELens, Gemma Scope 2, circuit-tracer or sparsify; a `.safetensors` or `.npz` file.
        site: its site, such as `mlp.5`; None to take what the file says.
        name: a name for messages and results.

    Raises:
        HydrascopeError: a file is missing, damaged or of another format, a setting isn't supported, or nothing says
            where the dictionary belongs.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, site, name)
    if path.suffix.lower() in _PICKLES:
        raise HydrascopeError(
            f"cannot read the dictionary {path}: a {path.suffix} file can run code. Where you trust it, convert it "
            "with safetensors.torch.save_file(torch.load(path, weights_only=True), 'sae.safetensors')"
        )
    if path.suffix == ".npz":
        return _from_gemma_scope(path, site, name)
    if path.suffix != ".safetensors":
        input_files.require_readable(path, "a dictionary")
        raise HydrascopeError(f"cannot read the dictionary {path}: give a folder, or a .safetensors or .npz file")
    weights, metadata = _read(path)
    if _KEY in metadata:
        return _own(path, weights, metadata[_KEY], site, name)
    folder, readers = path.parent, _readers()
    if path.name in readers and (folder / readers[path.name][0]).exists():
        return readers[path.name][1](folder, weights, site, name)
    layer = _LAYER.fullmatch(path.name)
    if layer and (folder / _CIRCUIT_TRACER).exists():
        return _from_circuit_tracer(path, weights, int(layer[1]), site, name)
    return from_weights(str(path), weights, site, name)


def save_dictionary(dictionary: Dictionary, path: str | Path) -> None:
    """Write a dictionary into a `.safetensors` file, which `load_dictionary` reads.

        save_dictionary(sae, "sae.safetensors")

    Raises:
        HydrascopeError: the file doesn't end in .safetensors, or can't be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise HydrascopeError(f"cannot write the dictionary to {path}: name it with the ending .safetensors")
    values = {field.name: getattr(dictionary, field.name) for field in fields(dictionary)}
    # A weight may stand in two places, such as a bias: safetensors takes no shared memory.
    weights = {key: value.detach().cpu().clone() for key, value in values.items() if isinstance(value, Tensor)}
    weights = {key: value.contiguous() for key, value in weights.items()}
    settings = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
    with disk(f"cannot write the dictionary to {path}"):
        try:
            save_file(weights, path, metadata={_KEY: json.dumps(settings)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _own(path: Path, weights: Mapping[str, Tensor], text: str, site: str | None, name: str) -> Dictionary:
    settings = _parsed(path, text)
    known = {field.name for field in fields(Dictionary)}
    unknown = sorted((set(settings) | set(weights)) - known)
    if unknown:
        raise HydrascopeError(f"{path} holds {', '.join(unknown)}, which no dictionary has: write it again")
    both = {**settings, **weights}
    missing = [key for key in ("site", "encoder", "decoder") if key not in both]
    if missing:
        raise HydrascopeError(f"{path} lacks {', '.join(missing)}: write it again")
    _require_types(path, settings)
    return build(str(path), **{**both, "site": site or both["site"], "name": name or both.get("name", "")})


def _require_types(path: Path, settings: Mapping[str, Any]) -> None:
    wanted: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("site", "activation", "name"), (str,)),
        **dict.fromkeys(("by_decoder_norm", "centred", "before_gain"), (bool,)),
        "begins_with_bos": (bool, type(None)),
        "threshold": (float, int, type(None)),
        "k": (int, type(None)),
    }
    for key, value in settings.items():
        if not isinstance(value, wanted.get(key, (type(None),))):
            raise HydrascopeError(f"{path} has {key} = {value!r}: write it again")


def _readers() -> dict[str, tuple[str, _Reader]]:
    """Return the file of settings and the reader that belong to each file of weights."""
    return {
        _SAELENS: ("cfg.json", _from_saelens),
        _SPARSIFY: ("cfg.json", _from_sparsify),
        _GEMMA_SCOPE_2: ("config.json", _from_gemma_scope_2),
    }


def _from_folder(folder: Path, site: str | None, name: str) -> Dictionary:
    for file, (_, reader) in _readers().items():
        if (folder / file).exists():
            return reader(folder, _read(folder / file)[0], site, name)
    if (folder / _CIRCUIT_TRACER).exists():
        if site is None or parse_site(site)[0] != "transcoder":
            raise HydrascopeError(f"{folder} holds transcoders of several blocks: give one, as site='transcoder.5'")
        layer = parse_site(site)[1]
        path = folder / f"layer_{layer}.safetensors"
        return _from_circuit_tracer(path, _read(path)[0], layer, site, name)
    raise HydrascopeError(
        f"cannot read a dictionary from {folder}: it has none of {', '.join([*_readers(), _CIRCUIT_TRACER])}"
    )


def _from_saelens(folder: Path, weights: dict[str, Tensor], site: str | None, name: str) -> Dictionary:
    scale = None
    if (folder / _SCALER).exists():
        scale = _settings(folder / _SCALER).get("scaling_factor")
        if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float)) or not scale > 0):
            raise HydrascopeError(f"{folder / _SCALER} has scaling_factor = {scale!r}: give a number above 0")
    return from_saelens(str(folder), _settings(folder / "cfg.json"), weights, site, name, scale)


def _from_sparsify(folder: Path, weights: dict[str, Tensor], site: str | None, name: str) -> Dictionary:
    settings = _settings(folder / "cfg.json")
    activation = settings.get("activation", "topk")
    if activation != "topk" or settings.get("signed"):
        activation = "signed topk" if settings.get("signed") else activation
        raise HydrascopeError(f"{folder} has the activation {activation!r}: only topk is supported")
    for setting in ("embed_skip", "gram_lookup"):
        if settings.get(setting):
            raise HydrascopeError(f"{folder} has {setting}, which isn't supported: it depends on the tokens")
    if site is None:
        layer = re.fullmatch(r"layers[._](\d{1,9})", folder.name)
        if not layer or settings.get("transcode"):
            raise HydrascopeError(
                f"{folder} doesn't say where it belongs: give its site, as site='mlp.5', or mlp.5=PATH"
            )
        # The output of block L enters block L + 1.
        site = f"stream.{int(layer[1]) + 1}"
    given = {**weights, "k": settings.get("k"), "apply_b_dec_to_input": not settings.get("transcode", False)}
    return from_weights(str(folder), given, site, name)


def _from_gemma_scope_2(folder: Path, weights: dict[str, Tensor], site: str | None, name: str) -> Dictionary:
    settings = _settings(folder / "config.json")
    architecture = settings.get("architecture")
    if architecture not in ("jump_relu", "jumprelu"):
        raise HydrascopeError(f"{folder} has the architecture {architecture!r}: only jump_relu is supported")
    if any(weight.ndim > 2 for weight in weights.values()):
        raise HydrascopeError(f"{folder} is a crosscoder or cross-layer transcoder: a feature writes to several blocks")
    if site is None:
        hook, output = settings.get("hf_hook_point_in"), settings.get("hf_hook_point_out")
        if not hook:
            raise HydrascopeError(
                f"{folder} has no hf_hook_point_in: say where it belongs, as site='mlp.5', or mlp.5=PATH"
            )
        site = site_of(str(folder), str(hook), str(output) if output else None)
    given = {**weights, "apply_b_dec_to_input": False, "begins_with_bos": True}
    return from_weights(str(folder), given, site, name)


def _from_gemma_scope(path: Path, site: str | None, name: str) -> Dictionary:
    input_files.require_readable(path, "a dictionary")
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            weights = {key: torch.tensor(file[key]) for key in file.files}
    except Exception as error:  # a damaged archive ends in errors of many kinds
        raise HydrascopeError(f"cannot read the dictionary {path}: it is damaged or holds objects") from error
    given: dict[str, Any] = {**weights, "apply_b_dec_to_input": False, "begins_with_bos": True}
    # Gemma Scope's transcoders read what its RMSNorm gives before the gain.
    if site and parse_site(site)[0] == "transcoder":
        given["before_gain"] = True
    return from_weights(str(path), given, site, name)


def _from_circuit_tracer(path: Path, weights: dict[str, Tensor], layer: int, site: str | None, name: str) -> Dictionary:
    source = path.parent / _CIRCUIT_TRACER
    settings = _settings(source)
    kind = settings.get("model_kind", "transcoder_set")
    if kind != "transcoder_set":
        raise HydrascopeError(f"{source} has model_kind = {kind!r}: only transcoder_set is supported")
    hook, output = (str(settings.get(f"feature_{way}_hook")) for way in ("input", "output"))
    if site is None:
        site = site_of(str(source), f"blocks.{layer}.{hook}", f"blocks.{layer}.{output}")
    # W_enc is [feature, input] here.
    given: dict[str, Any] = {"encoder" if key == "W_enc" else key: weight for key, weight in weights.items()}
    given["before_gain"] = reads_before_gain(f"blocks.{layer}.{hook}")
    activation = settings.get("activation")
    if activation == "topk":
        given.setdefault("k", settings.get("k"))
        given["k"] = whole(str(source), "k", given["k"])
    elif activation == "relu":
        given = {key: value for key, value in given.items() if key not in ("k", "activation_function.threshold")}
    elif activation not in (None, "jump_relu", "jumprelu"):
        raise HydrascopeError(f"{source} has the activation {activation!r}: relu, jumprelu and topk are supported")
    return from_weights(str(path), given, site, name)


def _settings(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON or YAML file."""
    try:
        text = input_files.read(path, "a dictionary's settings").decode()
    except UnicodeDecodeError as error:
        raise HydrascopeError(f"cannot read a dictionary's settings from {path}: it is no text") from error
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise HydrascopeError(f"cannot read a dictionary's settings from {path}: it is damaged") from error
    if not isinstance(settings, dict):
        raise HydrascopeError(f"cannot read a dictionary's settings from {path}: it holds no settings by name")
    return {str(key): value for key, value in settings.items()}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights and the metadata of a safetensors file."""
    input_files.require_readable(path, "a dictionary")
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise HydrascopeError(f"cannot read the dictionary {path}: it is damaged or cut short") from error
