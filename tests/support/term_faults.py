"""Faults in how terms of dictionaries are computed, each of a kind that makes wrong numbers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.engines.reference import engine as reference
from hydrascope.engines.wavefront.engine import _Sweep
from hydrascope.engines.wavefront.recorder import Recorder
from hydrascope.engines.wavefront.row_streams import TermWrite
from hydrascope.engines.wavefront.term_reads import TermReads
from hydrascope.models.attached_dictionary import AttachedDictionary, Terms
from hydrascope.models.projection import Projection

Plant = Callable[[pytest.MonkeyPatch], None]


def encode_again_in_the_reference(patch: pytest.MonkeyPatch) -> None:
    """Once y is overridden, features that aren't overridden follow its new value."""
    change_from = Terms.change_from

    def again(self: Terms, before: Terms, dictionary: Dictionary) -> Tensor:
        change = change_from(self, before, dictionary)
        y = before.code @ dictionary.decoder + before.error + before.rest + change
        others = self.code == before.code
        return change + ((dictionary.encode(y) - self.code) * others) @ dictionary.decoder

    patch.setattr(Terms, "change_from", again)


class _Silent:
    """A record that takes nothing."""

    needs_changes = False

    def __init__(self, record: Any) -> None:
        self.record = record

    def __getattr__(self, name: str) -> Any:
        silent = name in ("read_terms", "rewrite_stream", "add_terms")
        return (lambda *arguments: None) if silent else getattr(self.record, name)


def encode_again_in_the_wavefront(patch: pytest.MonkeyPatch) -> None:
    """The overridden y is encoded, and overridden again."""
    override_terms = _Sweep._override_terms

    def again(self: _Sweep, home: Any, x: Tensor, rows: Tensor, joined: int, starting: Sequence[int]) -> Tensor:
        rows = override_terms(self, home, x, rows, joined, starting)
        record = self.record
        self.record = _Silent(record)
        try:
            return override_terms(self, home, x, rows, joined, starting)
        finally:
            self.record = record

    patch.setattr(_Sweep, "_override_terms", again)


def read_features_of_the_overridden_vector(patch: pytest.MonkeyPatch) -> None:
    """The wavefront engine reads what the overridden y would be encoded to."""
    read_terms = Recorder.read_terms

    def later(
        self: Recorder, home: Any, x: Tensor, standing: Tensor, writes: Sequence[TermWrite], joined: int, starting: Any
    ) -> None:
        attached, changed = self.model.dictionaries[home], standing.clone()
        for write in writes:
            changed[:, write.rows] += attached.write(write.component, write.after - write.before) / attached.factor
        read_terms(self, home, x if attached.mlp_input is not None else changed, changed, writes, joined, starting)

    patch.setattr(Recorder, "read_terms", later)


def read_without_the_post_norm_in_the_reference(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AttachedDictionary, "output", lambda self, share, projected: share)


def read_without_the_post_norm_in_the_wavefront(patch: pytest.MonkeyPatch) -> None:
    """Its gain is left out."""
    patch.setattr(AttachedDictionary, "read_vectors", lambda self, directions: directions)


def leave_the_post_norm_out_of_direct_effects(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Projection, "apply_norm", lambda self, projected: projected)


def read_before_the_override_in_the_reference(patch: pytest.MonkeyPatch) -> None:
    written = reference._Prompt.written

    def earlier(self: Any, pass_: Any) -> Tensor:
        terms = {site: values[:, -1] for site, values in pass_.before.items() if site.is_term}
        return written(self, replace(pass_, values={**pass_.values, **terms}))

    patch.setattr(reference._Prompt, "written", earlier)


def read_before_the_override_in_the_wavefront(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TermReads, "_overwrite", lambda self, read, writes: None)


#: Each with a case and a site at which it shows.
FAULTS: list[tuple[Plant, str, str]] = [
    (encode_again_in_the_reference, "gpt2", "mlp.1"),
    (encode_again_in_the_wavefront, "gpt2", "mlp.1"),
    (read_features_of_the_overridden_vector, "gpt2", "attn.1"),
    (read_without_the_post_norm_in_the_reference, "gemma2", "raw.attn.1"),
    (read_without_the_post_norm_in_the_wavefront, "gemma2", "raw.attn.1"),
    (leave_the_post_norm_out_of_direct_effects, "gemma2", "raw.attn.1"),
    (read_before_the_override_in_the_reference, "llama", "heads.1"),
    (read_before_the_override_in_the_wavefront, "llama", "heads.1"),
]
