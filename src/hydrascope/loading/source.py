"""Find the files of a model: local ones, fetched ones, or a repository on the hub."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import errors, snapshot_download

from hydrascope.loading.checkpoint import weight_files
from hydrascope.loading.fetch import fetched_model
from hydrascope.models import fingerprint
from hydrascope.utils import assets, input_files
from hydrascope.utils.errors import HydrascopeError, cause

#: The files of a repository that are read besides the weights.
_READ = ("*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True)
class Source:
    """The files of a model.

    Attributes:
        folder: their folder.
        weights: the weight files: safetensors, or one GGUF file.
        commit: the hub's commit; "" for local files.
    """

    folder: Path
    weights: tuple[Path, ...]
    commit: str

    @property
    def gguf(self) -> Path | None:
        """Return the GGUF file; None for safetensors."""
        return self.weights[0] if self.weights[0].suffix == ".gguf" else None

    def revision(self) -> str:
        """Return the hub's commit, or `sha256:…` of the local files.

        The hash of a GGUF file is that of the file alone, as `sha256sum` prints it.
        """
        if self.commit:
            return self.commit
        if self.gguf is not None:
            return input_files.hash_file(self.gguf)
        return fingerprint.hash_folder(self.folder, self.weights)


def find_source(name: str, revision: str | None, gguf: str | None) -> Source:
    """Return the files of the model `name`, downloaded from the hub unless they are local.

    Args:
        name: a built-in name, the name of a fetched model, a folder, a GGUF file, or a name on the hub.
        revision: the hub's branch, tag or commit.
        gguf: the GGUF file to read in the folder or repository.

    Raises:
        HydrascopeError: there is no such model, or its files can't be read.
    """
    local = assets.model_path(name) or fetched_model(name)
    path, commit = _find(str(local or name), revision, gguf)
    if not path.is_dir():
        input_files.require_readable(path, "the model")
        return Source(path.parent, (path,), commit)
    try:
        os.listdir(path / ".")  # needs the rights to list and to enter
    except OSError as error:
        raise HydrascopeError(f"cannot load the model {name}: {error.strerror}: {path}") from error
    if chosen := _gguf_file(name, path, gguf):
        input_files.require_readable(chosen, "the model")
        return Source(path, (chosen,), commit)
    _require_readable(name, path)
    return Source(path, tuple(weight_files(name, path)), commit)


def _gguf_file(name: str, folder: Path, gguf: str | None) -> Path | None:
    """Return the GGUF file to read in a folder; None if safetensors are to be read."""
    there = sorted(path.name for path in folder.glob("*.gguf"))
    if gguf is not None:
        if gguf not in there:
            listed = f"it has {', '.join(there)}" if there else "it has none"
            raise HydrascopeError(f"cannot load the model {name}: there is no GGUF file {gguf} in it; {listed}")
        return folder / gguf
    if not there or any(folder.glob("*.safetensors")):
        return None
    if len(there) > 1:
        raise HydrascopeError(
            f"cannot load the model {name}: it has {len(there)} GGUF files ({', '.join(there[:3])}…): choose one with "
            "gguf (--gguf)"
        )
    return folder / there[0]


def _require_readable(name: str, folder: Path) -> None:
    """Check that a folder holds a model, and that its files besides the weights can be read."""
    if (folder / "adapter_config.json").exists():
        raise HydrascopeError(
            f"cannot load the model {name}: it holds adapters (adapter_config.json) without their base model; give "
            "the base model, with these as the adapter (--adapter)"
        )
    if not os.path.lexists(folder / "config.json"):
        raise HydrascopeError(
            f"cannot load the model {name}: there is no config.json in it; give a model's folder, or a GGUF file"
        )
    for path in sorted(file for pattern in _READ for file in folder.glob(pattern)):
        input_files.require_readable(path, "the model")


def _find(source: str, revision: str | None, gguf: str | None) -> tuple[Path, str]:
    """Return the model's folder or GGUF file, and its commit on the hub.

    The commit of local files is "".
    """
    try:
        folder = Path(source).expanduser()
        os.stat(folder)
    except RuntimeError as error:  # ~user without such a user
        raise HydrascopeError(f"no model folder at {source}: {error}") from error
    except PermissionError as error:
        raise HydrascopeError(f"cannot read the model folder {source}: {error.strerror}") from error
    except (OSError, ValueError):
        pass  # perhaps a name on the hub
    is_file = source.endswith(".gguf") and os.path.isfile(folder)
    if os.path.isdir(folder) or is_file:  # False for an impossible name, where Path.is_dir may raise
        what = "file" if is_file else "folder"
        if revision is not None:
            raise HydrascopeError(f"{source} is a local {what}, which has no revision {revision!r}: leave revision out")
        if is_file and gguf is not None:
            raise HydrascopeError(f"{source} is a GGUF file already: leave gguf out, or give its folder")
        return folder, ""
    if os.path.exists(folder) or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise HydrascopeError(
            f"no model folder at {source}: give a folder with config.json and safetensors, or a GGUF file"
        )
    if source.endswith(".gguf"):
        raise HydrascopeError(f"there is no GGUF file {source}: give a path, or a name on the hub with gguf (--gguf)")
    return download(source, revision, gguf)


def download(source: str, revision: str | None, gguf: str | None, content: str = "model") -> tuple[Path, str]:
    """Return the folder of a repository on the hub, and the commit.

    Args:
        source: its name.
        revision: its branch, tag or commit.
        gguf: the one file to read.
        content: a noun for what it holds, for error messages.

    Raises:
        HydrascopeError: there is none, or it can't be read.
    """
    # Skip folders such as `original/` and `onnx/`, and copies of the weights in another layout.
    patterns: dict[str, Any] = {
        "allow_patterns": [*_READ, "*.safetensors"] if gguf is None else [gguf],
        "ignore_patterns": ["*/*", "consolidated*"],
    }
    try:
        fetched = Path(snapshot_download(source, revision=revision, **patterns))
    except errors.HFValidationError:
        reason = "it is neither a folder nor a valid name on the hub: check the name"
    except errors.GatedRepoError:
        reason = "access to it is restricted: ask for access on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = f"there is no such folder and no such {content} on the hub: check the name"
    except errors.RevisionNotFoundError:
        reason = f"it has no revision {revision!r}: give one of its branches, tags or commits"
    except errors.LocalEntryNotFoundError:
        reason = "it is not in the local cache, and the hub cannot be reached: check the name, or give a folder"
    except (OSError, errors.HfHubHTTPError) as error:
        reason = cause(error)
    else:
        return fetched, fetched.name
    raise HydrascopeError(f"cannot load the {content} {source}: {reason}")
