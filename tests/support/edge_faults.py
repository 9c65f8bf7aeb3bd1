"""Faults in how edges are computed, each of a kind that makes wrong numbers, planted in one engine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hydrascope.components.edge import Edge
from hydrascope.engines.reference.edges import _Pass
from hydrascope.engines.wavefront.edges import _EdgeRows
from hydrascope.models.projection import Projection

Plant = Callable[[pytest.MonkeyPatch], None]


class _Sequential:
    """A model that says its blocks aren't parallel."""

    parallel = False

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def _let_both_sublayers_see(patch: pytest.MonkeyPatch, engine: type) -> None:
    write = engine._write  # type: ignore[attr-defined]

    def both(self: Any, *arguments: Any) -> Any:
        model, self.model = self.model, _Sequential(self.model)
        try:
            return write(self, *arguments)
        finally:
            self.model = model

    patch.setattr(engine, "_write", both)


def enter_the_shared_norm_in_the_wavefront(patch: pytest.MonkeyPatch) -> None:
    """The other sublayer of a parallel block sees δ too."""
    _let_both_sublayers_see(patch, _EdgeRows)


def enter_the_shared_norm_in_the_reference(patch: pytest.MonkeyPatch) -> None:
    """The other sublayer of a parallel block sees δ too."""
    _let_both_sublayers_see(patch, _Pass)


def leave_out_the_post_norm(patch: pytest.MonkeyPatch) -> None:
    """δ of a head is what it adds before the norm that follows."""
    patch.setattr(Projection, "apply_norm", lambda self, projected: projected)


def leave_the_change_in_the_wavefront(patch: pytest.MonkeyPatch) -> None:
    """δ isn't taken off again after an MLP that reads it."""
    write, change = _EdgeRows._write, _EdgeRows._change

    def leaving(self: _EdgeRows, sublayer: Any, hidden: Any) -> Any:
        if sublayer.kind == "mlp":
            self._change = lambda place: torch.zeros_like(change(self, place))  # type: ignore[method-assign]
        try:
            return write(self, sublayer, hidden)
        finally:
            vars(self).pop("_change", None)

    patch.setattr(_EdgeRows, "_write", leaving)


def leave_the_change_in_the_reference(patch: pytest.MonkeyPatch) -> None:
    """δ isn't taken off again after a sublayer that reads it."""
    add = _Pass._add
    patch.setattr(_Pass, "_add", lambda self, hidden, row, sign: add(self, hidden, row, max(sign, 0.0)))


def show_a_key_to_all_heads_in_the_wavefront(patch: pytest.MonkeyPatch) -> None:
    """Where one head's key is to see δ, all heads' keys do."""
    frozen = _EdgeRows.frozen_inputs

    def fewer(self: _EdgeRows, block: int) -> Any:
        kept = frozen(self, block)
        seeing = [self._here(place) for place in self.at.get(2 * block, ()) if _reads_a_key(self._edge(place))]
        return kept | {"key": [(head, rows) for head, rows in kept.get("key", ()) if rows not in seeing]}

    patch.setattr(_EdgeRows, "frozen_inputs", fewer)


def show_a_key_to_all_heads_in_the_reference(patch: pytest.MonkeyPatch) -> None:
    """Where one head's key is to see δ, all heads' keys do."""
    frozen = _Pass._frozen

    def fewer(self: _Pass, edge: Edge) -> Any:
        return [each for each in frozen(self, edge) if not (_reads_a_key(edge) and each.kind == "key")]

    patch.setattr(_Pass, "_frozen", fewer)


def _reads_a_key(edge: Edge) -> bool:
    return any(each.kind == "key" for each in edge.reader.inputs)


#: Each with a case and the engine in which it shows.
FAULTS: list[tuple[Plant, str, str]] = [
    (enter_the_shared_norm_in_the_wavefront, "cohere", "wavefront"),
    (enter_the_shared_norm_in_the_reference, "cohere", "reference"),
    (leave_out_the_post_norm, "gemma2", "wavefront"),
    (leave_the_change_in_the_wavefront, "llama", "wavefront"),
    (leave_the_change_in_the_reference, "llama", "reference"),
    (show_a_key_to_all_heads_in_the_wavefront, "llama", "wavefront"),
    (show_a_key_to_all_heads_in_the_reference, "llama", "reference"),
]
