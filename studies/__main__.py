"""Measure a study and write its page: `python -m studies replication --prompts facts.json`."""

import importlib
from pathlib import Path

import click

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError
from studies.study import Study


@click.command()
@click.argument("name")
@click.option("--prompts", help="a file of prompts in place of the set that the settings name")
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
            chosen = hs.load_prompts(prompts or settings["prompts"])
            results = module.condense(settings, module.measure(settings, chosen, stores / name))
            if models:
                click.echo(module.render(settings, results))
                return
            study.write_results(results)
        study.publish(module)
    except HydrascopeError as error:
        click.echo(f"studies: {error}", err=True)
        raise click.exceptions.Exit(2) from error
    click.echo(f"{study.page}")


if __name__ == "__main__":
    main()
