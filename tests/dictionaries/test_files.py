"""Read dictionaries as they were written, and a plain file of weights."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionary_files import FEATURES, IN, NEW, random, saelens, small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.files import load_dictionary, save_dictionary
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@st.composite
def dictionaries(draw: st.DrawFn) -> Dictionary:
    kind = draw(st.sampled_from(["attn", "raw.mlp", "heads", "transcoder", "stream"]))
    outputs = 4 if kind == "transcoder" else IN
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    seed = draw(st.integers(0, 1000))
    optional = {"encoder_bias": (FEATURES,), "decoder_bias": (outputs,), "pre_bias": (IN,), "skip": (outputs, IN)}
    found: dict[str, Any] = {
        key: random(*shape, seed=seed).to(dtype) for key, shape in optional.items() if draw(st.booleans())
    }
    activation = draw(st.sampled_from(["relu", "jumprelu", "topk", "batchtopk"]))
    if activation in ("jumprelu", "batchtopk"):
        found["threshold"] = draw(st.sampled_from([random(FEATURES, seed=seed).abs().to(dtype), 0.1, 0.0]))
    if activation == "topk":
        found["k"] = draw(st.integers(1, FEATURES))
    return Dictionary(
        site=f"{kind}.{draw(st.integers(0, 99))}",
        encoder=random(FEATURES, IN, seed=seed).to(dtype),
        decoder=random(FEATURES, outputs, seed=seed).to(dtype),
        activation=activation,
        by_decoder_norm=draw(st.booleans()),
        centred=draw(st.booleans()),
        before_gain=kind == "transcoder" and draw(st.booleans()),
        begins_with_bos=draw(st.sampled_from([None, True, False])),
        name=draw(st.text(max_size=5)),
        **found,
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dictionary=dictionaries())
def test_what_is_written_is_read(tmp_path: Path, dictionary: Dictionary) -> None:
    path = tmp_path / "sae.safetensors"
    save_dictionary(dictionary, path)
    found = load_dictionary(path)
    for field in fields(Dictionary):
        ours, theirs = getattr(dictionary, field.name), getattr(found, field.name)
        if isinstance(ours, Tensor):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        else:
            assert (type(ours), ours) == (type(theirs), theirs)


def test_a_file_of_one_s_own_may_be_moved_and_named(tmp_path: Path) -> None:
    bias = random(IN)
    # The same vector at both ends, and a transposed matrix, which isn't contiguous.
    dictionary = replace(small(pre_bias=bias, decoder_bias=bias), encoder=random(IN, FEATURES).T)
    save_dictionary(dictionary, tmp_path / "sae.safetensors")
    found = load_dictionary(str(tmp_path / "sae.safetensors"), site="attn.2", name="mine")
    assert (found.site, found.name) == ("attn.2", "mine")
    assert replace(found, site="mlp.1").sha256 == dictionary.sha256


def test_a_file_of_one_s_own_beside_those_of_another_tool(tmp_path: Path) -> None:
    saelens(tmp_path, NEW)
    save_dictionary(small(), tmp_path / "sae.safetensors")
    assert load_dictionary(tmp_path / "sae.safetensors").sha256 == small().sha256


def test_a_plain_file_of_weights(tmp_path: Path) -> None:
    save_file({"W_enc": random(IN, FEATURES), "W_dec": random(FEATURES, IN)}, tmp_path / "mine.safetensors")
    assert torch.equal(load_dictionary(tmp_path / "mine.safetensors", site="mlp.2").encoder, random(IN, FEATURES).T)


def test_it_is_written_as_safetensors_alone(tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match=r"name it with the ending .safetensors"):
        save_dictionary(small(), tmp_path / "sae.pt")
    with pytest.raises(HydrascopeError, match="cannot write the dictionary to"):
        save_dictionary(small(), tmp_path / "missing" / "sae.safetensors")
