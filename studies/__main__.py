"""Measure a study and write its page: `python -m studies replication --prompts facts.json`."""

import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import click

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError
from studies.index import TITLES, publish_index
from studies.study import Study

#: The set of prompts that is downloaded.
DOWNLOADED = "counterfact"


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--prompts", help="a file of prompts in place of the set that is downloaded")
@click.option("--model", "models", multiple=True, help="models in place of those that the settings name")
@click.option("--stores", type=Path, default=Path("study-results"), help="where measured results are kept and resumed")
@click.option("--page-only", is_flag=True, help="write the page from the stored results")
def main(names: Sequence[str], prompts: str | None, models: tuple[str, ...], stores: Path, page_only: bool) -> None:
    """Measure studies, or resume them, and write their results, pages and pictures; by default all.

    With other models, a summary is printed and nothing is written: the page is of the declared models.
    """
    try:
        for name in names or TITLES:
            study, began = Study(name), time.monotonic()
            if page_only:
                study.publish(importlib.import_module(f"studies.{name}"))
            else:
                # Of all studies, only those that download their prompts take the file.
                takes = bool(names) or DOWNLOADED in sources(study.settings["prompts"]).values()
                measure(study, prompts if takes else None, models, stores / name)
            click.echo(f"{name}: {(time.monotonic() - began) / 60:.0f} min")
        if not models:
            publish_index()
    except HydrascopeError as error:
        click.echo(f"studies: {error}", err=True)
        raise click.exceptions.Exit(2) from error


def measure(study: Study, prompts: str | None, models: Sequence[str], stores: Path) -> None:
    """Measure a study, or resume it; write its results and its page, or print the page of other models.

    Args:
        study: the study.
        prompts: a file in place of the set that is downloaded.
        models: models in place of the declared ones; empty for those.
        stores: the folder of the measured results.
    """
    module = importlib.import_module(f"studies.{study.name}")
    settings = study.settings | ({"models": list(models)} if models else {})
    chosen = load_prompts(settings["prompts"], prompts)
    results = module.condense(settings, module.measure(settings, chosen, stores))
    if models:
        click.echo(module.render(settings, results))
        return
    study.write_results(results)
    study.publish(module)
    click.echo(f"{study.page}")


def sources(declared: str | Mapping[str, str]) -> dict[str, str]:
    """Return the sources of prompts that a study declares, by name; a single one is called `prompts`."""
    return {"prompts": declared} if isinstance(declared, str) else dict(declared)


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
    named = sources(declared).values()
    if file and DOWNLOADED not in named:
        declares = f"it declares {', '.join(named)}" if named else "it brings its own texts"
        raise HydrascopeError(f"the study takes no file of prompts: {declares}")
    if isinstance(declared, str):
        return hs.load_prompts(file or declared)
    return {
        name: hs.load_prompts(file if file and source == DOWNLOADED else source) for name, source in declared.items()
    }


if __name__ == "__main__":
    main()
