"""A loaded language model: the weights, the tokenizer and the anatomy, as the engines need them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hydrascope.anatomy import Anatomy, anatomy_of
from hydrascope.components import Component, Kind
from hydrascope.errors import HydrascopeError

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class LanguageModel:
    """A causal language model of transformers, with its parts found.

    Attributes:
        hf: the model of transformers, in evaluation mode.
        tokenizer: its tokenizer; None where prompts are given as token ids.
        anatomy: where its parts are.
        name: what it was loaded as.
        revision: the hub's commit, or `sha256:…` of a local folder's weights.
        components: everything that can be ablated, by layer, attention before MLP.
        layers, final_norm, unembedding: the modules.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: Any = None,
        *,
        anatomy: Anatomy | None = None,
        name: str = "",
        revision: str = "",
    ) -> None:
        """Find the parts of `hf`; `load_model` is the way to one from a name.

        Raises:
            HydrascopeError: the architecture is unknown, or a part isn't where its anatomy says.
        """
        # Nothing here is ever trained: no graph of derivatives is kept for the weights.
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        if hf.dtype == torch.float64 and hf._can_set_experts_implementation():
            # Grouped products of experts are for narrower numbers only.
            hf.set_experts_implementation("eager")
        self.config = hf.config.get_text_config()
        self.anatomy = anatomy or anatomy_of(self.config.model_type)
        self.name = name or self.config.model_type
        self.revision = revision
        self.layers = list(self._part(hf, self.anatomy.layers).children())
        self.final_norm: Any = self._part(hf, self.anatomy.norm)
        self.unembedding: Any = hf.get_output_embeddings()
        self.components = tuple(Component(layer, kind) for layer in range(len(self.layers)) for kind in get_args(Kind))
        self.parallel = self.anatomy.parallel(self.config)
        self.residual_scale = self.anatomy.residual_scale(self.config)
        self.logit_scale = self.anatomy.logit_scale(self.config)
        self.norm_eps = self._norm_eps()
        self._sites = {component: self._site(component) for component in self.components}

    @staticmethod
    def _part(parent: nn.Module, path: str) -> nn.Module:
        try:
            return parent.get_submodule(path)
        except AttributeError as error:
            raise HydrascopeError(
                f"{type(parent).__name__} has no part {path!r}: its anatomy does not fit this model ({error})"
            ) from None

    def _site(self, component: Component) -> nn.Module:
        layer = self.layers[component.layer]
        if component.kind == "mlp":
            return self._part(layer, self.anatomy.mlp_out)
        return self._part(layer, self.anatomy.attention_out or self.anatomy.attention)

    def _norm_eps(self) -> float:
        for name in ("variance_epsilon", "eps", "epsilon"):
            if hasattr(self.final_norm, name):
                return float(getattr(self.final_norm, name))
        raise HydrascopeError(f"the final norm {type(self.final_norm).__name__} of {self.name} has no epsilon")

    def site(self, component: Component) -> nn.Module:
        """The module whose output, times `residual_scale`, `component` adds to the residual stream."""
        return self._sites[component]

    def attention(self, layer: int) -> nn.Module:
        """The module of block `layer` that reads other positions."""
        return self._part(self.layers[layer], self.anatomy.attention)

    def downstream(self, component: Component) -> tuple[Component, ...]:
        """The components causally downstream of `component`, as the anatomy has it (Eq. 33).

        `mlp.l` is downstream of `attn.l` in sequential blocks, not in parallel ones.
        """

        def follows(other: Component) -> bool:
            same_block = other.layer == component.layer and not self.parallel
            return other.layer > component.layer or (same_block and other > component)

        return tuple(other for other in self.components if follows(other))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.hf.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.hf.device

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return int(self.unembedding.weight.shape[-1])

    @property
    def context_length(self) -> int | None:
        """The longest prompt that the model takes, in tokens; None where it sets no limit."""
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if getattr(self.config, name, None) is not None:
                return int(getattr(self.config, name))
        return None

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, as the tokenizer makes them by default, special tokens included."""
        return list(self._tokenizer(text)["input_ids"])

    def decode(self, token: int) -> str:
        """The text of one token."""
        return str(self._tokenizer.decode([token]))

    @property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise HydrascopeError(f"the model {self.name} was made without a tokenizer: give token ids")
        return self.tokenizer


def load_model(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
) -> LanguageModel:
    """Load a causal language model by hub name, local folder, or built-in name, and prove its anatomy.

    Weights are read from safetensors alone and no code from the repository is run.

    Args:
        name: as above.
        revision: the hub's branch, tag or commit.
        dtype: what the model computes in: float64, float32, bfloat16 or float16.
        device: a device of torch, or "auto": CUDA where there is one.

    Raises:
        HydrascopeError: the model cannot be found, read or understood, its weights aren't finite, or it fails the
            self-check; the message says which.
    """
    from hydrascope import check, zoo

    if dtype not in DTYPES:
        raise HydrascopeError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    source = str(zoo.model_path(str(name)) or name)
    local = Path(source).is_dir()
    if not local and (Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise HydrascopeError(f"no model folder at {source}: give a folder with config.json and safetensors")
    place = _device(device)
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # what transformers raises here is of many kinds and no contract
            raise HydrascopeError(f"cannot load the model {name}: {_reason(error, local)}") from error
    hf, info = loaded
    # Transformers fills in weights that a file lacks with random ones: numbers that mean nothing.
    absent = [*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])]
    if absent:
        raise HydrascopeError(
            f"the weights of {name} are incomplete: {', '.join(sorted(absent)[:3])}"
            f"{' and others' if len(absent) > 3 else ''} missing or of another shape; get the model again"
        )
    for parameter, value in hf.named_parameters():
        if not torch.isfinite(value).all():
            raise HydrascopeError(f"the weights of {name} are not finite: NaN or infinity in {parameter}")
    commit = _folder_hash(Path(source)) if local else str(getattr(hf.config, "_commit_hash", None) or "")
    model = LanguageModel(hf.to(place), tokenizer, name=str(name), revision=commit)
    check.require(model)
    return model


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


def _reason(error: Exception, local: bool) -> str:
    """What to tell the user of transformers' error, and what to do, in one line."""
    text = str(error)
    if not local and any(
        sign in text for sign in ("couldn't connect", "offline", "Max retries", "resolve", "LocalEntryNotFound")
    ):
        return "it is not in the local cache and the hub cannot be reached; check the name, or give a folder"
    if "safetensors" in text and "no file named" in text:
        return "there are no safetensors weights; other formats can run code and are not read"
    if "trust_remote_code" in text:
        return "it needs code from its repository, which is never run; use a model that transformers knows"
    if not local and ("is not a local folder" in text or "Repository Not Found" in text):
        return "there is no such model, locally or on the hub; check the name"
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


def _folder_hash(folder: Path) -> str:
    """`sha256:` over the configuration and the weight files of a local folder, names included."""
    total = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        total.update(json.dumps(path.name).encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def padded(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts of any lengths as `[prompt, position]` token ids, padded on the right, and each one's last position.

    Attention is causal, so no position of a prompt ever reads what is on its right: the padding needs no mask.
    """
    longest = max(map(len, tokens))
    ids = torch.zeros(len(tokens), longest, dtype=torch.long)
    for row, prompt in zip(ids, tokens, strict=True):
        row[: len(prompt)] = torch.as_tensor(prompt)
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    return ids.to(device), last.to(device)
