"""Functions that take a loaded model take the user's own object, too."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import stand_ins
from rest_slow import rest_slow
from tiny import tiny, tiny_tokenizer

import hydrascope as hs
from hydrascope.loading import any_model
from hydrascope.models.language_model import LanguageModel

TOKENS = [[5, 6, 7], [9, 4, 11, 3]]


def functions() -> dict[str, Callable[..., Any]]:
    """Return the public functions whose first argument is a model."""
    spaces = (hs, hs.analyses, hs.analyses.attribution)
    found = {name: getattr(space, name) for space in spaces for name in getattr(space, "__all__", dir(space))}
    return {
        name: function
        for name, function in found.items()
        if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") == "model"
    }


class Loaded(Exception):
    """Raised in place of loading."""


def test_every_public_function_of_a_model_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: Any) -> Any:
        raise Loaded

    monkeypatch.setattr(any_model, "load_model", load)
    found = functions()
    assert {"sweep", "cost", "path_patching", "shapley", "atp"} <= set(found)
    for name, function in found.items():
        if name != "load_model":
            _, *others = inspect.signature(function).parameters.values()
            needed = [None for each in others if each.default is each.empty and each.kind < each.VAR_POSITIONAL]
            with pytest.raises(Loaded):
                function(stand_ins.Envoy(None), *needed)
            with pytest.raises(TypeError, match=rf"{name}\(\) takes no layer=: it takes .*model"):
                function(stand_ins.Envoy(None), *needed, layer=3)


def test_options_that_would_be_ignored_are_refused() -> None:
    """They are options of a sweep, but not of these."""
    for function, option in ((hs.analyses.edges, "read"), (hs.analyses.shapley, "metrics"), (hs.cost, "out")):
        with pytest.raises(TypeError, match=f"takes no {option}="):
            function(None, TOKENS, **{option: "attn"})
    with pytest.raises(AttributeError):
        hs.analyses.edges(None, TOKENS, metrics="kl")  # type: ignore[arg-type]  # it is known, and None is no model


@pytest.mark.parametrize("wrap", rest_slow([lambda model: model, stand_ins.Envoy], (stand_ins.Envoy,)))
def test_they_measure_it_as_the_loaded_one(wrap: Callable[[Any], Any]) -> None:
    hf = tiny("gpt2").hf.eval()
    given, loaded = wrap(hf), hs.load_model(tiny("gpt2").hf.eval())
    for function in (hs.sweep, hs.analyses.shapley):
        options: dict[str, Any] = {"components": "attn.1,mlp.1"} if function is hs.analyses.shapley else {}
        found, expected = (function(each, TOKENS, hs.Zero(), **options) for each in (given, loaded))
        for name in expected.data_vars:
            if expected[name].dtype.kind == "f":
                np.testing.assert_array_equal(found[name], expected[name], err_msg=str(name))
    assert hs.sweep(model=given, prompts=TOKENS, ablation=hs.Zero(), ablate="attn").sizes["prompt"] == 2


def test_the_tokenizer_of_a_wrapper_reads_prompts() -> None:
    results = hs.sweep(stand_ins.Envoy(tiny("gpt2").hf, tiny_tokenizer()), ["the cat"], hs.Zero(), ablate="attn")
    assert list(results["text"].values) == ["the cat"]


def test_a_loaded_model_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_model, "load_model", lambda model: pytest.fail("it was loaded again"))
    model = LanguageModel(tiny("gpt2").hf)
    assert any_model.as_loaded(model) is model
    assert any_model.as_loaded("gpt2") == "gpt2"
