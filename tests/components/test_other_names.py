"""Names of other tools stand for the components that these tools mean, and others get one clear line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CONFIGS, shared

from hydrascope.components.component import Component
from hydrascope.components.selection import select_overrides
from hydrascope.models.architectures import anatomy_of
from hydrascope.utils.errors import HydrascopeError

named = st.one_of(
    st.builds(Component, st.integers(0, 99), st.sampled_from(["attn", "mlp"])),
    st.builds(Component, st.integers(0, 99), st.sampled_from(["head", "neuron", "query"]), st.integers(0, 9999)),
)


@given(named)
def test_the_name_in_transformer_lens_is_read_back(component):
    assert Component.parse(component.as_transformer_lens()) == component


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("blocks.9.attn.hook_z[6]", "head.9.6"),
        ("blocks.9.attn.hook_result[6]", "head.9.6"),
        ("blocks.9.attn.hook_q[6]", "query.9.6"),
        ("blocks.9.hook_attn_out", "attn.9"),
        ("blocks.9.hook_mlp_out", "mlp.9"),
        ("blocks.5.mlp.hook_post[1203]", "neuron.5.1203"),
        # TransformerBridge
        ("blocks.9.attn.hook_out", "attn.9"),
        ("blocks.9.mlp.hook_out", "mlp.9"),
        ("blocks.5.mlp.out.hook_in[1203]", "neuron.5.1203"),
        ("blocks[9].attn", "attn.9"),
        # nnsight
        ("model.layers[9].self_attn", "attn.9"),
        ("model.model.layers[9].self_attn.output[0]", "attn.9"),
        ("model.layers[9].mlp.output", "mlp.9"),
        ("transformer.h[9].attn", "attn.9"),
        ("transformer.h.11.mlp", "mlp.11"),
        # nnterp
        ("layers[9].mlp", "mlp.9"),
        ("attentions_output[9]", "attn.9"),
        ("model.mlps_output[9]", "mlp.9"),
    ],
)
def test_names_of_other_tools(name, label):
    assert str(Component.parse(name)) == label


@pytest.mark.parametrize("case", CONFIGS)
def test_the_modules_of_every_architecture_name_their_sublayers(case):
    model, anatomy = shared(case), anatomy_of(shared(case).hf.config.model_type)
    modules = {id(module): name for name, module in model.hf.named_modules()}
    for sublayer in model.sublayers:
        block = f"{anatomy.blocks}.{sublayer.block}"
        end = anatomy.attention if sublayer.kind == "attn" else anatomy.mlp_out.split(".")[0]
        if end == "post_feedforward_layernorm":
            end = "mlp"
        for name in (f"{block}.{end}", f"{anatomy.blocks}[{sublayer.block}].{end}"):
            assert Component.parse(name) == sublayer
        found = model.hf.get_submodule(f"{block}.{end}")
        # What writes the sublayer's output is it, or inside of it, or the norm after it.
        output = modules[id(model.output(sublayer))]
        assert output.startswith(modules[id(found)]) or "layernorm" in output


def test_selections_take_them():
    several = "blocks.1.attn.hook_z[2],model.layers[0].mlp, blocks.0.hook_attn_out+mlp.1 ,attn.0|blocks.2.hook_mlp_out"
    labels = [str(override) for override in select_overrides(shared("llama"), several)]
    assert labels == ["head.1.2", "mlp.0", "attn.0+mlp.1", "attn.0|mlp.2"]
    with pytest.raises(HydrascopeError, match=r"llama has no head\.1\.9: attn\.1 has head\.1\.0 to head\.1\.3"):
        select_overrides(shared("llama"), "blocks.1.attn.hook_z[9]")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.9.hook_resid_pre", "names the residual stream, which is no component: write attn.9, mlp.9, or both"),
        ("blocks.9.hook_resid_mid", "names the residual stream"),
        ("blocks.9.hook_out", "names the residual stream"),
        ("model.layers[9]", "names the residual stream"),
        ("model.layers[9].output[0]", "names the residual stream"),
        ("layers_output[9]", "names the residual stream"),
        ("blocks.9.attn.hook_z", "names no single head: give its number alone, as hook_z[6], or write head.9.6"),
        ("blocks.9.attn.hook_z[:, :, 6]", "names no single head: give its number alone"),
        ("blocks.9.attn.hook_z[-1]", "names no single head"),
        ("blocks.5.mlp.hook_post", "names no single neuron: give its number alone, as hook_post[6]"),
        ("blocks.5.mlp.hook_pre[3]", "names neurons before their activation function: write blocks.5.mlp.hook_post[N]"),
        ("blocks.9.attn.hook_k[1]", "names a key or value that several heads may share: write key.9.H or value.9.H"),
        ("blocks.9.attn.o.hook_in[6]", "names a head or a column, depending on the model"),
        ("blocks.9.hook_attn_out[6]", "names no component by its index: write attn.9, or head.9.N for one head"),
        ("model.layers[9].mlp.output[1]", "names no component by its index: write mlp.9, or neuron.9.N for one neuron"),
        ("model.layers[9].post_attention_layernorm", "names nothing that is known in a block: write attn.9, mlp.9"),
        ("blocks.9.attn.hook_pattern", "names nothing that is known in a block"),
        ("layers.1", "is no component of a model: write attn.L"),
        ("hook_embed", "is no component of a model"),
        ("blocks.x.hook_attn_out", "is no component of a model"),
        ("embed.hook_out", "is no component of a model"),
    ],
)
def test_what_names_no_single_component_is_one_line(name, message):
    with pytest.raises(HydrascopeError) as error:
        Component.parse(name)
    assert str(error.value).startswith(repr(name))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["key", "value"])
def test_keys_and_values_have_no_name_in_transformer_lens(kind):
    with pytest.raises(HydrascopeError, match=rf"{kind}\.9\.6 has no name in TransformerLens"):
        Component(9, kind, 6).as_transformer_lens()
