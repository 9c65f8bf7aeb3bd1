"""Make models of random configurations, with random weights so large that every part shows."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fuzz.configurations import CONFIGURATIONS
from fuzz.drawing import Draw
from hydrascope.models.float64 import Float64Mode

#: The number of configurations to draw until transformers takes one.
ATTEMPTS = 20
#: The share of models in float32, which has kernels that float64 lacks.
FLOAT32_SHARE = 0.15


@dataclass(frozen=True)
class Drawn:
    """A random model.

    Attributes:
        hf: the model, mostly in float64.
        settings: its configuration, dtype and attention implementation.
        draw: the source of random choices, for the experiment to go on with.
        refused: a line for each configuration that transformers didn't take.
    """

    hf: PreTrainedModel
    settings: dict[str, Any]
    draw: Draw
    refused: list[str]

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype


def architecture_of(seed: int, architecture: str | None = None) -> str:
    """Return the architecture of a seed: one after the other."""
    return architecture or sorted(CONFIGURATIONS)[seed % len(CONFIGURATIONS)]


def draw_model(seed: int, architecture: str) -> Drawn:
    """Draw configurations until transformers makes a model of one with finite logits.

    Raises:
        RuntimeError: It takes none of `ATTEMPTS`.
    """
    refused: list[str] = []
    for attempt in range(ATTEMPTS):
        draw = Draw(f"{architecture} {seed} {attempt}")
        settings = CONFIGURATIONS[architecture](draw)
        implementation = draw.choice(("sdpa", "sdpa", "eager"))
        try:
            hf = _make(draw, architecture, settings, implementation)
        except Exception as error:
            refused.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}")
            continue
        dtype = torch.float32 if draw.chance(FLOAT32_SHARE) else torch.float64
        return Drawn(
            hf.to(dtype), settings | {"attn_implementation": implementation, "dtype": str(dtype)}, draw, refused
        )
    raise RuntimeError(f"transformers took no configuration of {architecture}, seed {seed}: {refused}")


def _make(draw: Draw, architecture: str, settings: dict[str, Any], implementation: str) -> PreTrainedModel:
    # In float64 from the start, as rotary tables are made with the model.
    with Float64Mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.for_model(architecture, **settings)
        if not AutoModelForCausalLM._model_mapping[type(config)]._supports_sdpa:
            implementation = "eager"
        hf: Any = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).to(torch.float64)
        randomise(hf, draw)
        experts = hf.get_experts_implementation() if hf._can_set_experts_implementation() else None
        if experts is not None:
            # Grouped products of experts don't take float64.
            hf.set_experts_implementation("eager")
        hf.eval()
        with torch.no_grad():
            logits = hf(input_ids=torch.tensor([[3, 4, 5, 6]]), use_cache=False).logits
        if experts is not None and _aligned(settings):
            hf.set_experts_implementation(experts)
        if not bool(logits.isfinite().all()):
            raise ValueError("its logits aren't finite")
    return hf.train(draw.chance(0.3))


def _aligned(settings: dict[str, Any]) -> bool:
    """Return whether grouped products of experts take these widths: rows of whole 16 bytes."""
    names = ("hidden_size", "intermediate_size", "moe_intermediate_size")
    return all(settings.get(name, 0) % 4 == 0 for name in names)


@torch.no_grad()
def randomise(hf: PreTrainedModel, draw: Draw) -> None:
    """Fill every parameter with random numbers: norms' gains, biases and sinks as well."""
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    size = draw.uniform(0.8, 1.6)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    transposed = {id(module.weight) for module in hf.modules() if isinstance(module, Conv1D)}
    embeddings = id(hf.get_input_embeddings().weight)
    for name, parameter in hf.named_parameters():
        if parameter.ndim > 1:
            inputs = parameter.shape[-2 if id(parameter) in transposed else -1]
            scale = 0.7 if id(parameter) == embeddings else size / inputs**0.5
            parameter.copy_(noise(parameter) * scale)
        elif "bias" in name or "sinks" in name:
            parameter.copy_(noise(parameter) * 0.5)
        else:
            parameter.copy_(parameter + noise(parameter) * 0.3)
    for name, buffer in hf.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(noise(buffer) * 0.2)
