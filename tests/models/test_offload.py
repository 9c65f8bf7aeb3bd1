"""Weights that wait in memory or on disk: every number is to the bit that of weights that are on the device."""

import copy
import gc
import glob
import os
import resource
import tempfile

import pytest
import torch
import xarray as xr
from accelerate import cpu_offload, disk_offload, dispatch_model
from as_it_was import state, users_own
from asked import TENSORS, heads, neurons, request, several_readouts
from faults.processes import TEXTS, identical
from rest_slow import rest_slow
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, save_tiny, tiny

import hydrascope as hs
from hydrascope.analyses import attribution
from hydrascope.engines import ENGINES, Engine, Readings, wavefront
from hydrascope.engines.kernels.patching import products
from hydrascope.loading.load import load_model, read_model
from hydrascope.models import fingerprint
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan
from hydrascope.storage.reader import read_attributes
from hydrascope.utils.errors import HydrascopeError

RUNS = ["attn.0", "mlp.1", "head.1.2", "attn.0|mlp.1", "attn.0+mlp.2"]
PROMPTS = ["ab cd", "ef", "gh, ij"]
#: Where a model of a folder may be put, on a machine without a GPU.
PLACES = [
    {"offload": "cpu"},
    {"offload": "disk"},
    {"device_map": "auto"},
    {"device_map": {"": "disk"}},
    {"device_map": {"": "disk", "model.layers.1": "cpu", "model.layers.1.mlp": "cpu"}},
    {"device_map": {"": "cpu", "model.layers": "disk", "model.layers.1": "cpu"}},
    {
        "device_map": {
            "model.embed_tokens": "cpu",
            "model.rotary_emb": "cpu",
            "model.layers.0": "cpu",
            "model.layers.1": "disk",
            "model.layers.2": "disk",
            "model.norm": "cpu",
            "lm_head": "disk",
        }
    },
]


def waiting(model: LanguageModel, folder=None) -> LanguageModel:
    """A copy whose weights wait in memory, or on disk."""
    hf = copy.deepcopy(model.hf)
    hf = cpu_offload(hf, "cpu") if folder is None else disk_offload(hf, folder, "cpu")
    return LanguageModel(hf, name=model.name)


def assert_identical(found: Readings, expected: Readings) -> None:
    for name in TENSORS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def assert_identical_results(found: xr.Dataset, expected: xr.Dataset) -> None:
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert found.attrs["routines"] == expected.attrs["routines"]
    assert found.attrs["revision"] == expected.attrs["revision"]


@pytest.mark.parametrize(("engine", "dtype"), [("wavefront", torch.float32), ("reference", torch.float64)])
@pytest.mark.parametrize("case", rest_slow(CONFIGS))
def test_every_architecture_measures_the_same(case, engine, dtype):
    model = tiny(case, dtype)
    if engine == "wavefront" and not model.anatomy.supports_wavefront:
        pytest.skip("plain forward passes alone")
    other = waiting(model)
    assert all(parameter.device.type == "meta" for parameter in other.hf.parameters())
    assert other.device.type == "cpu"
    units = (*heads(model), *neurons(model))

    def found(model):
        asked = request(model, RUNS, (5, 7), "span", units=units, readouts=several_readouts(model), metrics=["kl"])
        return ENGINES[engine](model, asked)

    assert_identical(found(other), found(model))


@pytest.mark.parametrize("case", ["llama", "gpt2", "gemma2"])
def test_products_are_computed_by_the_same_routines(case):
    model = tiny(case, torch.float32)
    assert products(waiting(model)) == products(model)


