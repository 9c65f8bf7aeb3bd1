"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.verdict import MOST_HELD
from studies.training.estimator import SWAPS, ZEROS
from studies.training.objections import by_t, differences, largest, objections
from studies.training.runs import FEW_TESTS, TESTS
from studies.training.trainer import CONTROL
from studies.words import OUTCOMES, Bounds, correction, head, interval, markdown, prediction

_TEST = {"zero": "zero", "resample": "resampling"}
#: The effects on the target's logit, by their names in the results.
_EFFECTS = {
    "removed, zero": "removed by zero",
    "lost, zero": "lost by zero",
    "removed, resample": "removed by resampling",
    "lost, resample": "lost by resampling",
    "damping": "damping g",
    "content": "content repair h",
    "slope": "restored slope",
}


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    found = "; ".join(f"under {_TEST[test]} {change(results['gain'][test][ZEROS]['bounds'])}" for test in FEW_TESTS)
    return (
        f"**{_said(results)}** Change of the KL divergence by zeros at a fifth of all places in training, against "
        f"training on without: {found}."
    )


def _detail(results: Mapping[str, Any]) -> str:
    """Return the numbers behind the claim."""
    gain = results["gain"]
    found = "; ".join(f"under {_TEST[test]} {change(gain[test][SWAPS]['bounds'])}" for test in FEW_TESTS)
    cells = [(arm, test) for arm in (ZEROS, SWAPS) for test in FEW_TESTS]
    part, each = results["parts"]["interaction"], results["each"]
    swaps = differences(gain["zero"][SWAPS]["seeds"], gain["resample"][SWAPS]["seeds"])
    rest = "; ".join(
        f"{_kind(arm)}, under {_TEST[test]} {change(each['gain_without_largest'][test][arm]['bounds'])}"
        for arm, test in cells
    )
    return (
        f"The same change by swaps: {found}. The interaction, in log KL: {interval(part['bounds'])} (t over "
        f"{len(part['seeds'])} seeds). It comes from the zeros: of swaps, the change under zero less that under "
        f"resampling is {interval(by_t(swaps))}. Looked at afterwards, without {largest(each)}, which has most of the "
        f"control's KL: {rest}; interaction {interval(each['without_largest']['interaction']['bounds'])}."
    )


def _said(results: Mapping[str, Any]) -> str:
    verdict, gain = results["verdict"], results["gain"]
    sides = verdict["sides"]
    robust = all(max(gain[test][arm]["seeds"]) < 0 for test, arm in (("zero", ZEROS), *((t, SWAPS) for t in FEW_TESTS)))
    if verdict["outcome"] == "holds":
        return (
            "Training against failures makes small models less disturbed by ablations: zeros help far more against "
            "zeros than against swaps, swaps against both."
        )
    if verdict["outcome"] == "refuted":
        if sides["interaction"] == "above":
            return "Training against failures helps in another kind than predicted: zeros are the less specific."
        return "Training against failures doesn't help as predicted."
    if robust:
        return (
            "Small models that are trained while sublayers fail are disturbed less by ablations; whether that is in "
            "kind can't be told."
        )
    return "Whether training against failures makes small models robust can't be told by the declared rule."


def _kind(arm: str) -> str:
    return arm.split()[0]


def change(bounds: Bounds) -> str:
    """Return a change of a log in percent, with its bounds.

    >>> change([0.0, -0.6931, 0.6931])
    '0% [−50, +100]'
    """
    percents = ["–" if each is None else _percent(each) for each in bounds]
    return f"{percents[0]}% [{percents[1]}, {percents[2]}]"


def _percent(log: float) -> str:
    value = round(100 * (exp(log) - 1))
    return f"{value:+d}".replace("-", "−") if value else "0"


