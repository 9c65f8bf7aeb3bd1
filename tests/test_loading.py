"""Loading models: what is right loads, what is wrong is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny

from hydrascope.errors import HydrascopeError
from hydrascope.loading import load_model


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


def change(folder, how):
    path = folder / "model.safetensors"
    weights = load_file(path)
    how(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refused(folder, match, **arguments):
    with pytest.raises(HydrascopeError, match=match) as caught:
        load_model(folder, **arguments)
    assert "\n" not in str(caught.value)


def test_a_local_folder_loads(folder):
    model = load_model(folder, dtype="float64")
    assert model.dtype == torch.float64
    assert model.width == 32
    assert model.context_length == 64
    assert [str(component) for component in model.components[:3]] == ["attn.0", "mlp.0", "attn.1"]
    assert model.encode("ab c") == [4, 5, 56, 6]
    assert model.decode(5) == "b"
    assert model.revision.startswith("sha256:")


def test_what_is_read_is_never_trained(folder):
    model = load_model(folder)
    assert not model.hf.training
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())


def test_the_revision_follows_the_weights(folder):
    before = load_model(folder).revision
    assert load_model(folder).revision == before
    change(folder, lambda weights: weights["model.norm.weight"].add_(1))
    assert load_model(folder).revision != before


def test_nan_weights(folder):
    change(folder, lambda weights: weights["model.layers.1.mlp.up_proj.weight"].fill_(float("nan")))
    refused(folder, r"not finite.*layers\.1\.mlp\.up_proj")


def test_missing_weights(folder):
    change(folder, lambda weights: weights.pop("model.layers.2.self_attn.q_proj.weight"))
    refused(folder, r"incomplete.*q_proj")


def test_corrupt_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused(folder, "cannot load the model")


def test_weights_that_are_no_safetensors(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, "no safetensors")


def test_corrupt_config(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "cannot load the model")


def test_unknown_type(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no_such_type"}))
    refused(folder, "no_such_type|cannot load")


def test_known_to_transformers_unknown_here(tmp_path):
    from transformers import BertConfig, BertLMHeadModel

    BertLMHeadModel(
        BertConfig(vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, is_decoder=True)
    ).save_pretrained(tmp_path)
    from tiny import tiny_tokenizer

    tiny_tokenizer().save_pretrained(tmp_path)
    refused(tmp_path, "architecture 'bert' is not known")


def test_missing_folder(tmp_path):
    refused(tmp_path / "absent", "no model folder at")


def test_empty_folder(tmp_path):
    refused(tmp_path, r"no config\.json in it")


def test_no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(folder, "no tokenizer")


def test_unknown_name_offline():
    refused("some-org/no-such-model", "check the name")


def test_wrong_options(folder):
    refused(folder, "unknown dtype 'float12'", dtype="float12")
    refused(folder, "device 'abacus' cannot be used", device="abacus")


def test_a_revision_of_a_folder(folder):
    refused(folder, "has no revision 'main'", revision="main")
