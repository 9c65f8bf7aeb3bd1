"""Fused kernels attend as the written-out scores do."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hydrascope.engines import fused_attention
from hydrascope.engines.attention import AttentionInputs, Prefix, causal_attention, is_causal, row_attention
from hydrascope.engines.causal_blocks import attend_by_blocks


def ignore(block: int, weights: Tensor) -> None:
    """Keep no weights."""


@st.composite
def cases(draw: Any) -> tuple[Prefix, AttentionInputs]:
    """Rows of prompts of several lengths, with grouped heads, some of them frozen, and any suffix."""
    kv_heads, group, rows, width = (draw(st.integers(1, 3)) for _ in range(4))
    last = torch.tensor(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)))
    reach = draw(st.sampled_from([0, 1, 1, 6]))
    first = torch.tensor([max(int(each) - draw(st.integers(0, reach)), 0) for each in last])
    prefix, longest = Prefix.of(last, first[:, None], torch.device("cpu")), int(last.max()) + 1
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def random(*shape: int) -> Tensor:
        return torch.randn(len(last), *shape, dtype=torch.float64, generator=generator) * 3

    window = draw(st.sampled_from([None, None, 2, 3]))
    sees = torch.ones(longest, longest, dtype=torch.bool).tril()
    sees &= torch.ones_like(sees).triu(1 - window) if window else True
    mask = sees[None, None] & (torch.arange(longest) <= last[:, None])[:, None, None]
    clean = [random(heads, longest, width) for heads in (kv_heads * group, kv_heads, kv_heads)]
    causal_attention(prefix)(AttentionInputs(0, *clean, mask, 0.7))
    own = [kv_heads * draw(st.sampled_from([1, group])) for _ in range(2)]
    rows *= prefix.length
    shown = [random(heads, rows, width) for heads in (kv_heads * group, *own)]
    return prefix, AttentionInputs(0, *shown, mask, 0.7)


def real(prefix: Prefix, out: Tensor) -> Tensor:
    """Zero the positions of padding, which nothing reads."""
    there = prefix.own[0].diagonal(dim1=1, dim2=2)[:, None, None, :, None]
    return torch.where(there, out.unflatten(2, (-1, prefix.length)), 0.0)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_rows_attend_as_by_written_out_scores(case: tuple[Prefix, AttentionInputs]) -> None:
    prefix, inputs = case
    expected = row_attention(prefix, ignore)(inputs)
    found = fused_attention.fused_row_attention(prefix)(inputs)
    torch.testing.assert_close(real(prefix, found), real(prefix, expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("before", "length"), [(5, 1), (5, 3), (0, 4)])
def test_a_kernel_is_used(before: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    last = torch.full((2,), before + length - 1)
    prefix = Prefix.of(last, torch.full((2, 1), before), torch.device("cpu"))
    mask = torch.ones(1, 1, before + length, before + length, dtype=torch.bool).tril().expand(2, -1, -1, -1)
    clean = torch.randn(2, 4, before + length, 8)
    causal_attention(prefix)(AttentionInputs(0, clean, clean[:, :2], clean[:, 2:], mask, 0.3))
    rows = torch.randn(2, 4, 3 * length, 8)
    inputs = AttentionInputs(0, rows, rows[:, :2], rows[:, 2:], mask, 0.3)
    expected = row_attention(prefix, ignore)(inputs)
    monkeypatch.setattr(fused_attention, "row_attention", lambda *_: pytest.fail)
    torch.testing.assert_close(fused_attention.fused_row_attention(prefix)(inputs), expected)


def test_a_plain_mask_is_told_from_others() -> None:
    plain = torch.ones(2, 4, 4, dtype=torch.bool).tril()
    assert is_causal(plain)
    padded = plain.clone()
    padded[1, :, 2:] = False
    assert is_causal(padded)
    windowed = plain & torch.ones(4, 4, dtype=torch.bool).triu(-1)
    assert not is_causal(windowed)
    assert not is_causal(torch.ones(1, 4, 4, dtype=torch.bool))


def attended(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention with written-out scores, and the logarithm of its normaliser."""
    scores = query @ key.transpose(-1, -2) * 0.7
    scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


@pytest.mark.parametrize("length", [1, 199, 250, 1030])
def test_blocks_attend_as_the_whole(length: int) -> None:
    query, key, value = torch.randn(3, 1, 2, length, 3, dtype=torch.float64)
    blocks: list[int] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        blocks.append(q.shape[2])
        return fused_attention._flash(q, k, v, 0.7, mask, causal=mask is None)

    found = attend_by_blocks(query, key, value, attend)
    torch.testing.assert_close(found, attended(query, key, value))
    assert blocks == {250: [125, 125]}.get(length, [length])


def test_clean_passes_of_long_prompts_attend_causally() -> None:
    prefix = Prefix.of(torch.tensor([249]), torch.tensor([[249]]), torch.device("cpu"))
    query, key, value = torch.randn(3, 1, 4, 250, 3, dtype=torch.float64)
    mask = torch.ones(1, 1, 250, 250, dtype=torch.bool).tril()
    found = causal_attention(prefix)(AttentionInputs(0, query, key[:, :2], value[:, :2], mask, 0.7))
    expected, _ = attended(query, *(each[:, :2].repeat_interleave(2, 1) for each in (key, value)))
    torch.testing.assert_close(found, expected)
