"""Overwrite terms of dictionaries in the rows of a sweep."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.wavefront.row_streams import TermWrite
from hydrascope.engines.wavefront.sweep_rows import SweepRows
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.language_model import wider


class TermOverrides(SweepRows):
    """Rows in which terms of dictionaries are overwritten where they stand."""

    def _active(self, home: Component) -> AttachedDictionary | None:
        """Return the dictionary of a sublayer or stream, if any term is overridden or read."""
        attached = self.model.dictionaries.get(home)
        if attached is None or not (self.record.reads_terms(home) or any(c.is_term for c in self._events(home).writes)):
            return None
        return attached

    def _receive(self, mlp: Component, hidden: Tensor) -> None:
        """Keep the input of an MLP, which its transcoder reads."""
        self.received = self._rows(hidden)

    def _override_terms(self, home: Component, x: Tensor, rows: Tensor, joined: int, starting: Sequence[int]) -> Tensor:
        """Read the terms of what stands at a dictionary's site, and overwrite some of them.

        Args:
            home: the sublayer of the dictionary, or `stream.L`.
            x: `[prompt, row, suffix, input]` what it reads.
            rows: `[prompt, row, suffix, output]` what stands at its site; it is changed in place.
            joined: the number of these rows that had joined before; those of the groups `starting` follow.
            starting: the groups that start here.
        """
        attached, events = self.model.dictionaries[home], self._events(home)
        first = {group: joined + place * self.request.patches for place, group in enumerate(starting)}
        first |= {group: self.record.first(group) for group in range(1, self.joined) if joined}
        written: dict[int, list[TermWrite]] = {}
        changes: dict[int, Tensor] = {}
        for component, writes in events.writes.items():
            if joined and component.is_term and any(frozen for _, frozen in writes):
                self.clean_terms[component] = attached.activations(component, x[:, :1], rows[:, :1])
            for group, frozen in writes if component.is_term else ():
                if group not in first:
                    continue
                here = slice(first[group], first[group] + self.request.patches)
                before = attached.activations(component, x[:, here], rows[:, here])
                after = self._new_terms(component, before, frozen)
                change = attached.write(component, after - before) / attached.factor
                changes[group] = changes[group] + change if group in changes else change
                write = TermWrite(component, here, self._final(before), self._final(after))
                written.setdefault(group, []).append(write)
        every = [write for writes in written.values() for write in writes]
        self.record.read_terms(home, self._final(x), self._final(rows), every, joined, starting)
        for group, change in changes.items():
            here = written[group][0].rows
            rows[:, here] += change.to(rows.dtype)
            if home.kind == "stream":
                self.record.rewrite_stream(home.block, group, self._final(change), self._final(rows[:, here]))
            if self.record.needs_changes:
                own = [
                    (c, frozen) for c, frozen in self.plan.groups[group].own if c.sublayer == home and not c.is_input
                ]
                self.record.add_terms(home, group, {c: self._written_at_final(c, frozen) for c, frozen in own})
        return rows

    def _written_at_final(self, component: Component, frozen: bool) -> Tensor:
        """Return the values of an overridden component at the final position.

        They are `[prompt, patch, columns]`, clean where that position is not overridden.
        """
        clean = self.clean.values[component.site][:, None, self.model.columns(component)]
        if frozen:
            return clean.expand(-1, self.request.patches, -1)
        values = self.values[component].to(self.model.device)
        wide = wider(values.dtype)
        if self.length == 1:
            return values[:, :, 0].to(wide)
        written = (values.to(wide) * self.at_last[:, None, :, None]).sum(2)
        return torch.where(self.at_last.any(1)[:, None, None], written, clean.to(wide))

    def _new_terms(self, component: Component, before: Tensor, frozen: bool) -> Tensor:
        """Return the new activations of an overwritten term, `[prompt, patch, suffix, columns]`."""
        if frozen:
            return self.clean_terms[component].expand_as(before)
        after, values = before.clone(), self.values[component].to(before)
        if self.length == 1:
            after[:, :, 0] = values[:, :, 0]
        else:
            after[self._index(after, torch.arange(self.request.patches)[:, None])] = values
        return after
