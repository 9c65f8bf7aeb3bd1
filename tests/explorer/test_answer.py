"""Compare answers with plain runs: effects, flow, next tokens, attention and heads."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from exploring import POOL, TYPED
from live_questions import CLOSE
from plain import Reader, loaded, plain_run, quantities

import hydrascope as hs
from hydrascope.components.component import Override
from hydrascope.explorer.answer import answer
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session


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


def test_of_rounding_there_is_no_share(session):
    found = hs.sweep(session.model, [TYPED], hs.Zero(), ablate="mlp.0", metrics=("prob", "top")).load()
    (known,) = answer(session.model, found, Override.parse("mlp.0"))["runs"]
    assert known["share"] == pytest.approx(known["restored"][0] / known["removed"][0])
    found["direct"][:] = -1e-8
    told = answer(session.model, found, Override.parse("mlp.0"))
    assert np.isnan(told["runs"][0]["share"])
    assert "nothing is removed directly" in told["readings"][0]["flow"]["why"]


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
