"""A result says of which dictionaries its terms are, and goes on with these only."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dictionaries import random_dictionary
from plain import loaded
from tiny import shared, tiny, tiny_tokenizer

import hydrascope as hs
from hydrascope.models.float64 import float64_copy
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import rounding, start
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning

torch.set_num_threads(1)

PROMPTS = [[1, 6, 7], [8, 9, 10], [1, 11, 12, 13], [14, 15, 16]]


def model_with(*sites: str, seed: int = 0, **settings) -> LanguageModel:
    model = loaded()
    given = (random_dictionary(model, site, seed=seed, **settings) for site in sites)
    return model.with_dictionaries(*given)


def notices(model: LanguageModel, prompts: list[list[int]]) -> list[str]:
    said: list[str] = []
    hs.sweep(model, prompts, hs.Zero(), ablate="attn.0", say=said.append)
    return [line for line in said if "was trained on" in line]


def test_attributes_name_every_dictionary() -> None:
    plain = loaded()
    both = [
        random_dictionary(plain, "stream.1", name="resid", begins_with_bos=True),
        random_dictionary(plain, "mlp.0", begins_with_bos=False),
        random_dictionary(plain, "heads.2", name="z"),
    ]
    found = hs.sweep(plain.with_dictionaries(*both), PROMPTS, hs.Zero(), ablate="attn.0").attrs
    told = {name: json.loads(found[name]) for name in found if name.startswith("dictionar")}
    assert told == {
        "dictionaries": {"stream.1": 12, "mlp.0": 12, "heads.2": 12},
        "dictionary_hashes": {each.site: each.sha256 for each in both},
        "dictionary_names": {"stream.1": "resid", "mlp.0": "", "heads.2": "z"},
        "dictionary_bos": {"stream.1": "yes", "mlp.0": "no", "heads.2": "unknown"},
    }
    assert found["prompts_with_bos"] == 2
    without = hs.sweep(plain, PROMPTS, hs.Zero(), ablate="attn.0").attrs
    assert not [name for name in without if name.startswith("dictionar") or name == "prompts_with_bos"]


def test_hashes_know_weights_and_settings_but_no_names() -> None:
    plain = shared("llama")
    one = random_dictionary(plain, "mlp.1")
    decoder = one.decoder.clone()
    decoder[3, 5] += 1e-3
    others = [replace(one, decoder=decoder), replace(one, by_decoder_norm=True), random_dictionary(plain, "mlp.0")]
    others += [replace(one, encoder=one.decoder, decoder=one.encoder), replace(one, site="attn.1")]
    assert len({each.sha256 for each in (one, *others)}) == 1 + len(others)
    assert replace(one, name="other").sha256 == one.sha256


@pytest.mark.parametrize(
    ("trained", "prompts", "told"),
    [
        (True, PROMPTS, "that begin with BOS; 2 prompts of 4 here do"),
        (True, PROMPTS[1:3], "that begin with BOS; 1 prompt of 2 here does"),
        (True, PROMPTS[1::2], "that begin with BOS; 0 prompts of 2 here do"),
        (True, PROMPTS[::2], None),
        (False, PROMPTS, "that do not begin with BOS; 2 prompts of 4 here do"),
        (False, PROMPTS[1::2], None),
        (None, PROMPTS, None),
    ],
)
def test_prompts_that_begin_otherwise_than_in_training(trained, prompts, told: str | None) -> None:
    found = notices(model_with("mlp.1", begins_with_bos=trained, name="sae"), prompts)
    expected = [] if told is None else [f"the dictionary 'sae' at mlp.1 was trained on prompts {told}"]
    assert found == expected


def test_it_is_told_in_the_analysis_of_features_once() -> None:
    model = model_with("mlp.1", begins_with_bos=True)
    with pytest.warns(HydrascopeWarning) as told:
        hs.analyses.features(model, PROMPTS[1::2], hs.Zero(), ablate="attn.0", top=1)
    assert ["trained on" in str(each.message) for each in told].count(True) == 1
    with pytest.warns(HydrascopeWarning, match="0 prompts of 2 here do"):
        hs.analyses.feature_sums(model, PROMPTS[1::2], hs.Zero(), ablate="attn.0")


def started(model: LanguageModel, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a run and end it after its first chunk."""
    from hydrascope.runs import sweep

    measure = sweep.measure_chunks

    def interrupted(*arguments, **options):
        yield next(measure(*arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "measure_chunks", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resumed(model, out)


def resumed(model: LanguageModel, out: Path):
    prompts = [[number, 5, 6] for number in range(7, 27)]
    return hs.sweep(model, prompts, hs.Zero(), ablate="attn.0|error.mlp.1", out=out, resume=True, batch_size=2)


def test_a_run_goes_on_with_its_own_dictionary_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.zarr"
    started(model_with("mlp.1"), out, monkeypatch)
    assert 0 < hs.open_results(out).attrs["measured"] < 20
    with pytest.raises(HydrascopeError, match=r"cannot resume .*: dictionary_hashes was .* now "):
        resumed(model_with("mlp.1", seed=1), out)
    with pytest.raises(HydrascopeError, match=r"cannot resume .*: dictionaries was .* now "):
        resumed(model_with("mlp.1", "attn.2"), out)
    found = resumed(model_with("mlp.1"), out)
    assert found.attrs["measured"] == 20
    whole = resumed(model_with("mlp.1"), tmp_path / "whole.zarr")
    torch.testing.assert_close(torch.tensor(found["total"].values), torch.tensor(whole["total"].values), rtol=0, atol=0)


def test_a_run_goes_on_where_its_dictionary_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash says that it is the same, as of a model."""
    out = tmp_path / "r.zarr"
    started(model_with("mlp.1", name="before"), out, monkeypatch)
    assert resumed(model_with("mlp.1", name="after"), out).attrs["measured"] == 20


def test_a_copy_in_float64_keeps_its_dictionaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the precision of a run with terms is known."""
    narrow = tiny("llama", torch.float32)
    narrow.tokenizer = tiny_tokenizer()
    narrow.hf.eval()
    narrow = narrow.with_dictionaries(random_dictionary(narrow, "mlp.1"))
    wide = float64_copy(narrow)
    assert wide is not None
    assert wide.feature_counts == {"mlp.1": 12}
    (attached,) = wide.dictionaries.values()
    assert attached.dictionary.decoder.dtype == torch.float64
    monkeypatch.setattr(start, "precision", rounding.precision)
    found = hs.sweep(narrow, PROMPTS, hs.Zero(), ablate="error.mlp.1,attn.0|feature.mlp.1")
    told = json.loads(found.attrs["precision"])
    mean, largest = told["readouts"]["logit"]["total"]
    assert 0 < mean <= largest < 1e-4
