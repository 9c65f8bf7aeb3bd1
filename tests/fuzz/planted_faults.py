"""Plant faults: a fuzzer that finds nothing must show that it would.

The same faults are in `tests/system/test_planted_faults.py`, where hydrascope's own checks find them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sdpa_mask

from hydrascope.engines import attention
from hydrascope.engines.readouts import final_scale
from hydrascope.engines.wavefront import recorder
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.projection import Projection

#: An object, the attribute of it to replace, and the replacement.
Fault = tuple[object, str, Any]


def _longrope_by_batch() -> Fault:
    """Let the longest prompt of a batch choose the rotary table of all."""
    return LanguageModel, "batch_key", lambda self, length: ()


def _wrong_window() -> Fault:
    """Let layers with a window see everything before."""

    def everything(**arguments: Any) -> Tensor | None:
        return sdpa_mask(**{**arguments, "mask_function": causal_mask_function, "allow_is_causal_skip": False})

    return attention, "sdpa_mask", everything


def _soft_cap() -> Fault:
    """Leave scores of attention unbounded."""
    return attention, "capped", lambda scores, softcap: scores


def _bias_to_a_head() -> Fault:
    """Count the projection's bias as the first head's, and the first neuron's."""
    projected = Projection.projected

    def with_bias(self: Projection, values: Tensor, unit: int) -> Tensor:
        bias: Any = self.module.bias
        return projected(self, values, unit) + (bias if unit == 0 and bias is not None else 0)

    return Projection, "projected", with_bias


def _scale_of_another_row() -> Fault:
    """Read each row at the scale of the row before."""

    def rolled(model: LanguageModel, residual: Tensor) -> Tensor:
        scale = final_scale(model, residual)
        # Row 0 is the clean run.
        return torch.cat([scale[:, :1], scale[:, 1:].roll(1, 1)], 1) if residual.ndim == 3 else scale

    return recorder, "final_scale", rolled


FAULTS: dict[str, Callable[[], Fault]] = {
    "longrope": _longrope_by_batch,
    "window": _wrong_window,
    "soft-cap": _soft_cap,
    "bias": _bias_to_a_head,
    "scale": _scale_of_another_row,
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a fault for the length of the context; nothing without a name."""
    if name is None:
        yield
        return
    target, attribute, fault = FAULTS[name]()
    with patch.object(target, attribute, fault):
        yield
