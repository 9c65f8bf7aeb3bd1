"""How long whole runs take on a GPU: `python -m benchmarks.gpu`.

All layers ablated one by one by 15 patches, on prompts of the paper's number and lengths: of GPT-2 small's shape in
float32 and of Llama-7B's in bfloat16, weights drawn at random. Against hooks on transformers, which run a share of the
prompts, in the same process. `--quick` takes tiny models and few prompts, on any device, to see that it works.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch

import hydrascope as hs
from benchmarks.shapes import GPT2_SMALL, TINY_GPT2, TINY_LLAMA, Shape, llama
from benchmarks.task import PATCHES, natural_lengths

LLAMA_7B = llama("Llama-7B", layers=32, width=4096, heads=32, kv_heads=32, inner=11008, vocabulary=32000)
PROMPTS = 1209


def prompts_of(shape: Shape, count: int) -> list[list[int]]:
    """Random prompts of the paper's lengths."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(shape.config.vocab_size)
    lengths = natural_lengths(count)
    return [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]


def seconds(work: Callable[[], object], device: str) -> float:
    """How long `work` takes, until the device has done it."""
    begin = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def raced(shape: Shape, dtype: torch.dtype, count: int, share: int, device: str) -> None:
    """Print seconds of `hydrascope.sweep` on all prompts, and of plain passes with hooks on one in `share`."""
    with torch.device(device):
        model = hs.models.LanguageModel(shape.build().to(dtype))
    prompts = prompts_of(shape, count)
    hs.sweep(model, prompts[:32], hs.Resample(PATCHES))  # what is measured once in a process
    taken = seconds(lambda: hs.sweep(model, prompts, hs.Resample(PATCHES)), device)
    few = prompts[:: max(count // share, 1)]
    hooks = seconds(lambda: hooked(model, few), device) * count / len(few)
    where = torch.cuda.get_device_name() if device.startswith("cuda") else device
    print(f"{shape.name}, {dtype}, {count:,} prompts on {where}: {taken:.1f} s, by hooks {hooks:,.0f} s", flush=True)


@torch.no_grad()
def hooked(model: hs.models.LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
    """As it is usually written: for each prompt and layer one pass with a batch of patches, all read by hooks."""
    layers = [model.output(component) for component in model.sublayers]
    for tokens in prompts:
        ids = torch.tensor([tokens] * PATCHES, device=model.device)
        patches = torch.randn(PATCHES, model.width, device=model.device, dtype=model.dtype)
        for ablated in layers:
            read: list[torch.Tensor] = []
            handles = [layer.register_forward_hook(_reading(read)) for layer in layers]
            handles.append(ablated.register_forward_hook(_writing(patches)))
            logits = model.hf(input_ids=ids, use_cache=False).logits[:, -1]
            normed = model.final_norm(torch.stack(read)) @ model.unembedding.weight[int(logits[0].argmax())]
            normed.float().cpu()
            for handle in handles:
                handle.remove()


def _reading(read: list[torch.Tensor]) -> Callable[..., None]:
    def hook(module: object, args: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        read.append(hidden[:, -1])  # type: ignore[index]

    return hook


def _writing(patches: torch.Tensor) -> Callable[..., object]:
    def hook(module: object, args: object, output: object) -> object:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()  # type: ignore[attr-defined]
        hidden[:, -1] = patches
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


def main() -> None:
    """Measure both shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if asked.quick:
        raced(TINY_GPT2, torch.float32, 32, 4, asked.device)
        raced(TINY_LLAMA, torch.bfloat16, 32, 4, asked.device)
        return
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU")
    raced(GPT2_SMALL, torch.float32, PROMPTS, 24, asked.device)
    raced(LLAMA_7B, torch.bfloat16, PROMPTS, 6, asked.device)


if __name__ == "__main__":
    main()
