"""How heads and neurons write to the residual stream, against the model's own modules."""

import pytest
import torch
from asked import is_dense
from rest_slow import CORE, rest_slow
from tiny import CONFIGS, shared, tolerance

from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.models.projection import weight_of
from hydrascope.utils.errors import HydrascopeError

#: A linear layer stored `[out, in]` and one stored `[in, out]`, and norms after the layer, with an offset and a bias.
CASES = ["gpt2", "llama", "gemma2", "olmo2-bias", "opt", "deepseek_v3"]


def layers(case: str) -> list[Component]:
    return [
        sublayer for sublayer in shared(case).sublayers if sublayer.kind == "attn" or is_dense(shared(case), sublayer)
    ]


@pytest.mark.parametrize("case", list(CONFIGS))
def test_units_stand_side_by_side_in_what_the_projection_reads(case):
    model = shared(case)
    for sublayer in layers(case):
        projection, units = model.projection(sublayer), model.units(sublayer)
        assert len(units) == projection.units
        assert [unit.unit for unit in units] == list(range(len(units)))
        columns = [column for unit in units for column in range(*model.columns(unit).indices(10**6))]
        assert columns == list(range(weight_of(projection.module).shape[1]))
        assert model.site_width(units[0].site) == len(columns)
        if sublayer.kind == "attn":
            assert len(units) == 4
        else:
            assert projection.width == 1
        assert model.columns(sublayer) == slice(None)
        assert model.site_width(sublayer) == model.width


def test_what_the_units_of_an_architecture_are():
    assert shared("deepseek_v3").projection(Component(0, "attn")).width == 6
    assert shared("qwen3").projection(Component(0, "attn")).width == 8
    assert len(shared("gpt2").units(Component(0, "mlp"))) == 128
    with pytest.raises(HydrascopeError, match=r"mlp\.1 of mixtral is no dense MLP"):
        shared("mixtral").units(Component(1, "mlp"))


@pytest.mark.parametrize("case", rest_slow(CONFIGS, (*CORE, "olmo2")))
@torch.no_grad()
def test_what_units_and_bias_write_adds_up_to_the_layer(case):
    model = shared(case)
    for sublayer in layers(case):
        projection, site = model.projection(sublayer), model.units(sublayer)[0].site
        clean = compute_clean_pass(model, [[5, 6, 7], [8, 9]], [sublayer, site])
        values, whole = clean.values[site], clean.values[sublayer]
        projected = projection.module(values)
        bias = projected - values @ weight_of(projection.module).T
        written = sum(projection.written(values, unit) for unit in range(projection.units))
        total = written + projection.scaled(bias, projected)
        torch.testing.assert_close(total, whole, rtol=0, atol=tolerance(case) * float(whole.abs().max()))
        torch.testing.assert_close(projection.apply_norm(projected), whole, rtol=0, atol=tolerance(case))


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_value_read_where_it_stands_is_what_its_unit_writes_read_in_the_stream(case):
    """⟨v, Wᵀ G a⟩/σ = ⟨y, a⟩."""
    model, generator = shared(case), torch.Generator().manual_seed(0)
    for sublayer in layers(case):
        projection = model.projection(sublayer)
        values = torch.randn(
            3, model.site_width(model.units(sublayer)[0].site), generator=generator, dtype=torch.float64
        )
        direction = torch.randn(model.width, generator=generator, dtype=torch.float64)
        pulled = projection.read_vector(direction)
        scale = 1.0 if projection.norm is None else projection.scale(projection.module(values))
        for unit in (0, projection.units - 1):
            columns = projection.columns(unit)
            found = values[:, columns] @ pulled[columns] / scale
            torch.testing.assert_close(found, projection.written(values, unit) @ direction, rtol=1e-10, atol=1e-10)


def test_a_norm_after_the_layer_scales_and_one_before_the_next_doesn_t():
    assert shared("gemma2").projection(Component(0, "attn")).norm is shared("gemma2").output(Component(0, "attn"))
    assert shared("olmo2").projection(Component(1, "mlp")).norm is shared("olmo2").output(Component(1, "mlp"))
    assert shared("llama").projection(Component(0, "attn")).norm is None
    assert shared("opt").projection(Component(0, "mlp")).norm is None


@pytest.mark.parametrize("case", ["gemma2", "olmo2"])
@torch.no_grad()
def test_the_scale_of_that_norm_is_the_norm_s_own(case):
    model = shared(case)
    projection = model.projection(Component(1, "attn"))
    projected = torch.randn(4, model.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = projected / projection.scale(projected)[:, None] * projection.gain(projected)
    torch.testing.assert_close(projection.norm(projected), expected, rtol=1e-5, atol=1e-5)
    assert projection.offset == (1.0 if case == "gemma2" else 0.0)
