"""Loading models: what is right loads, what is wrong is refused in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny, tiny
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from hydrascope.loading.load import load_model, read_model
from hydrascope.utils.errors import HydrascopeError


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
    assert [str(component) for component in model.sublayers[:3]] == ["attn.0", "mlp.0", "attn.1"]
    assert model.encode("ab c") == [4, 5, 56, 6]
    assert model.decode(5) == "b"
    assert model.revision.startswith("sha256:")


def sentencepiece():
    """A tokenizer as Llama's: ▁ stands for a space, and the first space of a text is dropped."""
    pieces = {piece: number for number, piece in enumerate(["<unk>", "▁", "▁▁", "▁the", "the", "a"])}
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_the_text_of_a_token_keeps_its_spaces():
    model = tiny("llama")
    model.tokenizer = sentencepiece()
    assert [model.decode(token) for token in range(6)] == ["<unk>", " ", "  ", " the", "the", "a"]


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


def configured(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_weights_that_the_configuration_leaves_out(folder):
    configured(folder, num_hidden_layers=2)
    refused(folder, r"leaves out 9 of its weights: model\.layers\.2\.input_layernorm\.weight, .* and 6 others")
    short = load_model(folder, allow_unused_weights=True)
    assert len(short.blocks) == 2


@pytest.mark.parametrize(
    ("case", "extra"),
    [
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": [4]}),
        ("gpt2", {"transformer.h.0.attn.bias": [1, 1, 64, 64], "transformer.h.0.attn.masked_bias": []}),
        ("gpt_neo", {"transformer.h.0.attn.attention.bias": [1, 1, 64, 64]}),
        ("gptj", {"transformer.h.1.attn.masked_bias": []}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.rotary_emb.inv_freq": [4], "gpt_neox.layers.0.attention.bias": [1]}),
    ],
)
def test_what_older_files_keep_besides_weights_is_no_weight(tmp_path, case, extra):
    folder = save_tiny(tmp_path / "model", case)
    change(folder, lambda weights: weights.update({key: torch.ones(shape) for key, shape in extra.items()}))
    read_model(folder)


def test_a_tied_unembedding_may_be_in_the_file(tmp_path):
    folder = save_tiny(tmp_path / "model", "gpt2")
    change(folder, lambda weights: weights.update({"lm_head.weight": weights["transformer.wte.weight"].clone()}))
    read_model(folder)


def test_a_weight_that_is_no_mask_is_left_out(tmp_path):
    folder = save_tiny(tmp_path / "model", "gpt2")
    change(folder, lambda weights: weights.update({"transformer.h.0.attn.extra.bias": torch.ones(3)}))
    refused(folder, "leaves out 1 of its weights: transformer.h.0.attn.extra.bias")


def sharded(folder, place):
    """The weights of `folder` in a file at `place`, and an index that says so."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / place).parent.mkdir(exist_ok=True)
    save_file(weights, folder / place, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, str(place))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_outside_the_folder_are_refused(folder, tmp_path):
    for place in ("../elsewhere.safetensors", str(tmp_path / "absolute.safetensors")):
        other = shutil.copytree(folder, tmp_path / "model2" / str(len(place)))
        sharded(other, place)
        refused(other, "are outside its folder, where they can change unseen: copy them into it")
    sharded(folder, "part.safetensors")
    before = load_model(folder).revision
    (folder / "part.safetensors").rename(tmp_path / "part.safetensors")
    (folder / "part.safetensors").symlink_to(tmp_path / "part.safetensors")
    refused(folder, "are outside its folder")
    assert before.startswith("sha256:")


def test_links_of_the_hubs_cache_are_followed(folder, tmp_path):
    sharded(folder, "part.safetensors")
    snapshot = tmp_path / "models--some--model/snapshots/abc"
    blobs = tmp_path / "models--some--model/blobs"
    shutil.copytree(folder, snapshot)
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    assert load_model(snapshot).revision == load_model(folder).revision


def test_the_revision_follows_weights_in_folders_of_the_folder(folder):
    sharded(folder, "parts/part.safetensors")
    before = load_model(folder).revision
    weights = load_file(folder / "parts/part.safetensors")
    weights["model.norm.weight"].add_(1)
    save_file(weights, folder / "parts/part.safetensors", metadata={"format": "pt"})
    assert load_model(folder).revision != before


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": null}}', "[" * 100_000])
def test_an_index_that_lists_no_weights(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, "cannot load the model|cannot read weights")


def test_adapters_are_no_model(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "elsewhere"}))
    refused(folder, "it holds adapters")


def test_too_coarse_numbers_are_not_called_a_wrong_anatomy(folder):
    change(folder, lambda weights: weights["model.layers.1.self_attn.o_proj.weight"][3].mul_(1e6))
    load_model(folder, dtype="float64")
    refused(folder, "it holds in float64, so bfloat16 is too coarse for this model", dtype="bfloat16")


def test_nothing_of_transformers_mixes_in(folder, capfd):
    """Neither while a model is loaded nor when a prompt is longer than its tokenizer likes."""
    model = load_model(folder)
    model.tokenizer.model_max_length = 2
    model.encode("abcd")
    assert capfd.readouterr() == ("", "")
