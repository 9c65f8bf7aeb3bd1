"""Train the models of the study: a trunk for each seed, and from it arms that differ in what fails while they train.

All arms of a seed read the same batches, and their draws have the same seed at each step: zeros and swaps fail at the
same places.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from studies.training.corpus import Corpus
from training.llama import drop_out, fail, fresh
from training.recipe import Recipe

#: The arm without failures.
CONTROL = "control"
#: Steps between two saved states.
_EVERY = 200
#: The moments of AdamW.
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Branch(NamedTuple):
    """A training that starts from a seed's trunk; without arm, the trunk itself.

    Attributes:
        seed: the seed.
        arm: the arm's name.
    """

    seed: int
    arm: str = ""

    def at(self, stores: Path) -> Path:
        """Return the folder of the training."""
        return stores / "models" / f"{self.seed}-{self.arm.replace(' ', '-') or 'trunk'}"

    def model(self, stores: Path, step: int | None = None) -> Path:
        """Return the folder of the trained model, or of one on its way after some steps of the branch."""
        return self.at(stores) / ("model" if step is None else f"step-{step:04}")


def branches(settings: Mapping[str, Any]) -> Iterator[Branch]:
    """Yield all trainings in their order: the trunks, then arm by arm."""
    for arm in ("", *settings["arms"]):
        yield from (Branch(seed, arm) for seed in settings["seeds"])


def train(settings: Mapping[str, Any], corpus: Corpus, branch: Branch, stores: Path) -> None:
    """Train a trunk or a branch to its end, or go on; nothing is done if it has ended.

    Args:
        settings: the study's settings.
        corpus: the corpus.
        branch: the training; its trunk has ended.
        stores: the folder of all results.
    """
    folder, (first, last) = branch.at(stores), _span(settings, branch)
    if (branch.model(stores) / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    arm = settings["arms"].get(branch.arm, {})
    llama = make_llama(settings, corpus, branch.seed, arm)
    optimizer = _optimizer(llama, settings)
    state = folder / "state.safetensors"
    step = first
    if state.exists():
        step = read_state(llama, optimizer, state)
    elif branch.arm:
        read_state(llama, optimizer, Branch(branch.seed).at(stores) / "state.safetensors")
    kept = {first + each: branch.model(stores, each) for each in settings["kept"] if branch.arm == CONTROL}
    batches = batches_of(settings, corpus, branch.seed)
    llama.train()
    losses = []
    while step < last:
        if step in kept:
            _save(llama, corpus, kept[step])
        for group in optimizer.param_groups:
            group["lr"] = rate_at(settings, step, arm.get("rate", 1))
        torch.manual_seed(branch.seed * 1_000_000 + step)
        tokens = torch.from_numpy(batches[step])
        loss = llama(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llama.parameters(), settings["clip"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % _EVERY == 0 or step == last:
            write_state(llama, optimizer, step, state)
            print(f"{folder.name}: {step} of {last}, loss {np.mean(losses[-100:]):.3f}", flush=True)
    _save(llama, corpus, branch.model(stores))


def _span(settings: Mapping[str, Any], branch: Branch) -> tuple[int, int]:
    """Return the first step and the one after the last, counted from the trunk's start."""
    trunk = settings["steps"]["trunk"]
    return (trunk, trunk + settings["steps"]["branch"]) if branch.arm else (0, trunk)


def rate_at(settings: Mapping[str, Any], step: int, factor: float = 1) -> float:
    """Return the learning rate at a step, counted from the trunk's start: up, constant, down to 0 at the very end."""
    steps = settings["steps"]
    left = steps["trunk"] + steps["branch"] - step
    arm = factor if step >= steps["trunk"] else 1
    return float(settings["rate"] * arm * min(1, (step + 1) / steps["warmup"], left / steps["decay"]))


def batches_of(settings: Mapping[str, Any], corpus: Corpus, seed: int) -> Int[np.ndarray, "step row token"]:
    """Return the batches of a seed, the same for its trunk and all its arms."""
    generator, count = np.random.default_rng(seed), len(corpus.blocks)
    needed = (settings["steps"]["trunk"] + settings["steps"]["branch"]) * settings["batch"]
    order = np.concatenate([generator.permutation(count) for _ in range(-(-needed // count))])[:needed]
    return corpus.blocks[order].reshape(-1, settings["batch"], corpus.blocks.shape[1])


def make_llama(settings: Mapping[str, Any], corpus: Corpus, seed: int, arm: Mapping[str, float]) -> LlamaForCausalLM:
    """Return the model of a seed before training, with the hooks of an arm."""
    recipe = Recipe("study", **settings["shape"], dropout=arm.get("dropout", 0.0), seed=seed)
    bpe = corpus.tokenizer
    llama = fresh(recipe, bpe.bos_token_id, bpe.eos_token_id, bpe.pad_token_id)
    # On CPUs plain matrix products are faster than the fused kernel at this size.
    llama.set_attn_implementation("eager")
    if recipe.dropout:
        drop_out(llama, recipe.dropout)
    if {"left_out", "swapped"} & arm.keys():
        fail(llama, arm.get("left_out", 0.0), arm.get("swapped", 0.0))
    return llama


def _optimizer(llama: LlamaForCausalLM, settings: Mapping[str, Any]) -> torch.optim.AdamW:
    """Return AdamW with decay of the matrices alone."""
    groups = [
        {"params": [each for each in llama.parameters() if (each.ndim > 1) == matrix], "weight_decay": decay}
        for matrix, decay in ((True, settings["weight_decay"]), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, settings["rate"], betas=tuple(settings["betas"]), fused=True)


def write_state(llama: LlamaForCausalLM, optimizer: torch.optim.AdamW, step: int, path: Path) -> None:
    """Write weights, moments and the step to a file, all or nothing."""
    tensors = {"step": torch.tensor(step)}
    for name, weight in llama.named_parameters():
        tensors[f"weight {name}"] = weight.detach()
        tensors |= {f"{moment} {name}": optimizer.state[weight][moment] for moment in _MOMENTS}
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


@torch.no_grad()
def read_state(llama: LlamaForCausalLM, optimizer: torch.optim.AdamW, path: Path) -> int:
    """Read weights and moments from a file, and return the step."""
    tensors = load_file(path)
    for name, weight in llama.named_parameters():
        weight.copy_(tensors[f"weight {name}"])
        optimizer.state[weight] = {moment: tensors[f"{moment} {name}"] for moment in _MOMENTS}
        optimizer.state[weight]["step"] = tensors["step"].float()
    return int(tensors["step"])


def _save(llama: LlamaForCausalLM, corpus: Corpus, folder: Path) -> None:
    corpus.tokenizer.save_pretrained(folder)
    # The configuration is written last of all: a folder without it is not whole.
    part = folder.with_name(f"{folder.name}.part")
    llama.save_pretrained(part)
    for file in sorted(part.iterdir(), key=lambda file: file.name == "config.json"):
        file.rename(folder / file.name)
    part.rmdir()
