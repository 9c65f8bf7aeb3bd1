"""Settings, results and pages of a study.

`settings.json` is committed before any result. `results.json` holds the hash of the settings and every number; the page
in `docs/findings/` and its figure are made from it alone, so that no number is typed by hand.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure

from hydrascope.reports.figures.style import style
from hydrascope.utils.errors import HydrascopeError

STUDIES = Path(__file__).parent
PAGES = STUDIES.parent / "docs" / "findings"


@dataclass(frozen=True)
class Study:
    """A folder of `studies` by its name.

    >>> Study("replication").settings["target"]
    'argmax'
    """

    name: str

    def __post_init__(self) -> None:
        if not self._settings_file.is_file():
            known = ", ".join(sorted(file.parent.name for file in STUDIES.glob("*/settings.json")))
            raise HydrascopeError(f"there is no study {self.name!r}: give one of {known}")

    @property
    def _settings_file(self) -> Path:
        return STUDIES / self.name / "settings.json"

    @property
    def _results_file(self) -> Path:
        return STUDIES / self.name / "results.json"

    @property
    def page(self) -> Path:
        """The page that the study renders."""
        return PAGES / f"{self.name}.md"

    @property
    def figure(self) -> Path:
        """The picture on the page."""
        return PAGES / "images" / f"{self.name}.png"

    @property
    def settings(self) -> dict[str, Any]:
        """The declared settings."""
        settings: dict[str, Any] = json.loads(self._settings_file.read_text("utf-8"))
        return settings

    @property
    def settings_hash(self) -> str:
        """The SHA-256 of the settings' file."""
        return hashlib.sha256(self._settings_file.read_bytes()).hexdigest()

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write `results` with the hash of the settings."""
        stored = {"settings_hash": self.settings_hash, **results}
        self._results_file.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", "utf-8")

    def read_results(self) -> dict[str, Any]:
        """Read the results; refuse those of other settings.

        Raises:
            HydrascopeError: there are none, or they were measured with other settings.
        """
        if not self._results_file.is_file():
            raise HydrascopeError(f"{self.name} has no results yet: make study NAME={self.name}")
        results: dict[str, Any] = json.loads(self._results_file.read_text("utf-8"))
        if results.pop("settings_hash") != self.settings_hash:
            raise HydrascopeError(f"the results of {self.name} were measured with other settings: measure again")
        return results

    def publish(self, module: ModuleType) -> None:
        """Write the page and the picture from the stored results.

        Args:
            module: has `render(settings, results)`, which returns Markdown, and `draw(results)`.
        """
        results = self.read_results()
        self.figure.parent.mkdir(parents=True, exist_ok=True)
        self.page.write_text(module.render(self.settings, results), "utf-8")
        with style():
            drawn: Figure = module.draw(results)
            drawn.savefig(self.figure, dpi=200)