def test_each_weight_is_fetched_once_a_pass(monkeypatch):
    """Whatever the number of runs, patches and prompts: that is what makes streaming worth while."""
    model = waiting(tiny("llama", torch.float32))
    fetched = []
    down = model.blocks[1].mlp.down_proj
    hook = type(down._hf_hook)
    fetch = hook.pre_forward

    def counted(self, module, *args, **kwargs):
        fetched.append(module)
        return fetch(self, module, *args, **kwargs)

    monkeypatch.setattr(hook, "pre_forward", counted)
    ENGINES["wavefront"](model, request(model, RUNS, (5, 7, 3), patches=4))
    # In the clean pass and in the sweep.
    assert fetched.count(down) == 2


def measured(folder, **place):
    arguments = {"ablate": "layers,heads", "read": "heads,mlp", "metrics": ["kl"]}
    return hs.sweep(read_model(folder, **place), PROMPTS, hs.Mean(), **arguments)


@pytest.fixture(scope="module")
def expected(folder):
    return measured(folder / "model")


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_folder_s_model_measures_the_same(folder, expected, place):
    assert_identical_results(measured(folder / "model", **place), expected)


@pytest.mark.parametrize("case", ["gpt2", "llama-bias", "gemma2", "mixtral", "gpt_oss", "deepseek_v3"])
def test_other_architectures_too(tmp_path, case):
    """With tied embeddings, and experts that transformers stores in another way than it computes with."""
    folder = save_tiny(tmp_path / "model", case)
    expected = hs.sweep(read_model(folder), PROMPTS, hs.Zero())
    for offload in ("cpu", "disk"):
        assert_identical_results(hs.sweep(read_model(folder, offload=offload), PROMPTS, hs.Zero()), expected)


def test_numbers_are_widened_as_they_are_read(folder):
    for dtype in ("float64", "bfloat16"):
        expected = hs.sweep(read_model(folder / "model", dtype=dtype), PROMPTS, hs.Zero())
        found = hs.sweep(read_model(folder / "model", dtype=dtype, offload="disk"), PROMPTS, hs.Zero())
        assert_identical_results(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["phantom", "built-in"])
