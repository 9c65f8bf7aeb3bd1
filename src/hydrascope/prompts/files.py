"""Read prompts from files: `.txt`, `.json`, `.jsonl`, `.csv`, `.csv.gz` and `.parquet`.

A `.txt` file has one prompt per line; blank lines are skipped. A `.json` file is a list of objects, a `.jsonl` file has
one object per line. Each object has a `prompt` and may have an `answer` (or `attribute`, as in CounterFact), a `foil`,
a `subject`, a `counterfactual` and a `template`, all texts. Instead of the prompt it may have `tokens`, a list of token
ids; answer and foil are then token ids, the counterfactual a list of them; an answer may be a list, too. Other keys
are ignored. A blank prompt in a JSON file is an error. Tables are read by `hydrascope.prompts.table_files`. Files are
UTF-8.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydrascope.prompts.prompt import Prompt, PromptSet, prompt_of
from hydrascope.prompts.table_files import read_csv, read_parquet, unzipped
from hydrascope.prompts.tables import id_or_ids, token_id, token_ids
from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError

#: The endings of prompt files.
SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".csv.gz", ".parquet")


def read_file(path: Path, name: str) -> PromptSet:
    """Return the prompts of a file.

    Args:
        name: the name of the set.

    Raises:
        HydrascopeError: the file can't be read, or has an error; the message names the line.
    """
    return parse(input_files.read(path, "prompts"), path.name, str(path), name)


def parse(data: bytes, file: str, where: str, name: str) -> PromptSet:
    """Return the prompts in the content of a file.

    Args:
        file: the name of the file, of which the ending counts.
        where: the name of the file in messages.
        name: the name of the set.

    Raises:
        HydrascopeError: the content has an error; the message names the line.
    """
    if file.endswith(".gz"):
        data = unzipped(data, where)
    if not data.strip():
        raise HydrascopeError(f"{where} is empty: give a file with prompts")
    if file.endswith(".parquet"):
        return PromptSet.of(read_parquet(data, where), name)
    text = _decode(data, where)
    if not text.strip():
        raise HydrascopeError(f"{where} is empty: give a file with prompts")
    parsers = {".txt": _parse_txt, ".json": _parse_json, ".jsonl": _parse_jsonl, ".csv": read_csv, ".csv.gz": read_csv}
    return PromptSet.of(parsers[next(each for each in parsers if file.endswith(each))](text, where), name)


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
    if entry.get("tokens") is not None:
        return _prompt_of_ids(entry, where)
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
        template=_field(entry, "template", where),
    )


def _prompt_of_ids(entry: dict[str, Any], where: str) -> Prompt:
    """Return the prompt of an entry with token ids."""
    fields: dict[str, Any] = {
        "text": _field(entry, "prompt", where) or "",
        "subject": _field(entry, "subject", where),
        "template": _field(entry, "template", where),
    }
    readers = {"answer": id_or_ids, "foil": token_id, "tokens": token_ids, "counterfactual": token_ids}
    given = {name: read for name, read in readers.items() if entry.get(name) is not None}
    fields |= {name: read(entry[name], f'{where}: "{name}"') for name, read in given.items()}
    return prompt_of(Prompt(**fields), where)


def _field(entry: dict[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise HydrascopeError(f'{where}: "{key}" is not a string: write it in quotes')
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise HydrascopeError(f'{where}: "{key}" holds half a surrogate pair: correct it') from error
    return value