def _each(values: Sequence[float], digits: int = 2) -> str:
    return ", ".join(number(value, digits) for value in values)


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    verdict = results["verdict"]
    caption = (
        "KL divergence of the ablated from the clean prediction, summed over all sublayers but the last, on "
        f"{results['prompts']['number']} held-out passages, as a multiple of the control's. Thick: the mean of "
        f"{len(settings['seeds'])} seeds; thin: each seed. Below 1: an ablation changes less than in the control. "
        "Dropout: the share of numbers that are dropped."
    )
    yield from head(
        "Does training against failures make a model robust?",
        "training",
        claim(settings, results),
        "KL divergence by the share of failures in training",
        caption,
    )
    yield _detail(results)
    yield ""
    yield from prediction(settings, _outcome(settings, results))
    yield f"- **Design**: {settings['design']}."
    yield from (f"- **{title}**: {settings['terms'][key]}." for key, title in _TERMS.items())
    yield f"- **Halves**: {settings['halves']['rule']}."
    yield f"- **Reduced** {settings['reduced']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield "The four parts of the prediction, in log KL; below 0 is as predicted:"
    yield ""
    yield from _parts(settings, results)
    yield ""
    yield "Change of the KL against the control, means over seeds with 95% by t:"
    yield ""
    yield from _gains(results)
    yield ""
    yield "The same in each seed, under zero and resampling:"
    yield ""
    yield from _by_seed(results)
    yield ""
    yield "## Failures cost loss"
    yield ""
    yield from _loss(results)
    yield ""
    yield "## Repair or a smaller disturbance?"
    yield ""
    yield from _effects(results)
    yield ""
    yield "## Guards and other readings"
    yield ""
    yield from (f"- {guard[0].upper()}{guard[1:]}." for guard in settings["guards"])
    yield from _readings(settings, results)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield from _secondary(settings, verdict)
    yield ""
    yield f"{correction(settings, verdict['p'])} After Holm over all studies: [index](index.md#predictions)."
    yield ""
    yield "## Limits"
    yield ""
    yield from _limits(settings, results)
    yield ""
    yield from _repetition()
    yield "## Objections"
    yield ""
    yield from objections(results)


_TERMS = {"zeros": "Zeros", "swaps": "Swaps", "dropout": "Dropout", "order": "Order", "equal loss": "Equal loss"}


