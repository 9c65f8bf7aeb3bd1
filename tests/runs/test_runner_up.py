"""The difference to the runner-up of the clean pass, where no prompt has a foil."""

import numpy as np
import pytest
import torch
from plain import Reader, loaded, plain_run

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError

TEXTS = ["the cat", "no", "Hello, world", "a"]
READOUTS = [hs.Logit(), hs.LogitDifference()]


@pytest.mark.parametrize("target", ["argmax", 7])
def test_it_is_that_of_plain_passes(target, tmp_path) -> None:
    model = loaded("gpt2")
    out = tmp_path / "r.zarr"
    hs.sweep(model, TEXTS, hs.Zero(), ablate="attn.1", readouts=READOUTS, target=target, out=out, batch_size=3)
    results = hs.open_results(out)
    for number, text in enumerate(TEXTS):
        ids = model.encode(text)
        clean = plain_run(model, ids)
        first, second = clean.logits.topk(2).indices.tolist()
        token = first if target == "argmax" else target
        rival = second if token == first else first
        here = results.isel(prompt=number)
        assert (int(here["target"]), int(here["runner_up"])) == (token, rival)
        assert str(here["runner_up_text"].values) == model.decode(rival)
        reader = Reader.of_logit(model, token, rival)
        zero = torch.zeros(1, model.width, dtype=torch.float64)
        ablated = plain_run(model, ids, {"attn.1": ([len(ids) - 1], zero)})
        found = here.sel(readout="difference")
        np.testing.assert_allclose(found["logit"], reader.whole(clean), rtol=0, atol=1e-9)
        expected = reader.whole(ablated) - reader.whole(clean)
        np.testing.assert_allclose(found["total"].squeeze(), expected, rtol=0, atol=1e-9)


def test_given_foils_are_read_and_all_are_needed() -> None:
    model = loaded("gpt2")
    pairs = [hs.Prompt("the cat", "a", foil="b"), hs.Prompt("no", "c", foil="d")]
    results = hs.sweep(model, pairs, hs.Zero(), ablate="attn.1", readouts=READOUTS)
    assert "runner_up" not in results
    with pytest.raises(HydrascopeError, match="has no foil: give every prompt one"):
        hs.sweep(model, [pairs[0], hs.Prompt("no", "c")], hs.Zero(), ablate="attn.1", readouts=READOUTS)


def test_an_answer_as_the_target_needs_no_foil() -> None:
    model = loaded("gpt2")
    prompts = [hs.Prompt("the cat", "a"), hs.Prompt("no", "c")]
    results = hs.sweep(model, prompts, hs.Zero(), ablate="attn.1", readouts=READOUTS, target="answer")
    assert (results["runner_up"] != results["target"]).all()


def test_prompts_from_a_generator_are_read_once() -> None:
    results = hs.sweep(loaded("gpt2"), (text for text in TEXTS), hs.Zero(), ablate="attn.1", readouts=READOUTS)
    assert results.sizes["prompt"] == len(TEXTS)
