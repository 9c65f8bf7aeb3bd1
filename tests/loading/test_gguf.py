"""A model read from a GGUF file is the one that its numbers stand for, or one line says why it isn't read."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_files import TOKENS, written_llama
from transformers import AutoModelForCausalLM

import hydrascope as hs
from hydrascope.loading import gguf_weights
from hydrascope.loading.gguf_header import read_header
from hydrascope.utils.errors import HydrascopeError

TEXTS = ["The cat", "In 1995", "abcdef"]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_the_weights_are_those_that_the_file_stands_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    expected = written_llama(path, kind)
    model = hs.load_model(path)
    assert model.quantization == f"{kind}, dequantised to float32"
    assert model.revision == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    for text in TEXTS:
        ids = torch.tensor([model.encode(text)])
        assert torch.equal(model.hf(ids).logits, expected(ids).logits)
    assert [TOKENS[index] for index in model.encode("ab c1")] == ["ab", "Ġ", "c", "1"]


def test_a_result_says_what_was_read(tmp_path: Path, hydrascope: Callable) -> None:
    path, out = tmp_path / "model.gguf", tmp_path / "r.zarr"
    written_llama(path, "Q4_1")
    (tmp_path / "p.txt").write_text("\n".join(TEXTS))
    code, *_ = hydrascope(
        "run", str(path), "--prompts", str(tmp_path / "p.txt"), "--ablation", "zero", "--out", str(out)
    )
    assert code == 0
    attributes = hs.open_results(out).attrs
    assert attributes["quantization"] == "Q4_1, dequantised to float32"
    assert attributes["revision"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_it_is_found_in_a_folder(tmp_path: Path) -> None:
    written_llama(tmp_path / "a.gguf")
    assert hs.load_model(tmp_path).quantization == "F32, dequantised to float32"
    written_llama(tmp_path / "b.gguf", "Q8_0")
    with pytest.raises(HydrascopeError, match=r"it has 2 GGUF files \(a.gguf, b.gguf…\): choose one with gguf"):
        hs.load_model(tmp_path)
    assert hs.load_model(tmp_path, gguf="b.gguf").quantization == "Q8_0, dequantised to float32"
    with pytest.raises(HydrascopeError, match=r"there is no GGUF file c.gguf in it; it has a.gguf, b.gguf"):
        hs.load_model(tmp_path, gguf="c.gguf")


def test_what_is_loaded_is_a_plain_model(tmp_path: Path) -> None:
    """It is saved as any other, and read again; transformers' own object can be swept as it is."""
    path = tmp_path / "model.gguf"
    written_llama(path, "Q4_0")
    model = hs.load_model(path, dtype="float64")
    model.hf.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    again = hs.load_model(tmp_path / "saved", dtype="float64")
    held = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float64)
    own = hs.load_model(held, model.tokenizer)
    totals = [hs.sweep(each, TEXTS, hs.Zero())["total"].values for each in (model, again, own)]
    np.testing.assert_array_equal(totals[0], totals[1])
    np.testing.assert_array_equal(totals[0], totals[2])


def test_without_a_tokenizer_prompts_are_token_ids(tmp_path: Path) -> None:
    written_llama(tmp_path / "model.gguf", tokenizer=False)
    model = hs.load_model(tmp_path)
    assert model.tokenizer is None
    assert hs.sweep(model, [[1, 2, 3], [4, 5]], hs.Zero()).sizes["prompt"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, r"leaves out its setting llama.rope.scaling.type \(yarn\)"),
        ({"llama.rope.scaling.factor": 8.0}, r"leaves out its setting llama.rope.scaling.factor \(8.0\)"),
        ({"llama.logit_scale": 0.3}, "leaves out its setting llama.logit_scale"),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 1.0}, None),
    ],
)
def test_a_setting_that_transformers_loses_is_refused(tmp_path: Path, settings: dict, message: str | None) -> None:
    written_llama(tmp_path / "model.gguf", settings=settings)
    if message is None:
        hs.load_model(tmp_path)
        return
    with pytest.raises(HydrascopeError, match=message):
        hs.load_model(tmp_path)


def test_tensors_that_transformers_skips_are_refused(tmp_path: Path) -> None:
    """As Llama 3's factors of rotary frequencies, without which long prompts are read wrongly."""
    written_llama(tmp_path / "model.gguf", tensors={"rope_freqs.weight": np.ones(8, np.float32)})
    with pytest.raises(HydrascopeError, match=r"its tensors hold .* numbers, and the model that transformers makes"):
        hs.load_model(tmp_path)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    written_llama(path)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for length in (0, 3, 4, 20, 24, 100, 1000, 4000, len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(HydrascopeError, match=r"^cannot load"):
            hs.load_model(path)
    header = len(whole) - sum(each.numel * 4 for each in _header(tmp_path, whole).tensors.values())
    for start in generator.integers(4, header - 8, 60):
        path.write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8 :])
        with contextlib.suppress(HydrascopeError):
            hs.load_model(path)


def _header(folder: Path, data: bytes):
    (folder / "other.gguf").write_bytes(data)
    header = read_header(folder / "other.gguf")
    (folder / "other.gguf").unlink()
    return header


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    written_llama(path, architecture="llamb")
    with pytest.raises(
        HydrascopeError, match=r"cannot load the model .*: GGUF model with architecture llamb is not supp"
    ):
        hs.load_model(path)
    written_llama(path, "Q8_0")
    with pytest.raises(HydrascopeError, match="leave out offload and device_map"):
        hs.load_model(path, offload="cpu")
    with pytest.raises(HydrascopeError, match="is a local file, which has no revision"):
        hs.load_model(path, revision="main")

    def not_known(*_: object) -> None:
        raise NotImplementedError

    with monkeypatch.context() as patch:
        patch.setattr(gguf_weights.gguf, "dequantize", not_known)
        with pytest.raises(HydrascopeError, match="its quantisation F32 can't be dequantised"):
            hs.load_model(path)
    data = path.read_bytes()
    # The type of the first tensor stands 12 bytes before the name of the second begins.
    name = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 16
    path.write_bytes(data[:name] + (999).to_bytes(4, "little") + data[name + 4 :])
    with pytest.raises(HydrascopeError, match="are in format 999, which the package gguf doesn't know"):
        hs.load_model(path)
    written_llama(path, settings={"split.count": 3})
    with pytest.raises(HydrascopeError, match=r"it is one of 3 parts: merge them"):
        hs.load_model(path)
    with pytest.raises(HydrascopeError, match=r"there is no GGUF file nowhere.gguf"):
        hs.load_model("nowhere.gguf")


def test_the_reader_is_as_it_was(tmp_path: Path) -> None:
    before = (gguf.GGUFReader, gguf.get_tensor_name_map)
    written_llama(tmp_path / "model.gguf")
    hs.load_model(tmp_path)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
