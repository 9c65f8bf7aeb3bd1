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
    scale = final_scale(model, found.final)
    values = []
    for readout in readouts.rows:
        stream = found.final
        if readout.before != FINAL:
            # The residual stream that enters a block is what was written below it.
            stream = found.embed + found.written(model)[:, [c.block < readout.before for c in model.sublayers]].sum(1)
        read = (stream.to(readout.direction.dtype) * readout.direction).sum(-1)
        values.append(read / scale + readout.constant if readout.before == FINAL else read)
    return torch.stack(values)
