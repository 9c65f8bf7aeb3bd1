"""Inputs from bug reports of the field: each gives the right value, or one line that names the cause."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import Run
from command_line import COMMANDS, has_option
from plain import LONGER, loaded
from rest_slow import rest_slow
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, BloomForCausalLM, OPTConfig, OPTForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import hydrascope as hs
from hydrascope.models.architectures import anatomy_of


def in_encoding(encoding: str, *arguments: str) -> str:
    """Return what a command prints where the terminal's encoding is another than UTF-8."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "hydrascope", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", rest_slow(["cp1252", "ascii", "cp437", "latin-1"], ["cp1252"]))
def test_numbers_are_printed_in_any_encoding(encoding: str, folder: Path) -> None:
    """A minus sign must not get lost: it becomes ASCII's."""
    arguments = ("summary", str(folder / "r.zarr"), "--full")
    whole = in_encoding("utf-8", *arguments)
    found = in_encoding(encoding, *arguments)

    def numbers(text: str) -> list[str]:
        words = text.replace("−", "-").replace("│", " ").replace("|", " ").replace("[", " ").replace("]", " ").split()
        return [word for word in words if word.strip("-.,%").replace(".", "").isdigit()]

    assert numbers(found) == numbers(whole)
    assert any(word.startswith("-") for word in numbers(found))
    assert "?" not in found.replace("?  ", "").replace("average? ", "")


@pytest.mark.parametrize("address", ["s3://bucket/run.zarr", "gs://b/a", "http://x.org/a", "abfs://c@d/a", "hf://a/b"])
def test_an_address_is_no_folder(address: str, hydrascope: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    code, _, said = hydrascope("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", address)
    assert code == 2
    assert said.startswith(f"hydrascope: cannot write to the address {address}: write to a local folder and copy it")
    assert set(folder.iterdir()) == before
    for given in (address, Path(address)):
        with pytest.raises(hs.HydrascopeError, match="is an address"):
            hs.open_results(given)


@pytest.mark.parametrize("command", sorted(name for name in COMMANDS if has_option(name, "--out")))
def test_no_command_writes_to_an_address(hydrascope: Run, command: str) -> None:
    """It is refused while the command line is read, so that nothing is loaded before."""
    told = "write to a local folder and copy it, as by aws s3 cp --recursive RESULT.zarr s3://bucket/a"
    assert hydrascope(command, "--out", "s3://bucket/a") == (
        2, "", f"hydrascope: cannot write to the address s3://bucket/a: {told}\n"
    )  # fmt: skip


def test_a_part_saved_by_xarray_is_not_called_damaged(tmp_path: Path) -> None:
    results = hs.sweep(loaded("gpt2"), LONGER, hs.Zero(), out=tmp_path / "run.zarr")
    results.isel(prompt=slice(0, 2)).load().to_zarr(tmp_path / "part.zarr", consolidated=False)
    with pytest.raises(hs.HydrascopeError, match=r"was saved from an opened result, .* open it with xarray.open_zarr"):
        hs.open_results(tmp_path / "part.zarr")


def test_an_adapter_without_its_model_is_named(tmp_path: Path) -> None:
    """As PEFT saves it, with no config.json."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "x", "peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(hs.HydrascopeError, match=r"it holds adapters .* without their base model; give the base model"):
        hs.load_model(tmp_path)


def test_norms_after_sublayers_without_a_final_norm_are_named() -> None:
    config = OPTConfig(
        vocab_size=50, hidden_size=16, word_embed_proj_dim=8, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
        do_layer_norm_before=False, max_position_embeddings=32,
    )  # fmt: skip
    with pytest.raises(hs.HydrascopeError, match="has no final norm, since its norms follow the sublayers"):
        hs.load_model(OPTForCausalLM(config))


def test_a_projection_before_the_unembedding_is_named() -> None:
    config = OPTConfig(
        vocab_size=50, hidden_size=16, word_embed_proj_dim=8, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
        max_position_embeddings=32,
    )  # fmt: skip
    with pytest.raises(hs.HydrascopeError, match="projects its residual stream of 16 numbers to 8 before"):
        hs.load_model(OPTForCausalLM(config))


def test_modules_whose_weights_are_used_in_slices_are_named() -> None:
    config = BloomConfig(vocab_size=50, hidden_size=16, n_layer=2, n_head=2, pretraining_tp=2, slow_but_exact=True)
    with pytest.raises(hs.HydrascopeError, match=r"never calls the module that attn\.0 is read from"):
        hs.load_model(BloomForCausalLM(config))


#: What the classes of layers are called that are neither attention nor MLPs.
RECURRENT = re.compile(r"Mamba|SSM|Recurrent|R[wW][kK][vV]|xLSTM|Delta(Net|Attention)|ShortConv|LightningAttention")


@pytest.mark.parametrize(
    "model_type",
    [
        *("mamba", "mamba2", "falcon_mamba", "jamba", "bamba", "zamba", "zamba2", "falcon_h1", "nemotron_h", "rwkv"),
        *(
            "recurrent_gemma",
            "qwen3_next",
            "qwen3_5_text",
            "minimax",
            "kimi_linear",
            "lfm2",
            "lfm2_moe",
            "lfm3",
            "xlstm",
        ),
        *("granitemoehybrid", "bailing_hybrid", "olmo_hybrid", "inkling_text", "qwen4_exp_text", "zaya"),
    ],
)
def test_state_space_models_are_not_offered_a_declaration(model_type: str) -> None:
    with pytest.raises(hs.HydrascopeError, match="isn't supported: it has state-space, recurrent") as refused:
        anatomy_of(model_type)
    assert "declare" not in str(refused.value)


def test_a_new_hybrid_is_known_by_its_kinds_of_layers() -> None:
    with pytest.raises(hs.HydrascopeError, match="isn't supported: it has state-space, recurrent"):
        anatomy_of("surely_new", ["full_attention", "linear_attention"])
    for attends in ("minimax_m2", "surely_new"):  # MiniMax-M2 has softmax attention alone
        with pytest.raises(hs.HydrascopeError, match="declare it from Python"):
            anatomy_of(attends, ["full_attention", "sliding_attention"])


@pytest.mark.slow
def test_every_hybrid_of_transformers_is_refused() -> None:
    """Each architecture is built on the meta device, and known by its modules' classes."""
    refused, found = set(), set()
    for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            config = AutoConfig.for_model(model_type)
            with torch.device("meta"):
                made = AutoModelForCausalLM.from_config(config)
        except Exception:  # some have no default configuration, or need other packages
            continue
        if any(RECURRENT.search(type(module).__name__) for module in made.modules()):
            found.add(model_type)
        try:
            anatomy_of(model_type, getattr(config.get_text_config(), "layer_types", None) or ())
        except hs.HydrascopeError as error:
            if "declare" not in str(error):
                refused.add(model_type)
    assert len(found) > 15
    assert found <= refused
    # Their layers are joined with attention, or convolutions that the default configuration leaves out.
    assert refused - found <= {"bamba", "falcon_h1", "lfm2", "zaya"}
