"""nnsight: `LanguageModel` and `NNsight`."""

from pathlib import Path
from typing import Any

import nnsight
import pytest
import torch

import hydrascope as hs
from interop import guides
from interop.checks import TOKENS, model_of, require_same, tokenizer, unchanged


@pytest.mark.parametrize("wrap", [nnsight.NNsight, nnsight.LanguageModel])
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_a_wrapped_model_is_measured_as_the_plain_one(case: str, wrap: Any) -> None:
    options = {"tokenizer": tokenizer()} if wrap is nnsight.LanguageModel else {}
    given = wrap(model_of(case), **options)
    with given.trace(torch.tensor(TOKENS[:1])):
        before = given.lm_head.output.save()
    with unchanged(given._module):
        model = require_same(given, model_of(case), atol=1e-9)
    assert model.tokenizer is options.get("tokenizer")
    with given.trace(torch.tensor(TOKENS[:1])):
        after = given.lm_head.output.save()
    assert torch.equal(before, after)


def test_prompts_are_read_by_its_tokenizer() -> None:
    given = nnsight.LanguageModel(model_of("gpt2"), tokenizer=tokenizer())
    assert list(hs.sweep(given, ["the cat"], hs.Zero(), ablate="attn")["text"].values) == ["the cat"]


def test_the_guide_gives_the_same_numbers_twice(tmp_path: Path) -> None:
    guides.require_same("from-nnsight.md", tmp_path)
