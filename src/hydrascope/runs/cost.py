"""Estimate a run before it starts: operations, time on this machine, memory and disk.

Operations are counted from the schedule. Time follows from the rate of a small part of the run, which is made with
patches of zeros, since no time depends on the values.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch

from hydrascope.ablations.ablation import Ablation
from hydrascope.components.component import Component, Override
from hydrascope.engines import Request
from hydrascope.engines.clean.activations import padded_positions
from hydrascope.engines.clean.opening import opening_length
from hydrascope.engines.clean.prefix import compute_prefix
from hydrascope.engines.clean.prefix_store import FILE_BYTES
from hydrascope.engines.interface import sites_read
from hydrascope.engines.readouts import Readouts
from hydrascope.engines.wavefront.schedule import schedule
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.assemble import stored_dtype
from hydrascope.runs.batches import BATCHES_PER_CHUNK, batches
from hydrascope.runs.config import BatchSize, SweepConfig, SweepOptions
from hydrascope.runs.parts import stretches, written
from hydrascope.runs.plan import Plan, make_plan, nowhere
from hydrascope.storage.reader import split_range

#: Seconds that the timed part of the run takes at least.
_SECONDS = 1.0


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
        flop: floating-point operations in products of rows with weights, keys and values; a multiply-add is two.
        seconds: of these operations here, without loading the model and estimating the rounding.
        timed: the numbers of prompts and ablations that the rate was measured on.
        memory: bytes at a time, beside the weights, estimated from above.
        weights: bytes of the weights, and of copies of them in bfloat16.
        disk: bytes of the result before compression.
        meanwhile: the most bytes that clean passes take on disk while the run lasts.
    """

    flop: float
    seconds: float
    timed: tuple[int, int]
    memory: float
    weights: float
    disk: float
    meanwhile: float

    @property
    def line(self) -> str:
        """Return all of it in a line."""
        prompts, ablations = self.timed
        return (
            f"about {_amount(self.flop, 1000, 'FLOP')}, {_duration(self.seconds)} here (timed on {prompts:,} prompts "
            f"and {ablations:,} ablations), {_amount(self.memory, 1024, 'B')} of memory beside the "
            f"{_amount(self.weights, 1024, 'B')} of the weights, and up to {_amount(self.disk, 1024, 'B')} on disk, "
            f"{_amount(self.meanwhile, 1024, 'B')} more while it lasts"
        )


@takes_any_model
def cost(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    batch_size: BatchSize = "auto",
    **options: Unpack[SweepOptions],
) -> Cost:
    """Estimate time, memory and disk of a sweep; a second or two of it is run to find out.

        >>> print(hs.cost(model, hs.load_prompts("counterfact"), ablate="heads").line)       # doctest: +SKIP

    Args:
        options: of `hydrascope.sweep`.

    Raises:
        HydrascopeError: as `hydrascope.sweep` with these options, as far as that shows before anything is measured.
    """
    plan = make_plan(model, prompts, ablation, SweepConfig(**options))
    return cost_of(plan, plan.batch(batch_size))


def cost_of(plan: Plan, batch: Batch) -> Cost:
    """Return the cost of a plan.

    Raises:
        HydrascopeError: its patches can't be drawn.
    """
    plan.require_drawable()
    every = range(len(plan.tokens))
    together = [written(plan.overrides[some]) for some in stretches(plan.overrides, batch.overrides)]
    flop = sum(count_operations(plan, every, overrides) for overrides in together) + _clean_operations(plan, batch)
    rate, timed = _rate(plan, batch)
    memory = plan.memory
    on_disk = memory.activation_bytes if memory.activations_on_disk else 0
    shared, spare = _shared_bytes(plan), memory.spare_bytes(batch)
    numbers = {name: math.prod(plan.sizes[dim] for dim in dims) for name, dims in plan.measured_variables.items()}
    return Cost(
        flop,
        flop / rate,
        timed,
        memory.batch_bytes(batch) + memory.activation_bytes - on_disk + min(shared, spare),
        sum(parameter.nbytes for parameter in plan.model.hf.parameters()) + memory.copied_bytes,
        sum(number * np.dtype(stored_dtype(plan, name)).itemsize for name, number in numbers.items()),
        on_disk + min(max(shared - spare, 0), _file_bytes(plan.model)),
    )


def _file_bytes(model: LanguageModel) -> int:
    """Return the bytes of prefixes that a file may hold: none on a GPU."""
    return FILE_BYTES if model.device.type == "cpu" else 0


