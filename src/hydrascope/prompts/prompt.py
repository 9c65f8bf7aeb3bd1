"""Prompts, sets of prompts, and their token ids.

Rules for all prompts:

- A prompt is used as it is. No space is stripped. The tokenizer adds its special tokens to a text; token ids get none.
- Of prompts with the same text or the same token ids only the first is kept, since a prompt must never be patched with
  its own activation. Texts with the same tokens are found when a model is measured on them.
- A prompt is read at its last token. Padding of token ids, and tokens that the tokenizer appends, are removed.
- An answer or a foil is read by its *first token* as it continues the prompt. A foil with the same first token as the
  answer is refused. The metric `answer_log_prob` alone reads all tokens of an answer.
- An empty set, a blank prompt, or a prompt that is longer than the model's context is an error. Messages number the
  prompts of a set from 1.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from io import IOBase
from operator import index
from os import PathLike
from typing import Any, Literal, Protocol, overload

from hydrascope.prompts.tables import fields_of, rows_of
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class Prompt:
    """A text or token ids for a model to continue, with an answer, a subject and a twin.

        >>> capital = hs.Prompt("The capital of France is", "Paris", foil="Madrid", subject="France",
        ...                     counterfactual="The capital of Spain is")
        >>> by_tokens = hs.Prompt(tokens=(0, 306, 490, 266, 1433, 277), answer=1956)

    Attributes:
        text: the text; empty if `tokens` are given.
        answer: the right continuation, or the id of its first token, or a tuple of the ids of all its tokens.
        foil: a wrong continuation to compare the answer with, or the id of its first token.
        subject: the words of `text` that the prompt is about.
        counterfactual: the twin, a text or token ids; it differs from the prompt in what decides the answer.
        tokens: token ids, special tokens included, instead of a text.
        template: a label of the wording that the prompt was made from; it plays no part in a measurement.
    """

    text: str = ""
    answer: str | int | tuple[int, ...] | None = None
    _: KW_ONLY
    foil: str | int | None = None
    subject: str | None = None
    counterfactual: str | tuple[int, ...] | None = None
    tokens: tuple[int, ...] | None = None
    template: str | None = None


#: The fields of a prompt that may decide a number, in the order in which they are hashed.
_HASHED = ("text", "answer", "foil", "subject", "counterfactual", "tokens")


class Tokenizes(Protocol):
    """The properties of a language model that prompts need."""

    name: str
    tokenizer: Any

    @property
    def known_tokens(self) -> int: ...

    @property
    def context_length(self) -> int | None: ...

    @property
    def appended(self) -> tuple[int, ...]: ...

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one source, each once.

        >>> len(hs.load_prompts("phantom").prompts)
        240

    Attributes:
        name: the name of the set or of the file.
        prompts: the prompts, in the order of the source.
        duplicates: the number of prompts that were left out because an earlier one is the same.
        fit: a function that makes the set for a model's tokenizer (`fit_to`); None if the set suits all models.
        as_messages: whether each prompt is a user's message in the chat template of the model's tokenizer.
        corrupt: whether the prompts are the corrupt ones, and their counterfactuals the clean ones (`swapped`).
    """

    name: str
    prompts: tuple[Prompt, ...]
    duplicates: int = 0
    fit: Callable[[Tokenizes, int], tuple[Sequence[Prompt], str]] | None = None
    as_messages: bool = False
    corrupt: bool = False

    @classmethod
    def of(cls, prompts: "AnyPrompts", name: str = "prompts") -> "PromptSet":
        """Make a set of prompts; return a `PromptSet` unchanged.

            >>> several = ["The capital of France is", hs.Prompt("Iron is", "Fe"), [306, 490, 266]]
            >>> len(hs.prompts.PromptSet.of(several).prompts)
            3

        Args:
            prompts: a `PromptSet`, a text, a `Prompt`, an iterable of texts, `Prompt`s and sequences of token ids, or a
                table with a column `prompt`.
            name: the name of the set.

        Raises:
            HydrascopeError: there are no prompts, or one is blank or no prompt.
        """
        if isinstance(prompts, PromptSet):
            return prompts
        several = [prompts] if isinstance(prompts, str | Prompt) else _listed(prompts, name)
        all_prompts = [prompt_of(item, f"{name}: prompt {number}") for number, item in enumerate(several, start=1)]
        if not all_prompts:
            raise HydrascopeError(f"{name} holds no prompts: give at least one")
        distinct: dict[str | tuple[int, ...], Prompt] = {}
        for prompt in all_prompts:
            distinct.setdefault(prompt.tokens or prompt.text, prompt)
        return cls(name, tuple(distinct.values()), len(all_prompts) - len(distinct))

    def __iter__(self) -> Iterator[Prompt]:
        """Iterate over the prompts.

        >>> [prompt.text for prompt in hs.prompts.PromptSet.of(["Iron is", "Gold is"])]
        ['Iron is', 'Gold is']
        """
        return iter(self.prompts)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> "PromptSet": ...
    def __getitem__(self, index: int | slice) -> "Prompt | PromptSet":
        """Return one prompt, or the set of those that a slice takes.

            >>> every_other = hs.load_prompts("world-facts")[1::2]

        Raises:
            HydrascopeError: the slice takes no prompt.
            IndexError: there is no such prompt.
        """
        if not isinstance(index, slice):
            return self.prompts[index]
        if not self.prompts[index]:
            raise HydrascopeError(f"the slice takes none of the {len(self):,} prompts of {self.name}: take at least 1")
        fit = self.fit and partial(_fit_slice, self.fit, len(self), index)
        return replace(self, prompts=self.prompts[index], fit=fit)

    def limit(self, count: int) -> "PromptSet":
        """Return the first `count` prompts, or all if there are fewer.

            >>> first = hs.load_prompts("world-facts").limit(200)

        Raises:
            HydrascopeError: `count` is below 1.
        """
        if count < 1:
            raise HydrascopeError(f"cannot take {count} prompts of {self.name}: take at least 1")
        return replace(self, prompts=self.prompts[:count])

    def chat(self) -> "PromptSet":
        """Return the set with each prompt as a user's message, for models that were trained to chat.

        A run puts each prompt and its twin into the chat template of the model's tokenizer
        (`hydrascope.prompts.chat`).

            >>> hs.load_prompts("world-facts").chat().as_messages
            True
        """
        return replace(self, as_messages=True)

    def swapped(self) -> "PromptSet":
        """Return the set with each prompt and its counterfactual exchanged, and answer and foil.

        `hs.Counterfactual()` then puts the clean activation into the corrupt run (denoising) instead of the corrupt
        activation into the clean run (noising). `hydrascope.prompts.twins.swap` says what is exchanged.

            >>> hs.load_prompts("world-facts").limit(1).swapped().prompts[0].answer
            'Rhode Island'

        Raises:
            HydrascopeError: a prompt has no counterfactual.
        """
        from hydrascope.prompts.twins import swap_all, swapping_fit  # it imports this module

        fit = self.fit and swapping_fit(self.fit)
        return replace(self, prompts=swap_all(self.prompts), fit=fit, corrupt=not self.corrupt)

    def fit_to(self, model: Tokenizes) -> tuple["PromptSet", str]:
        """Return the set made for a model's tokenizer, and a note for the user.

        A set without `fit` is returned as it is, with an empty note.

        Raises:
            HydrascopeError: no prompts can be made for this model.
        """
        if self.fit is None:
            return self, ""
        prompts, note = self.fit(model, len(self.prompts))
        return replace(self, prompts=tuple(prompts), fit=None), note

    @property
    def has_foils(self) -> bool:
        """Whether a prompt has a foil; sets that are made for a tokenizer have."""
        return self.fit is not None or any(prompt.foil is not None for prompt in self.prompts)

    @property
    def patching(self) -> Literal["noising", "denoising"]:
        """The direction in which the counterfactual's activations are put into a prompt's run."""
        return "denoising" if self.corrupt else "noising"

    @property
    def hash(self) -> str:
        """The SHA-256 of all prompts in their order, of all fields but the label of their template."""
        content = json.dumps([[getattr(prompt, field) for field in _HASHED] for prompt in self.prompts])
        return hashlib.sha256(content.encode()).hexdigest()


