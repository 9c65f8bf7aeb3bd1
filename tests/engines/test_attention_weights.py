"""Attention weights of both engines, against transformers' own eager attention and against formulas."""

import pytest
import torch
from asked import PLACES, heads, request
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tiny, tolerance

from hydrascope.components.component import Override
from hydrascope.engines import ENGINES, choose_engine, reference, wavefront
from hydrascope.engines.wavefront import row_weights
from hydrascope.models.hooks import by_prompt
from hydrascope.utils.errors import HydrascopeError

FAST = [case for case in CONFIGS if shared(case).anatomy.supports_wavefront]
SOMEWHERE = [(case, PLACES[number % len(PLACES)]) for number, case in enumerate(FAST)]
#: The last two of these are branches of the wavefront where they are asked together.
RUNS = ["attn.0", "mlp.1", "attn.1", "attn.2", "head.0.1+head.1.2", "attn.0+mlp.1", "attn.0|mlp.0", "head.0.3|attn.1"]
RUNS += ["mlp.0|attn.1|mlp.1|attn.2|mlp.2", "mlp.0|attn.1|mlp.1|mlp.2", "mlp.0|mlp.1|attn.2|mlp.2"]


@torch.no_grad()
def eager(model, asked, index, override, patch):
    """Weights at the last position, `[block, head, position]`, by a pass of one prompt alone, with hooks of its own."""
    ids, wanted = asked.tokens[index], set(asked.positions[index].tolist())
    slots = {position: asked.positions[index].tolist().index(position) for position in wanted}

    def run(changes, noted):
        handles = []
        for sublayer in model.sublayers:
            inside, whole = (
                model.projection(sublayer).module if model.is_dense(sublayer) else None,
                model.output(sublayer),
            )

            def at_units(module, inputs, sublayer=sublayer):
                values = inputs[0].clone()
                rows = by_prompt(values, 1)[0]
                for component in changes:
                    if component.is_unit and component.sublayer == sublayer:
                        write(rows, component, changes[component])
                noted[sublayer, "units"] = rows.clone()
                return (values, *inputs[1:])

            def at_output(module, inputs, output, sublayer=sublayer):
                values = (output[0] if isinstance(output, tuple) else output).clone()
                if sublayer in changes:
                    write(by_prompt(values, 1)[0], sublayer, changes[sublayer])
                noted[sublayer] = by_prompt(values, 1)[0].clone()
                return (values, *output[1:]) if isinstance(output, tuple) else values

            if inside is not None:
                handles.append(inside.register_forward_pre_hook(at_units))
            handles.append(whole.register_forward_hook(at_output))
        config, row = model.hf.config, torch.tensor([ids])
        own = config._attn_implementation
        try:
            with model.measuring():
                before = model.hf.base_model(row, use_cache=False).last_hidden_state
                config._attn_implementation = "eager"
                found = model.hf.base_model(row, use_cache=False, output_attentions=True)
        finally:
            config._attn_implementation = own
            for handle in handles:
                handle.remove()
        # It is the same model: asked for weights, some leave out the mask unless they are eager from the start.
        torch.testing.assert_close(found.last_hidden_state, before, atol=1e-4, rtol=0)
        return torch.stack([weights[0, :, -1] for weights in found.attentions])

    def write(rows, component, change):
        columns = model.columns(component)
        if isinstance(change, dict):
            for position, value in change.items():
                rows[position, columns] = value
        else:
            rows[:, columns] = change

    clean: dict = {}
    run({}, clean)
    changes: dict = {c: {p: asked.values(c)[index, patch, slots[p]] for p in wanted} for c in override.ablated}
    for c in override.frozen:
        changes[c] = clean[c] if c.sublayer == c else clean[c.sublayer, "units"][:, model.columns(c)]
    return run(changes, {})


def engines_of(case):
    return list(ENGINES) if case in FAST else ["reference"]


