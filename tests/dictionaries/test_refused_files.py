"""Refuse in one line files that can run code, are damaged or hold wrong settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dictionary_files import FEATURES, IN, NEW, circuit_tracer, gemma_scope, random, saelens, small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hydrascope.dictionaries.files import load_dictionary, save_dictionary
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sae.pt", "a .pt file can run code. Where you trust it, convert it with safetensors.torch.save_file"),
        ("sae.pkl", "a .pkl file can run code"),
        ("missing.safetensors", "cannot read a dictionary from .*missing.safetensors: No such file"),
        ("missing.npz", "cannot read a dictionary from .*missing.npz: No such file"),
        ("missing", "cannot read a dictionary from .*missing: No such file"),
        ("text.txt", "give a folder, or a .safetensors or .npz file"),
        ("empty", "it has none of sae_weights.safetensors, sae.safetensors, params.safetensors, config.yaml"),
    ],
)
def test_paths_that_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("sae")
    with pytest.raises(HydrascopeError, match=message):
        load_dictionary(tmp_path / name)


class Touching:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_objects_in_npz_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "params.npz", W_enc=np.array([Touching(tmp_path / "touched")], dtype=object))
    with pytest.raises(HydrascopeError, match=r"params.npz: it is damaged or holds objects"):
        load_dictionary(tmp_path / "params.npz", site="mlp.1")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"newer": 1}, "holds newer, which no dictionary has"),
        ({"site": None}, "site = None: write it again"),
        ({"site": "resid.3"}, "'resid.3' is no site"),
        ({"activation": "gelu"}, "the activation 'gelu'"),
        ({"k": "3"}, "k = '3': write it again"),
        ({"centred": "yes"}, "centred = 'yes'"),
        ({"threshold": [1]}, r"threshold = \[1\]"),
        ({"encoder": "big"}, "encoder = 'big'"),
    ],
)
def test_settings_of_one_s_own_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"site": "mlp.1", "activation": "relu", **changes}
    metadata = {"hydrascope.dictionary": json.dumps(given)}
    save_file({"encoder": random(FEATURES, IN), "decoder": random(FEATURES, IN)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(HydrascopeError, match=message):
        load_dictionary(tmp_path / "a.safetensors")


def test_a_file_without_a_decoder_is_refused(tmp_path: Path) -> None:
    metadata = {"hydrascope.dictionary": '{"site": "mlp.1"}'}
    save_file({"encoder": random(FEATURES, IN)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(HydrascopeError, match="lacks decoder"):
        load_dictionary(tmp_path / "a.safetensors")


def own(folder: Path) -> Path:
    save_dictionary(small(activation="jumprelu", threshold=0.5), folder / "sae.safetensors")
    return folder / "sae.safetensors"


def npz(folder: Path) -> Path:
    np.savez(folder / "params.npz", **{key: weight.numpy() for key, weight in gemma_scope().items()})
    return folder / "params.npz"


def config(folder: Path) -> Path:
    saelens(folder, NEW)
    return folder / "cfg.json"


def yaml_settings(folder: Path) -> Path:
    circuit_tracer(folder, {"feature_input_hook": "mlp.hook_in"})
    return folder / "config.yaml"


@pytest.mark.parametrize("make", [own, npz, config, yaml_settings])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], data: st.DataObject
) -> None:
    """Cut short, or with changed bytes; what isn't noticed, as in a weight, is a valid file."""
    path = make(tmp_path)
    content = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at] + data.draw(st.binary(min_size=1, max_size=3)) + content[at + 1 :])
    site = {own: "mlp.1", npz: "mlp.1", config: None, yaml_settings: "transcoder.1"}[make]
    message = ""
    try:
        load_dictionary(tmp_path if path.suffix in (".json", ".yaml") else path, site=site)
    except HydrascopeError as error:
        message = str(error)
    assert "\n" not in message
    assert not message or str(tmp_path) in message


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("make", [own, npz])
def test_weights_that_are_cut_short_are_refused(tmp_path: Path, make: Callable[[Path], Path], share: float) -> None:
    path = make(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(HydrascopeError, match=f"cannot read the dictionary .*{path.name}: it is damaged"):
        load_dictionary(path, site="mlp.1")