def _fit_slice(
    fit: Callable[[Tokenizes, int], tuple[Sequence[Prompt], str]],
    whole: int,
    index: slice,
    model: Tokenizes,
    count: int,
) -> tuple[Sequence[Prompt], str]:
    """Make the whole set for a model, and take the slice, or the first `count` of it."""
    prompts, note = fit(model, whole)
    return prompts[index][:count], note


#: Anything that is accepted as prompts: a set, a text, a prompt, or several texts, prompts and sequences of token ids.
AnyPrompts = PromptSet | Prompt | str | Iterable[Prompt | str | Sequence[int]]


#: Iterables that are refused: their items aren't prompts, or have no order.
_NO_PROMPTS = (bytes, bytearray, Mapping, type, Set, IOBase, PathLike)


def _listed(prompts: AnyPrompts, name: str) -> list[Any]:
    rows = rows_of(prompts, name)
    if rows is not None:
        return rows
    if not isinstance(prompts, Iterable) or isinstance(prompts, _NO_PROMPTS):
        raise HydrascopeError(
            f"{name} cannot be a {type(prompts).__name__}: give texts, Prompts or lists of token ids, a table with a "
            "column prompt, or a set or file by load_prompts"
        )
    return list(prompts)


def prompt_of(item: Any, where: str) -> Prompt:
    """Return a text, a row of fields, a sequence of token ids or a `Prompt` as a prompt.

    All token ids of it are tuples of int.

        >>> prompt_of({"prompt": "Iron is", "answer": "Fe"}, "row 1").answer
        'Fe'

    Args:
        where: the name of the prompt in messages.

    Raises:
        HydrascopeError: it is no prompt, blank, or has both a text and token ids.
    """
    if isinstance(item, str):
        item = Prompt(item)
    elif isinstance(item, Mapping):
        fields = fields_of(item, where)
        if not isinstance(fields.get("text", ""), str) or not fields.keys() & {"text", "tokens"}:
            raise HydrascopeError(f"{where} has no text: write one or remove it")
        item = Prompt(**fields)
    elif not isinstance(item, Prompt):
        item = Prompt(tokens=item)
    try:
        prompt: Prompt = replace(
            item,
            answer=_text_or(_index_or_indices, item.answer),
            foil=_text_or(_index, item.foil),
            counterfactual=_text_or(_indices, item.counterfactual),
            tokens=None if item.tokens is None else _indices(item.tokens),
        )
    except TypeError as error:
        raise HydrascopeError(f"{where} is no prompt: give a text, a Prompt or a list of token ids") from error
    if prompt.text and prompt.tokens:
        raise HydrascopeError(f"{where} has both a text and token ids: give one of them")
    if not prompt.text.strip() and not prompt.tokens:
        raise HydrascopeError(f"{where} is blank: remove it or write one")
    return prompt


