"""The contexts of the study: relations, made tasks and running text, and the half of each."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import PromptSet
from hydrascope.utils.assets import prompt_path
from studies.damping.halves import Half

#: The sets that aren't made from templates.
FACTS, PASSAGES = "facts", "passages"


class Context(NamedTuple):
    """A context and the prompts that may be measured in it.

    Attributes:
        half: the half it belongs to.
        prompts: its prompts, answered or not.
    """

    half: Half
    prompts: PromptSet


def contexts_of(
    settings: Mapping[str, Any], prompts: Mapping[str, PromptSet], model: LanguageModel
) -> dict[str, Context]:
    """Return all contexts with enough prompts by name: relations, then sets.

    Names alternate between the halves in alphabetical order, the relations and the other sets apart; the first one
    confirms.

    Args:
        settings: the study's settings.
        prompts: the sets by name: `facts`, whose relations are contexts, and others, each a context.
        model: the model whose tokenizer the sets are made for.
    """
    declared = settings["contexts"]
    by_relation: dict[str, list[Any]] = defaultdict(list)
    relations = fields_in(settings["prompts"][FACTS], "relation")
    for prompt in prompts[FACTS]:
        by_relation[relations[prompt.text]].append(prompt)
    facts = {name: PromptSet.of(some, name) for name, some in by_relation.items() if len(some) >= declared["least"]}
    others = {}
    for name in prompts.keys() - {FACTS}:
        fresh = prompts[name][declared["explored_before"] :] if name == PASSAGES else prompts[name]
        fitted, _ = fresh.limit(declared["made"]).fit_to(model)
        others[name] = PromptSet.of(fitted.prompts, name)
    return {name: Context(half, sets[name]) for sets in (facts, others) for name, half in alternate(sets).items()}


def alternate(names: Mapping[str, Any]) -> dict[str, Half]:
    """Return the half of each name, in alphabetical order.

    >>> alternate({"plural": 0, "capital": 0, "kind": 0})
    {'capital': 'confirmation', 'kind': 'exploration', 'plural': 'confirmation'}
    """
    return {
        name: "exploration" if place % 2 else "confirmation" for place, name in enumerate(sorted(names, key=str.lower))
    }


def fields_in(source: str, field: str) -> dict[str, str]:
    """Return a field of each text of a shipped set, such as its relation or its answer."""
    rows = map(json.loads, prompt_path(source).read_text("utf-8").splitlines())
    return {row["prompt"]: row[field] for row in rows}
