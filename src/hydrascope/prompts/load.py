"""Load prompt sets by name, or from a user's files.

A `.txt` file has one prompt per line; blank lines are skipped. A `.json` file is a list of objects, a `.jsonl` file has
one object per line. Each object has a `prompt` and may have an `answer` (or `attribute`, as in CounterFact), a `foil`,
a `subject` and a `counterfactual`, all texts. Other keys are ignored. A blank prompt in a JSON file is an error. Files
are UTF-8.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydrascope.prompts import counterfact, ioi, phantom
from hydrascope.prompts.prompt import Prompt, PromptSet
from hydrascope.utils import assets, input_files
from hydrascope.utils.errors import HydrascopeError

#: The names that `load_prompts` takes: a downloaded set, shipped sets, generated sets.
NAMES = ("counterfact", *assets.PROMPT_SETS, "ioi", assets.PHANTOM)

#: The suffixes of prompt files.
SUFFIXES = (".txt", ".json", ".jsonl")
_FILES = "that ends in .txt, .json or .jsonl"


def load_prompts(source: str | Path) -> PromptSet:
    """Load a prompt set by its name, or from a file.

        >>> hs.load_prompts("world-facts").prompts[0].answer
        'Texas'

    Args:
        source: `counterfact` (downloaded, then cached), `demo`, `world-facts`, `contexts`, `passages`, `ioi`,
            `phantom`, or a path that ends in `.txt`, `.json` or `.jsonl`.

    Returns:
        The prompts, each once; `limit` takes the first of them.

    Raises:
        HydrascopeError: there is no such set or file, or the file has an error; the message names the line.
    """
    path = Path(source)
    if path.suffix in SUFFIXES:
        return _read_file(path, path.name)
    if source == "counterfact":
        return _parsed(counterfact.known_facts(), ".json", "counterfact", "counterfact")
    if source == "ioi":
        return ioi.prompt_set()
    if source == assets.PHANTOM:
        return phantom.prompts()
    if source in assets.PROMPT_SETS:
        return _read_file(assets.prompt_path(str(source)), str(source))
    if os.path.exists(path):  # unlike Path.exists, False for a name that no file can have
        raise HydrascopeError(f"{source} is no file of prompts: give a file {_FILES}")
    names = ", ".join(NAMES)
    raise HydrascopeError(f"no prompt set is called {source!r}: give {names}, or a .txt, .json or .jsonl file")


def _read_file(path: Path, name: str) -> PromptSet:
    return _parsed(input_files.read(path, "prompts"), path.suffix, str(path), name)


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
        raise HydrascopeError(f"{where}, {at}: not JSON ({error.msg}): correct it there") from error
    except (RecursionError, ValueError) as error:
        raise HydrascopeError(f"{where}, line {line}: JSON that can't be read ({error}): correct it") from error


def _prompt(entry: Any, where: str) -> Prompt:
    if not isinstance(entry, dict):
        raise HydrascopeError(f'{where}: not an object: write {{"prompt": "…"}}')
    text = _field(entry, "prompt", where)
    if text is None or not text.strip():
        raise HydrascopeError(f'{where}: "prompt" is missing or blank: write one or remove the entry')
    answer, attribute = _field(entry, "answer", where), _field(entry, "attribute", where)
    return Prompt(
        text,
        attribute if answer is None else answer,
        foil=_field(entry, "foil", where),
        subject=_field(entry, "subject", where),
        counterfactual=_field(entry, "counterfactual", where),
    )


def _field(entry: dict[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise HydrascopeError(f'{where}: "{key}" is not a string: write it in quotes')
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise HydrascopeError(f'{where}: "{key}" holds half a surrogate pair: correct it') from error
    return value