def _shared_bytes(plan: Plan) -> float:
    """Return an upper bound of the bytes of all prefixes, from the longest prompt."""
    if plan.engine.name != "wavefront":
        return 0
    longest = max(range(len(plan.tokens)), key=lambda index: len(plan.tokens[index]))
    asked = request(plan, [longest], plan.overrides[:1])
    with torch.no_grad():
        sites = dict.fromkeys((*sites_read(plan.model, plan.units, plan.overrides), *plan.sites))
        one = compute_prefix(plan.model, asked.tokens, asked.positions, sites, plan.routines)
    return len(plan.tokens) * one.nbytes


def count_operations(plan: Plan, prompts: Sequence[int], overrides: Sequence[Override]) -> float:
    """Return the FLOP of some overrides of some prompts, clean passes included."""
    first = [_Read(len(plan.tokens[index]), plan.positions[index].positions[0], 1) for index in prompts]
    # Answers of several tokens are read in a second pass.
    answers = zip(prompts, plan.answers_of(prompts), strict=False)
    second = [
        _Read(plan.lengths[index], plan.positions[index].positions[0], len(answer))
        for index, answer in answers
        if len(answer) > 1
    ]
    return _count_pass(plan, first, overrides, predicts=bool(plan.metrics)) + _count_pass(plan, second, overrides)


@dataclass(frozen=True)
class _Read:
    """Describe a prompt of a pass.

    Attributes:
        length: the number of its tokens.
        ablated: its first ablated position.
        points: the number of positions at which logits are computed.
    """

    length: int
    ablated: int
    points: int


def _count_pass(plan: Plan, prompts: Sequence[_Read], overrides: Sequence[Override], *, predicts: bool = True) -> float:
    """Return the FLOP of a pass; `predicts` says whether the wavefront engine computes logits."""
    model, patches = plan.model, plan.ablation.patches
    flop = sum(_through(model, each.length, each.length) for each in prompts)
    predicted = 2 * sum(each.points for each in prompts) * model.unembedding.weight.numel()
    if plan.engine.name == "reference":
        return float((len(overrides) * patches + 2) * (flop + predicted))
    for sublayer, (before, after) in _rows(model, overrides, patches).items():
        for each in prompts:
            flop += (each.length - each.ablated) * _sublayer_flop(model, sublayer, before, after, each.length)
    return float(flop + predicts * predicted * (len(overrides) * patches + 1))


def _clean_operations(plan: Plan, batch: Batch) -> float:
    """Return the FLOP of clean passes less those counted with rows, and of predicting targets."""
    model = plan.model
    predicted = float(2 * len(plan.tokens) * model.unembedding.weight.numel())
    clean = sum(_through(model, len(ids), len(ids)) for ids in plan.tokens)
    if plan.engine.name == "reference":
        return clean + predicted
    keys = 2 * len(model.blocks) * model.dtype.itemsize * model.width * sum(map(len, plan.tokens))
    room = plan.memory.spare_bytes(batch) + _file_bytes(model)
    # A pass whose keys and values find no room is made again; passes over rows share it.
    made, counted = 1 if keys <= room else 2, sum(1 for _ in stretches(plan.overrides, batch.overrides))
    chunks = split_range(len(plan.tokens), batch.prompts * BATCHES_PER_CHUNK)
    together = (prompts for chunk in chunks for prompts in batches(plan, chunk, batch.prompts))
    shared = sum(count_shared(plan, prompts) for prompts in together)
    return made * (clean - shared) - counted * clean + predicted


def count_shared(plan: Plan, prompts: Sequence[int]) -> float:
    """Return the FLOP that a batch saves by running its prompts' equal first tokens once."""
    if plan.engine.name != "wavefront":
        return 0.0
    tokens = [plan.tokens[index] for index in prompts]
    suffix = max(len(plan.tokens[index]) - plan.positions[index].positions[0] for index in prompts)
    length = opening_length(plan.model, tokens, suffix)
    return float(sum(_through(plan.model, length, len(ids)) for ids in tokens[1:]))


def _through(model: LanguageModel, tokens: int, length: int) -> float:
    """Return the FLOP of tokens through all sublayers, each attending to `length` positions."""
    return tokens * sum(_sublayer_flop(model, sublayer, 1, 1, length) for sublayer in model.sublayers)