def _text_or(convert: Callable[[Any], Any], value: Any) -> Any:
    return value if value is None or isinstance(value, str) else convert(value)


def _indices(values: Iterable[Any]) -> tuple[int, ...]:
    if isinstance(values, (*_NO_PROMPTS, str)):
        raise TypeError(f"a {type(values).__name__} holds no token ids")
    return tuple(map(_index, values))


def _index_or_indices(value: Any) -> int | tuple[int, ...]:
    try:
        return _index(value)
    except TypeError:
        return _indices(value)


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("True and False are no token ids")
    return index(value)


def prompt_label(number: int, prompt: Prompt) -> str:
    """Return the name of a prompt in messages; prompts of a set are numbered from 1.

    >>> prompt_label(7, Prompt("The capital of France is"))
    'prompt 7 ("The capital of France is")'
    """
    if prompt.tokens is None:
        return f"prompt {number} ({quote(prompt.text)})"
    return f"prompt {number} (token ids {spaced(prompt.tokens[:8])}{' …' if len(prompt.tokens) > 8 else ''})"


def quote(text: str) -> str:
    """Return `text` in quotes, on one line, cut after 40 characters."""
    return json.dumps(text if len(text) <= 40 else text[:39] + "…", ensure_ascii=False)


def spaced(tokens: Sequence[int]) -> str:
    """Return token ids with spaces between."""
    return " ".join(map(str, tokens))
