"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.attribution.figure import bars
from studies.attribution.objections import held_by_largest, moved, objections
from studies.attribution.verdict import CLAIMED, wider
from studies.claims import half_width
from studies.damping.verdict import MOST_HELD
from studies.words import (
    OUTCOMES,
    Bounds,
    correction,
    head,
    interval,
    markdown,
    name,
    p_value,
    prediction,
    repetition_of_shipped,
    share,
    weights,
)

#: The estimators in words.
_NAMES = {
    "lens": "logit lens",
    "atp": "AtP",
    "ig": "IG, one step",
    "atp_star": "AtP*",
    "gim": "GIM, scaled",
}
_TITLE = "How much of attribution's error is repair?"


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    models = results["models"]
    responses = "; ".join(f"{name(model)} {share(wider(of, 'atp'))}" for model, of in models.items())
    return (
        f"**{_said(settings, models)}** Share of AtP's squared error that responses of later sublayers explain: "
        f"{responses}."
    )


def _detail(models: Mapping[str, Any]) -> str:
    """Return the numbers behind the claim."""
    back = "; ".join(f"{name(model)} {share(_atp(of)['given back'])}" for model, of in models.items())
    taken = "; ".join(f"{name(model)} {share(_atp(of)['taken'])}" for model, of in models.items())
    held = " and ".join(f"{100 * held_by_largest(of):.0f}%" for of in models.values())
    rest = "; ".join(
        f"{name(model)} {share(of['without_largest']['atp']['pooled']['given back'])}" for model, of in models.items()
    )
    return (
        "Share of AtP's squared error that these responses explain by giving back more than AtP predicts, on balance: "
        f"{back}; by taking away more: {taken}. Without the three sublayers of the largest errors, which hold {held} "
        f"of it, by giving back: {rest}."
    )


def _atp(of: Mapping[str, Any]) -> Mapping[str, Bounds]:
    found: Mapping[str, Bounds] = of["difference"]["atp"]["pooled"]
    return found


