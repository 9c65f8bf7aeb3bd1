"""Soft-capped scores are capped: sdpa leaves the cap out."""

from pathlib import Path

import pytest
import torch
from tiny import save_tiny, tiny

import hydrascope as hs
from hydrascope.loading.soft_cap import attention_to_read
from hydrascope.utils.errors import HydrascopeError


def test_gemma2_is_read_with_eager_attention(tmp_path: Path) -> None:
    model = hs.load_model(save_tiny(tmp_path, "gemma2"))
    assert model.config._attn_implementation == "eager"
    assert attention_to_read(model.config) == {"attn_implementation": "eager"}
    assert attention_to_read(tiny("gemma3_text").config) == {}


def test_an_object_that_leaves_the_cap_out_is_refused() -> None:
    hf = tiny("gemma2", torch.float32).hf
    hf.config._attn_implementation = "sdpa"
    with pytest.raises(HydrascopeError, match=r'leaves out the soft-cap .*: load it with attn_implementation="eager"'):
        hs.load_model(hf)
