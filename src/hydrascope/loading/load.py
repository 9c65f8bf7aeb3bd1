"""Loading a language model by name: from the hub, a folder, or what hydrascope brings along.

Weights are read from safetensors alone, and no code of a repository is run.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
import transformers
from huggingface_hub import errors, snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hydrascope.loading import self_check
from hydrascope.loading.checkpoint import require_possible, shapes, unused, weight_files
from hydrascope.loading.device_placement import DeviceMap, Offload, Placement, require_whole_blocks
from hydrascope.models import fingerprint, phantom
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.offload import named_tensors
from hydrascope.utils import assets, input_files
from hydrascope.utils.errors import HydrascopeError, cause

#: What of a repository is read besides weights.
_READ = ("*.json", "*.jinja", "*.txt", "*.model")

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_model(
    model: str | Path | PreTrainedModel,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    offload: Offload | None = None,
    device_map: str | Path | DeviceMap | None = None,
    allow_unused_weights: bool = False,
) -> LanguageModel:
    """Load a causal language model by hub name, local folder, or built-in name, or take one of transformers as it is.

    Its anatomy is proven before it is given. A model of yours is read and never changed: its mode, its gradients and
    its hooks are afterwards what they were.

        >>> hs.load_model("openai-community/gpt2")                               # doctest: +SKIP
        >>> hs.load_model("mistralai/Mistral-7B-v0.3", offload="disk")           # doctest: +SKIP
        >>> hs.load_model(my_model, my_tokenizer)                                # doctest: +SKIP

    Arguments and errors are those of `read_model`.

    Raises:
        HydrascopeError: besides, the model fails the self-check; the message says which identity, and by how much.
    """
    loaded = read_model(
        model,
        tokenizer,
        revision=revision,
        dtype=dtype,
        device=device,
        offload=offload,
        device_map=device_map,
        allow_unused_weights=allow_unused_weights,
    )
    self_check.require_valid(loaded)
    return loaded


def read_model(
    model: str | Path | PreTrainedModel,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    offload: Offload | None = None,
    device_map: str | Path | DeviceMap | None = None,
    allow_unused_weights: bool = False,
) -> LanguageModel:
    """Load a model as `load_model` does, unproven: for running the self-check on it.

    Args:
        model: a name or folder, or a model of transformers.
        tokenizer: of a model of transformers; without it, prompts are token ids.
        revision: the hub's branch, tag or commit.
        dtype: what the model computes in: float64, float32 (the default), bfloat16 or float16.
        device: a device of torch, or "auto" (the default): CUDA where there is one.
        offload: where weights wait until they are needed, "cpu" or "disk", for models larger than the device: each
            is read once a pass, of which a batch takes two. By default they stay on the device.
        device_map: for models larger than one device: "auto" spreads blocks over all GPUs, what doesn't fit in
            memory, and the rest on disk; or the place of each module by its name, a number of CUDA, a device, or
            "disk", or a `.json` file that says so. It says what `device` and `offload` say.
        allow_unused_weights: take the model that its configuration describes, though its weights hold more, as where
            a configuration with fewer layers cuts a model short.

    Raises:
        HydrascopeError: the model cannot be found, read or understood, its configuration is impossible, or its weights
            aren't whole, all used and finite; the message says which. A device map names no module of the model, or
            splits a block; there is no room for what must be written to be read from disk. A model of transformers
            comes with a dtype and a device of its own.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise HydrascopeError(f"the tokenizer of {model} is read with it: leave yours out, or give both as objects")
        placement = Placement.of(device, offload, device_map)
        return _read(str(model), revision, dtype or "float32", placement, allow_unused_weights)
    if not isinstance(model, PreTrainedModel):
        raise HydrascopeError(
            f"a {type(model).__name__} is no model of transformers: give a name, a folder or a PreTrainedModel (with "
            "adapters merged, as by merge_and_unload)"
        )
    of_files = {"revision": revision, "dtype": dtype, "device": device, "offload": offload, "device_map": device_map}
    for name, value in of_files.items():
        if value is not None:
            raise HydrascopeError(f"a model that is given as an object has its own {name}: leave {name} out")
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise HydrascopeError(
            f"a {type(tokenizer).__name__} is no tokenizer: give one of transformers, as AutoTokenizer.from_pretrained "
            "does, or none"
        )
    name = model.config._name_or_path or type(model).__name__
    weights = list(model.state_dict().values())
    require_possible(name, model.config.get_text_config(), len(weights), sum(map(torch.Tensor.numel, weights)))
    _require_finite(name, model)
    taken = LanguageModel(model, tokenizer, name=name, revision=fingerprint.hash_parameters(model))
    require_whole_blocks(name, model, getattr(model, "hf_device_map", {}))
    return taken


