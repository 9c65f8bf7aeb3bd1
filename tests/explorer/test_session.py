"""What a live question is answered with is what a sweep over the same prompts gives, and what plain runs give."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from opened import FEW
from plain import Reader, loaded, plain_run, quantities

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.explorer.job_monitor import JobMonitor, StoppedError
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.loading import self_check
from hydrascope.utils.errors import HydrascopeError

#: Two of them are too short for the third position from the end.
POOL = ("abc", "the cat", "a", "Hello, world", "xyz.", "no", "QRS tuv")
TYPED = "cats and"

#: Everything is float64; the sweep multiplies the same numbers in other batches.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """Intervals are looked at elsewhere."""
    monkeypatch.setattr("hydrascope.explorer.session.report", partial(hs.report, bootstrap=FEW))


@pytest.fixture(scope="module")
def session():
    return Session(loaded("gpt2"), POOL)


def swept(session, question, ablate, *, prompts=(*POOL, TYPED), index=-1):
    """By `hs.sweep`, of all prompts, the one that is asked for."""
    target = "argmax" if question.target is None else question.target
    results = hs.sweep(
        session.model,
        prompts,
        question.make_ablation(),
        ablate=ablate,
        at=question.at,
        target=target,
        metrics=["prob", "top"],
        keep="patches",
    )
    return results.isel(prompt=[index])


QUESTIONS = {
    "resample": Question(TYPED, patches=3),
    "another seed": Question(TYPED, patches=3, seed=5),
    "from other targets": Question(TYPED, patches=2, different_target=True),
    "another target": Question(TYPED, patches=2, target=9),
    "zero": Question(TYPED, ablation="zero"),
    "mean": Question(TYPED, ablation="mean"),
    "mean everywhere": Question(TYPED, ablation="mean", at="all"),
    "noise": Question(TYPED, ablation="noise", patches=2, noise_scale=1),
    "earlier": Question(TYPED, patches=2, at="-2"),
    "two places": Question(TYPED, patches=2, at="-3,-1"),
    "one of the pool": Question("xyz.", patches=3),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_live_number_is_the_sweeps(session, name):
    question = QUESTIONS[name]
    prompts = [text for text in POOL if len(text) >= -min(question.positions(), default=-1)]
    prompts = prompts if question.text in prompts else [*prompts, question.text]
    runs = ["layers", "head.1.2,attn.0+mlp.1,attn.0|mlp.2"]
    found = session.measured(question, runs, JobMonitor())
    expected = swept(session, question, runs, prompts=prompts, index=prompts.index(question.text))
    assert set(found.variables) == set(expected.variables)
    for variable in expected.variables:
        if expected[variable].dtype.kind == "f" and variable != "imbalance":
            np.testing.assert_allclose(found[variable], expected[variable], **CLOSE, err_msg=str(variable))
        elif variable != "imbalance":
            assert found[variable].equals(expected[variable]), variable
    assert float(abs(found["total"]).min()) >= 0
    assert float(abs(found["total"]).max()) > 1e-3


def test_every_position_is_patched_from_prompts_that_have_it():
    pool = ("abcd", "xyz.", "Hell", "cats", "no a")
    session, question = Session(loaded(), pool), Question("dogs", patches=3, at="all")
    found = session.measured(question, "layers,head.1.2", JobMonitor())
    expected = swept(session, question, "layers,head.1.2", prompts=[*pool, "dogs"])
    for name in ("total", "direct", "unembed_ablated", "patch_prompt"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    mixed = Session(session.model, ("longer than that", *pool)).measured(question, "layers,head.1.2", JobMonitor())
    assert mixed["patch_prompt"].values.max() <= len(pool)


#: Prompts with subjects of several lengths, at several positions; and two without, which are left out.
SUBJECTS = (
    *(("the cat is", "e cat"), ("dogs, no", "dogs,"), ("a cow", "a cow"), ("QRS tuv", "RS tu"), ("x is it", "x")),
    *(("abc", None), ("no", "yes")),
)
NAMED = [hs.Prompt(text, subject=subject) for text, subject in SUBJECTS]
AT_SUBJECT = {
    "resample": Question("cats and", patches=2, subject="cats"),
    "another seed": Question("cats and", patches=3, seed=5, subject="at"),
    "from other targets": Question("cats and", patches=2, different_target=True, subject="c"),
    "zero": Question("cats and", ablation="zero", subject="and"),
    "mean": Question("cats and", ablation="mean", subject="cat"),
    "noise": Question("cats and", ablation="noise", patches=2, subject="ts a"),
    "one of the pool": Question("dogs, no", patches=2, subject="gs"),
    "one of the pool, of which the subject is known": Question("a cow", patches=2),
    "one that has no subject there": Question("abc", patches=2, subject="bc"),
}


@pytest.mark.parametrize("at", ["subject", "subject-last"])
@pytest.mark.parametrize("name", AT_SUBJECT)
def test_a_number_at_the_subject_is_the_sweeps(at, name):
    session, question = Session(loaded("gpt2"), NAMED), replace(AT_SUBJECT[name], at=at)
    known = dict(SUBJECTS)
    subject = question.subject or known[question.text]
    fitting = [prompt for prompt in NAMED if prompt.subject and prompt.subject in prompt.text]
    texts = [prompt.text for prompt in fitting]
    index = texts.index(question.text) if question.text in texts else len(texts)
    fitting[index:] = [hs.Prompt(question.text, subject=subject), *fitting[index + 1 :]]
    runs = ["layers", "head.1.2,attn.0+mlp.1,attn.0|mlp.2"]
    found = session.measured(question, runs, JobMonitor())
    expected = swept(session, question, runs, prompts=fitting, index=index)
    assert set(found.variables) == set(expected.variables)
    for variable in expected.variables:
        if expected[variable].dtype.kind == "f" and variable != "imbalance":
            np.testing.assert_allclose(found[variable], expected[variable], **CLOSE, err_msg=str(variable))
        elif variable != "imbalance":
            assert found[variable].equals(expected[variable]), variable
    assert float(abs(found["total"]).max()) > 1e-3


def test_numbers_at_one_position_do_not_depend_on_what_was_asked_before():
    """What is kept of the pool serves every position."""
    session, question = Session(loaded("gpt2"), NAMED), AT_SUBJECT["resample"]
    first = session.measured(replace(question, at="subject"), "layers", JobMonitor())
    for at in ("last", "-3", "all", "subject-last"):
        session.measured(replace(question, ablation="mean", at=at), "layers", JobMonitor())
    again = session.measured(replace(question, at="subject"), "layers", JobMonitor())
    np.testing.assert_array_equal(first["total"], again["total"])


def test_the_subject_is_read_where_it_stands():
    session = Session(loaded("gpt2"), NAMED)
    assert session.read(Question("cats and", subject="ts"), JobMonitor())["subject"] == (2, 4)
    assert session.read(Question("the cat is"), JobMonitor())["subject"] == (2, 7)
    assert session.read(Question("cats and"), JobMonitor())["subject"] is None
    assert session.read(Question("cats and", subject="dog"), JobMonitor())["subject"] is None


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question("cats and"), "the prompt's subject isn't known: type it as it is written in the prompt"),
        (Question("cats and", subject=" "), "the prompt's subject isn't known"),
        (Question("cats and", subject="dogs"), 'does not contain its subject "dogs": write it as in the prompt'),
        (
            Question("cats and", subject="cats", patches=9),
            "9 patches at the subject need as many other prompts with a subject, and of the 7 that patches come from 5",
        ),
        (
            Question("cats and", subject="cats an", patches=2),
            "subjects of 5 have fewer tokens than its 7.: ablate at subject-last",
        ),
    ],
)
def test_what_cannot_be_asked_of_a_subject_is_said_in_a_line(question, said):
    session = Session(loaded("gpt2"), NAMED)
    with pytest.raises(HydrascopeError, match=said) as caught:
        session.ablate(replace(question, run="attn.0", at="subject"), JobMonitor())
    assert "\n" not in str(caught.value)


def test_without_others_with_a_subject_a_mean_is_refused_and_zero_is_not(session):
    question = Question(TYPED, "attn.0", at="subject", subject="cats", ablation="mean")
    with pytest.raises(HydrascopeError, match="of the 7 that patches come from 0 have one"):
        session.ablate(question, JobMonitor())
    assert session.ablate(replace(question, ablation="zero"), JobMonitor())["runs"]


def test_what_was_found_at_the_subject_is_kept(tmp_path):
    session = Session(loaded("gpt2"), NAMED)
    question = Question("cats and", "attn.0", at="subject-last", subject="cats", patches=2)
    one, everyone = (
        hs.open_results(keep(question, tmp_path / name, JobMonitor())["result"])
        for name, keep in (("one", session.save), ("all", session.save_all))
    )
    prompts = [*NAMED[:5], hs.Prompt("cats and", subject="cats")]
    expected = hs.sweep(session.model, prompts, hs.Resample(2), ablate="attn.0", at="subject-last")
    np.testing.assert_allclose(everyone["total"], expected["total"], **CLOSE)
    np.testing.assert_allclose(one["total"], expected["total"].isel(prompt=[-1]), **CLOSE)
    assert list(everyone["subject"].values) == [prompt.subject for prompt in prompts]
    assert np.flatnonzero(one["token_ablated"]).tolist() == [3]


def test_a_twin_patches_its_prompt_alone(session):
    question = Question(TYPED, ablation="counterfactual", counterfactual="dogs and", at="all")
    found = session.measured(question, "layers", JobMonitor())
    prompts = [hs.Prompt(TYPED, counterfactual="dogs and")]
    expected = swept(session, question, "layers", prompts=prompts)
    np.testing.assert_allclose(found["total"], expected["total"], **CLOSE)
    at_subject = replace(question, at="subject", subject="cats")
    prompts = [hs.Prompt(TYPED, subject="cats", counterfactual="dogs and")]
    expected = swept(session, at_subject, "layers", prompts=prompts)
    np.testing.assert_allclose(
        session.measured(at_subject, "layers", JobMonitor())["total"], expected["total"], **CLOSE
    )
    with pytest.raises(HydrascopeError, match="has no counterfactual"):
        session.measured(replace(question, counterfactual=""), "layers", JobMonitor())


def test_an_answer_is_that_of_plain_runs(session):
    """Two components ablated and one frozen, patch by patch, by plain forward passes with hooks of their own."""
    model, patches = session.model, 3
    found = session.ablate(Question(TYPED, "attn.0+mlp.0|mlp.2", patches=patches), JobMonitor())
    others = np.random.default_rng([0, len(POOL)]).choice(np.arange(len(POOL)), patches, replace=False)
    tokens = model.encode(TYPED)
    clean, sources = plain_run(model, tokens), [plain_run(model, model.encode(POOL[other])) for other in others]
    reader, last = Reader.of_logit(model, int(clean.logits.argmax())), [len(tokens) - 1]
    numbers = {"attn.0+mlp.0": [], "attn.0+mlp.0|mlp.2": []}
    written = {"clean": [], "own": []}
    for source in sources:
        changes = {label: (last, source.values[label][-1:]) for label in ("attn.0", "mlp.0")}
        held = {"mlp.2": (range(len(tokens)), clean.values["mlp.2"])}
        for label, overrides in zip(numbers, (changes, {**changes, **held}), strict=True):
            changed = plain_run(model, tokens, overrides)
            numbers[label].append(quantities(model, reader, clean, changes, changed))
        for at_sigma, of in (("clean", clean), ("own", changed)):
            parts = reader.parts(model, ["mlp.1"], changed.added["mlp.1"][None], _sigma(model, of))
            written[at_sigma].append(parts[0])
    for run in found["runs"]:
        of = numbers[run["label"]]
        removed, lost = (np.array([-each[name] for each in of]) for name in ("direct", "total"))
        for name, values in (("removed", removed), ("lost", lost), ("restored", removed - lost)):
            np.testing.assert_allclose(run[name], [values.mean(), values.min(), values.max()], **CLOSE)
    lost = {label: np.mean([-each["total"] for each in of]) for label, of in numbers.items()}
    (worth,) = found["frozen"]
    np.testing.assert_allclose(worth["worth"], lost["attn.0+mlp.0|mlp.2"] - lost["attn.0+mlp.0"], **CLOSE)
    assert worth["label"] == "mlp.2"
    for read, at_sigma in zip(found["readings"], ("clean", "own"), strict=True):
        mlp = next(part for part in read["components"] if part["name"] == "mlp.1")
        np.testing.assert_allclose(mlp["ablated"], np.mean(written[at_sigma]), **CLOSE)
        balance = read["balance"]
        np.testing.assert_allclose(balance["total"], -lost["attn.0+mlp.0|mlp.2"], **CLOSE)
        np.testing.assert_allclose(balance["sum"], balance["total"], atol=1e-6)
        assert balance["off"] < 1e-6
        assert {part["name"] for part in read["components"] if part["responds"]} == {"attn.1", "mlp.1", "attn.2"}
    clean, own = (each["balance"] for each in found["readings"])
    assert abs(clean["norm"] - own["norm"]) > 1e-6


def test_an_answer_has_the_repair_flow_of_the_prompt(session):
    question = Question(TYPED, ablation="zero")
    direct = session.measured(question, "layers", JobMonitor())["direct"].squeeze()
    most, least = (str(direct["ablated"].values[i]) for i in (direct.values.argmin(), direct.values.argmax()))
    found = session.ablate(replace(question, run=most), JobMonitor())
    (run,) = found["runs"]
    for read in found["readings"]:
        for name, width in (("wide", "900"), ("narrow", "390")):
            root = ElementTree.fromstring(read["flow"][name]["svg"])
            assert root.get("width") == width
            # Its styles come apart, and nothing in it can run or load.
            assert not {each.tag.rpartition("}")[2] for each in root.iter()} & {"style", "script", "foreignObject", "a"}
            assert not [key for each in root.iter() for key in each.attrib if re.match("style|on|href", key)]
            assert read["flow"][name]["style"].startswith(f":where(.{root.get('class').split()[1]})")
            told = root[1].text
            effects = re.search(r"Removed (\S+) logits, lost (\S+)\. ", told).groups()
            np.testing.assert_allclose([*map(float, effects)], [run["removed"][0], run["lost"][0]], atol=0.006)
            mlps, sign, attention = re.search(r" = (\S+) MLPs ([+−]) (\S+) attention", told).groups()
            terms = [float(mlps.replace("−", "-")), float(sign.replace("−", "-") + attention)]
            np.testing.assert_allclose(terms, [read["balance"]["mlp"], read["balance"]["attention"]], atol=0.006)
            # Of one prompt there are no bounds, and it belongs to no set.
            assert "[" not in told
            assert "one prompt: no intervals" in told
    refused = session.ablate(replace(question, run=least), JobMonitor())["readings"][0]["flow"]
    assert list(refused) == ["why"]
    assert refused["why"].startswith(f"{least} holds the answer back")


def _sigma(model, run):
    residual = run.streams[-1] - run.streams[-1].mean()
    return float((residual.square().mean() + model.norm_eps).sqrt())


def test_the_likeliest_tokens_are_the_models(session):
    found = session.read(Question(TYPED), JobMonitor())
    logits = plain_run(session.model, session.model.encode(TYPED)).logits
    shares = logits.softmax(-1)
    assert [each["token"] for each in found["next"]] == shares.argsort(descending=True)[:10].tolist()
    np.testing.assert_allclose([each["probability"] for each in found["next"]], shares.sort().values.flip(0)[:10])
    assert "".join(found["tokens"]) == TYPED


@pytest.mark.parametrize(
    "question",
    [
        Question(TYPED, "attn.0|mlp.2", patches=3),
        Question(TYPED, "attn.1", ablation="zero", at="all"),
    ],
)
def test_next_tokens_are_the_models_after_each_patch(session, question):
    """Means over patches; the same sources as of the sweep, and plain runs."""
    found = session.ablate(question, JobMonitor())
    states = [each["state"] for each in found["next"]]
    assert states == ["clean", *dict.fromkeys([question.run.split("|")[0], question.run])]
    shares = [each["tokens"][0]["probability"] for each in found["next"]]
    assert shares[0] == pytest.approx(found["probability"])
    target = found["target"]
    likely = {run["label"]: run["probability"] for run in found["runs"]}
    for each in found["next"][1:]:
        of_target = [token["probability"] for token in each["tokens"] if token["text"] == target]
        assert of_target == pytest.approx([likely[each["state"]]] * len(of_target))
    listed = [[token["text"] for token in each["tokens"]] for each in found["next"]]
    assert target == listed[0][0]
    for number, now in enumerate(found["next"]):
        for place, token in enumerate(now["tokens"]):
            before = listed[max(number - 1, 0)]
            # One that wasn't listed before was beyond.
            assert before.index(token["text"]) == token["rank"] if token["text"] in before else token["rank"] >= 10
            assert place == token["rank"] or number


@pytest.mark.parametrize(
    "question",
    [
        Question(TYPED, "attn.0|mlp.1", ablation="mean", heads=(2,)),
        Question(TYPED, "head.0.1", ablation="zero", at="all", heads=(1,)),
    ],
)
def test_attention_is_the_librarys(session, question):
    (block,) = question.heads
    clean, found = (ask(question, JobMonitor())["attention"] for ask in (session.read, session.ablate))
    others = () if question.ablation == "zero" else POOL
    expected = hs.analyses.attention(
        session.model,
        TYPED,
        question.run,
        f"heads.{block}",
        question.make_ablation(),
        at=question.at,
        others=others or None,
    )
    assert found["states"] == expected["state"].values.tolist()
    assert clean["states"] == ["clean"]
    for each in (clean, found):
        assert each["tokens"] == list(TYPED)
        assert list(each["heads"]) == [f"head.{block}.{number}" for number in range(4)]
        for head, rows in each["heads"].items():
            weights = expected["attention"].sel(head=head)
            assert len(rows) == len(each["states"])
            for row, state in zip(rows, weights, strict=False):
                np.testing.assert_allclose(row["weights"], state, atol=2e-6)
                assert row["rest"] == pytest.approx(0, abs=1e-6)
    assert session.ablate(replace(question, heads=()), JobMonitor())["attention"] is None


def test_a_sink_takes_the_rest():
    session = Session(loaded("gpt_oss"), POOL)
    found = session.ablate(Question(TYPED, "attn.0", ablation="zero", heads=(1,)), JobMonitor())["attention"]
    for row in chain.from_iterable(found["heads"].values()):
        assert row["rest"] == pytest.approx(1 - sum(row["weights"]), abs=1e-5)
        assert row["rest"] > 0.001


def test_weights_that_cannot_be_read_cost_nothing_else():
    session = Session(loaded("falcon-sequential"), POOL)
    found = session.ablate(Question(TYPED, "attn.0", ablation="zero", heads=(1,)), JobMonitor())
    assert "its eager attention gives other outputs than its own" in found["attention"]["refused"]
    assert found["runs"][0]["label"] == "attn.0"


def test_heads_are_read_where_asked(session):
    found = session.ablate(Question(TYPED, "head.0.1", ablation="zero", heads=(1,)), JobMonitor())
    layers = [str(layer) for layer in session.model.sublayers]
    parts = found["readings"][0]["components"]
    assert [part["name"] for part in parts] == [*layers, *(f"head.1.{head}" for head in range(4))]
    heads = sum(part["ablated"] for part in parts if part["name"].startswith("head"))
    whole = next(part["ablated"] for part in parts if part["name"] == "attn.1")
    bias = session.model.hf.transformer.h[1].attn.c_proj.bias
    assert abs(heads - whole) > 0 if bias.abs().max() > 0 else abs(heads - whole) < 1e-9


@pytest.mark.parametrize(
    "question",
    [
        Question(TYPED, ablation="zero", at="-3", run="attn.1"),
        Question(TYPED, ablation="zero", target=9),
        Question(TYPED, ablation="counterfactual", counterfactual="dogs and"),
        Question(TYPED, ablation="mean"),
    ],
)
def test_a_map_is_the_librarys(session, question):
    """Whatever the question says of components and positions."""
    pool = (*POOL, "dogs and no cats")
    found = Session(session.model, pool).map(question, JobMonitor())
    target = "argmax" if question.target is None else question.target
    ablation = question.make_ablation()
    expected = hs.analyses.position_map(session.model, question.prompt(), ablation, others=pool, target=target)
    assert found["tokens"] == list(TYPED)
    assert [each["name"] for each in found["components"]] == list(expected["component"].values)
    np.testing.assert_allclose(found["cost"], expected["cost"], **CLOSE)
    assert (found["target"], found["ablation"]) == (str(expected["target_text"].values), question.ablation)
    assert found["probability"] == pytest.approx(float(expected["probability"]))
    assert found["scale"]["most"] >= abs(expected["cost"]).max()


@pytest.mark.parametrize("question", [Question("cats and", patches=2), Question("cats and", "", "noise", 2)])
def test_a_row_of_a_map_is_what_a_click_gives(session, question):
    """Take prompts of one length, so that the same patches are drawn at one position as at all."""
    fresh = Session(session.model, ("the cats", "and dogs", "or a cow", "no a pig"))
    found = fresh.map(question, JobMonitor())
    for place in (-1, -3, -8):
        swept = fresh.measured(replace(question, at=str(place)), "layers", JobMonitor())
        lost = -swept["total"].isel(readout=0, prompt=0).mean("patch")
        np.testing.assert_allclose(found["cost"][place], lost, **CLOSE)


def test_a_map_can_be_stopped(session):
    monitor, told = JobMonitor(), []
    monitor.send_progress = lambda update: (told.append(update["doing"]), monitor.stop())
    with pytest.raises(StoppedError):
        session.map(Question(TYPED, ablation="zero"), monitor)
    assert told == ["mapping tokens"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(TYPED, "attn.9"), "has no attn.9: its blocks are 0 to 2"),
        (Question(TYPED, "attn"), "are 3 runs: write one"),
        (Question(TYPED, "mlp.2|attn.0"), "which isn't downstream of what is ablated"),
        (Question(TYPED, "attn.0", patches=15), "15 resample patches need 15 other prompts"),
        (Question("a" * 100, "attn.0"), "tokens long, the context of gpt2 holds 64"),
        (Question("no", "attn.0", at="-3"), "has no position -3: it is 2 tokens long"),
        (Question(TYPED, "attn.0", ablation="noise", noise_scale=-1), "-1 is no scale of noise"),
        (Question(TYPED, "attn.0", target=99), "has no token 99"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(session, question, said):
    with pytest.raises(HydrascopeError, match=said):
        session.ablate(question, JobMonitor())


def test_what_was_found_is_kept(session, tmp_path):
    question = Question(TYPED, "attn.0|mlp.1", patches=2)
    told = session.save(question, tmp_path / "a", JobMonitor())
    results = hs.open_results(told["result"])
    expected = swept(session, question, "attn.0|mlp.1,attn.0")
    assert set(results.variables) == set(expected.variables)
    np.testing.assert_allclose(results["total"], expected["total"], **CLOSE)
    assert list(results["text"].values) == [TYPED]
    assert results.attrs["measured"] == results.attrs["prompt_count"] == 1
    assert TYPED in (tmp_path / "a.html").read_text()


def test_the_same_is_asked_of_all_prompts_and_kept(session, tmp_path):
    question = Question(TYPED, "attn.0|mlp.1", patches=2)
    told = session.save_all(question, tmp_path / "a", JobMonitor())
    results = hs.open_results(told["result"])
    results = hs.open_results(told["result"])
    assert list(results["text"].values) == [*POOL, TYPED]
    assert results.attrs["measured"] == len(POOL) + 1
    expected = hs.sweep(session.model, [*POOL, TYPED], hs.Resample(2), ablate="attn.0|mlp.1,attn.0")
    np.testing.assert_allclose(results["total"], expected["total"], **CLOSE)
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "attn.0|mlp.1" in page
    with pytest.raises(HydrascopeError, match=r"a.zarr exists: choose another name"):
        session.save_all(question, tmp_path / "a", JobMonitor())
    with pytest.raises(HydrascopeError, match=r"a.zarr exists: choose another name"):
        session.save(question, tmp_path / "a", JobMonitor())


def test_a_save_that_is_stopped_leaves_nothing(session, tmp_path):
    monitor = JobMonitor(lambda update: monitor.stop())
    with pytest.raises(StoppedError, match="cancelled"):
        session.save_all(Question(TYPED, patches=2), tmp_path / "a", monitor)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_computation_leaves_the_model_as_it_was(session):
    hooks = [len(module._forward_pre_hooks) for module in session.model.hf.modules()]
    question = Question(TYPED, "attn.0", patches=2)
    before = session.ablate(question, JobMonitor())
    calls = []

    def third(*_):
        calls.append(1)
        if len(calls) == 3:
            monitor.stop()

    monitor = JobMonitor()
    handle = session.model.hf.get_input_embeddings().register_forward_hook(third)
    # A model with another hook is proven first.
    self_check.revalidate_if_changed(session.model)
    calls.clear()
    monitor = JobMonitor()
    stopped = Session(session.model, POOL)
    with pytest.raises(StoppedError):
        stopped.ablate(question, monitor)
    handle.remove()
    assert len(calls) == 3
    assert [len(module._forward_pre_hooks) for module in session.model.hf.modules()] == hooks
    assert stopped.ablate(question, JobMonitor()) == before


def test_time_is_bounded(session):
    monitor = JobMonitor(seconds=-1)
    monitor.start()
    with pytest.raises(StoppedError, match="took more than"):
        session.sweep(Question(TYPED, patches=2), monitor)


def test_the_pool_is_run_once(session):
    fresh, passes = Session(session.model, POOL), []
    handle = session.model.hf.get_input_embeddings().register_forward_hook(lambda *found: passes.append(found[1][0]))
    for run in ("attn.0", "attn.1", "head.2.1"):
        fresh.ablate(Question(TYPED, run, patches=2), JobMonitor())
    handle.remove()
    assert sum(len(ids) == len(POOL) for (ids, *_) in (p if isinstance(p, tuple) else (p,) for p in passes)) == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "no question"),
        ({"text": 3}, "no question"),
        ({"text": "a", "seed": "0"}, "seed can't be '0'"),
        ({"text": "a", "patches": True}, "patches can't be True"),
        ({"text": "a", "subject": 3}, "subject can't be 3"),
        ({"text": "a", "subject": "\udc00"}, "the subject holds half a surrogate pair"),
        ({"text": "a", "subject": "a" * 20_001}, "this question is too long"),
        ({"text": "a", "model": "x"}, "model can't be 'x'"),
        ({"text": "  \n"}, "the prompt is empty: write one"),
        ({"text": "a" * 20_001}, "20,001 characters long, and 20,000 are read: shorten it"),
        ({"text": "a\ud800"}, "half a surrogate pair"),
        ({"text": "a", "patches": 10_000}, "10000 patches: ask for 1 to 200"),
        ({"text": "a", "ablation": "remove"}, "'remove' replaces nothing"),
        ({"text": "a", "at": "first"}, "are no positions"),
        ({"text": "a", "at": "1"}, "are no positions"),
        ({"text": "a", "heads": ["1"]}, "heads must be numbers"),
        ({"text": "a", "run": "attn.0+" * 300}, "more than 256 components"),
    ],
)
def test_a_question_is_looked_over(asked, said):
    with pytest.raises(HydrascopeError, match=said):
        Question.of(asked)


def test_a_question_is_read_as_it_is_meant():
    assert Question.of({"text": "a", "target": None, "heads": [1], "noise_scale": 2}) == Question(
        "a", heads=(1,), noise_scale=2
    )
    assert torch.is_grad_enabled()
    assert Component.parse("attn.0") is not None
