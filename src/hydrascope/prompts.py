"""Prompts: what a model is asked, sets of them, and the tokens that they come to.

The rules, wherever prompts come from:

- A prompt is used as it is: no space is stripped, no token added but those of the model's tokenizer, and to token ids
  none at all.
- Of prompts with the same text, or the same token ids, the first is kept: a prompt must never be patched with its own
  activation.
- An answer is read by its *first token* as it continues the prompt, and a foil likewise: never by a later token. Where
  only a later one tells the two apart, the foil is refused.
- No prompt at all, a blank one, or one that the model's context does not hold is an error, which names the prompt by
  its number in the set, from 1.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, astuple, dataclass, replace
from operator import index
from typing import Any, Protocol

from hydrascope.errors import HydrascopeError


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

    def fitted(self, model: Tokenizes) -> tuple["PromptSet", str]:
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


def _listed(prompts: AnyPrompts, name: str) -> list[Any]:
    if not isinstance(prompts, Iterable) or isinstance(prompts, bytes | Mapping | type):
        raise HydrascopeError(
            f"{name} cannot be a {type(prompts).__name__}: give texts, Prompts or lists of token ids, or a set or file "
            "by load_prompts"
        )
    return list(prompts)


def _prompt(item: Any, where: str) -> Prompt:
    """`item` as a prompt whose token ids are of int, in tuples, whatever they came as."""
    if isinstance(item, str):
        item = Prompt(item)
    elif not isinstance(item, Prompt):
        item = Prompt(tokens=item)
    try:
        if isinstance(item.tokens, bytes):
            raise TypeError("bytes are no token ids")
        prompt = replace(
            item,
            answer=_text_or(index, item.answer),
            foil=_text_or(index, item.foil),
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
    return tuple(map(index, values))


def tokenize(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Each prompt's token ids: as given, or as the model's tokenizer makes them by default, special tokens included.

        tokenize(model, [Prompt("The capital of France is")])  # [[0, 306, 490, …]]

    Raises:
        HydrascopeError: a prompt has no tokens, one that the model doesn't have, or more than its context holds.
    """
    return [
        _fitting(model, prompt.tokens or prompt.text, called(number, prompt))
        for number, prompt in enumerate(prompts, start=1)
    ]


def answer_tokens(model: Tokenizes, prompts: Sequence[Prompt]) -> list[int]:
    """The first token of each prompt's answer, as it continues the prompt.

    The answer is set after the prompt, with a space between unless one of the two brings white space there, and
    tokenized together with it; its first token is the first after the prompt's own. An answer given as a token id is
    that token.

        answer_tokens(model, [Prompt("The capital of France is", "Paris")])  # the id of " Paris"

    Raises:
        HydrascopeError: a prompt has no answer; or it is given as token ids and its answer as text; or the two
            together don't begin with the prompt's tokens (the prompt ends inside a token, often with a space); or the
            tokenizer doesn't know the answer, and has one token for all that it doesn't.
    """
    return [
        _first_token(model, prompt, prompt.answer, "answer", called(number, prompt))
        for number, prompt in enumerate(prompts, start=1)
    ]


def foil_tokens(model: Tokenizes, prompts: Sequence[Prompt]) -> list[int]:
    """The first token of each prompt's foil, by the rule of `answer_tokens`.

        foil_tokens(model, [Prompt("The capital of France is", "Paris", foil="Madrid")])  # the id of " Madrid"

    Raises:
        HydrascopeError: as `answer_tokens`, of foil or answer; or the two begin with the same token: later tokens are
            not looked at, so their difference would be 0.
    """
    answers = answer_tokens(model, prompts)
    foils = [
        _first_token(model, prompt, prompt.foil, "foil", called(number, prompt))
        for number, prompt in enumerate(prompts, start=1)
    ]
    for number, (prompt, answer, foil) in enumerate(zip(prompts, answers, foils, strict=True), start=1):
        if answer == foil:
            raise HydrascopeError(
                f"{called(number, prompt)}: its answer and its foil begin with the same token, which leaves no "
                "difference to read: give another foil"
            )
    return foils


def counterfactual_tokens(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt's twin, by the rules of `tokenize`.

        counterfactual_tokens(model, [Prompt("The capital of France is", counterfactual="The capital of Spain is")])

    Raises:
        HydrascopeError: a prompt has no twin or is its own, or a twin breaks a rule of `tokenize`.
    """
    twins = []
    for number, prompt in enumerate(prompts, start=1):
        where = called(number, prompt)
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
                f"{called(number, prompt)} is {len(own):,} tokens long and its counterfactual {len(twin):,}: at "
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


def called(number: int, prompt: Prompt) -> str:
    """How a message calls the prompt with this number in its set, from 1: `prompt 7 ("The capital of …")`."""
    if prompt.tokens is None:
        return f"prompt {number} ({shown(prompt.text)})"
    return f"prompt {number} (token ids {_spaced(prompt.tokens[:8])}{' …' if len(prompt.tokens) > 8 else ''})"


def shown(text: str) -> str:
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
        _require_known(model, token, where)
    return ids


def _require_known(model: Tokenizes, token: int, where: str) -> None:
    if not 0 <= token < model.known_tokens:
        raise HydrascopeError(
            f"{where} has token {token}, {model.name} knows 0 to {model.known_tokens - 1}: "
            "take the tokenizer that belongs to the model"
        )


def _first_token(model: Tokenizes, prompt: Prompt, continuation: str | int | None, field: str, where: str) -> int:
    """The first token of `continuation`, the prompt's answer or foil, as it continues the prompt."""
    if isinstance(continuation, int):
        _require_known(model, continuation, f"the {field} of {where}")
        return continuation
    if continuation is None or not continuation.strip():
        raise HydrascopeError(f"{where} has no {field}: give every prompt one, or read something else")
    if prompt.tokens is not None:
        raise HydrascopeError(f"{where} is given as token ids: give the id of its {field}'s first token, too")
    spaced = prompt.text[-1:].isspace() or continuation[:1].isspace()
    before = model.encode(prompt.text)
    together = model.encode(prompt.text + ("" if spaced else " ") + continuation)
    if len(together) <= len(before) or together[: len(before)] != before:
        raise HydrascopeError(
            f"{where} and its {field} {shown(continuation)} share a token: end the prompt where a word ends"
        )
    first = together[len(before)]
    if first == getattr(model.tokenizer, "unk_token_id", None):
        raise HydrascopeError(
            f"the {field} {shown(continuation)} of {where} is unknown to the tokenizer of {model.name}, which has one "
            "token for all that is: give another"
        )
    _require_known(model, first, f"the {field} of {where}")
    return first