def _read(name: str, revision: str | None, dtype: str, placement: Placement, allow_unused: bool) -> LanguageModel:
    if dtype not in DTYPES:
        raise HydrascopeError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if name == assets.PHANTOM:
        if placement.spread is not None:
            raise HydrascopeError(f"the model {name} is made, not read, and fits on any device: leave device_map out")
        made: Any = phantom.model()
        made.to(DTYPES[dtype])
        hash_ = fingerprint.hash_parameters(made)
        return LanguageModel(placement.place(name, made), phantom.tokenizer(), name=name, revision=hash_)
    built_in = assets.model_path(name)
    folder, commit = _folder(str(built_in or name), revision)
    paths = _require_readable(name, folder)
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            held = shapes(paths)
            require_possible(name, config.get_text_config(), len(held), sum(map(math.prod, held.values())))
            placement = placement.fit_to(name, config)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            # Weights of another shape are named below, with those that are missing.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **placement.from_pretrained_args,
            )
        except HydrascopeError:
            raise
        except Exception as error:  # what transformers raises here is of many kinds and no contract
            raise HydrascopeError(f"cannot load the model {name}: {_reason(error)}") from error
    hf, info = loaded
    # Of weights that stay on disk transformers looks at no shape.
    _require_whole(name, info["missing_keys"], {*info["mismatched_keys"], *_mismatched(hf, held)})
    if not allow_unused:
        _require_all_used(name, unused(info["unexpected_keys"], held))
    with _quiet():
        # Nothing that is loaded here is ever trained.
        hf = placement.place(name, hf.eval().requires_grad_(False))
    _require_finite(name, hf)
    return LanguageModel(hf, tokenizer, name=name, revision=commit or fingerprint.hash_folder(folder, paths))


def _require_readable(name: str, folder: Path) -> list[Path]:
    """The files that the weights in `folder` are read from, once all else there has been found readable."""
    try:
        os.listdir(folder / ".")  # which takes both rights to a folder
    except OSError as error:
        raise HydrascopeError(f"cannot load the model {name}: {error.strerror}: {folder}") from error
    if not os.path.lexists(folder / "config.json"):
        raise HydrascopeError(f"cannot load the model {name}: there is no config.json in it; give a model's folder")
    for path in sorted(each for pattern in _READ for each in folder.glob(pattern)):
        input_files.require_readable(path, "the model")
    if (folder / "adapter_config.json").exists():
        raise HydrascopeError(
            f"cannot load the model {name}: it holds adapters (adapter_config.json), whose base is elsewhere; merge "
            "them, as by merge_and_unload, and save the whole"
        )
    return weight_files(name, folder)


