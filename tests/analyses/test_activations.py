"""Activations and writes: those of plain passes with plain hooks, in memory and in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from plain import LONGER, Parts, Plain, loaded, plain_run
from safetensors.numpy import load_file
from tiny import CONFIGS, shared

import hydrascope as hs
from hydrascope.analyses.activations import _Reading
from hydrascope.components.component import Component, Override
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

KINDS = {"layers": None, "heads": None, "neuron.0.3,neuron.2.5": None}


def plain(model: LanguageModel, tokens: list[int], labels: list[str], overrides: Any = None) -> tuple[Plain, Any, Any]:
    """A plain pass, and of each component `[position, component, columns]` its activation and its write."""
    parts, run = Parts.of(model), plain_run(model, tokens, overrides, labels)
    written = [
        run.values[label] @ parts.weight(str(Component.parse(label).sublayer))[parts.columns(Component.parse(label))]
        if Component.parse(label).is_unit
        else run.values[label]
        for label in labels
    ]
    activations = [run.values[label] for label in labels]
    alike = len({each.shape for each in activations}) == 1
    return run, torch.stack(activations, 1) if alike else None, torch.stack(written, 1)


def equal(found: xr.DataArray, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(found.values, expected.detach().numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", ["gpt2", "llama"])
@pytest.mark.parametrize("components", KINDS)
@pytest.mark.parametrize("at", ["last", "all", [0, -1]])
def test_clean_ones_are_those_of_plain_passes(case: str, components: str, at: Any) -> None:
    model = loaded(case)
    found = hs.activations(model, LONGER, components, at=at, batch_size=3)
    labels = [str(label) for label in found["component"].values]
    assert found["activation"].dtype == found["write"].dtype == np.float64
    for number, text in enumerate(LONGER):
        tokens = model.encode(text)
        length = len(tokens)
        where = {"last": [length - 1], "all": list(range(length))}.get(str(at), [0, length - 1])
        _, activation, write = plain(model, tokens, labels)
        one = found.isel(prompt=number)
        slots = slice(len(where))
        assert one["position"].values.tolist() == where + [-1] * (found.sizes["slot"] - len(where))
        assert one["token"].values[slots].tolist() == [tokens[position] for position in where]
        equal(one["activation"][slots], activation[where])
        equal(one["write"][slots], write[where])
        assert np.isnan(one["write"][len(where) :]).all()
    assert list(found["text"].values) == list(LONGER)
    assert {"write_ablated", "ablated"}.isdisjoint(found.variables)


@pytest.mark.parametrize("components", ["layers", "heads", "neuron.1.3,neuron.2.5"])
@pytest.mark.parametrize("ablate_at", ["last", "all"])
def test_ablated_ones_are_those_of_plain_passes(components: str, ablate_at: str) -> None:
    model = loaded("gpt2")
    ablate = ["attn.0", "head.1.2", "mlp.0+neuron.1.3", "attn.0|mlp.1"]
    found = (
        hs.activations(
            model, LONGER, components, at="all", ablation=hs.Resample(patches=2), ablate=ablate, ablate_at=ablate_at
        )
        if ablate_at == "last"
        else hs.activations(model, LONGER, components, at="all", ablation=hs.Zero(), ablate=ablate, ablate_at=ablate_at)
    )
    labels = [str(label) for label in found["component"].values]
    overridden = [str(each) for each in Override.parse("mlp.0+attn.0+mlp.1+neuron.1.3+head.1.2").ablated]
    clean = [plain(model, model.encode(text), overridden)[0] for text in LONGER]
    patches = [[None]] * len(LONGER)
    if ablate_at == "last":
        # The same draws as those of a sweep.
        patches = hs.sweep(model, LONGER, hs.Resample(patches=2), ablate="attn.0")["patch_prompt"].values
    for number, text in enumerate(LONGER):
        tokens = model.encode(text)
        where = [len(tokens) - 1] if ablate_at == "last" else list(range(len(tokens)))
        for row, label in enumerate(ablate):
            for patch, source in enumerate(patches[number]):
                override = Override.parse(label)
                changes = {}
                for component in map(str, override.ablated):
                    like = clean[number].values[component][where]
                    value = torch.zeros_like(like) if source is None else clean[source].values[component][[-1]]
                    changes[component] = (where, value)
                for component in map(str, override.frozen):
                    changes[component] = (range(len(tokens)), clean[number].values[component])
                _, activation, write = plain(model, tokens, labels, changes)
                one = found.isel(prompt=number, ablated=row, patch=patch, slot=slice(len(tokens)))
                if override.frozen and components.startswith("neuron"):
                    # The neurons of a frozen MLP are frozen with it.
                    activation[:, 0], write[:, 0] = (each[:, 0] for each in plain(model, tokens, labels)[1:])
                equal(one["activation_ablated"], activation)
                equal(one["write_ablated"], write)


@pytest.mark.parametrize("case", CONFIGS)
def test_the_writes_of_every_architecture_add_up_to_the_stream(case: str) -> None:
    """The residual stream before the final norm, at all positions, by a hook of its own."""
    model, tokens = shared(case), [[5, 6, 7, 8], [9, 10]]
    found = hs.activations(model, tokens, "layers", at="all", keep=["write"])
    for number, ids in enumerate(tokens):
        total = found["write"].isel(prompt=number, slot=slice(len(ids))).sum("component").values
        expected = written_in_all(model, ids)
        np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def written_in_all(model: LanguageModel, ids: list[int]) -> np.ndarray:
    """The residual stream before the final norm less that before the first block, at every position."""
    streams: list[torch.Tensor] = []

    def keep(module: Any, args: tuple, kwargs: dict) -> None:
        streams.append((args[0] if args else kwargs["hidden_states"])[0].clone())

    modules = (model.blocks[0], model.final_norm)
    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in modules]
    with model.measuring():
        model.hf(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return (streams[-1] - streams[0]).numpy()


def test_a_file_holds_what_memory_holds(tmp_path: Path) -> None:
    model = loaded("gpt2", torch.float32)
    options = {"at": "all", "ablation": hs.Zero(), "ablate": "attn.1", "ablate_at": "all"}
    inside = hs.activations(model, LONGER, "mlp", **options)
    out = tmp_path / "mlps.safetensors"
    opened = hs.activations(model, LONGER, "mlp", out=out, batch_size=2, **options)
    xr.testing.assert_allclose(opened, inside, rtol=1e-5, atol=1e-6)
    assert opened.attrs == inside.attrs
    for again in (hs.open_activations(out), hs.open_activations(str(out))):
        xr.testing.assert_identical(again, opened)
        # It is read when it is used: the array is the file itself.
        data = again["write"].variable._data
        while not isinstance(data, np.memmap) and hasattr(data, "array"):
            data = data.array
        assert isinstance(data, np.memmap) or isinstance(data.base, np.memmap)
    # Any program reads its tensors.
    tensors = load_file(out)
    assert set(tensors) == {"activation", "write", "activation_ablated", "write_ablated"}
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, opened[name].values)
    assert [path.name for path in tmp_path.iterdir()] == ["mlps.safetensors"]


def test_a_run_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.safetensors"
    hs.activations(loaded("gpt2"), ["ab"], "mlp", out=out)
    before = out.read_bytes()

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(_Reading, "_fill_clean", broken)
    with pytest.raises(RuntimeError):
        hs.activations(loaded("gpt2"), ["ab", "cd"], "mlp", out=out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": "layers,heads"}, r"different widths: read one kind at a time, or only the writes"),
        ({"components": "attn.9"}, r"gpt2 has no attn\.9: its blocks are 0 to 2"),
        ({"ablation": hs.Zero()}, "ablation and ablate belong together"),
        ({"ablate": "attn.0"}, "ablation and ablate belong together"),
        ({"keep": []}, r"unknown keep \[\]: choose activation, write, or both"),
        ({"keep": ["writes"]}, r"unknown keep \['writes'\]"),
        ({"at": "first"}, "'first' is no position"),
        ({"batch_size": 0}, "a batch of 0 prompts: ask for at least 1"),
        ({"out": "acts.pt"}, r"give a file name that ends in \.safetensors"),
        ({"out": "missing/a.safetensors"}, "there is no folder .*missing"),
    ],
)
def test_every_mistake_is_one_line(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HydrascopeError, match=message) as error:
        hs.activations(loaded("gpt2"), ["ab", "cd"], **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_writes_of_several_kinds_stand_together() -> None:
    found = hs.activations(loaded("gpt2"), ["ab"], "attn.1,heads.1", keep=["write"])
    bias = loaded("gpt2").hf.transformer.h[1].attn.c_proj.bias.detach().numpy()
    whole, heads = found["write"][0, 0, 0], found["write"][0, 0, 1:]
    np.testing.assert_allclose(whole, heads.sum("component") + bias, atol=1e-12)
    assert set(found.data_vars) == {"write"}


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    hs.activations(loaded("gpt2"), ["ab", "cd"], "mlp", out=out)
    with pytest.raises(HydrascopeError, match=r"exists: choose another path, or give overwrite=True"):
        hs.activations(loaded("gpt2"), ["ab", "cd"], "mlp", out=out)
    whole = out.read_bytes()
    from safetensors.numpy import save_file

    save_file({"a": np.ones(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is no safetensors file at all")
    (tmp_path / "empty.safetensors").write_text("")
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    for name, message in (
        ("other", "holds no activations: give a file that hs.activations wrote"),
        ("text", "holds no activations"),
        ("empty", "holds no activations"),
        ("cut", "is damaged, write is not whole: measure again"),
        ("missing", r"cannot read .*missing.safetensors \(No such file or directory\); give a file"),
    ):
        with pytest.raises(HydrascopeError, match=message):
            hs.open_activations(tmp_path / f"{name}.safetensors")
