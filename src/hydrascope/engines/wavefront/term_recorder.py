"""Read terms of dictionaries off the rows of a sweep; `Recorder` builds on it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.override_change import override_change, units_site
from hydrascope.engines.wavefront.feature_sums import SummedFeatures
from hydrascope.engines.wavefront.row_streams import RowStreams, TermWrite
from hydrascope.engines.wavefront.term_reads import TermReads


class TermRecorder(RowStreams):
    """The terms that are read in every row; `Recorder` has the tensors."""

    clean: CleanPass
    column: Mapping[Component, int]
    read: Tensor
    own: Tensor
    inner: Tensor
    term_reads: Mapping[Component, TermReads]
    summed: Mapping[Component, SummedFeatures]
    _unscaled: Tensor | None
    _waiting: tuple[Tensor, Tensor, Sequence[TermWrite], dict[int, int]] | None

    def rows(self, groups: Sequence[int]) -> slice | Tensor:
        """Return the rows of some groups."""
        raise NotImplementedError

    def _read(self, sublayer: Component, output: Tensor) -> Tensor:
        raise NotImplementedError

    def _add(self, sublayer: Component, groups: Sequence[int], change: Tensor) -> None:
        raise NotImplementedError

    def _store(self, units: Sequence[Component], rows: slice | Tensor, read: Tensor) -> None:
        raise NotImplementedError

    def reads_terms(self, home: Component) -> bool:
        """Whether terms of the dictionary of `home` are read."""
        return home in self.term_reads or home in self.summed

    def read_terms(
        self,
        home: Component,
        x: Tensor,
        standing: Tensor,
        writes: Sequence[TermWrite],
        joined: int,
        starting: Sequence[int],
    ) -> None:
        """Read the terms of a dictionary; see `RowStreams.read_terms`."""
        if not standing.shape[1]:
            return
        projection = self.model.dictionaries[home].projection
        scaled = projection is not None and projection.norm is not None
        if home in self.term_reads:
            read = self.term_reads[home].read(x, standing, writes)
            if scaled:
                self._unscaled = read
            else:
                self._store_terms(home, read, joined, starting)
        if home in self.summed:
            first = {group: joined + place * self.request.patches for place, group in enumerate(starting)}
            here = range(1, 1 + (joined - 1) // self.request.patches)
            first = {group: self.first(group) for group in here} | first
            if scaled:
                # A copy: terms are overwritten in place.
                self._waiting = x.clone(), standing.clone(), writes, first
            else:
                self.summed[home].add(x, standing, writes, first, None)

    def _store_terms(self, home: Component, read: Tensor, joined: int, starting: Sequence[int]) -> None:
        """Store the readings of terms, `[prompt, row, term, readout]`, of all but the clean row."""
        terms = self.term_reads[home].terms
        if joined:
            self._store(terms, slice(1, joined), read[:, 1:joined])
        if starting:
            self._store(terms, self.rows(starting), read[:, joined:])

    def _read_clean_terms(self, home: Component) -> None:
        """Read the terms of the clean pass, for all rows until they join."""
        reads, clean = self.term_reads[home], self.clean.values
        projection = reads.attached.projection
        for term in reads.terms:
            values = clean[term.site][:, None, self.model.columns(term)]
            read = reads.attached.write(term, values) @ reads.vectors
            if projection is not None and projection.norm is not None:
                read = (
                    read
                    / projection.scale(projection.apply(clean[units_site(home)])[:, None].to(read.dtype))[..., None]
                )
            self.read[self.column[term]][:] = read

    def add_terms(self, home: Component, group: int, values: Mapping[Component, Tensor]) -> None:
        """Add the change by a group's overrides of units and terms to δ; see `RowStreams.add_terms`."""
        change = override_change(self.model, values, self.clean.values)
        self._add(home, [group], change)

    def rewrite_stream(self, block: int, group: int, change: Tensor, residual: Tensor) -> None:
        """Keep the change of the stream that enters a block, and read its new value."""
        rows, home = slice(self.first(group), self.first(group + 1)), Component(block, "stream")
        self.own[:, rows] += self._read(home, change)
        if numbers := self.request.readouts.read_before(block):
            self.inner[:, rows, numbers] = self.request.readouts.select(numbers).read(residual)

    def keep_projected(self, sublayer: Component, output: Tensor) -> None:
        """Keep the projection's output until `sublayer` is read; its norm scales what terms write."""
        super().keep_projected(sublayer, output)
        if self._unscaled is not None:
            events, projection = self.plan.events[sublayer], self.model.projection(sublayer)
            read = self._unscaled / projection.scale(output.to(self._unscaled.dtype))[..., None, None]
            joined = output.shape[1] - len(events.at_units) * self.request.patches
            self._store_terms(sublayer, read, joined, events.at_units)
            self._unscaled = None
        if self._waiting is not None:
            scale = self.model.projection(sublayer).scale(output.to(self.read.dtype))
            self.summed[sublayer].add(*self._waiting, scale)
            self._waiting = None
