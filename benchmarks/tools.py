"""Everything that is timed, by name: hydrascope and its peers, each as a function from prompts to answers."""

from collections.abc import Callable, Sequence

import torch
import xarray as xr
from transformers import PreTrainedModel

import hydrascope as hs
from benchmarks.engine import Engine
from benchmarks.peers import Peer, Readout, sweep
from benchmarks.shapes import Shape
from benchmarks.task import Answer, Prompt, Work
from hydrascope.engines import Readings

#: From prompts and the numbers of the components that are ablated to answers; keywords go to every call of the model.
#: Hydrascope takes none, and ablates all components.
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


def prepare(name: str, model: PreTrainedModel, shape: Shape, work: Work) -> Tool:
    """The tool called `name` on `model`, which it may wrap in place."""
    if name == ENGINE:
        return hydrascope_engine(model, shape, work)
    if name == WHOLE:
        return hydrascope_sweep(model, shape, work)
    readout = Readout(model, shape, work)
    peer = _peer(name, model, shape, work)

    def tool(prompts: Sequence[Prompt], ablated: Sequence[int], **forward: int) -> list[Answer]:
        return [sweep(peer, prompt, work, readout, ablated, **forward) for prompt in prompts]

    return tool


def _peer(name: str, model: PreTrainedModel, shape: Shape, work: Work) -> Peer:
    # Each is imported by the process that runs it alone: some change PyTorch when they are imported.
    if name == CACHED:
        from benchmarks.peers.cached import cached_prefix

        return cached_prefix(model, shape, work)
    if name == NNSIGHT:
        from benchmarks.peers.nnsight_traces import nnsight_traces

        return nnsight_traces(model, shape, work)
    if name == LENS:
        from benchmarks.peers.lens import transformer_lens_hooks

        return transformer_lens_hooks(model, shape, work)
    from benchmarks.peers.hooks import plain_hooks

    return plain_hooks(model, shape, work)


def hydrascope_engine(model: PreTrainedModel, shape: Shape, work: Work) -> Tool:
    """The engine alone, given the patches as its peers are; batches as `hydrascope.sweep` cuts them."""
    engine = Engine(hs.models.LanguageModel(model), shape, work)
    read = [engine.components.index(component) for component in work.read(shape)]

    def tool(prompts: Sequence[Prompt], ablated: Sequence[int]) -> list[Answer]:
        return [answer(readings, read) for readings in engine.measure(prompts)]

    return tool


def answer(readings: Readings, read: Sequence[int]) -> Answer:
    """The part of the readings of one prompt that every tool gives: of the components with the numbers `read`."""
    return Answer(readings.unembed[0, 0, read], readings.unembed_ablated[0, 0][..., read], readings.logit_ablated[0, 0])


def hydrascope_sweep(model: PreTrainedModel, shape: Shape, work: Work) -> Tool:
    """`hydrascope.sweep` from token ids to an xarray dataset: clean runs, drawing of patches, checks and all.

    It draws its patches itself, the same ones where it is given all the prompts of the task.
    """
    language_model = hs.models.LanguageModel(model)
    read = [str(component) for component in work.read(shape)]

    def tool(prompts: Sequence[Prompt], ablated: Sequence[int]) -> list[Answer]:
        tokens = [prompt.tokens.tolist() for prompt in prompts]
        results = hs.sweep(language_model, tokens, ablate=work.ablate, read=work.ablate, at=work.at, keep="patches")
        return dataset_answers(results.sel(component=read))

    return tool


def dataset_answers(results: xr.Dataset) -> list[Answer]:
    """Each prompt's answer out of a result."""
    one = results.isel(readout=0)
    variables = (one["unembed"], one["unembed_ablated_by_patch"], one["total"] + one["logit"])
    return [
        Answer(*(torch.from_numpy(values[index].values) for values in variables))
        for index in range(one.sizes["prompt"])
    ]
