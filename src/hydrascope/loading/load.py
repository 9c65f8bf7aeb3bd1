"""Load a language model from the hub, a folder, a GGUF file or a transformers object.

Weights are read from safetensors and GGUF files only. No code from a repository is run.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hydrascope.components.dictionary_site import DICTIONARY_SITES
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.loading import gguf_weights, self_check
from hydrascope.loading.adapter import merge, read_adapter
from hydrascope.loading.checkpoint import require_possible, shapes, unused, unwrapped_names
from hydrascope.loading.device_placement import DeviceMap, Offload, Placement, require_whole_blocks
from hydrascope.loading.gguf_header import read_header
from hydrascope.loading.soft_cap import attention_to_read, require_cap
from hydrascope.loading.soundness import require_distinct_blocks, require_head, require_numbers
from hydrascope.loading.source import Source, find_source
from hydrascope.loading.text_part import class_to_read, text_part
from hydrascope.loading.wrappers import MERGED, unwrap
from hydrascope.models import fingerprint, phantom
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.offload import named_tensors
from hydrascope.models.torch_state import plain_torch
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError, cause

#: A weight's path, its shape in the file, and its shape in the model.
Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@plain_torch()
def load_model(
    model: Any,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    gguf: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    offload: Offload | None = None,
    device_map: str | Path | DeviceMap | None = None,
    adapter: str | Path | None = None,
    dictionaries: Sequence[Any] | None = None,
    allow_unused_weights: bool = False,
) -> LanguageModel:
    """Load a causal language model and prove its anatomy.

    The model is given by its hub name, local folder, GGUF file or built-in name, or as an object: a model of
    transformers, or one in a wrapper of TransformerLens (`TransformerBridge`), nnsight, nnterp, PEFT or `torch.compile`
    (`hydrascope.loading.wrappers`). An object is never changed: its mode, gradients and hooks stay as they are.
    Adapters are merged in a copy: load the model again after training them.

        >>> model = hs.load_model("phantom", dtype="float64")
        >>> model = hs.load_model(my_model, my_tokenizer)                        # doctest: +SKIP
        >>> model = hs.load_model(my_peft_model, my_tokenizer)                   # doctest: +SKIP
        >>> model = hs.load_model("openai-community/gpt2")                       # doctest: +SKIP
        >>> model = hs.load_model("mistralai/Mistral-7B-v0.3", offload="disk")   # doctest: +SKIP
        >>> model = hs.load_model("SmolLM2-135M-Instruct.Q4_1.gguf")             # doctest: +SKIP

    Args:
        model: a hub name, a local folder, a GGUF file, a built-in name, a transformers model, or a wrapper of one.
        tokenizer: the tokenizer of an object; by default the one that a wrapper holds. Without any, prompts must be
            token ids.
        revision: the hub's branch, tag or commit.
        gguf: the GGUF file to read in a folder or repository; its weights are dequantised.
        dtype: the number format to compute in: float64, float32 (the default), bfloat16 or float16.
        device: a torch device, or "auto" (the default): CUDA if there is one, else the CPU.
        offload: "cpu" or "disk": keep the weights there until their module runs, for models larger than the device.
            Each weight is then read once a pass, and a batch takes two passes.
        device_map: the device of each module, for models larger than one device; it replaces `device` and
            `offload`. Give "auto" to fill the GPUs first, then memory, then the disk; or a mapping from module names
            to a CUDA index, a device, or "disk"; or a `.json` file with such a mapping.
        adapter: the folder or hub name of a LoRA adapter, which is merged into the weights
            (`hydrascope.loading.adapter`). Its hash enters the model's revision.
        dictionaries: dictionaries of features: objects, as for `Dictionary.of`, or files and folders, as for
            `Dictionary.load`, each a path or, with its site before it, `mlp.5=PATH`.
        allow_unused_weights: accept weights that the configuration leaves out, as when a configuration with fewer
            blocks cuts a model short.

    Returns:
        The model, with its components found and its anatomy proven.

    Raises:
        HydrascopeError: the model can't be found or read; its configuration is impossible; weights are missing,
            unused or not finite; a device map or an adapter doesn't fit it; or it fails the self-check. The message
            names the cause.
    """
    loaded = read_model(
        model,
        tokenizer,
        revision=revision,
        gguf=gguf,
        dtype=dtype,
        device=device,
        offload=offload,
        device_map=device_map,
        adapter=adapter,
        dictionaries=dictionaries,
        allow_unused_weights=allow_unused_weights,
    )
    self_check.require_valid(loaded)
    return loaded


@plain_torch()
def read_model(
    model: Any,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    gguf: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    offload: Offload | None = None,
    device_map: str | Path | DeviceMap | None = None,
    adapter: str | Path | None = None,
    dictionaries: Sequence[Any] | None = None,
    allow_unused_weights: bool = False,
) -> LanguageModel:
    """Load a model without the self-check, so that the check can be run on it.

    The arguments are those of `load_model`.

    Raises:
        HydrascopeError: as for `load_model`, except for the self-check.
    """
    if isinstance(dictionaries, str | Path | Dictionary):
        raise HydrascopeError(f"dictionaries is the single {dictionaries!r}: give a list")
    if not isinstance(model, str | Path):
        own = {"revision": revision, "gguf": gguf, "dtype": dtype, "device": device, "offload": offload}
        loaded = _take(model, tokenizer, adapter, {**own, "device_map": device_map})
    elif tokenizer is not None:
        raise HydrascopeError(f"the tokenizer of {model} comes with it: leave yours out, or give both as objects")
    else:
        placement = Placement.of(device, offload, device_map)
        options = revision, gguf, dtype or "float32", placement, allow_unused_weights
        loaded = _read(str(model), *options) if adapter is None else _read_adapted(str(model), adapter, *options)
    return loaded.with_dictionaries(*map(_as_dictionary, dictionaries)) if dictionaries else loaded


def _take(model: Any, tokenizer: Any, adapter: str | Path | None, options: Mapping[str, Any]) -> LanguageModel:
    """Take a model that is given as an object; `options` are those of models that are read."""
    if adapter is not None:
        raise HydrascopeError(
            "an adapter is merged into a model that is read: give the model's name or folder, or a model of PEFT alone"
        )
    for name, value in options.items():
        if value is not None:
            raise HydrascopeError(f"a model given as an object has its own {name}: leave {name} out")
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise HydrascopeError(
            f"a {type(tokenizer).__name__} is no tokenizer: give a transformers tokenizer, from "
            "AutoTokenizer.from_pretrained, or none"
        )
    found = unwrap(model)
    name = found.hf.config._name_or_path or type(found.hf).__name__
    hf = text_part(found.hf)
    weights = list(hf.state_dict().values())
    require_numbers(name, hf)
    require_cap(name, hf)
    require_possible(name, hf.config.get_text_config(), len(weights), sum(map(torch.Tensor.numel, weights)))
    _require_finite(name, hf)
    tokenizer = found.tokenizer if tokenizer is None else tokenizer
    revision = fingerprint.hash_parameters(hf)
    language_model = LanguageModel(hf, tokenizer, name=name, revision=revision, change=found.change)
    require_distinct_blocks(language_model)
    require_whole_blocks(name, hf, getattr(hf, "hf_device_map", {}))
    return language_model


def _as_dictionary(given: Any) -> Dictionary:
    """Return the dictionary that an object is, or that a path names."""
    if not isinstance(given, str | Path):
        return Dictionary.of(given)
    site, equals, path = str(given).partition("=")
    if equals and site.partition(".")[0] in {each.partition(".")[0] for each in DICTIONARY_SITES}:
        if not path:
            raise HydrascopeError(f"{given} names no dictionary: write {given}PATH, with its file or folder")
        return Dictionary.load(path, site)
    return Dictionary.load(given)


def _read_adapted(
    name: str,
    adapter: str | Path,
    revision: str | None,
    gguf: str | None,
    dtype: str,
    placement: Placement,
    allow_unused: bool,
) -> LanguageModel:
    """Read a model and merge an adapter into its weights before they are placed."""
    if placement.offload is not None or placement.spread is not None:
        raise HydrascopeError(
            f"the adapter {adapter} is merged in memory: leave out offload and device_map, or merge it beforehand"
        )
    read = read_adapter(adapter)
    # On the CPU first: the sum needs no room on the device.
    on_cpu = replace(placement, device=torch.device("cpu"))
    model = _read(name, revision, gguf, dtype, on_cpu, allow_unused)
    merge(read, name, model.hf)
    _require_finite(name, model.hf)
    return LanguageModel(
        placement.place(name, model.hf),
        model.tokenizer,
        name=name,
        revision=f"{model.revision} + adapter {read.hash}",
        quantization=model.quantization,
        change=f"{MERGED}: {read.name}",
    )


def _read(
    name: str, revision: str | None, gguf: str | None, dtype: str, placement: Placement, allow_unused: bool
) -> LanguageModel:
    if dtype not in DTYPES:
        raise HydrascopeError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if name == assets.PHANTOM:
        if placement.spread is not None:
            raise HydrascopeError(f"the model {name} is built in memory and fits on any device: leave device_map out")
        built: Any = phantom.model()
        built.to(DTYPES[dtype])
        hash_ = fingerprint.hash_parameters(built)
        return LanguageModel(placement.place(name, built), phantom.tokenizer(), name=name, revision=hash_)
    source = find_source(name, revision, gguf)
    with _quiet():
        try:
            if source.gguf is not None:
                return _read_gguf(name, source, dtype, placement)
            return _read_safetensors(name, source, dtype, placement, allow_unused)
        except HydrascopeError:
            raise
        except Exception as error:  # transformers documents no exceptions here
            raise HydrascopeError(f"cannot load the model {name}: {_reason(error)}") from error


def _read_safetensors(name: str, source: Source, dtype: str, placement: Placement, allow_unused: bool) -> LanguageModel:
    folder = source.folder
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    stored = shapes(source.weights)
    require_possible(name, config.get_text_config(), len(stored), sum(map(math.prod, stored.values())))
    placement = placement.fit_to(name, config)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    renamed = unwrapped_names(stored)
    stored = {renamed.get(key, key): shape for key, shape in stored.items()}
    names = {"key_mapping": {f"^{re.escape(key)}$": plain for key, plain in renamed.items()}} if renamed else {}
    # Weights of a wrong shape are reported below, with missing ones.
    loaded: Any = class_to_read(config).from_pretrained(
        folder,
        dtype=DTYPES[dtype],
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **placement.from_pretrained_args,
        **attention_to_read(config),
        **names,
    )
    hf, info = loaded
    # transformers checks no shape of weights that stay on disk.
    require_head(name, config, info["missing_keys"], hf)
    _require_whole(name, info["missing_keys"], {*info["mismatched_keys"], *_mismatched(hf, stored)})
    if not allow_unused:
        _require_all_used(name, unused(info["unexpected_keys"], stored))
    return _finish(name, hf, tokenizer, placement, source)


def _read_gguf(name: str, source: Source, dtype: str, placement: Placement) -> LanguageModel:
    (path,) = source.weights
    if placement.offload is not None or placement.spread is not None:
        raise HydrascopeError(
            f"the weights of {path.name} are dequantised in memory: leave out offload and device_map, or give "
            "the model with safetensors"
        )
    header = read_header(path)
    with gguf_weights.quick_reader():
        config = gguf_weights.read_config(path, header)
        sizes = [tensor.numel for tensor in header.tensors.values()]
        require_possible(name, config.get_text_config(), len(sizes), sum(sizes))
        tokenizer = gguf_weights.read_tokenizer(path, header)
        hf, info = gguf_weights.read_weights(path, header, DTYPES[dtype], attention_to_read(config))
    _require_whole(name, info["missing_keys"], info["mismatched_keys"])
    return _finish(name, hf, tokenizer, placement, source, f"{header.quantization}, dequantised to {dtype}")


def _finish(
    name: str, hf: Any, tokenizer: Any, placement: Placement, source: Source, quantization: str = ""
) -> LanguageModel:
    # A model loaded here is never trained.
    hf = placement.place(name, text_part(hf.eval().requires_grad_(False)))
    _require_finite(name, hf)
    return LanguageModel(hf, tokenizer, name=name, revision=source.revision(), quantization=quantization)


def _mismatched(hf: Any, stored: dict[str, list[int]]) -> set[Mismatch]:
    """Return the path, stored shape and expected shape of each weight with a wrong shape."""
    found = {path: tuple(shape) for path, shape in stored.items()}
    own = {path: tuple(value.shape) for path, value in hf.state_dict().items()}
    return {(path, found[path], own[path]) for path in found.keys() & own.keys() if found[path] != own[path]}


def _require_whole(name: str | Path, missing: Iterable[str], mismatched: Iterable[Mismatch]) -> None:
    # transformers would fill in missing weights at random.
    absent = [f"{key} is missing" for key in sorted(missing)]
    absent += [f"{key} is {list(found)}, not {list(own)}" for key, found, own in sorted(mismatched)]
    if absent:
        more = f"; and {len(absent) - 3:,} others" if len(absent) > 3 else ""
        raise HydrascopeError(
            f"the weights of {name} are incomplete: {'; '.join(absent[:3])}{more}: download the model again, with "
            "its own configuration"
        )


def _require_all_used(name: str | Path, left: list[str]) -> None:
    if left:
        more = f" and {len(left) - 3:,} others" if len(left) > 3 else ""
        raise HydrascopeError(
            f"the configuration of {name} leaves out {len(left):,} of its weights: {', '.join(left[:3])}{more}; "
            "correct its config.json, or accept this with allow_unused_weights (--allow-unused-weights)"
        )


def _require_finite(name: str | Path, hf: PreTrainedModel) -> None:
    for parameter, value in named_tensors(hf):
        if value.device.type == "meta":
            raise HydrascopeError(f"the weights of {name} hold no numbers: {parameter} is on the meta device")
        if not torch.isfinite(value.detach()).all():
            raise HydrascopeError(f"the weights of {name} are not finite: NaN or infinity in {parameter}")


def _reason(error: Exception) -> str:
    """Return one line on the cause of an error of transformers and on what to do."""
    text = str(error)
    if "backend tokenizer" in text:
        return "it has no tokenizer.json; save the model's tokenizer in the same folder with save_pretrained"
    if "trust_remote_code" in text:
        return "it needs code from its repository, which is never run; use a model that transformers supports"
    if text.startswith("Error while serializing"):
        why = text.rpartition("I/O error: ")[2]
        return (
            f"some of its weights must be rewritten for disk offload, and writing to {gettempdir()} failed ({why}): "
            "set TMPDIR to a folder with room"
        )
    return cause(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and progress bars of transformers and accelerate."""
    logging: Any = transformers.logging
    placing = getLogger("accelerate.big_modeling")
    levels, bars = (logging.get_verbosity(), placing.level), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    placing.setLevel("ERROR")
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(levels[0])
        placing.setLevel(levels[1])
        if bars:
            logging.enable_progress_bar()
