"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.claims import half_width
from studies.repairers.verdict import holds, is_against
from studies.words import interval, name

#: The readings in words, in the order of the page.
READINGS = {
    "unsigned": "reactions as they are, without a change of sign",
    "content_unsigned": "only content's as they are",
    "clear_signs": "only where the sign of what is removed is clear (looked at afterwards)",
    "by_removed": "slope through 0 of the reaction on what is removed, instead of the mean (looked at afterwards)",
    "by_answer": "facts of one answer as one unit (looked at afterwards)",
    "relations": "relations of facts alone",
    "spearman": "ranks of the heads (Spearman)",
    "without_largest": "without the three heads of the largest reactions",
    "pooled": "no context left out: mean correlation over mean root of reliabilities",
    "beyond_line": "beyond the line of reaction on clean direct effect",
    "beyond_ablations": "less the context's mean over the ablations",
    "beyond_ablations_unsigned": "the same without a change of sign (looked at afterwards)",
    "mlps": "MLPs instead of heads",
}


def objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        settings: the study's settings.
        models: the numbers of each model.
    """

    def each(*keys: str) -> str:
        """Return an interval of each model."""
        return "; ".join(f"{name(model)} {interval(_at(of, *keys))}" for model, of in models.items())

    yield (
        "- *Profiles are noise, so that nothing can agree.* The agreement is corrected for it: 1 is what the same "
        f"heads would give. The profiles that are kept have a mean reliability of {_reliabilities(models)}. With no "
        f"profile left out agreement is ({each('readings', 'pooled', 'damping')}) for damping, "
        f"({each('readings', 'pooled', 'content')}) for content."
    )
    yield (
        "- *The verdict hangs on the reading.* By these readings the prediction isn't refuted: "
        f"{_spared(settings, models)}. {_holding(settings, models)}"
    )
    yield (
        "- *A mean over prompts cancels where k writes for the answer in one prompt and against it in the next.* It "
        "does. The slope through 0 of a head's reaction on what is removed, over prompts, doesn't: by it agreement is "
        f"({each('readings', 'by_removed', 'damping')}) for damping, ({each('readings', 'by_removed', 'content')}) for "
        f"content, and the difference ({each('readings', 'by_removed', 'difference')}). This was looked at after "
        "confirming, so it is a lead, and no result."
    )
    yield (
        "- *The bounds are wide, and wide bounds hold 0 easily.* In the tests, on made profiles of known agreement, "
        "they cover it in over 90% of the runs, those by the jackknife in over 85%; the tests have no profiles as "
        f"noisy as some of these. By the jackknife alone damping is ({each('jackknife', 'damping')}), the difference "
        f"({each('jackknife', 'difference')})."
    )
    yield (
        "- *Facts with the same answer are no independent prompts, so that halves agree too well.* With facts of one "
        f"answer as one unit agreement is ({each('readings', 'by_answer', 'damping')}) for damping, "
        f"({each('readings', 'by_answer', 'content')}) for content."
    )
    yield (
        f"- *The declared check of weight noise fails.* It does for {_moved(models)}. Agreement of three contexts of "
        "16 prompts spreads far more than the claim's interval, so that the check tells little; the profile of the same"
        f" prompts stays alike under noise ({_under_noise(models)})."
    )
    yield (
        "- *The heads that write most react most, in any context.* What heads write for the answer in the clean run "
        f"agrees between contexts by ({each('readings', 'writes')}). Beyond a line on it, reactions agree by "
        f"({each('readings', 'beyond_line', 'damping')}) for damping, ({each('readings', 'beyond_line', 'content')}) "
        "for content. A line on noisy writes takes out too little."
    )
    yield (
        "- *Two or three loud heads make the number.* Without the three heads of the largest reactions to each k: "
        f"({each('readings', 'without_largest', 'damping')}) for damping, "
        f"({each('readings', 'without_largest', 'content')}) for content; on ranks "
        f"({each('readings', 'spearman', 'damping')}) and ({each('readings', 'spearman', 'content')})."
    )
    yield (
        "- *Signs are a choice.* Where k writes against the answer in one context and for it in another, the sign of a "
        "profile is a convention. Without any change of sign: "
        f"({each('readings', 'unsigned', 'damping')}) for damping, ({each('readings', 'unsigned', 'content')}) for "
        "content."
    )
    yield (
        "- *Signs may be noise, and no correction for noise takes that out.* True: "
        f"{_unclear(models)} aren't clear. Where they are (looked at afterwards) agreement is "
        f"({each('readings', 'clear_signs', 'damping')}) for damping, ({each('readings', 'clear_signs', 'content')}) "
        f"for content, and the difference ({each('readings', 'clear_signs', 'difference')})."
    )
    yield (
        "- *Whether k or the context decides hangs on the sign, too.* Without a change of sign the agreement of one k "
        "in two contexts, less that of two k in one context, is "
        f"({each('readings', 'other_ablations_unsigned', 'damping', 'same_more')}) for damping, with it "
        f"({each('readings', 'other_ablations', 'damping', 'same_more')}). So nothing follows from either. The "
        "secondary claim that reactions depend on k doesn't hang on it: less the mean over the six k, without a change "
        f"of sign, contexts agree by ({each('readings', 'beyond_ablations_unsigned', 'damping')})."
    )
    yield (
        "- *Tasks from templates are too unlike facts.* Among relations of facts alone agreement is "
        f"({each('readings', 'relations', 'damping')}) for damping, ({each('readings', 'relations', 'content')}) for "
        "content."
    )
    yield (
        "- *Heads aren't where damping happens.* How much heads and MLPs react is given under sizes. Among MLPs "
        f"agreement is ({each('readings', 'mlps', 'damping')}) for damping, ({each('readings', 'mlps', 'content')}) "
        "for content; they are few, so that two profiles may agree by depth alone."
    )
    yield (
        "- *The readout differs by prompt.* It does: each prompt has its own answer and foil. Within a context "
        "most profiles are reliable all the same; between contexts the tokens differ in kind as well, and heads that "
        "serve one kind of token can't react to another."
    )
    yield (
        "- *The whole ablation is what matters.* For it contexts agree by "
        f"({each('full')}). It is mostly content: {_of_content(models)}."
    )


def _spared(settings: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Return the readings of each model that don't refute the prediction."""
    words = []
    for model, of in models.items():
        left = [told for key, told in READINGS.items() if not is_against(settings, of["readings"][key])]
        words.append(f"{name(model)}: {', '.join(left) or 'none'}")
    return "; ".join(words)


