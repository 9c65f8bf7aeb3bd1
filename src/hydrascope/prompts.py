"""Prompts: which texts a model is measured on, and what may stand in a file of them.

The rules, for every source:

- A `.txt` file is a prompt a line; blank lines separate and are skipped. A `.json` file is a list of objects,
  a `.jsonl` file an object a line; each has a `prompt` and may have an `answer` (or `attribute`, as
  CounterFact calls it) and a `subject`. Other keys are ignored. Files are UTF-8.
- A prompt is used as it is written: no space is stripped, no token added but those of the model's tokenizer.
- Of prompts with the same text the first is kept: a prompt must never be patched with its own activation.
- No prompt at all, a blank prompt in a JSON file, or a prompt longer than the model's context is an error.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hydrascope import counterfact, zoo
from hydrascope.errors import HydrascopeError

_SUFFIXES = (".txt", ".json", ".jsonl")
_FILES = "that ends in .txt, .json or .jsonl"


@dataclass(frozen=True)
class Prompt:
    """A text for the model to continue, and what is known of its right continuation."""

    text: str
    answer: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one source, each text once.

    Attributes:
        name: the built-in set's name or the file's.
        prompts: in the order of the source.
        duplicates: how many were left out because their text had come before.
    """

    name: str
    prompts: tuple[Prompt, ...]
    duplicates: int = 0

    @classmethod
    def of(cls, prompts: Iterable[Prompt | str], name: str = "prompts") -> "PromptSet":
        """The set of `prompts`; a string is a prompt without an answer.

        Raises:
            HydrascopeError: there are none, or one is blank.
        """
        everyone = [Prompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        if not everyone:
            raise HydrascopeError(f"{name} holds no prompts: give at least one")
        for number, prompt in enumerate(everyone, start=1):
            if not prompt.text.strip():
                raise HydrascopeError(f"{name}: prompt {number} is blank: remove it or write one")
        distinct = {prompt.text: prompt for prompt in reversed(everyone)}
        kept = tuple(distinct[text] for text in dict.fromkeys(prompt.text for prompt in everyone))
        return cls(name, kept, len(everyone) - len(kept))

    def limit(self, count: int) -> "PromptSet":
        """The first `count` prompts, or all if there are fewer."""
        if count < 1:
            raise HydrascopeError(f"cannot take {count} prompts: --limit must be at least 1")
        return PromptSet(self.name, self.prompts[:count], self.duplicates)

    @property
    def hash(self) -> str:
        """SHA-256 of texts and answers, in order: two sets with the same hash ask the same questions."""
        content = json.dumps([[prompt.text, prompt.answer] for prompt in self.prompts])
        return hashlib.sha256(content.encode()).hexdigest()


def load_prompts(source: str | Path) -> PromptSet:
    """The prompts of `counterfact`, of a set of the zoo, or of a file (`.txt`, `.json`, `.jsonl`).

    Raises:
        HydrascopeError: there is no such set or file, or it breaks a rule of this module.
    """
    path = Path(source)
    if path.suffix in _SUFFIXES:
        return _read_file(path, path.name)
    if source == "counterfact":
        return _parsed(counterfact.known_facts(), ".json", "counterfact", "counterfact")
    if source in zoo.prompt_sets():
        return _read_file(zoo.prompt_path(str(source)), str(source))
    names = ", ".join(("counterfact", *zoo.prompt_sets()))
    if path.exists():
        raise HydrascopeError(f"{source} is no file of prompts: give a file {_FILES}")
    raise HydrascopeError(f"no prompt set is called {source!r}: give {names}, or a .txt, .json or .jsonl file")


class Tokenizes(Protocol):
    """What of a language model this module needs."""

    name: str

    @property
    def context_length(self) -> int | None: ...

    def encode(self, text: str) -> list[int]: ...


def tokenize(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Each prompt's token ids, as the model's tokenizer does by default, special tokens included.

    Raises:
        HydrascopeError: a prompt has no tokens, or more than the model's context holds.
    """
    tokens = [model.encode(prompt.text) for prompt in prompts]
    for number, (prompt, ids) in enumerate(zip(prompts, tokens, strict=True), start=1):
        if not ids:
            raise HydrascopeError(f"prompt {number} ({shown(prompt.text)}) has no tokens: remove it")
        if model.context_length is not None and len(ids) > model.context_length:
            raise HydrascopeError(
                f"prompt {number} ({shown(prompt.text)}) is {len(ids):,} tokens long, "
                f"the context of {model.name} holds {model.context_length:,}: shorten or remove it"
            )
    return tokens


def answer_tokens(model: Tokenizes, prompts: Sequence[Prompt]) -> list[int]:
    """The first token of each prompt's answer, as it continues the prompt.

    The answer is set after the prompt, with a space between unless one of the two brings white space there,
    and tokenized together with it; the target is the first token after the prompt's own.

    Raises:
        HydrascopeError: a prompt has no answer, or the two together don't begin with the prompt's tokens (the
            prompt ends in the middle of a token, often with a space).
    """
    return [_answer_token(model, number, prompt) for number, prompt in enumerate(prompts, start=1)]


def _answer_token(model: Tokenizes, number: int, prompt: Prompt) -> int:
    where = f"prompt {number} ({shown(prompt.text)})"
    if prompt.answer is None or not prompt.answer.strip():
        raise HydrascopeError(f"{where} has no answer: give every prompt one, or use --target argmax")
    spaced = prompt.text[-1:].isspace() or prompt.answer[:1].isspace()
    before = model.encode(prompt.text)
    together = model.encode(prompt.text + ("" if spaced else " ") + prompt.answer)
    if len(together) <= len(before) or together[: len(before)] != before:
        raise HydrascopeError(
            f"{where} and its answer {shown(prompt.answer)} share a token: end the prompt where a word ends"
        )
    return together[len(before)]


def shown(text: str) -> str:
    """`text` short and on one line."""
    return json.dumps(text if len(text) <= 40 else text[:39] + "…", ensure_ascii=False)


def _read_file(path: Path, name: str) -> PromptSet:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise HydrascopeError(f"cannot read prompts from {path}: {error.strerror or error}") from error
    return _parsed(data, path.suffix, str(path), name)


def _parsed(data: bytes, suffix: str, where: str, name: str) -> PromptSet:
    parse = {".txt": _parse_txt, ".json": _parse_json, ".jsonl": _parse_jsonl}[suffix]
    text = _decode(data, where)
    if not text.strip():
        raise HydrascopeError(f"{where} is empty: give a file with prompts")
    return PromptSet.of(parse(text, where), name)


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HydrascopeError(f"{where}, line {line}: not UTF-8: save the file as UTF-8 text") from error


def _parse_txt(text: str, where: str) -> Iterator[Prompt]:
    for line in text.split("\n"):
        if line.strip():
            yield Prompt(line.removesuffix("\r"))


def _parse_json(text: str, where: str) -> Iterator[Prompt]:
    entries = _json(text, where, line=1)
    if not isinstance(entries, list):
        raise HydrascopeError(f'{where}: not a list: write [{{"prompt": "…"}}, …]')
    for number, entry in enumerate(entries, start=1):
        yield _prompt(entry, f"{where}, entry {number}")


def _parse_jsonl(text: str, where: str) -> Iterator[Prompt]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _prompt(_json(line, where, number), f"{where}, line {number}")


def _json(text: str, where: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {line + error.lineno - 1}, column {error.colno}"
        raise HydrascopeError(f"{where}, {at}: not JSON ({error.msg}): mend it there") from error
    except (RecursionError, ValueError) as error:
        raise HydrascopeError(f"{where}, line {line}: not JSON that can be read ({error})") from error


def _prompt(entry: Any, where: str) -> Prompt:
    if not isinstance(entry, dict):
        raise HydrascopeError(f'{where}: not an object: write {{"prompt": "…"}}')
    text = _field(entry, "prompt", where)
    if text is None or not text.strip():
        raise HydrascopeError(f'{where}: "prompt" is missing or blank: write one or remove the entry')
    answer, attribute = _field(entry, "answer", where), _field(entry, "attribute", where)
    return Prompt(text, attribute if answer is None else answer, _field(entry, "subject", where))


def _field(entry: dict[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise HydrascopeError(f'{where}: "{key}" is not a string: write it in quotes')
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise HydrascopeError(f'{where}: "{key}" holds half a surrogate pair: mend it') from error
    return value
