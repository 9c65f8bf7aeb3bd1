"""What is to be measured, decided before any of it is: the settings of a run, and the attributes that record them."""

import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import transformers
import xarray as xr
from jaxtyping import Bool

import hydrascope
from hydrascope.ablation import Ablation, Bank, clean_bank, patch_sources
from hydrascope.books import Norm
from hydrascope.engines import Engine, choose
from hydrascope.errors import HydrascopeError
from hydrascope.memory import automatic_batch_size, within_memory
from hydrascope.model import LanguageModel
from hydrascope.prompts import Prompt, PromptSet, answer_tokens, shown, tokenize

#: Whose logit is read: the clean run's most likely token, or the first token of the prompt's answer.
Target = Literal["argmax", "answer"]

_TEXT = np.dtypes.StringDType()


@dataclass(frozen=True)
class Plan:
    """What is to be measured: arguments of `hydrascope.sweep`, found to fit together."""

    model: LanguageModel
    prompts: PromptSet
    tokens: list[list[int]]
    ablation: Ablation
    norm: Norm
    target: Target
    engine: Engine

    @property
    def stored(self) -> str:
        """The dtype of the numbers in the result."""
        return "float64" if self.model.dtype == torch.float64 else "float32"

    @cached_property
    def downstream(self) -> Bool[torch.Tensor, "ablated component"]:
        """Whether the component is causally downstream of the ablated one."""
        components = self.model.components
        below = [set(self.model.downstream(ablated)) for ablated in components]
        return torch.tensor([[component in each for component in components] for each in below])

    def batch_size(self, asked: int | Literal["auto"]) -> int:
        """How many prompts to measure at a time: as asked for, or what memory allows.

        Raises:
            HydrascopeError: it is less than one.
        """
        if asked == "auto":
            return automatic_batch_size(self.model, self.tokens, getattr(self.ablation, "patches", 1))
        if asked < 1:
            raise HydrascopeError(f"a batch of {asked} prompts: --batch-size must be auto or at least 1")
        return asked

    def called(self, index: int) -> str:
        """How an error calls the prompt at `index`."""
        return f"prompt {index + 1} ({shown(self.prompts.prompts[index].text)})"

    def settings(self) -> dict[str, Any]:
        """The attributes that decide the numbers of the result, and name what it is of."""
        parameters = asdict(self.ablation)
        if "scale" in parameters:
            parameters["noise_scale"] = parameters.pop("scale")
        return {
            "model": self.model.name,
            "revision": self.model.revision,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "engine": self.engine.name,
            "ablation": type(self.ablation).__name__.lower(),
            **parameters,
            "norm": self.norm,
            "target": self.target,
            "prompts": self.prompts.name,
            "prompt_count": len(self.prompts.prompts),
            "prompts_hash": self.prompts.hash,
            "hydrascope": hydrascope.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }


def planned(
    model: LanguageModel,
    prompts: PromptSet | Iterable[str | Prompt],
    ablation: Ablation,
    norm: Norm,
    target: Target,
    engine: str,
) -> Plan:
    """The plan of these arguments of `hydrascope.sweep`.

    Raises:
        HydrascopeError: an option is unknown, or a prompt or the engine doesn't fit the model.
    """
    for name, value, allowed in (("norm", norm, get_args(Norm)), ("target", target, get_args(Target))):
        if value not in allowed:
            raise HydrascopeError(f"unknown {name} {value!r}: choose {' or '.join(allowed)}")
    chosen = choose(model, engine)
    prompts = prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts)
    return Plan(model, prompts, tokenize(model, prompts.prompts), ablation, norm, target, chosen)


@dataclass(frozen=True)
class Clean:
    """What the clean runs of the whole prompt set give.

    Attributes:
        bank: the activations to patch with.
        targets: each prompt's target token.
        patches: how many patches a prompt gets.
    """

    bank: Bank
    targets: list[int]
    patches: int


def clean_runs(plan: Plan, batch_size: int) -> Clean:
    """Run all prompts clean, `batch_size` at a time, or fewer where memory runs out.

    Raises:
        HydrascopeError: an answer can't be read, or there are too few prompts to draw patches from.
    """
    # Answers that can't be read are said to be so before anything is run.
    answers = answer_tokens(plan.model, plan.prompts.prompts) if plan.target == "answer" else None
    bank, _ = within_memory(lambda size: clean_bank(plan.model, plan.tokens, size), batch_size)
    targets = bank.argmax.tolist() if answers is None else answers
    return Clean(bank, targets, patch_sources(plan.ablation, targets).shape[1])


def known(plan: Plan, clean: Clean) -> xr.Dataset:
    """What of the result is known before anything is measured: coordinates, targets, `downstream`, attributes."""
    labels = np.array([str(component) for component in plan.model.components], _TEXT)
    text = [prompt.text for prompt in plan.prompts.prompts]
    return xr.Dataset(
        {
            "target": ("prompt", np.array(clean.targets, np.int64)),
            "downstream": (("ablated", "component"), plan.downstream.numpy()),
        },
        {
            "component": labels,
            "ablated": labels,
            "text": ("prompt", np.array(text, _TEXT)),
            "target_text": ("prompt", np.array([plan.model.decode(token) for token in clean.targets], _TEXT)),
        },
        {
            **plan.settings(),
            "engine_reason": plan.engine.reason,
            "command": _command_line(),
        },
    )


def _command_line() -> str:
    """The command that runs, without the name of the user's folder."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]).replace(str(Path.home()), "~")
