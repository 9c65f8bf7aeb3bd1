"""Prompts: what a model is asked, sets of them, and the tokens that they come to.

The rules, wherever prompts come from:

- A prompt is used as it is: no space is stripped, no token added but those of the model's tokenizer, and to token ids
  none at all.
- Of prompts with the same text, or the same token ids, the first is kept: a prompt must never be patched with its own
  activation. Texts that a model's tokenizer takes for the same are found when they are measured on it.
- A prompt is read at its own last token: padding of token ids, and what the tokenizer appends, is taken away.
- An answer is read by its *first token* as it continues the prompt, and a foil likewise: never by a later token. Where
  only a later one tells the two apart, the foil is refused.
- No prompt at all, a blank one, or one that the model's context does not hold is an error, which names the prompt by
  its number in the set, from 1.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import KW_ONLY, astuple, dataclass, replace
from io import IOBase
from operator import index
from os import PathLike
from typing import Any, Protocol

from hydrascope.prompts.tables import fields_of, rows_of
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue, and what is known of it.

        Prompt("The capital of France is", "Paris", foil="Madrid", subject="France",
               counterfactual="The capital of Spain is")
        Prompt(tokens=(0, 306, 490, 266, 1433, 277), answer=1956)

    Attributes:
        text: the prompt; empty where it is given as `tokens`.
        answer: its right continuation, or the id of that continuation's first token.
        foil: a wrong continuation to compare the answer with, or its first token's id.
        subject: the words of `text` that the prompt is about.
        counterfactual: its twin, which differs in what decides the answer: a text, or token ids.
        tokens: the prompt as token ids, special tokens included, instead of a text.
    """

    text: str = ""
    answer: str | int | None = None
    _: KW_ONLY
    foil: str | int | None = None
    subject: str | None = None
    counterfactual: str | tuple[int, ...] | None = None
    tokens: tuple[int, ...] | None = None


class Tokenizes(Protocol):
    """What prompts need of a language model."""

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
    """Prompts of one source, each once.

    Attributes:
        name: the built-in set's name or the file's.
        prompts: in the order of the source.
        duplicates: how many were left out because the same had come before.
        fit: how a set that depends on the tokenizer is made for a model: see `fitted`.
    """

    name: str
    prompts: tuple[Prompt, ...]
    duplicates: int = 0
    fit: Callable[[Tokenizes, int], tuple[Sequence[Prompt], str]] | None = None

    @classmethod
    def of(cls, prompts: "AnyPrompts", name: str = "prompts") -> "PromptSet":
        """The set of `prompts`: a set as it is, one prompt, or any number of prompts of any kind.

            PromptSet.of("The capital of France is")
            PromptSet.of(["The capital of France is", Prompt("Iron is", "Fe"), [306, 490, 266]])

        Args:
            prompts: a `PromptSet`, a text, a `Prompt`, or an iterable of texts, `Prompt`s and sequences of token ids.
            name: what to call the set.

        Raises:
            HydrascopeError: there are none, or one is blank or no prompt.
        """
        if isinstance(prompts, PromptSet):
            return prompts
        several = [prompts] if isinstance(prompts, str | Prompt) else _listed(prompts, name)
        everyone = [_prompt(item, f"{name}: prompt {number}") for number, item in enumerate(several, start=1)]
        if not everyone:
            raise HydrascopeError(f"{name} holds no prompts: give at least one")
        distinct: dict[str | tuple[int, ...], Prompt] = {}
        for prompt in everyone:
            distinct.setdefault(prompt.tokens or prompt.text, prompt)
        return cls(name, tuple(distinct.values()), len(everyone) - len(distinct))

    def limit(self, count: int) -> "PromptSet":
        """The first `count` prompts, or all if there are fewer."""
        if count < 1:
            raise HydrascopeError(f"cannot take {count} prompts of {self.name}: take at least 1")
        return replace(self, prompts=self.prompts[:count])

    def fit_to(self, model: Tokenizes) -> tuple["PromptSet", str]:
        """The set as `model` is to be measured on it, and what to tell the user of that; most sets stay as they are.

        A set with a `fit` gets as many prompts as it has now, made for the model's tokenizer.

        Raises:
            HydrascopeError: none can be made for this model.
        """
        if self.fit is None:
            return self, ""
        prompts, said = self.fit(model, len(self.prompts))
        return replace(self, prompts=tuple(prompts), fit=None), said

    @property
    def hash(self) -> str:
        """SHA-256 of all fields of all prompts, in order: two sets with the same hash ask the same questions."""
        content = json.dumps([astuple(prompt) for prompt in self.prompts])
        return hashlib.sha256(content.encode()).hexdigest()


#: What is taken for prompts: a set, a text, a prompt, or several texts, prompts and sequences of token ids.
AnyPrompts = PromptSet | Prompt | str | Iterable[Prompt | str | Sequence[int]]


#: Iterables whose items aren't prompts, or come in no order.
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