def _folder(source: str, revision: str | None) -> tuple[Path, str]:
    """The folder that `source` names, fetched from the hub where it is none, and the hub's commit or ""."""
    try:
        folder = Path(source).expanduser()
        os.stat(folder)
    except RuntimeError as error:  # of nobody's home
        raise HydrascopeError(f"no model folder at {source}: {error}") from error
    except PermissionError as error:
        raise HydrascopeError(f"the model folder {source} may not be looked at: {error.strerror}") from error
    except (OSError, ValueError):
        pass  # a name on the hub, or of nothing
    if os.path.isdir(folder):  # unlike Path.is_dir, False for a name that no folder can have
        if revision is not None:
            raise HydrascopeError(f"{source} is a local folder, which has no revision {revision!r}: leave it out")
        return folder, ""
    if os.path.exists(folder) or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise HydrascopeError(f"no model folder at {source}: give a folder with config.json and safetensors")
    # Not `original/`, `onnx/` and the like, nor the weights a second time in another layout.
    chosen: dict[str, Any] = {
        "allow_patterns": [*_READ, "*.safetensors"],
        "ignore_patterns": ["*/*", "consolidated*"],
    }
    try:
        fetched = Path(snapshot_download(source, revision=revision, **chosen))
    except errors.HFValidationError:
        reason = "that is neither a folder nor a possible name on the hub"
    except errors.GatedRepoError:
        reason = "access to it is restricted: ask for access on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "there is no such model, here or on the hub: check the name"
    except errors.RevisionNotFoundError:
        reason = f"it has no revision {revision!r}: give a branch, tag or commit of it"
    except errors.LocalEntryNotFoundError:
        reason = "it is not in the local cache, and the hub cannot be reached: check the name, or give a folder"
    except (OSError, errors.HfHubHTTPError) as error:
        reason = cause(error)
    else:
        return fetched, fetched.name
    raise HydrascopeError(f"cannot load the model {source}: {reason}")


def _mismatched(hf: Any, held: dict[str, list[int]]) -> set[tuple]:
    """Which weights are of another shape than the model's: by path, both shapes."""
    found = {path: tuple(shape) for path, shape in held.items()}
    own = {path: tuple(value.shape) for path, value in hf.state_dict().items()}
    return {(path, found[path], own[path]) for path in found.keys() & own.keys() if found[path] != own[path]}


def _require_whole(name: str | Path, missing: Iterable[str], mismatched: Iterable[tuple]) -> None:
    # Transformers fills in weights that a file lacks with random ones: numbers that mean nothing.
    absent = [f"{key} is missing" for key in sorted(missing)]
    absent += [f"{key} is {list(found)}, not {list(own)}" for key, found, own in sorted(mismatched)]
    if absent:
        more = f"; and {len(absent) - 3:,} others" if len(absent) > 3 else ""
        raise HydrascopeError(
            f"the weights of {name} are incomplete: {'; '.join(absent[:3])}{more}: get the model again, with the "
            "configuration that belongs to it"
        )


def _require_all_used(name: str | Path, left: list[str]) -> None:
    if left:
        more = f" and {len(left) - 3:,} others" if len(left) > 3 else ""
        raise HydrascopeError(
            f"the configuration of {name} leaves out {len(left):,} of its weights: {', '.join(left[:3])}{more}; mend "
            "its config.json, or measure it as it is with allow_unused_weights (--allow-unused-weights)"
        )


def _require_finite(name: str | Path, hf: PreTrainedModel) -> None:
    for parameter, value in named_tensors(hf):
        if value.device.type == "meta":
            raise HydrascopeError(f"the weights of {name} hold no numbers: {parameter} is on the meta device")
        if not torch.isfinite(value).all():
            raise HydrascopeError(f"the weights of {name} are not finite: NaN or infinity in {parameter}")


def _reason(error: Exception) -> str:
    """What to tell the user of transformers' error, and what to do, in one line."""
    text = str(error)
    if "backend tokenizer" in text:
        return "it has no tokenizer.json; save the model's tokenizer beside it with transformers' save_pretrained"
    if "trust_remote_code" in text:
        return "it needs code from its repository, which is never run; use a model that transformers knows"
    if text.startswith("Error while serializing"):
        why = text.rpartition("I/O error: ")[2]
        return (
            "some of its weights have to be written again before they can be read from disk as they are needed, and "
            f"{gettempdir()} refuses ({why}): set TMPDIR to a place with room"
        )
    return cause(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings and bars: what matters of them is checked and said in one line."""
    logging, placing = transformers.logging, getLogger("accelerate.big_modeling")
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
