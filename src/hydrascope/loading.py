"""Loading a language model by name: from the hub, a folder, or what hydrascope brings along.

Weights are read from safetensors alone, and no code of a repository is run.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import errors, snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hydrascope import check, zoo
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel
from hydrascope.zoo import phantom

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
) -> LanguageModel:
    """Load a causal language model by hub name, local folder, or built-in name, or take one of transformers as it is.

    Its anatomy is proven before it is given. A model of yours is read and never changed: its mode, its gradients and
    its hooks are afterwards what they were.

        >>> hs.load_model("openai-community/gpt2")                               # doctest: +SKIP
        >>> hs.load_model(my_model, my_tokenizer)                                # doctest: +SKIP

    Arguments and errors are those of `read_model`.

    Raises:
        HydrascopeError: besides, the model fails the self-check; the message says which identity, and by how much.
    """
    loaded = read_model(model, tokenizer, revision=revision, dtype=dtype, device=device)
    check.require(loaded)
    return loaded


def read_model(
    model: str | Path | PreTrainedModel,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
) -> LanguageModel:
    """Load a model as `load_model` does, unproven: for running the self-check on it.

    Args:
        model: a name or folder, or a model of transformers.
        tokenizer: of a model of transformers; without it, prompts are token ids.
        revision: the hub's branch, tag or commit.
        dtype: what the model computes in: float64, float32 (the default), bfloat16 or float16.
        device: a device of torch, or "auto" (the default): CUDA where there is one.

    Raises:
        HydrascopeError: the model cannot be found, read or understood, or its weights aren't whole and finite; the
            message says which. A model of transformers comes with a dtype and a device of its own.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise HydrascopeError(f"the tokenizer of {model} is read with it: leave yours out, or give both as objects")
        return _read(str(model), revision, dtype or "float32", device or "auto")
    if not isinstance(model, PreTrainedModel):
        raise HydrascopeError(
            f"a {type(model).__name__} is no model of transformers: give a name, a folder or a PreTrainedModel (with "
            "adapters merged, as by merge_and_unload)"
        )
    for name, value in (("revision", revision), ("dtype", dtype), ("device", device)):
        if value is not None:
            raise HydrascopeError(f"a model that is given as an object has its own {name}: leave {name} out")
    name = model.config._name_or_path or type(model).__name__
    _require_finite(name, model)
    return LanguageModel(model, tokenizer, name=name, revision=_parameter_hash(model))


def _read(name: str, revision: str | None, dtype: str, device: str) -> LanguageModel:
    if dtype not in DTYPES:
        raise HydrascopeError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    place = _device(device)
    if name == zoo.PHANTOM:
        made: Any = phantom.model()
        made.to(place, DTYPES[dtype])
        return LanguageModel(made, phantom.tokenizer(), name=name, revision=_parameter_hash(made))
    built_in = zoo.model_path(name)
    folder, commit = _folder(str(built_in or name), revision)
    if not (folder / "config.json").exists():
        raise HydrascopeError(f"cannot load the model {name}: there is no config.json in it; give a model's folder")
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=DTYPES[dtype], use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:  # what transformers raises here is of many kinds and no contract
            raise HydrascopeError(f"cannot load the model {name}: {_reason(error)}") from error
    hf, info = loaded
    _require_whole(name, hf, info)
    # Nothing that is loaded here is ever trained.
    hf.eval().requires_grad_(False)
    return LanguageModel(hf.to(place), tokenizer, name=name, revision=commit or _weight_hash(folder))


def _folder(source: str, revision: str | None) -> tuple[Path, str]:
    """The folder that `source` names, fetched from the hub where it is none, and the hub's commit or ""."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise HydrascopeError(f"{source} is a local folder, which has no revision {revision!r}: leave it out")
        return folder, ""
    if folder.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise HydrascopeError(f"no model folder at {source}: give a folder with config.json and safetensors")
    # Not `original/`, `onnx/` and the like, nor the weights a second time in another layout.
    chosen: dict[str, Any] = {
        "allow_patterns": ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"],
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
        reason = _first_line(error)
    else:
        return fetched, fetched.name
    raise HydrascopeError(f"cannot load the model {source}: {reason}")


def _require_whole(name: str | Path, hf: Any, info: dict) -> None:
    # Transformers fills in weights that a file lacks with random ones: numbers that mean nothing.
    absent = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
    if absent:
        more = " and others" if len(absent) > 3 else ""
        raise HydrascopeError(
            f"the weights of {name} are incomplete: {', '.join(absent[:3])}{more} missing or of another shape; "
            "get the model again"
        )
    _require_finite(name, hf)


def _require_finite(name: str | Path, hf: PreTrainedModel) -> None:
    for parameter, value in hf.named_parameters():
        if not torch.isfinite(value).all():
            raise HydrascopeError(f"the weights of {name} are not finite: NaN or infinity in {parameter}")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HydrascopeError(f"the device {name!r} cannot be used: {_first_line(error)}") from None
    return device


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _reason(error: Exception) -> str:
    """What to tell the user of transformers' error, and what to do, in one line."""
    text = str(error)
    if "backend tokenizer" in text:
        return "it has no tokenizer.json; save the model's tokenizer beside it with transformers' save_pretrained"
    if "no file named" in text and "safetensors" in text:
        return "it has no safetensors weights; other formats can run code and are not read"
    if "trust_remote_code" in text:
        return "it needs code from its repository, which is never run; use a model that transformers knows"
    return _first_line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings and bars: what matters of them is checked and said in one line."""
    logging = transformers.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _parameter_hash(hf: PreTrainedModel) -> str:
    """`sha256:` over the configuration and all parameters and buffers of a model, names included.

    Not over where it was read from: the same model has the same hash.
    """
    config = json.loads(hf.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    total = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(hf.state_dict().items()):
        total.update(json.dumps([name, list(value.shape), str(value.dtype)]).encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{total.hexdigest()}"


def _weight_hash(folder: Path) -> str:
    """`sha256:` over the configuration and the weight files of a local folder, names included."""
    total = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        total.update(json.dumps(path.name).encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"