def _outcome(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    verdict = results["verdict"]
    words = {"below": "surely below 0", "above": "surely above 0", "unsure": "unsure"}
    sides = "; ".join(
        f"{settings['parts'][name]} {interval(of['bounds'])}, {words[verdict['sides'][name]]}"
        for name, of in results["parts"].items()
    )
    guarded = f" Forbidden by a guard: {', '.join(verdict['guarded'])}." if verdict["guarded"] else ""
    return f"{OUTCOMES[verdict['outcome']]} {sides[0].upper()}{sides[1:]}.{guarded}"


def _parts(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    yield "| | each seed | mean, 95% by t over seeds | 95% over passages | p | on the exploration half |"
    yield "|---|---|---|---|---|---|"
    for name, of in results["parts"].items():
        explored = results["exploration"][name]["bounds"]
        yield (
            f"| {settings['parts'][name]} | {_each(of['seeds'])} | {interval(of['bounds'])} | "
            f"{interval(of['passages'])} | {of['p']:.2g} | {interval(explored)} |"
        )


def _gains(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"| | {' | '.join(_TEST.get(test, test) for test in TESTS)} |"
    yield "|---" * (len(TESTS) + 1) + "|"
    for arm in results["loss"]:
        if arm != CONTROL:
            yield f"| {arm} | {' | '.join(change(results['gain'][test][arm]['bounds']) for test in TESTS)} |"


def _by_seed(results: Mapping[str, Any]) -> Iterator[str]:
    yield "| | KL under zero, nats | KL under resampling, nats | change under zero, % | change under resampling, % |"
    yield "|---|---|---|---|---|"
    for arm in results["loss"]:
        sums = [_each([exp(each) for each in results["log_kl"][test][arm]]) for test in FEW_TESTS]
        changes = [
            "" if arm == CONTROL else ", ".join(map(_percent, results["gain"][test][arm]["seeds"]))
            for test in FEW_TESTS
        ]
        yield f"| {arm} | {' | '.join([*sums, *changes])} |"


def _loss(results: Mapping[str, Any]) -> Iterator[str]:
    yield "| | held-out loss, nats a token | entropy, nats | KL under zero at equal loss | under resampling |"
    yield "|---|---|---|---|---|"
    for arm, losses in results["loss"].items():
        equal = [
            "" if arm == CONTROL else ", ".join(map(_percent, results["equal_loss"][test][arm])) for test in FEW_TESTS
        ]
        yield f"| {arm} | {_each(losses, 3)} | {_each(results['entropy'][arm])} | {' | '.join(equal)} |"
    yield ""
    yield (
        "Each seed. *Entropy*: of the clean prediction after the passages. *At equal loss*: the change in % against "
        "the control where it had the arm's held-out loss."
    )


def _effects(results: Mapping[str, Any]) -> Iterator[str]:
    found = results["effects"]
    yield f"| | {' | '.join(_EFFECTS.values())} |"
    yield "|---" * (len(_EFFECTS) + 1) + "|"
    for arm in results["loss"]:
        yield f"| {arm} | {' | '.join(_each(found[name][arm]) for name in _EFFECTS)} |"
    yield ""
    yield (
        "Each seed, on the target's logit. *Removed* and *lost*: sums over all sublayers but the last of means over "
        "passages, in logits; sublayers that remove and that add cancel in them. *Damping*: the share of a readout "
        "part that the network takes back. *Content repair* and *restored slope*: slopes of what comes back on what is "
        "removed. The last three are pooled over sublayers."
    )
    kick = results["kick"]
    yield ""
    yield "Kick at the block after the ablated sublayer, median over sublayers and passages (1: as two passages apart):"
    yield ""
    yield "| | under zero | under resampling |"
    yield "|---|---|---|"
    for arm in kick["zero"]:
        yield f"| {arm} | {' | '.join(_each(kick[test][arm], 4) for test in FEW_TESTS)} |"
    yield ""
    yield "In the control a swap disturbs more than a zero: arms of equal share aren't arms of equal disturbance."


def _readings(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    verdict, each = results["verdict"], results["each"]
    loudest, equal = results["loudest"], results["parts_at_equal_loss"]
    if verdict["guarded"]:
        yield f"- **Forbidden by a guard: {', '.join(verdict['guarded'])}.**"
    else:
        yield "- No guard forbids a verdict."
    over = "more" if loudest["hold"] > MOST_HELD else "less"
    yield (
        f"- 5% of the passages hold up to {number(100 * loudest['hold'], 0)}% of a cell's KL, {over} than a third. The "
        f"interaction without them: {number(loudest['without'], 2)}; median of 20 blocks: "
        f"{number(loudest['blocks'], 2)}."
    )
    yield f"- At equal loss the interaction is {_each(equal['interaction']['seeds'])}."
    alone = list(each["interaction"].values())
    yield (
        f"- Taken alone, {sum(value < 0 for value in alone)} of {len(alone)} sublayers have an interaction below 0 "
        "(mean of the seeds)."
    )
    held = "; ".join(
        f"under {_TEST[test]} {of['sublayer']} with {number(100 * of['share'], 0)}%"
        for test, of in each["largest"].items()
    )
    yield f"- Largest in the control's sum: {held}. Looked at afterwards, the parts without it, and with all alike:"
    yield ""
    yield "| | without the largest sublayer | by the mean of the sublayers' log KL |"
    yield "|---|---|---|"
    for name, words in settings["parts"].items():
        cells = [interval(each[key][name]["bounds"]) for key in ("without_largest", "alike")]
        yield f"| {words} | {' | '.join(cells)} |"


def _secondary(settings: Mapping[str, Any], verdict: Mapping[str, Any]) -> Iterator[str]:
    yield "| declared before | p | adjusted | |"
    yield "|---|---|---|---|"
    for name, words in settings["secondary"].items():
        of = verdict["secondary"].get(name)
        if of is None:
            yield f"| {words} | – | – | not trained |"
            continue
        p = [f"{of[key]:.2g}" if key in of else "–" for key in ("p", "adjusted")]
        yield f"| {words} | {' | '.join(p)} | {'holds' if of['holds'] else '**not shown**'} |"


def _limits(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    origin, shape, steps = results["origin"], settings["shape"], settings["steps"]
    yield (
        f"- Tiny models: {shape['layers']} blocks of width {shape['width']}, {origin['parameters'] / 1e6:.2f} million "
        f"parameters, a vocabulary of {shape['vocabulary']}; trunks of {steps['trunk']} steps and branches of "
        f"{steps['branch']}, {settings['batch']} × {settings['length']} tokens each."
    )
    yield (
        f"- {len(settings['seeds'])} seeds: a seed is weights, the draws of failures, and the part of the same corpus "
        "that is read, in its order."
    )
    left_out = [arm for arm in settings["arms"] if arm not in results["loss"]]
    if left_out:
        yield f"- Not trained for lack of time: {', '.join(left_out)}."
    yield (
        "- The lengths were shortened after the first declaration, before any of these models was measured. Only the "
        "four parts, the guards and the secondary claims were declared; all other numbers, among them entropy, kick, "
        "content repair, nats and what holds without the largest sublayer, weren't tests."
    )
    yield "- Robustness is learnt in a branch after training: whether models trained so from scratch differ is open."
    yield "- Superposition, which the paper also names as a reason for repair, isn't tested."
    yield (
        f"- Text: prose of Debian packages, {origin['tokens'] / 1e6:.1f} million tokens, "
        f"sha256:{origin['sha256'][:12]}…; passages are from the same books."
    )


def _repetition() -> Iterator[str]:
    yield "## Repeat it"
    yield ""
    yield "```sh"
    yield "make study NAME=training   # trains and measures, about an hour of one core"
    yield "```"
    yield ""
    yield (
        "Debian's `apt-get` and `dpkg` fetch and unpack the prose. It resumes if it is interrupted. On another "
        "processor numbers differ a little."
    )
    yield ""