def _prompt(item: Any, where: str) -> Prompt:
    """Return `item` as a prompt whose token ids are of int, in tuples, whatever they came as."""
    if isinstance(item, str):
        item = Prompt(item)
    elif isinstance(item, Mapping):
        fields = fields_of(item, where)
        if not isinstance(fields.get("text", ""), str) or not fields.keys() & {"text", "tokens"}:
            raise HydrascopeError(f"{where} has no prompt that is a text: write one or remove it")
        item = Prompt(**fields)
    elif not isinstance(item, Prompt):
        item = Prompt(tokens=item)
    try:
        prompt = replace(
            item,
            answer=_text_or(_index, item.answer),
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


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("True and False are no token ids")
    return index(value)


def tokenize(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Each prompt's token ids: as given, or as the model's tokenizer makes them by default, special tokens included.

        tokenize(model, [Prompt("The capital of France is")])  # [[0, 306, 490, …]]

    Raises:
        HydrascopeError: a prompt has no tokens, one that the model doesn't have, or more than its context holds.
    """
    return [
        _fitting(model, prompt.tokens or prompt.text, prompt_label(number, prompt))
        for number, prompt in enumerate(prompts, start=1)
    ]


def counterfactual_tokens(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt's twin, by the rules of `tokenize`.

        counterfactual_tokens(model, [Prompt("The capital of France is", counterfactual="The capital of Spain is")])

    Raises:
        HydrascopeError: a prompt has no twin or is its own, or a twin breaks a rule of `tokenize`.
    """
    twins = []
    for number, prompt in enumerate(prompts, start=1):
        where = prompt_label(number, prompt)
        if not prompt.counterfactual:
            raise HydrascopeError(f"{where} has no counterfactual: give every prompt one, or choose another ablation")
        twin = _fitting(model, prompt.counterfactual, f"the counterfactual of {where}")
        if twin == _ids(model, prompt.tokens or prompt.text):
            raise HydrascopeError(f"{where} is its own counterfactual: give it another text")
        twins.append(twin)
    return twins


def require_same_length(
    prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], twins: Sequence[Sequence[int]]
) -> None:
    """Make sure that every prompt has as many tokens as its twin: needed at any position but the last.

        require_same_length(prompts, tokenize(model, prompts), counterfactual_tokens(model, prompts))

    Raises:
        HydrascopeError: one hasn't; the message gives both lengths.
    """
    for number, (prompt, own, twin) in enumerate(zip(prompts, tokens, twins, strict=True), start=1):
        if len(own) != len(twin):
            raise HydrascopeError(
                f"{prompt_label(number, prompt)} is {len(own):,} tokens long and its counterfactual {len(twin):,}: at "
                "positions other than the last both must be as long; change one of them"
            )


def texts(model: Tokenizes, prompts: Sequence[Prompt]) -> list[str]:
    """What to show of each prompt: its text, or what its token ids decode to.

        texts(model, [Prompt("Iron is"), Prompt(tokens=(306, 490))])  # ["Iron is", " The capital"]

    Where the model has no tokenizer, the ids themselves are shown.
    """

    def decoded(tokens: Sequence[int]) -> str:
        return _spaced(tokens) if model.tokenizer is None else str(model.tokenizer.decode(list(tokens)))

    return [prompt.text if prompt.tokens is None else decoded(prompt.tokens) for prompt in prompts]


def prompt_label(number: int, prompt: Prompt) -> str:
    """How a message calls the prompt with this number in its set, from 1: `prompt 7 ("The capital of …")`."""
    if prompt.tokens is None:
        return f"prompt {number} ({quote(prompt.text)})"
    return f"prompt {number} (token ids {_spaced(prompt.tokens[:8])}{' …' if len(prompt.tokens) > 8 else ''})"


def quote(text: str) -> str:
    """`text` short and on one line."""
    return json.dumps(text if len(text) <= 40 else text[:39] + "…", ensure_ascii=False)


def _spaced(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def _ids(model: Tokenizes, prompt: str | tuple[int, ...]) -> list[int]:
    return model.encode(prompt) if isinstance(prompt, str) else list(prompt)


def _fitting(model: Tokenizes, prompt: str | tuple[int, ...], where: str) -> list[int]:
    """The token ids of `prompt`, which the model can take."""
    ids = _ids(model, prompt)
    if not ids:
        raise HydrascopeError(f"{where} has no tokens: remove it")
    if model.context_length is not None and len(ids) > model.context_length:
        raise HydrascopeError(
            f"{where} is {len(ids):,} tokens long, the context of {model.name} holds {model.context_length:,}: shorten "
            "or remove it"
        )
    for token in ids:
        require_known(model, token, where)
    return ids


def require_known(model: Tokenizes, token: int, where: str) -> None:
    """Refuse a token id that the model doesn't have.

    Raises:
        HydrascopeError: it hasn't; the message says `where` it is.
    """
    if not 0 <= token < model.known_tokens:
        raise HydrascopeError(
            f"{where} has token {token}, {model.name} knows 0 to {model.known_tokens - 1}: "
            "take the tokenizer that belongs to the model"
        )