def _holding(settings: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Return the readings by which the prediction holds in all models."""
    held = [
        told for key, told in READINGS.items() if all(holds(settings, of["readings"][key]) for of in models.values())
    ]
    return f"It holds in both models by these: {'; '.join(held)}." if held else "By none does it hold in both models."


def _at(of: Any, *keys: str) -> Any:
    for key in keys:
        of = of[key]
    return of


def _reliabilities(models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        damping, content = (of["kinds"][kind]["reliability"] for kind in ("damping", "content"))
        words.append(f"{number(damping, 2)} (damping) and {number(content, 2)} (content) in {name(model)}")
    return ", ".join(words)


def _under_noise(models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        same = [
            each for seed, noised in of["weight_noise"].items() if seed.isdigit() for each in noised["same"].values()
        ]
        words.append(f"correlations of {number(min(same), 2)} to {number(max(same), 2)} in {name(model)}")
    return ", ".join(words)


def _moved(models: Mapping[str, Any]) -> str:
    """Return the numbers that weight noise moves by more than the half-width of their intervals."""
    words = []
    for model, of in models.items():
        noise = of["weight_noise"]
        for key, told in (("damping", "damping"), ("difference", "the difference")):
            found = [noised[key][0] for seed, noised in noise.items() if seed == "none" or seed.isdigit()]
            clean = noise["none"][key][0] if noise else None
            if clean is None or None in found or max(abs(each - clean) for each in found) >= half_width(of[key]):
                words.append(f"{told} in {name(model)}")
    return ", ".join(words) or "nothing"


def _unclear(models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        unclear = sum(each["unclear"] for each in of["removed"].values())
        words.append(f"{unclear} of {len(of['contexts']) * len(of['removed'])} in {name(model)}")
    return " and ".join(words)


def _of_content(models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        sizes = of["readings"]["sizes"]["head"]
        words.append(
            f"in {name(model)} heads' reactions to content are {number(sizes['content'] / sizes['damping'], 0)} times "
            "as large as those to the readout part"
        )
    return ", ".join(words)
