"""The sets of prompts that the claims of the study are about."""

from collections.abc import Iterator, Mapping
from typing import Any


def cells_of(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield model, set and numbers of each set of prompts that the claims are about."""
    for model in settings["models"]:
        for label in settings["prompts"]:
            yield model, label, models[model]["sets"][label]