@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_built_in_models_too(name, offload):
    prompts = hs.load_prompts("phantom" if name == "phantom" else "demo").limit(3)
    expected = hs.sweep(read_model(name), prompts, hs.Zero(), ablate="attn")
    found = hs.sweep(read_model(name, offload=offload), prompts, hs.Zero(), ablate="attn")
    assert_identical_results(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_model_that_its_user_has_put_elsewhere(tmp_path, on_disk):
    plain = tiny("llama", torch.float32).hf
    elsewhere = copy.deepcopy(plain)
    elsewhere = disk_offload(elsewhere, tmp_path, "cpu") if on_disk else cpu_offload(elsewhere, "cpu")
    model = load_model(elsewhere)
    assert model.revision == fingerprint.hash_parameters(plain)
    ids = [[5, 6, 7], [8, 9]]
    assert_identical_results(hs.sweep(model, ids, hs.Zero()), hs.sweep(read_model(plain), ids, hs.Zero()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_it_comes_back_as_it_was(case, engine):
    own = users_own(case, torch.float32)
    cpu_offload(own.hf, "cpu")
    model = LanguageModel(own.hf, name=case)

    def everything():
        forwards = [(vars(m).get("_old_forward"), getattr(m, "_hf_hook", None)) for m in model.hf.modules()]
        return {**state(model), "weights": {}, "forwards": forwards}

    before, hash_ = everything(), fingerprint.hash_parameters(model.hf)
    ENGINES[engine](model, request(model, RUNS, (5,), "middle", units=heads(model), metrics=["kl"]))
    assert everything() == before
    assert fingerprint.hash_parameters(model.hf) == hash_
    with pytest.raises(HydrascopeError, match="no_metric fails"):
        ENGINES[engine](model, request(model, RUNS, (5,), metrics=[no_metric]))
    assert everything() == before


def no_metric(logits, clean, target):
    raise ZeroDivisionError


METHODS = {
    "atp": attribution.atp,
    "atp_star": attribution.atp_star,
    "gim": attribution.gim,
    "integrated_gradients": attribution.integrated_gradients,
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_gradients_are_the_same(case, method):
    plain = tiny(case)
    other = waiting(plain)
    ids = [[5, 6, 7], [8, 9, 4]]
    before = [parameter.requires_grad for parameter in other.hf.parameters()]
    found, expected = (METHODS[method](model, ids, hs.Zero(), ablate="layers,heads") for model in (other, plain))
    assert torch.equal(torch.tensor(found["estimate"].values), torch.tensor(expected["estimate"].values))
    assert [parameter.requires_grad for parameter in other.hf.parameters()] == before


@pytest.mark.slow
def test_a_run_goes_on_wherever_its_weights_are(folder, tmp_path, monkeypatch):
    """Begun with weights on disk, it ends with weights in memory to the bits of a run that was never ended."""
    plain, other = read_model(folder / "model"), read_model(folder / "model", offload="disk")
    arguments = {"ablation": hs.Resample(2), "batch_size": 2}
    hs.sweep(plain, TEXTS[:11], out=tmp_path / "whole.zarr", **arguments)
    out, batches = tmp_path / "parts.zarr", iter(range(5))

    def measure(model, request):
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return wavefront.measure(model, request)

    with monkeypatch.context() as patch:
        patch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", measure, "for the test"))
        with pytest.raises(KeyboardInterrupt):
            hs.sweep(other, TEXTS[:11], out=out, **arguments)
    assert 0 < read_attributes(out)["measured"] < len(TEXTS[:11])
    hs.sweep(plain, TEXTS[:11], out=out, resume=True, **arguments)
    identical(out, tmp_path / "whole.zarr")


@pytest.mark.slow
def test_the_command_line(hydrascope, folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    asked = ["run", folder / "model", "--prompts", tmp_path / "prompts.txt", "--ablation", "zero"]
    for name, options in {"plain": [], "disk": ["--offload", "disk"], "auto": ["--device-map", "auto"]}.items():
        assert hydrascope(*asked, "--out", tmp_path / f"{name}.zarr", *options)[0] == 0
    for name in ("disk", "auto"):
        identical(tmp_path / f"{name}.zarr", tmp_path / "plain.zarr")
    code, out, err = hydrascope("check", folder / "model", "--offload", "disk")
    assert (code, err) == (0, "")
    assert "FAILS" not in out


def test_a_map_in_a_file(folder, tmp_path):
    (tmp_path / "map.json").write_text('{"": "disk"}')
    assert load_model(folder / "model", device_map=tmp_path / "map.json").hf.hf_device_map == {"": "disk"}


def refused(folder, match, **arguments):
    with pytest.raises(HydrascopeError, match=match) as caught:
        load_model(folder, **arguments)
    assert "\n" not in str(caught.value)


WHOLE = PLACES[-1]["device_map"]


@pytest.mark.parametrize(
    ("spread", "match"),
    [
        (
            {**WHOLE, "model.layers.1.mlp": "cpu"},
            r"splits model\.layers\.1 between cpu and disk: keep each block in one place",
        ),
        ({**WHOLE, "model.layers.7": "cpu"}, r"names model\.layers\.7, but .* has no such module: name its modules"),
        ({name: WHOLE[name] for name in WHOLE if name != "lm_head"}, r"leaves out lm_head\.weight of .*add it"),
        ({name: WHOLE[name] for name in WHOLE if name != "model.rotary_emb"}, r"leaves out model\.rotary_emb\."),
        ({**WHOLE, "lm_head.weight": "cpu"}, r"names lm_head\.weight, but .* has no such module: name its modules"),
        ({"": "abacus"}, "device 'abacus' cannot be used"),
        ({"": 99}, "device 'cuda:99' cannot be used"),
        ({"": None}, "puts '' on None: give a CUDA index, a device, or disk"),
        ({}, "is empty or no mapping"),
        ("no-such.json", r"cannot read the device map from no-such\.json: No such file"),
    ],
    ids=str,
)
def test_maps_that_do_not_fit(folder, spread, match):
    refused(folder / "model", match, device_map=spread)


def test_a_map_that_is_no_json(folder, tmp_path):
    (tmp_path / "map.json").write_text("{")
    refused(folder / "model", "is not valid JSON", device_map=str(tmp_path / "map.json"))
    (tmp_path / "map.json").write_text("[1]")
    refused(folder / "model", "is empty or no mapping", device_map=tmp_path / "map.json")


def test_what_excludes_each_other(folder):
    refused(folder / "model", "unknown offload 'ram': choose cpu or disk", offload="ram")
    refused(folder / "model", "device_map and offload exclude each other", offload="cpu", device_map="auto")
    refused(folder / "model", "device_map and device exclude each other", device="cpu", device_map="auto")
    refused("phantom", "is built in memory .* leave device_map out", device_map="auto")
    own = tiny("llama").hf
    refused(own, "has its own offload: leave offload out", offload="cpu")
    refused(own, "has its own device_map: leave device_map out", device_map="auto")


def test_a_user_s_model_whose_blocks_are_split(tmp_path):
    own = tiny("llama", torch.float32).hf
    spread = {**WHOLE, "model.layers.1.self_attn": "cpu", "model.layers.1.mlp": "disk"}
    del spread["model.layers.1"]
    spread |= {f"model.layers.1.{name}_layernorm": "cpu" for name in ("input", "post_attention")}
    refused(dispatch_model(own, spread, offload_dir=tmp_path), r"splits model\.layers\.1 between cpu and disk")


def test_a_user_s_model_without_numbers():
    with torch.device("meta"):
        own = type(tiny("llama").hf)(tiny("llama").hf.config)
    refused(own, "hold no numbers: .* is on the meta device")


def change(folder, how):
    weights = load_file(folder / "model.safetensors")
    how(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("offload", ["cpu", "disk"])
@pytest.mark.parametrize(
    ("how", "match"),
    [
        (lambda weights: weights["model.layers.1.mlp.up_proj.weight"].fill_(torch.nan), r"not finite.*1\.mlp\.up_proj"),
        (lambda weights: weights.pop("model.layers.2.self_attn.q_proj.weight"), "incomplete.*q_proj.* is missing"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(31)}), r"norm\.weight is \[31\], not \[32\]"),
        (lambda weights: weights.update({"model.layers.3.norm.weight": torch.ones(3)}), "leaves out 1 of its weights"),
    ],
)
def test_weights_are_looked_at_wherever_they_are(tmp_path, offload, how, match):
    folder = save_tiny(tmp_path / "model")
    change(folder, how)
    refused(folder, match, offload=offload)


def folders():
    return glob.glob(os.path.join(tempfile.gettempdir(), "hydrascope-*"))


def test_nothing_is_left_of_weights_that_were_written_again(folder, tmp_path, monkeypatch):
    mixtral = save_tiny(tmp_path / "mixtral", "mixtral")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = read_model(mixtral, offload="disk")
    assert any(os.listdir(each) for each in folders())
    del model
    gc.collect()
    assert not folders()
    # Weights that are on disk as they are needed aren't copied.
    model = read_model(folder / "model", offload="disk")
    assert model.hf.hf_device_map == {"": "disk"}
    assert not any(os.listdir(each) for each in folders())


def test_no_room_for_weights_that_must_be_written_again(hydrascope, tmp_path, monkeypatch, capsys):
    """As where a disk is full: no file may grow beyond a kilobyte."""
    folder = save_tiny(tmp_path / "model", "mixtral")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    capsys.readouterr()
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most))
    try:
        code, _, err = hydrascope("check", folder, "--offload", "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert code == 2, err
    assert err.count("\n") == 1
    assert "set TMPDIR to a folder with room" in err
    gc.collect()
    assert not folders()
