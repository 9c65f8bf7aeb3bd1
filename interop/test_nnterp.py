"""nnterp: `StandardizedTransformer`."""

import pytest
import torch
from nnterp import StandardizedTransformer

from interop.checks import TOKENS, model_of, require_same, tokenizer, unchanged


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_a_standardised_model_is_measured_as_the_plain_one(case: str) -> None:
    given = StandardizedTransformer(model_of(case), tokenizer=tokenizer())
    with given.trace(torch.tensor(TOKENS[:1])):
        before = given.layers_output[1].save()
    with unchanged(given._module):
        model = require_same(given, model_of(case), atol=1e-9)
    assert model.tokenizer is given.tokenizer
    with given.trace(torch.tensor(TOKENS[:1])):
        after = given.layers_output[1].save()
    assert torch.equal(before, after)
