"""The self-check of dictionaries, and dictionaries that are given to `load_model`."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dictionaries import SITES, has_site, random_dictionary, with_dictionary
from tiny import save_tiny, shared

import hydrascope as hs
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.engines import Readings, wavefront
from hydrascope.loading import dictionary_check, self_check
from hydrascope.loading.dictionary_check import dictionary_identities
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

TOKENS = [[5, 6, 7, 8], [9, 10, 11, 3, 20]]
PROMPTS = [[5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize(
    ("case", "sites"),
    [("gemma2", SITES), ("granite", ("attn.1", "mlp.1", "heads.1", "stream.1")), ("gpt_neox", ("mlp.1", "heads.1"))],
)
def test_identities_hold_at_every_site(case: str, sites: tuple[str, ...]) -> None:
    for site in sites:
        assert has_site(shared(case), site)
        found = dict(dictionary_identities(with_dictionary(case, site, "topk"), TOKENS))
        sums = site in ("attn.1", "mlp.1", "transcoder.1")
        assert len(found) == 3 + sums, site
        assert all(site in name for name in found)
        assert max(found.values()) < 1e-6, (site, found)


def without_norm(output: Callable[..., Any]) -> Callable[..., Any]:
    def faulty(self: AttachedDictionary, share: torch.Tensor, projected: torch.Tensor | None) -> torch.Tensor:
        plain = None if self.projection is None else copy.copy(self.projection)
        if plain is not None:
            object.__setattr__(plain, "norm", None)
        return output(replace(self, projection=plain), share, projected)

    return faulty


def with_another_multiplier(output: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, share, projected: output(self, share, projected) * 1.05


@pytest.mark.parametrize(
    ("case", "site", "fault"),
    [
        ("gemma2", "raw.mlp.1", without_norm),
        ("gemma2", "raw.attn.1", without_norm),
        ("granite", "mlp.1", with_another_multiplier),
        ("llama", "stream.1", with_another_multiplier),
        ("llama", "heads.1", with_another_multiplier),
    ],
)
def test_a_dictionary_that_writes_wrongly_is_refused(
    monkeypatch: pytest.MonkeyPatch, case: str, site: str, fault: Callable[..., Any]
) -> None:
    model = with_dictionary(case, site)
    monkeypatch.setattr(AttachedDictionary, "output", fault(AttachedDictionary.output))
    with pytest.raises(HydrascopeError, match=f"a dictionary of {case} fails the self-check: .* at {site} .*off by"):
        hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0")
    assert not model.dictionaries_checked
    monkeypatch.undo()
    hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0")
    assert model.dictionaries_checked


@pytest.mark.parametrize("name", ["unembed", "unembed_ablated", "logit_ablated", "logit_direct", "logit_indirect"])
def test_engines_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, measure = with_dictionary("llama", "mlp.1"), wavefront.measure

    def faulty(model: LanguageModel, request: Any) -> Readings:
        found = measure(model, request)
        return replace(found, **{name: getattr(found, name) * 1.01})

    monkeypatch.setattr(dictionary_check.wavefront, "measure", faulty)
    with pytest.raises(HydrascopeError, match=r"fails the self-check: both engines agree on terms at mlp\.1 does not"):
        hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0", engine="reference")


def test_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "dictionary_identities", lambda *arguments: iter([("it holds", float("nan"))]))
    with pytest.raises(HydrascopeError, match="it holds does not hold"):
        hs.sweep(with_dictionary("llama", "mlp.1"), PROMPTS, hs.Zero(), ablate="attn.0")


def test_it_is_made_once_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def counted(model: LanguageModel, tokens: Any) -> Iterator[tuple[str, float]]:
        made.append(list(model.feature_counts))
        yield from dictionary_identities(model, tokens)

    monkeypatch.setattr(self_check, "dictionary_identities", counted)
    plain = shared("llama")
    hs.sweep(plain, PROMPTS, hs.Zero(), ablate="attn.0")
    assert not made
    model = plain.with_dictionaries(random_dictionary(plain, "mlp.1"))
    for _ in range(2):
        hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0")
    assert made == [["mlp.1"]]
    more = model.with_dictionaries(random_dictionary(plain, "attn.2"))
    hs.sweep(more, PROMPTS, hs.Zero(), ablate="attn.0")
    hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn.0")
    assert made == [["mlp.1"], ["mlp.1", "attn.2"]]


def test_check_names_the_identities_of_dictionaries() -> None:
    found = [identity for identity in self_check.check(with_dictionary("llama", "mlp.1")) if "mlp.1" in identity.name]
    assert len(found) == 4
    assert all(identity.passed for identity in found)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_tiny(folder / "model")
    for site in ("mlp.1", "attn.2"):
        random_dictionary(shared("llama"), site).save(folder / f"{site}.safetensors")
    return folder


def test_loading_takes_paths_sites_and_objects(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    """A site before the path wins over the file's own; `+` and `=` may stand in a path."""
    odd = saved / "a=b.safetensors"
    odd.write_bytes((saved / "attn.2.safetensors").read_bytes())
    stream = random_dictionary(shared("llama"), "stream.1")
    given = [saved / "mlp.1.safetensors", f"heads.0={odd}", stream, str(odd)]
    model = hs.load_model(saved / "model", dictionaries=given)
    assert model.feature_counts == {"heads.0": 12, "mlp.1": 12, "stream.1": 12, "attn.2": 12}
    assert model.dictionaries_checked
    hashes = {each.declared.site: each.declared.sha256 for each in model.dictionaries.values()}
    assert hashes["mlp.1"] == Dictionary.load(saved / "mlp.1.safetensors").sha256
    assert hashes["heads.0"] == Dictionary.load(odd, "heads.0").sha256
    assert hashes["stream.1"] == stream.sha256
    assert hs.load_model(saved / "model", dictionaries=[]).feature_counts == {}


def test_a_loaded_model_with_a_wrong_dictionary_is_refused(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.setattr(AttachedDictionary, "output", with_another_multiplier(AttachedDictionary.output))
    with pytest.raises(HydrascopeError, match=r"a dictionary of .* fails the self-check: .* at mlp\.1 .*off by"):
        hs.load_model(saved / "model", dictionaries=[saved / "mlp.1.safetensors"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mlp.1=x.safetensors", "dictionaries is the single 'mlp.1=x.safetensors': give a list"),
        (["mlp.1="], "mlp.1= names no dictionary: write mlp.1=PATH"),
        (["mlp.x={saved}/mlp.1.safetensors"], "mlp.x"),
        (["nowhere.safetensors"], r"nowhere\.safetensors"),
        ([17], "int"),
        (["mlp.1={saved}/attn.2.safetensors", "{saved}/mlp.1.safetensors"], "two dictionaries take mlp.1 apart"),
    ],
)
def test_refusals_of_loading(monkeypatch: pytest.MonkeyPatch, saved: Path, given: Any, message: str) -> None:
    monkeypatch.setattr(self_check, "require_valid", lambda model: None)
    if isinstance(given, list):
        given = [each.format(saved=saved) if isinstance(each, str) else each for each in given]
    with pytest.raises(HydrascopeError, match=message):
        hs.load_model(saved / "model", dictionaries=given)