@pytest.mark.parametrize(
    ("case", "at", "engine"),
    rest_slow(
        [(case, at, engine) for case in CONFIGS for at in ("last", "all") for engine in engines_of(case)],
        ("llama", "gpt_oss", "bloom"),
    ),
)
def test_weights_are_those_of_eager_attention(case, at, engine):
    """Grouped queries, windows, soft-caps and sinks; prompts of several lengths."""
    model = tiny(case)
    runs = RUNS[:8]
    asked = request(model, runs, (7, 3), at)
    chosen = heads(model)
    if case == "falcon-sequential":
        # transformers' sdpa attention leaves out ALiBi without padding, its eager attention doesn't.
        with pytest.raises(HydrascopeError, match="its eager attention gives other outputs than its own"):
            choose_engine(model, engine).attention_weights(model, asked, chosen)
        model.hf.config._attn_implementation = "eager"
    clean, ablated = choose_engine(model, engine).attention_weights(model, asked, chosen)
    assert clean.shape == (2, len(chosen), 7)
    assert ablated.shape == (2, len(runs), 2, len(chosen), 7)
    # Eager attention takes its softmax in float32 for most architectures.
    close = {"atol": max(tolerance(case), 1e-6), "rtol": 0}
    for index, ids in enumerate(asked.tokens):
        assert not clean[index, :, len(ids) :].any()
        assert not ablated[index, ..., len(ids) :].any()
        own = eager(model, asked, index, Override(()), 0).flatten(0, 1)
        torch.testing.assert_close(clean[index, :, : len(ids)], own.to(clean.dtype), **close)
        for number, override in enumerate(asked.overrides):
            own = eager(model, asked, index, override, 1).flatten(0, 1)
            torch.testing.assert_close(ablated[index, number, 1, :, : len(ids)], own.to(clean.dtype), **close)
    # An ablation changes the weights of later blocks alone.
    per_block = len(chosen) // 3
    own, later = ablated[:, 0].split([per_block, 2 * per_block], 2)
    torch.testing.assert_close(own, clean[:, None, :per_block].expand_as(own), atol=1e-12, rtol=0)
    assert not torch.allclose(later, clean[:, None, per_block:], atol=1e-3)


@pytest.mark.parametrize(("case", "at"), rest_slow(SOMEWHERE))
def test_engines_agree(case, at):
    model = shared(case)
    runs = [
        *RUNS,
        "attn.0|query.1.1",
        "attn.0|key.1.2|key.2.0",
        "head.0.1|query.2.1|value.2.1",
        "attn.0|attn.1|query.2.3",
    ]
    asked = request(model, runs, (8, 3, 1), at)
    chosen = heads(model)[::-2]
    fast = wavefront.attention_weights(model, asked, chosen)
    for one, other in zip(fast, reference.attention_weights(model, asked, chosen), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance(case), rtol=0)


def test_a_window_hides_and_a_sink_takes():
    model = shared("gpt_oss")
    clean, ablated = choose_engine(model).attention_weights(model, request(model, ["attn.0"], (7,)), heads(model))
    in_window = clean[0, 4:8]
    assert not in_window[:, :4].any()
    assert (in_window[:, 4:] > 0).all()
    assert (clean[0, :4] > 0).all()
    for weights in (clean, ablated):
        assert (weights.sum(-1) < 0.999).all()
    gemma = shared("gemma2")
    clean, _ = choose_engine(gemma).attention_weights(gemma, request(gemma, ["attn.0"], (7,)), heads(gemma))
    assert not clean[0, 4:8, :4].any()
    torch.testing.assert_close(clean.sum(-1), torch.ones_like(clean.sum(-1)))


def rows_by_formula(model, ids, block, query_of, key_of):
    """The softmax of products of queries and keys, of one head: heads of 8 columns."""
    found = {}
    attention = model.blocks[block].attn if model.name == "gpt2" else model.blocks[block].self_attn
    parts = ["c_attn"] if model.name == "gpt2" else ["q_proj", "k_proj"]
    handles = [
        getattr(attention, name).register_forward_hook(
            lambda module, inputs, output, name=name: found.__setitem__(name, output[0])
        )
        for name in parts
    ]
    with model.measuring():
        model.hf.base_model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    query, key = found["c_attn"][:, :64].split(32, 1) if model.name == "gpt2" else (found["q_proj"], found["k_proj"])
    return (key[:, key_of] @ query[-1, query_of] / 8**0.5).softmax(-1)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_weights_are_softmax_of_products_of_queries_and_keys(engine):
    """Compute softmax(q·k) of a gpt2, and of a block without rotary positions whose heads share keys in pairs."""
    for case, block, shared_by in (("gpt2", 0, 1), ("gpt2", 2, 1), ("smollm3", 1, 2)):
        model = shared(case)
        asked = request(model, ["mlp.0"], (6,))
        clean, _ = choose_engine(model, engine).attention_weights(model, asked, heads(model))
        for head in range(4):
            columns, key = slice(8 * head, 8 * head + 8), head // shared_by
            expected = rows_by_formula(model, asked.tokens[0], block, columns, slice(8 * key, 8 * key + 8))
            torch.testing.assert_close(clean[0, 4 * block + head], expected, atol=tolerance(case), rtol=0)


def test_heads_of_a_group_in_the_wrong_order_are_caught(monkeypatch):
    """A planted fault: heads that share keys stand in turns, not side by side."""
    take = row_weights.RowWeights.take_weights

    def mixed(self, block, weights):
        take(self, block, weights.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2))

    monkeypatch.setattr(row_weights.RowWeights, "take_weights", mixed)
    with pytest.raises(AssertionError):
        test_weights_are_softmax_of_products_of_queries_and_keys("wavefront")
    with pytest.raises(AssertionError):
        test_weights_are_those_of_eager_attention("llama", "last", "wavefront")
