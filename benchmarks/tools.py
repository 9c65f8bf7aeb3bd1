"""Everything that is timed, by name: hydrascope and its peers, each as a function from prompts to answers."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import xarray as xr
from transformers import PreTrainedModel

import hydrascope as hs
from benchmarks.peers import Peer, Readout, sweep
from benchmarks.shapes import Shape, parts
from benchmarks.task import PATCHES, Answer, Prompt
from hydrascope.engines import Effects, Request, sweep_plan, wavefront
from hydrascope.memory import automatic_batch_size

#: Keywords go to every call of the model; hydrascope takes none.
Tool = Callable[..., list[Answer]]

ENGINE = "hydrascope"
WHOLE = "hydrascope.sweep"
HOOKS = "hooks on transformers"
NNSIGHT = "nnsight"
LENS = "TransformerLens"
CACHED = "key/value cache kept"
#: What may follow the name of a tool that runs whole prompts: only the last position is unembedded.
LAST = ", last logits only"

#: The usual code, each tool as its users call it, and asked for the logits of the last position alone.
USUAL = (HOOKS, NNSIGHT, LENS)
USUAL_LAST = tuple(name + LAST for name in USUAL)


def prepare(name: str, model: PreTrainedModel, shape: Shape) -> Tool:
    """The tool called `name` on `model`, which it may wrap in place."""
    if name == ENGINE:
        return hydrascope_engine(model)
    if name == WHOLE:
        return hydrascope_sweep(model)
    readout = Readout(parts(model, shape))
    peer = _peer(name, model, shape)

    def tool(prompts: Sequence[Prompt], **forward: int) -> list[Answer]:
        return [sweep(peer, prompt, readout, **forward) for prompt in prompts]

    return tool


def _peer(name: str, model: PreTrainedModel, shape: Shape) -> Peer:
    # Each is imported by the process that runs it alone: some change PyTorch when they are imported.
    if name == CACHED:
        from benchmarks.peers.cached import cached_prefix

        return cached_prefix(model, shape)
    if name == NNSIGHT:
        from benchmarks.peers.nnsight_traces import nnsight_traces

        return nnsight_traces(model, shape)
    if name == LENS:
        from benchmarks.peers.lens import transformer_lens_hooks

        return transformer_lens_hooks(model, shape)
    from benchmarks.peers.hooks import plain_hooks

    return plain_hooks(model, shape)


def hydrascope_engine(model: PreTrainedModel) -> Tool:
    """The engine alone, given the patches as its peers are; batches as `hydrascope.sweep` cuts them."""
    language_model = hs.LanguageModel(model)
    measure = partial(measure_effects, language_model)

    def tool(prompts: Sequence[Prompt]) -> list[Answer]:
        return [answer(effects, i) for effects in measure(prompts) for i in range(len(effects.unembed))]

    return tool


def measure_effects(model: hs.LanguageModel, prompts: Sequence[Prompt]) -> list[Effects]:
    """What the engine measures, one `Effects` a prompt, in the order of `prompts`."""
    batch = automatic_batch_size(model, [prompt.tokens.tolist() for prompt in prompts], PATCHES)
    plan = sweep_plan(model.components, PATCHES)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens))
    found: dict[int, Effects] = {}
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        chosen = [prompts[index] for index in indices]
        request = Request(
            [prompt.tokens.tolist() for prompt in chosen],
            torch.tensor([prompt.target for prompt in chosen]),
            plan,
            {
                component: torch.stack([prompt.patches[i] for prompt in chosen])
                for i, component in enumerate(model.components)
            },
        )
        effects = wavefront.measure(model, request)
        for place, index in enumerate(indices):
            found[index] = one_prompt(effects, place)
    return [found[index] for index in range(len(prompts))]


def one_prompt(effects: Effects, place: int) -> Effects:
    """The effects on the prompt at `place`, the prompt dimension kept."""
    tensors = {name: value for name, value in vars(effects).items() if isinstance(value, torch.Tensor)}
    return Effects(
        **{name: value[place : place + 1] for name, value in tensors.items()}, clean_error=effects.clean_error
    )


def answer(effects: Effects, place: int) -> Answer:
    """The part of `effects` that every tool gives, of the prompt at `place`."""
    components = effects.unembed.shape[1]
    return Answer(
        effects.unembed[place],
        effects.row_unembed[place].view(components, PATCHES, components),
        effects.row_logit[place].view(components, PATCHES),
    )


def hydrascope_sweep(model: PreTrainedModel) -> Tool:
    """`hydrascope.sweep` from texts to an xarray dataset: clean runs, drawing of patches, checks and all.

    It draws its patches itself, the same ones where it is given all the prompts of the task.
    """
    language_model = hs.LanguageModel(model, NumberTokenizer())

    def tool(prompts: Sequence[Prompt]) -> list[Answer]:
        texts = [" ".join(map(str, prompt.tokens.tolist())) for prompt in prompts]
        return dataset_answers(hs.sweep(language_model, texts))

    return tool


def dataset_answers(results: xr.Dataset) -> list[Answer]:
    """Each prompt's answer out of a result."""
    logits = results["total"] + results["logit"]
    return [
        Answer(
            *(
                torch.from_numpy(values[index].values)
                for values in (results["unembed"], results["unembed_ablated"], logits)
            )
        )
        for index in range(results.sizes["prompt"])
    ]


class NumberTokenizer:
    """A tokenizer of texts that are token ids, written out: prompts without a vocabulary."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))
