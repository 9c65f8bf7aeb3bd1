"""The commands of hydrascope and their options, as typer has them."""

from typing import Any, get_args, get_type_hints

import typer

from hydrascope.cli.app import app

#: Every command by its name.
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def has_option(command: str, option: str) -> bool:
    """Return whether a command has an option, such as `--out`."""
    return any(option in parameter.opts for parameter in COMMANDS[command].params)


def formats(command: str) -> tuple[str, ...]:
    """Return the words that `--format` of a command takes; none if it has no such option."""
    hint = get_type_hints(COMMANDS[command].callback, include_extras=True).get("format_")
    return get_args(get_args(hint)[0]) if hint else ()


def parse(arguments: list[str]) -> None:
    """Read a command line, and run nothing.

    Raises:
        Exception: of typer, if there is no such command or option, or one is missing or wrong.
    """
    name, *rest = arguments
    COMMANDS[name].make_context(name, rest)
