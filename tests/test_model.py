"""A loaded model knows its parts."""

import pytest
import torch
from tiny import CONFIGS, tiny

from hydrascope.components import Component
from hydrascope.model import padded


def test_downstream():
    sequential, parallel = tiny("llama"), tiny("gpt_neox")
    attn, mlp = Component(2, "attn"), Component(2, "mlp")
    assert sequential.downstream(attn) == (mlp,)
    assert parallel.downstream(attn) == ()
    assert sequential.downstream(mlp) == parallel.downstream(mlp) == ()
    assert len(sequential.downstream(Component(0, "attn"))) == 5
    assert len(parallel.downstream(Component(0, "mlp"))) == 4


@pytest.mark.parametrize("case", list(CONFIGS))
def test_context_length(case):
    # Bloom's positions are distances: it sets no limit.
    assert tiny(case).context_length == (None if case == "bloom" else 64)


def test_padding():
    ids, last = padded([[5, 6, 7], [8]], torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert last.tolist() == [2, 0]
