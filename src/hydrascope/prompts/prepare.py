"""The prompts of a run as its model is measured on them: fitted, tokenized, each sequence of tokens once."""

from dataclasses import dataclass, replace
from typing import Literal

from hydrascope.prompts.answers import after_spaces
from hydrascope.prompts.load import NAMES, SUFFIXES
from hydrascope.prompts.padding import unpadded
from hydrascope.prompts.prompt import AnyPrompts, PromptSet, Tokenizes, prompt_label, tokenize
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted


@dataclass(frozen=True)
class Prepared:
    """A prompt set that suits a model.

    Attributes:
        prompts: the set.
        tokens: each prompt's token ids.
        notes: what to tell the user of it.
    """

    prompts: PromptSet
    tokens: list[list[int]]
    notes: tuple[str, ...]


def prepare(model: Tokenizes, prompts: AnyPrompts, *, answered: Literal["no", "alone", "in pairs"] = "no") -> Prepared:
    """Return `prompts` as `model` is measured on them.

        prepare(model, ["The capital of France is"]).tokens  # [[0, 306, 490, …]]

    Args:
        answered: whether their answers are read, and if so whether against foils alone.

    Raises:
        HydrascopeError: they are no prompts, or the model can't take one of them.
    """
    if isinstance(prompts, str) and (prompts in NAMES or prompts.endswith(SUFFIXES)):
        raise HydrascopeError(f"{prompts!r} is a text, which would be one prompt: give load_prompts({prompts!r})")
    fitted, note = PromptSet.of(prompts).fit_to(model)
    fitted, padded = _without_padding(model, fitted)
    spaced = 0
    if answered != "no":
        after, spaced = after_spaces(model, fitted.prompts, in_pairs=answered == "in pairs")
        fitted = replace(fitted, prompts=tuple(after))
    tokens = tokenize(model, fitted.prompts)
    first: dict[tuple[int, ...], int] = {}
    for index, ids in enumerate(tokens):
        first.setdefault(tuple(ids), index)
    kept, again = list(first.values()), len(tokens) - len(first)
    notes = [
        note,
        padded and f"padding removed from {counted(padded, 'prompt', 'prompts')}",
        spaced and f"{counted(spaced, 'prompt', 'prompts')} read after the space that is their answer's first token",
        again and f"{counted(again, 'prompt', 'prompts')} left out: the same tokens as an earlier one",
        _appended_note(model, fitted),
    ]
    if again:
        distinct = tuple(fitted.prompts[index] for index in kept)
        fitted = replace(fitted, prompts=distinct, duplicates=fitted.duplicates + again)
    return Prepared(fitted, [tokens[index] for index in kept], tuple(str(each) for each in notes if each))


def _without_padding(model: Tokenizes, prompts: PromptSet) -> tuple[PromptSet, int]:
    """Return the set without padding, and how many of its prompts had some."""
    places = [place for place, prompt in enumerate(prompts.prompts) if prompt.tokens is not None]
    given = [prompts.prompts[place].tokens or () for place in places]
    names = [prompt_label(place + 1, prompts.prompts[place]) for place in places]
    found = [_without_appended(model, ids) for ids in unpadded(model.tokenizer, given, names)]
    changed = {place: new for place, old, new in zip(places, given, found, strict=True) if old != new}
    if not changed:
        return prompts, 0
    each = [replace(prompt, tokens=changed.get(place, prompt.tokens)) for place, prompt in enumerate(prompts.prompts)]
    return replace(prompts, prompts=tuple(each)), len(changed)


def _without_appended(model: Tokenizes, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return `ids` without what the tokenizer appends to every text."""
    appended = model.appended
    return ids[: -len(appended)] if appended and ids[-len(appended) :] == appended and len(ids) > len(appended) else ids


def _appended_note(model: Tokenizes, prompts: PromptSet) -> str:
    if model.tokenizer is None or not model.appended:
        return ""
    tokens = " ".join(model.tokenizer.convert_ids_to_tokens(list(model.appended)))
    return f"the tokenizer of {model.name} appends {tokens} to a text: prompts are read before it"
