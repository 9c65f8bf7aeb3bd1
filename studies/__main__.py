"""Measure a study and write its page: `python -m studies replication --prompts facts.json`."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import overload

import click

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError
from studies.index import publish_index
from studies.study import Study

#: The set of prompts that is downloaded.
DOWNLOADED = "counterfact"


@click.command()
@click.argument("name")
@click.option("--prompts", help="a file of prompts in place of the set that is downloaded")
@click.option("--model", "models", multiple=True, help="models in place of those that the settings name")
@click.option("--stores", type=Path, default=Path("study-results"), help="where measured results are kept and resumed")
@click.option("--page-only", is_flag=True, help="write the page from the stored results")
def main(name: str, prompts: str | None, models: tuple[str, ...], stores: Path, page_only: bool) -> None:
    """Measure the study NAME, or resume it, and write its results, its page and its picture.

    With other models, a summary is printed and nothing is written: the page is of the declared models.
    """
    try:
        study = Study(name)
        module = importlib.import_module(f"studies.{name}")
        settings = study.settings | ({"models": list(models)} if models else {})
        if not page_only:
            chosen = load_prompts(settings["prompts"], prompts)
            results = module.condense(settings, module.measure(settings, chosen, stores / name))
            if models:
                click.echo(module.render(settings, results))
                return
            study.write_results(results)
        study.publish(module)
        publish_index()
    except HydrascopeError as error:
        click.echo(f"studies: {error}", err=True)
        raise click.exceptions.Exit(2) from error
    click.echo(f"{study.page}")


@overload
def load_prompts(declared: str, file: str | None) -> hs.prompts.PromptSet: ...
@overload
def load_prompts(declared: Mapping[str, str], file: str | None) -> dict[str, hs.prompts.PromptSet]: ...
def load_prompts(
    declared: str | Mapping[str, str], file: str | None
) -> hs.prompts.PromptSet | dict[str, hs.prompts.PromptSet]:
    """Load the set of prompts that a study declares, or several by their names.

    Args:
        declared: the source of the set, or sources by name.
        file: a file in place of a single set; among several, in place of `counterfact`, which is downloaded.

    Raises:
        HydrascopeError: there is no such set or file, or no set that the file could replace.
    """
    if isinstance(declared, str):
        return hs.load_prompts(file or declared)
    if file and DOWNLOADED not in declared.values():
        raise HydrascopeError(f"the study takes no file of prompts: it declares {', '.join(declared.values())}")
    return {
        name: hs.load_prompts(file if file and source == DOWNLOADED else source) for name, source in declared.items()
    }


if __name__ == "__main__":
    main()
