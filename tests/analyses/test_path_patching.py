"""Path patching against forward passes written out with hooks of their own; on the phantom; by identities."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from rest_slow import rest_slow
from tiny import tiny

import hydrascope as hs
from hydrascope.models import phantom
from hydrascope.models.hooks import on_site
from hydrascope.utils.errors import HydrascopeError

PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12]]


def centred(model, ids, at, write=None):
    """The model's centred logits, and what stands at each site, with `write` (site, hidden) on the way."""
    seen, sites = {}, [*model.sublayers, *(hs.Component(block, "head") for block in range(3))]

    def visit(site, hidden):
        hidden = hidden.clone()
        seen[site] = hidden.view(len(ids), -1).clone()
        if write is not None:
            write(site, hidden.view(len(ids), -1))
        return hidden

    with model.measuring(), ExitStack() as hooks:
        for site in sites:
            hooks.callback(on_site(model, site, lambda hidden, site=site: visit(site, hidden)).remove)
        logits = model.hf(torch.tensor([ids])).logits[0, -1]
    return logits - logits.mean(), seen


def by_hand(model, ids, sender, receiver, at):
    """`frozen` and `free` of one sender, zeroed, and one receiver, by three forward passes."""
    rows = slice(None) if at == "all" else slice(-1, None)
    clean, seen = centred(model, ids, at)
    target = int(clean.argmax())

    def only_sender(site, hidden):
        if site == sender.site:
            hidden[rows, model.columns(sender)] = 0
        elif site in model.sublayers and site != sender.sublayer:
            hidden[:] = seen[site]

    _, carried = centred(model, ids, at, only_sender)

    def receives(held):
        def write(site, hidden):
            if site == receiver.site:
                hidden[rows, model.columns(receiver)] = carried[site][rows, model.columns(receiver)]
            elif held and site in model.sublayers and site != receiver.sublayer:
                hidden[:] = seen[site]

        return write

    return [float((centred(model, ids, at, receives(held))[0] - clean)[target]) for held in (True, False)]


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("case", rest_slow(["gpt2", "llama", "gpt_neox"], ("gpt2", "gpt_neox")))
def test_three_forward_passes(case, at):
    model = tiny(case)
    senders, receivers = ["attn.0", "head.0.2"], ["mlp.1", "head.2.1", "attn.1"]
    found = hs.analyses.path_patching(model, PROMPTS, hs.Zero(), senders=senders, receivers=receivers, at=at)
    for prompt, ids in enumerate(PROMPTS):
        for sender in senders:
            for receiver in receivers:
                one = found.sel(sender=sender, receiver=receiver).isel(prompt=prompt, readout=0)
                expected = by_hand(model, ids, hs.Component.parse(sender), hs.Component.parse(receiver), at)
                np.testing.assert_allclose([float(one["frozen"]), float(one["free"])], expected, atol=2e-6)


@pytest.mark.parametrize("case", rest_slow(["gpt2", "gemma2", "gpt_oss"], ("gpt_oss",)))
def test_both_engines_agree_by_every_input_of_a_head(case):
    model = tiny(case)
    asked = {"senders": "attn.0,mlp.0", "receivers": "query.2.1,key.2.1,value.2.0,head.1.0,logits", "at": "all"}
    fast, plain = (
        hs.analyses.path_patching(model, PROMPTS, hs.Zero(), engine=engine, **asked)
        for engine in ("wavefront", "reference")
    )
    for name in ("frozen", "free"):
        np.testing.assert_allclose(fast[name], plain[name], atol=1e-5)
        assert (abs(fast[name]).sum(["readout", "prompt", "sender"]) > 1e-4).all()


def test_identities():
    model = tiny("gpt2")
    found = hs.analyses.path_patching(
        model, PROMPTS, hs.Resample(1), senders="layers", receivers="layers,logits", target=3
    )
    plain = hs.sweep(model, PROMPTS, hs.Resample(1), ablate="layers", target=3)
    # What goes to the logits directly is the direct effect.
    np.testing.assert_allclose(found["frozen"].sel(receiver="logits"), plain["direct"].mean("patch"), atol=1e-12)
    # Nothing goes upstream, exactly.
    for name in ("frozen", "free"):
        upstream = found[name].where(~found["downstream"], 0)
        assert not upstream.any()
    # What only the logits read has no other way on.
    last = found.sel(receiver="mlp.2")
    np.testing.assert_allclose(last["frozen"], last["free"], atol=1e-12)


def test_on_the_phantom_the_repair_goes_by_the_value():
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(20)
    inputs = [f"{kind}.4.1" for kind in ("query", "key", "value")]
    receivers = [*inputs, "head.4.1", "mlp.3", "mlp.4", "logits"]
    found = hs.analyses.path_patching(model, prompts, hs.Zero(), senders=phantom.SOURCE, receivers=receivers)
    brought = found["free"].isel(readout=0, sender=0).mean("prompt")
    removed = -float(brought.sel(receiver="logits"))
    shares = {str(name): float(brought.sel(receiver=name)) / removed for name in brought["receiver"].values}
    assert shares["head.4.1"] == pytest.approx(phantom.BACKUPS["head.4.1"], abs=0.05)
    assert shares["value.4.1"] == pytest.approx(shares["head.4.1"], abs=1e-3)
    assert shares["mlp.3"] == pytest.approx(phantom.BACKUPS["mlp.3"], abs=1e-2)
    for name in ("query.4.1", "key.4.1", "mlp.4"):
        assert shares[name] == pytest.approx(0, abs=1e-3)


def test_what_cannot_be_asked():
    model = tiny("gpt2")
    with pytest.raises(HydrascopeError, match="path patching can't be at 'subject': give last or all"):
        hs.analyses.path_patching(model, PROMPTS, hs.Zero(), senders="attn", receivers="mlp", at="subject")
    with pytest.raises(HydrascopeError, match=r"neuron\.1\.3 can't be a mediator"):
        hs.analyses.path_patching(model, PROMPTS, hs.Zero(), senders="attn", receivers="neuron.1.3")