def _said(settings: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    limit = settings["threshold"]
    lows = [wider(of, "atp")[1] for of in models.values()]
    highs = [wider(of, "atp")[2] for of in models.values()]
    rest = [of["without_largest"]["atp"]["pooled"]["taken − given back"][1] for of in models.values()]
    if all(low is not None and low > limit for low in lows):
        first = (
            "Where a whole sublayer is set to zero, AtP's error is mostly what later sublayers do beyond the gradient"
        )
        if all(low is not None and low > 0 for low in rest):
            return (
                f"{first}; without the three sublayers of the largest errors, less of that gives back than takes away."
            )
        return f"{first}; how much of that gives back depends on the model."
    if all(high is not None and high < limit for high in highs):
        return "Less than half of attribution's error is what later sublayers do beyond the gradient."
    return "How much of attribution's error later sublayers explain depends on the model, or can't be told."


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    caption = (
        "Squared error of estimates of the total effect of setting a sublayer to zero at the last token, relative to "
        "the squared effect itself (dotted: an estimate of nothing), by what the estimate gets wrong. Mean over prompt "
        "sets, confirmation half. Green: responses of later sublayers that act against the sublayer's own change, "
        "beyond what was predicted, all of them taken together in each prompt; orange: the other responses. A bar is "
        "the mean size, divided by the mean shares. GIM is scaled by a factor. AtP* and GIM are of fewer prompts, so "
        "that their bars can't be compared with the others; the table of what they mend compares on the same prompts."
    )
    yield from head(_TITLE, "attribution", claim(settings, results), "Squared error by term", caption)
    yield _detail(models)
    yield ""
    yield from prediction(settings, _outcome(settings, models, verdict))
    yield f"- **Changed before confirming**: {settings['changed']}."
    yield f"- **Sets**: {_sets(settings, models)}"
    yield f"- **Halves**: {settings['halves']['rule']}; {settings['halves']['reason']}."
    yield f"- **Read before**: {settings['halves']['read_before']}."
    yield (
        "- **More exactly**: those names came from the whole list, so that names of this half were among them. "
        "Greater-than's events are in both halves, and its exploration half has six templates, each cut into two "
        "blocks."
    )
    yield f"- **Unit**: {settings['unit']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield "Shares of Σ error², read by `difference` at the clean run's σ, mean over sets, confirmation half:"
    yield ""
    yield from _table(models)
    yield ""
    yield (
        "*Responses* are downstream attention and MLPs together: the claim. *Give back* is the part of them in which "
        "they act against the sublayer's own change: more comes back, or less is lost, than was predicted. *Take away* "
        "is the rest: were signs a matter of chance, each would be half of the responses. *Size* is Σ error² / Σ "
        "total². Bounds by resampling; the claim takes the wider of these and Student's. A share isn't what would be "
        "mended: see the objection on terms that covary."
    )
    yield ""
    yield "Each set by itself:"
    yield ""
    yield from _by_set(models)
    yield ""
    yield "## What other estimates mend"
    yield ""
    yield from _mended(settings, models)
    yield ""
    yield "## Where the error is"
    yield ""
    yield from _where(settings, models)
    yield ""
    yield "## Guards and other readings"
    yield ""
    yield from (f"- {guard[0].upper()}{guard[1:]}." for guard in settings["guards"])
    yield f"- {_guarded(models, verdict)}"
    yield ""
    yield "The shares in AtP's squared error and in the logit lens's, and the size of either:"
    yield ""
    yield from _readings(models)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield "| declared before confirming, for both models (†: after the exploration half was seen) | p | adjusted | |"
    yield "|---|---|---|---|"
    for each, of in verdict["secondary"].items():
        says, late = "holds" if of["holds"] else "**not shown**", " †" if each in _LATE else ""
        yield f"| {settings['secondary'][each]}{late} | {p_value(of['p'])} | {p_value(of['adjusted'])} | {says} |"
    yield ""
    yield f"{correction(settings, verdict['p'])} It is twice the one-sided p of what was predicted, at most 1."
    yield ""
    yield "## Controls"
    yield ""
    yield from _controls(settings, models)
    yield ""
    yield "## Limits"
    yield ""
    yield from weights(settings["models"], models)
    yield "- Whole sublayers only, not heads, and one position: AtP is used at all positions and on heads, too."
    yield "- Zero ablation may be far from what a sublayer writes; the twin's activation stands beside."
    yield "- Squared errors weigh the largest effects most: a few early sublayers hold much of them."
    yield "- Give back is told by a sign in each prompt: it says nothing of a purpose."
    for model, of in models.items():
        if moved(of) > half_width(of["weight_noise"]["none"]["atp"]):
            yield (
                f"- The share in AtP's error fails the declared check of weight noise in {name(model)}: its second "
                "digit isn't established."
            )
    yield ""
    yield from repetition_of_shipped("attribution", settings["models"])
    yield "## Objections"
    yield ""
    yield from objections(settings, models)


def _outcome(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    found = "; ".join(
        f"{_NAMES[estimator]}, "
        + ", ".join(f"{name(model)} {interval(wider(of, estimator))}" for model, of in models.items())
        for estimator in CLAIMED
    )
    against = [f"{_NAMES[estimator]} in {name(model)}" for model, estimator in verdict["against"]]
    surely = f" Surely on the other side of {settings['threshold']}: {' and '.join(against)}." if against else ""
    return f"{OUTCOMES[verdict['outcome']]} Share of responses: {found}.{surely}"


def _sets(settings: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        kept = [f"{label} {of['sets'][label]['number']}" for label in of["kept"]]
        out = [label for label in of["solved"] if label not in of["kept"]]
        left = f"; left out: {', '.join(out)}" if out else ""
        words.append(f"{name(model)}: prompts of {', '.join(kept)}{left}")
    return f"{settings['solved']['rule'][0].upper()}{settings['solved']['rule'][1:]}. {'. '.join(words)}."


_COLUMNS = {
    "attention": "attention",
    "mlp": "MLPs",
    "norm": "final norm",
    "own": "own write",
    "responses": "**responses**",
    "given back": "give back",
    "taken": "take away",
    "size": "size",
}


def _table(models: Mapping[str, Any]) -> Iterator[str]:
    yield f"| | | {' | '.join(_COLUMNS.values())} |"
    yield "|---" * (len(_COLUMNS) + 2) + "|"
    for model, of in models.items():
        for estimator, found in bars(of):
            cells = [interval(found[column]) for column in _COLUMNS]
            yield f"| {name(model)} | {_NAMES[estimator]} | {' | '.join(cells)} |"


def _by_set(models: Mapping[str, Any]) -> Iterator[str]:
    columns = ("attention", "mlp", "norm", "responses", "given back", "size")
    yield f"| | prompts | | {' | '.join(_COLUMNS[each] for each in columns)} |"
    yield "|---" * (len(columns) + 3) + "|"
    for model, of in models.items():
        for label in of["kept"]:
            for estimator in CLAIMED:
                found = of["difference"][estimator]["sets"][label]
                cells = [interval(found[column]) for column in columns]
                prompts = of["sets"][label]["number"]
                yield f"| {name(model)}, {label} | {prompts} | {_NAMES[estimator]} | {' | '.join(cells)} |"


def _mended(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Squared error relative to AtP's on the same prompts, and the part of AtP's that is mended of each term "
        f"(below 0: made worse). {settings['gradients']['rule']}. Integrated gradients have no error in the limit of "
        "many steps, each a pass for every sublayer; here it is one step, at half the dose. AtP* is here GradDrop "
        "alone, as a signed mean; as published it takes sizes, and a fix for queries and keys. AtP has no factor as "
        "GIM has, so that a part of what GIM mends may be the factor's."
    )
    yield ""
    yield "| | | of AtP's error left | attention mended | MLPs mended | norm mended | own write mended |"
    yield "|---|---|---|---|---|---|---|"
    for model, of in models.items():
        for estimator, found in of["against_atp"].items():
            cells = [interval(found[key]) for key in ("ratio", "attention", "mlp", "norm", "own")]
            yield f"| {name(model)} | {_NAMES[estimator]} | {' | '.join(cells)} |"
    yield ""
    for model, of in models.items():
        factors = ", ".join(f"{label} {number(each, 2)}" for label, each in of["factor"].items())
        yield f"- GIM's factor, {name(model)}: {factors}."


def _where(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield "The sublayers with the largest squared errors of AtP (no bounds: nothing is claimed about single ones):"
    yield ""
    yield "| | sublayer | share of Σ error² | of it, responses | of it, give back |"
    yield "|---|---|---|---|---|"
    for model, of in models.items():
        for label, each in of["sublayers"].items():
            cells = " | ".join(number(each[key], 2) for key in ("share", "responses", "given back"))
            yield f"| {name(model)} | {label} | {cells} |"
    yield ""
    yield "By thirds of the kick κ that an ablation gives to the stream after its block:"
    yield ""
    yield "| | smallest κ: size of the error | middle | largest | responses' share: smallest | middle | largest |"
    yield "|---|---|---|---|---|---|---|"
    for model, of in models.items():
        cells = [interval(each) for key in ("size", "responses") for each in of["kappa"][key]]
        yield f"| {name(model)}, {of['kappa']['number']} prompts a set | {' | '.join(cells)} |"
    yield ""
    for model, of in models.items():
        yield (
            f"- Brakes, {name(model)}, not declared: of AtP's squared error, sublayers that write against the answer "
            f"in the clean run (told on the other half) explain {interval(_atp(of)['brakes'])}, of the logit lens's "
            f"{interval(of['difference']['lens']['pooled']['brakes'])}; below 0 they make it smaller."
        )


def _guarded(models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    if verdict["guarded"]:
        cells = "; ".join(f"{_NAMES[estimator]} in {name(model)}" for model, estimator in verdict["guarded"])
        return f"**A guard forbids to use the share of {cells}.**"
    held = [
        each["hold"] for of in models.values() for estimator in CLAIMED for each in of["loudest"][estimator].values()
    ]
    return (
        f"No guard forbids a verdict. 5% of a set's prompts hold {number(100 * min(held), 0)} to "
        f"{number(100 * max(held), 0)}% of its squared errors; in {sum(each > MOST_HELD for each in held)} of "
        f"{len(held)} cases that is over a third."
    )


_READINGS = {
    "difference": "as declared",
    "own_scale": "each pass at its own σ",
    "logit": "`logit`",
    "without_largest": "without the three largest",
    "exploration": "exploration half",
}


def _readings(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | | AtP: responses | AtP: give back | size | logit lens: responses | logit lens: give back | size |"
    yield "|---|---|---|---|---|---|---|---|"
    for model, of in models.items():
        for key, words in _READINGS.items():
            each = [of[key][estimator]["pooled"] for estimator in CLAIMED]
            cells = [interval(one[column]) for one in each for column in ("responses", "given back", "size")]
            yield f"| {name(model)} | {words} | {' | '.join(cells)} |"
        twin = of["counterfactual"]["pooled"]
        cells = [interval(twin[column]) for column in ("responses", "given back", "size")]
        count = sum(of["counterfactual"]["number"].values())
        yield f"| {name(model)} | the twin's activation, {count} prompts | {' | '.join(cells)} | – | – | – |"
        for key, words in (("without", "without the loudest 5%"), ("blocks", "median of 20 blocks")):
            means = [
                number(sum(each[key] for each in of["loudest"][estimator].values()) / len(of["kept"]), 2)
                for estimator in CLAIMED
            ]
            yield f"| {name(model)} | {words} | {means[0]} | – | – | {means[1]} | – | – |"
    yield ""
    for model, of in models.items():
        parts = [
            f"{_NAMES[estimator]} {interval(of['difference'][estimator]['t'], 3)} by Student's t, "
            f"{interval(of['difference'][estimator]['pooled']['responses'], 3)} by resampling"
            for estimator in CLAIMED
        ]
        yield f"- Bounds, {name(model)}: {'; '.join(parts)}; the wider counts."
        yield f"- The three largest, {name(model)}: {', '.join(of['largest'])}."


def _controls(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    noise = settings["weight_noise"]
    for model, of in models.items():
        checks = of["checks"]
        yield (
            f"- Books, {name(model)}: terms add up to the error to {_tiny(of['imbalance'])} in the confirmation runs "
            f"of zero ablation (float32), to "
            f"{_tiny(checks['imbalance64'])} in float64 on {checks['prompts']} {settings['checks']['set']}."
        )
        yield (
            f"- Derivative, {name(model)}, there in float64: doses 1 ± {settings['epsilon']} differ from autograd's "
            f"gradient by at most {_tiny(checks['gradient'])} a term (largest prediction "
            f"{number(checks['largest'], 1)}), from half the width by {_tiny(checks['half_step'])}, from float32 by "
            f"{_tiny(checks['rounding'])}. Responses' share of AtP's squared error: {number(checks['share'], 4)} as "
            f"measured, {number(checks['share_64'], 4)} in float64, {number(checks['share_gradient'], 4)} by autograd."
        )
        for estimator in CLAIMED:
            found = {kind: each[estimator] for kind, each in of["weight_noise"].items()}
            without, noised = found["none"], [each for kind, each in found.items() if kind != "none"]
            most, half = max(abs(each[0] - without[0]) for each in noised), (without[2] - without[1]) / 2
            says = "less" if most < half else "**more**"
            yield (
                f"- Weight noise, {name(model)}, {_NAMES[estimator]}, {noise['prompts']} {noise['set']}: the share is "
                f"{interval(without)}, with noise {', '.join(number(each[0], 2) for each in noised)}: it moves by "
                f"{number(most, 3)}, {says} than the half-width {number(half, 3)}."
            )
        solved = ", ".join(
            f"{label} {' and '.join(number(100 * each, 0) for each in halves.values())}%"
            for label, halves in of["solved"].items()
        )
        yield f"- Solved, {name(model)}, in the exploration and the confirmation half: {solved}."
        kicks = ", ".join(f"{label} {number(each, 2)}" for label, each in of["kappa"]["median"].items())
        yield f"- Kick, {name(model)}: median {kicks} (1 is as far as two prompts are apart)."


#: The secondary claims that were added or changed after the exploration half was seen.
_LATE = ("without_largest", "given_back", "taken", "lens_back")


def _tiny(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")
