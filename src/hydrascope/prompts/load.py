"""Load prompt sets: shipped, downloaded, made for a tokenizer, from a file, from the hub."""

import os
from pathlib import Path

from hydrascope.prompts import agreement, counterfact, docstring, gender, greater_than, induction, ioi, phantom
from hydrascope.prompts.files import SUFFIXES, parse, read_file
from hydrascope.prompts.hub_tables import PREFIX, load_table
from hydrascope.prompts.prompt import PromptSet
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError

#: The sets that are made for a model's tokenizer.
MADE = {
    "ioi": ioi.prompt_set,
    "greater-than": greater_than.prompt_set,
    "agreement": agreement.prompt_set,
    "gender": gender.prompt_set,
    "docstring": docstring.prompt_set,
    "induction": induction.prompt_set,
}

#: The names that `load_prompts` takes: a downloaded set, shipped sets, generated sets.
NAMES = ("counterfact", *assets.PROMPT_SETS, *MADE, assets.PHANTOM)

_FILES = f"a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def load_prompts(source: str | Path) -> PromptSet:
    """Load a prompt set by its name, from a file, or from the hub.

        >>> hs.load_prompts("world-facts").prompts[0].answer
        'Texas'

    Args:
        source: `counterfact` (downloaded, then cached), `demo`, `world-facts`, `common-facts`, `contexts`, `passages`,
            `phantom`, a set that is made for the model's tokenizer (`ioi`, `greater-than`, `agreement`, `gender`,
            `docstring`, `induction`), a path that ends in `.txt`, `.json`, `.jsonl`, `.csv`, `.csv.gz` or `.parquet`,
            or `hf:ORG/NAME[:split[:column]]`, a table on the hub.

    Returns:
        The prompts, each once; `limit` takes the first of them, `chat` makes them messages.

    Raises:
        HydrascopeError: there is no such set or file, or the file has an error; the message names the line.
    """
    if str(source).startswith(PREFIX):
        return load_table(str(source))
    path = Path(source)
    if path.name.endswith(SUFFIXES):
        return read_file(path, path.name)
    if source == "counterfact":
        return parse(counterfact.known_facts(), ".json", "counterfact", "counterfact")
    if source in MADE:
        return MADE[str(source)]()
    if source == assets.PHANTOM:
        return phantom.prompts()
    if source in assets.PROMPT_SETS:
        return read_file(assets.prompt_path(str(source)), str(source))
    if os.path.exists(path):  # unlike Path.exists, False for a name that no file can have
        raise HydrascopeError(f"{source} is no file of prompts: give {_FILES}")
    raise HydrascopeError(f"no prompt set is called {source!r}: give {', '.join(NAMES)}, hf:ORG/NAME, or {_FILES}")
