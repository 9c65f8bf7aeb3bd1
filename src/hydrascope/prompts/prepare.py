"""Prepare prompts for a model: fit and tokenize them, and leave out duplicates."""

from dataclasses import dataclass, replace
from typing import Literal

from hydrascope.prompts.answers import after_spaces
from hydrascope.prompts.chat import as_messages
from hydrascope.prompts.files import SUFFIXES
from hydrascope.prompts.hub_tables import PREFIX
from hydrascope.prompts.load import NAMES
from hydrascope.prompts.padding import unpadded
from hydrascope.prompts.prompt import AnyPrompts, PromptSet, Tokenizes, prompt_label
from hydrascope.prompts.token_ids import tokenize
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted


@dataclass(frozen=True)
class Prepared:
    """A prompt set that is ready to be measured on a model.

    Attributes:
        prompts: the set.
        tokens: the token ids of each prompt.
        kept: the index of each prompt among those that were given.
        notes: lines for the user on changes to the set.
    """

    prompts: PromptSet
    tokens: list[list[int]]
    kept: list[int]
    notes: tuple[str, ...]


def prepare(model: Tokenizes, prompts: AnyPrompts, *, answered: Literal["no", "alone", "in pairs"] = "no") -> Prepared:
    """Return the prompts in the form in which `model` is measured on them.

        >>> prepare(model, ["the fox is", "the fox  is"]).notes
        ('1 prompt left out: the same tokens as an earlier one',)

    Args:
        answered: `no` if answers are not read, `in pairs` if they are compared with foils only, `alone` otherwise.

    Raises:
        HydrascopeError: `prompts` are no prompts, or one of them doesn't suit the model.
    """
    if isinstance(prompts, str) and (prompts in NAMES or prompts.endswith(SUFFIXES) or prompts.startswith(PREFIX)):
        raise HydrascopeError(f"{prompts!r} would be measured as one prompt: give load_prompts({prompts!r})")
    fitted, note = PromptSet.of(prompts).fit_to(model)
    chat = ""
    if fitted.as_messages:
        messages, chat = as_messages(model, fitted.prompts)
        fitted = replace(fitted, prompts=tuple(messages))
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
        chat,
        padded and f"padding removed from {counted(padded, 'prompt', 'prompts')}",
        spaced and f"{counted(spaced, 'prompt', 'prompts')} read after the space that is their answer's first token",
        again and f"{counted(again, 'prompt', 'prompts')} left out: the same tokens as an earlier one",
        _appended_note(model, fitted),
    ]
    if again:
        distinct = tuple(fitted.prompts[index] for index in kept)
        fitted = replace(fitted, prompts=distinct, duplicates=fitted.duplicates + again)
    return Prepared(fitted, [tokens[index] for index in kept], kept, tuple(str(each) for each in notes if each))


def _without_padding(model: Tokenizes, prompts: PromptSet) -> tuple[PromptSet, int]:
    """Return the set without padding, and the number of prompts that had some."""
    indices = [index for index, prompt in enumerate(prompts.prompts) if prompt.tokens is not None]
    given = [prompts.prompts[index].tokens or () for index in indices]
    names = [prompt_label(index + 1, prompts.prompts[index]) for index in indices]
    stripped = [_without_appended(model, ids) for ids in unpadded(model.tokenizer, given, names)]
    changed = {index: new for index, old, new in zip(indices, given, stripped, strict=True) if old != new}
    if not changed:
        return prompts, 0
    new = [replace(prompt, tokens=changed.get(index, prompt.tokens)) for index, prompt in enumerate(prompts.prompts)]
    return replace(prompts, prompts=tuple(new)), len(changed)


def _without_appended(model: Tokenizes, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return `ids` without the tokens that the tokenizer appends to every text."""
    appended = model.appended
    return ids[: -len(appended)] if appended and ids[-len(appended) :] == appended and len(ids) > len(appended) else ids


def _appended_note(model: Tokenizes, prompts: PromptSet) -> str:
    if model.tokenizer is None or not model.appended:
        return ""
    tokens = " ".join(model.tokenizer.convert_ids_to_tokens(list(model.appended)))
    return f"the tokenizer of {model.name} appends {tokens} to a text: prompts are read before it"
