"""A model whose weights are larger than the memory that a process is allowed: `python -m benchmarks.offload`.

A random Llama of 7B's shape in bfloat16 is measured twice, on the same prompts, with the same patches: by a process
without a limit, and by one that may have a good half of the weights in memory and reads them from disk.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import hydrascope as hs

SHAPE = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    bos_token_id=None,
    eos_token_id=None,
    dtype="bfloat16",
)


def write(folder: Path, config: LlamaConfig = SHAPE) -> None:
    """A random model on disk, a file a block, with never more than a block in memory."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    files: dict[str, dict[str, torch.Size]] = {}
    for name, shape in shapes.items():
        block = name.split(".")[2] if name.startswith("model.layers.") else "rest"
        files.setdefault(f"model-{block}.safetensors", {})[name] = shape
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for file, own in files.items():
        weights = {name: _drawn(name, shape, generator) for name, shape in own.items()}
        save_file(weights, folder / file, metadata={"format": "pt"})
    places = {name: file for file, own in files.items() for name in own}
    index = {"metadata": {"total_size": 2 * sum(map(math.prod, shapes.values()))}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(folder)
    hs.load_model("built-in").tokenizer.save_pretrained(folder)  # any: the numbers mean nothing


def _drawn(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    # So that a layer writes about as much as it reads, whatever its width.
    return (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).bfloat16()