def _sublayer_flop(model: LanguageModel, sublayer: Component, before: int, after: int, length: int) -> float:
    """Return the FLOP of one position of rows in a sublayer.

    Args:
        before, after: the number of rows before and after the site of its units.
    """
    whole = model.attention(sublayer.block) if sublayer.kind == "attn" else model.blocks[sublayer.block]
    weights = sum(parameter.numel() for parameter in whole.parameters() if parameter.ndim > 1)
    if sublayer.kind == "mlp":
        attention = model.attention(sublayer.block).parameters()
        weights -= sum(parameter.numel() for parameter in attention if parameter.ndim > 1)
    if not model.is_dense(sublayer):
        config: Any = model.config
        experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
        return 2 * before * weights * getattr(config, "num_experts_per_tok", experts) / experts
    projection = model.projection(sublayer)
    out = projection.units * projection.width * model.width
    attended = 4 * length * projection.units * projection.width if sublayer.kind == "attn" else 0
    return before * (2 * (weights - out) + attended) + after * 2 * out


def _rows(model: LanguageModel, overrides: Sequence[Override], patches: int) -> dict[Component, tuple[int, int]]:
    """Return the number of rows in each sublayer, before and after the site of its units."""
    plan = schedule(model, overrides)
    rows: dict[Component, tuple[int, int]] = {}
    for sublayer, events in plan.events.items():
        stage = model.stage(sublayer)
        # Rows with frozen inputs of heads join before the block; both its sublayers may be of one stage.
        inputs = [
            group for other, each in plan.events.items() if model.stage(other) == stage for group in each.at_inputs
        ]
        joined = sum(group.start < stage for group in plan.groups[1:]) + len(inputs)
        rows[sublayer] = 1 + joined * patches, 1 + (joined + len(events.at_units)) * patches
    return rows


def _rate(plan: Plan, batch: Batch) -> tuple[float, tuple[int, int]]:
    """Return the FLOP/s of a part of the run, and its numbers of prompts and ablations."""
    # Of the middle length, so that a part is like the whole.
    order = sorted(range(len(plan.tokens)), key=lambda index: len(plan.tokens[index]))
    prompts, ablations, warm = 1, 1, False
    while True:
        first = max(0, (len(order) - prompts) // 2)
        chosen = order[first : first + prompts]
        overrides = [plan.overrides[plan.whole[place * len(plan.whole) // ablations]] for place in range(ablations)]
        start = time.perf_counter()
        plan.engine.measure(plan.model, request(plan, chosen, overrides))
        if plan.model.device.type == "cuda":
            torch.cuda.synchronize(plan.model.device)
        seconds = time.perf_counter() - start
        largest = (prompts, ablations) == (min(batch.prompts, len(order)), batch.overrides)
        if warm and (largest or seconds > _SECONDS):
            done = count_operations(plan, chosen, overrides) - count_shared(plan, chosen)
            return done / seconds, (prompts, ablations)
        if warm:
            prompts = min(2 * prompts, batch.prompts, len(order)) if ablations == batch.overrides else prompts
            ablations = min(4 * ablations, batch.overrides)
        warm = True


def request(plan: Plan, prompts: Sequence[int], overrides: Sequence[Override]) -> Request:
    """Some runs of some prompts, patched by zeros."""
    positions = torch.from_numpy(padded_positions(plan.positions, prompts))

    def zeros(component: Component) -> torch.Tensor:
        columns = len(range(plan.model.site_width(component.site))[plan.model.columns(component)])
        return torch.zeros(len(prompts), plan.ablation.patches, positions.shape[1], columns, dtype=plan.model.dtype)

    return Request(
        [plan.tokens[index] for index in prompts],
        positions,
        tuple(overrides),
        plan.ablation.patches,
        zeros,
        plan.units,
        Readouts.of(plan.model, plan.readouts, nowhere(plan), prompts),
        plan.metrics,
        torch.zeros(len(prompts), dtype=torch.long),
        plan.routines,
        answers=plan.answers_of(prompts),
        products=plan.products,
    )


def _amount(number: float, base: int, unit: str) -> str:
    """`number` with a prefix: 3.1 TFLOP, 1.5 GiB."""
    prefixes = ["", "k", "M", "G", "T", "P", "E"] if base == 1000 else ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
    power = min(int(math.log(max(number, 1), base)), len(prefixes) - 1)
    return f"{_two_digits(number / base**power)} {prefixes[power]}{unit}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{max(seconds, 1):.0f} s"


def _two_digits(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"
