"""A sweep stays on its device: no tensor is made elsewhere, and nothing is read back before its end.

Here without any device: on PyTorch's meta device tensors have no values, so that whoever asks for one fails, and the
operations of a sweep are looked at one by one.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from asked import request, several_readouts
from one_device import ANSWERS, ASIDES, METRICS, PLACED, RUNS, OneDevice, on_meta, some_units
from rest_slow import rest_slow
from tiny import tiny

from hydrascope.engines import wavefront
from hydrascope.engines.readouts import Readouts, Tokens
from hydrascope.models.language_model import LanguageModel


@pytest.mark.parametrize(("case", "at"), rest_slow(PLACED, ("llama", "gemma2", "gpt_neox")))
def test_a_sweep_stays_on_its_device(case: str, at: str) -> None:
    # transformers multiplies experts in groups on the meta device, which takes bfloat16 there.
    real = tiny(case, torch.bfloat16)
    model = LanguageModel(on_meta(real.hf), name=case)
    runs = RUNS if real.parallel else RUNS + ASIDES
    asked = request(real, runs, (5, 7), at, units=some_units(real), metrics=METRICS, answers=ANSWERS)
    spoken = Tokens([1, 2], [3, 4], [5, 6])
    asked = replace(asked, readouts=Readouts.of(model, several_readouts(model), spoken, range(2)), routines={})
    with OneDevice():
        found = wavefront.measure(model, asked)
    assert found.logit_ablated.device.type == "meta"
    assert found.unembed_ablated.shape[1:4] == (2, len(runs), asked.patches)


def test_what_is_made_elsewhere_or_read_back_is_found() -> None:
    model = LanguageModel(on_meta(tiny("gpt2", torch.bfloat16).hf))
    asked = replace(request(tiny("gpt2", torch.bfloat16), RUNS), routines={})
    asked = replace(
        asked, readouts=Readouts.of(model, several_readouts(model), Tokens([1, 2], [3, 4], [5, 6]), range(2))
    )

    def measured(change: Any) -> None:
        handle = model.blocks[1].register_forward_hook(lambda module, args, output: change(output))
        try:
            with OneDevice():
                wavefront.measure(model, asked)
        finally:
            handle.remove()

    measured(lambda output: None)
    with pytest.raises(AssertionError, match="takes tensors of"):
        measured(lambda output: output[torch.arange(len(output))])
    with pytest.raises(RuntimeError, match="item"):
        measured(lambda output: output * float(output.max()))
