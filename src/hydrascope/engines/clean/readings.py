"""Read texts without an ablation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.readouts import FINAL, Readouts, final_scale
from hydrascope.models.language_model import LanguageModel


@torch.no_grad()
def clean_readings(
    model: LanguageModel, tokens: Sequence[Sequence[int]], readouts: Readouts
) -> Float[Tensor, "readout prompt"]:
    """Return what the readouts of some prompts read of other texts, at their last positions.

    Args:
        model: the language model.
        tokens: the token ids of a text for each prompt.
        readouts: the prompts' own readouts.
    """
    found = compute_clean_pass(model, tokens, model.sublayers if readouts.blocks else ())
    values = readouts.constants.new_zeros(len(tokens), len(readouts.rows))
    for block in (FINAL, *readouts.blocks):
        stream = found.final
        if block != FINAL:
            # The residual stream that enters a block is what was written below it.
            stream = found.embed + found.written(model)[:, [c.block < block for c in model.sublayers]].sum(1)
        if numbers := readouts.read_before(block):
            values[:, numbers] = readouts.select(numbers).read(stream[:, None])[:, 0]
    return (readouts.rescale(values, final_scale(model, found.final)) + readouts.constants).T
