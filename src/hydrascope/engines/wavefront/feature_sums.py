"""Sum the contributions of all features of a dictionary over prompts, without keeping them.

A dictionary may have many thousands of features, and a sweep hundreds of rows a prompt. So each group's patches are
averaged as soon as they are encoded, and prompts are added up.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.dictionaries.dictionary import Linear
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.engines.interface import Request
from hydrascope.engines.kernels.matmul import ROUTINES, Product, fastest, time_routines
from hydrascope.engines.override_change import units_site
from hydrascope.engines.readouts import final_scale
from hydrascope.engines.wavefront.row_streams import TermWrite
from hydrascope.engines.wavefront.schedule import Schedule
from hydrascope.engines.wavefront.term_reads import vectors_of
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.language_model import LanguageModel

#: Rows that are encoded at a time.
ROWS = 512


class SummedFeatures:
    """The sums of the features of one dictionary, by group of rows."""

    def __init__(
        self, model: LanguageModel, request: Request, attached: AttachedDictionary, plan: Schedule, clean: CleanPass
    ) -> None:
        """Begin with the clean pass.

        Args:
            model: the model.
            request: the request.
            attached: the dictionary.
            plan: the groups of rows.
            clean: the clean pass, with activations at all sites that the features need.
        """
        self.attached = attached
        self.plan = plan
        self.patches = request.patches
        #: [prompt, feature, readout] ⟨w_j, a⟩/σ.
        self.decoded = self._decoded(model, request, attached, clean.final)
        #: [prompt, feature] the clean activations, divided by the scale of a norm that follows the site.
        self.clean = clean.values[attached.term_sites[0]].to(self.decoded.dtype)
        projection = attached.projection
        if projection is not None and projection.norm is not None:
            scale = projection.scale(projection.apply(clean.values[units_site(attached.home)]))
            self.clean = self.clean / scale[:, None].to(self.clean)
        self.linear = _fastest_linear(attached)
        #: The groups in which the whole sublayer is frozen, so that its features are as in the clean pass.
        self.frozen = {group for group, frozen in plan.events[attached.home].writes.get(attached.home, []) if frozen}
        readouts, features = self.decoded.shape[-1], attached.dictionary.features
        self.change, self.absolute, self.square = (
            self.decoded.new_zeros(readouts, len(plan.groups), features) for _ in range(3)
        )
        #: The groups whose rows were read.
        self.read: set[int] = set()

    @staticmethod
    def _decoded(
        model: LanguageModel, request: Request, attached: AttachedDictionary, final: Tensor
    ) -> Float[Tensor, "prompt feature readout"]:
        readouts = request.readouts
        vectors = vectors_of(model, readouts, attached)
        # One product reads the decoder once for all prompts.
        prompts = len(vectors)
        decoded = attached.dictionary.decoder @ vectors.transpose(0, 1).flatten(1)
        return readouts.rescale(decoded.unflatten(1, (prompts, -1)).transpose(0, 1), final_scale(model, final)[:, None])

    def add(
        self,
        x: Float[Tensor, "prompt row input"],
        standing: Float[Tensor, "prompt row output"],
        writes: Sequence[TermWrite],
        first: dict[int, int],
        scale: Float[Tensor, "prompt row"] | None,
    ) -> None:
        """Add the rows of some groups.

        Args:
            x: the vector that the dictionary reads.
            standing: the vector at its site, before terms are overwritten.
            writes: the terms that are overwritten.
            first: the first row of each group.
            scale: the scale of a norm that follows the site; None if there is none.
        """
        self.read.update(first)
        groups = [group for group in first if group not in self.frozen]
        step = max(ROWS // self.patches, 1)
        for start in range(0, len(groups), step):
            some = groups[start : start + step]
            rows, place = _rows(some, first, self.patches), {first[group]: number for number, group in enumerate(some)}
            for prompt in range(len(standing)):
                code = self._encode(x[prompt, rows], standing[prompt, rows])
                for write in writes:
                    if write.component.kind == "feature" and write.rows.start in place:
                        here = place[write.rows.start] * self.patches
                        unit = write.component.unit
                        columns = slice(None) if unit < 0 else slice(unit, unit + 1)
                        code[here : here + self.patches, columns] = write.after[prompt].to(code)
                self._add_means(prompt, some, code, None if scale is None else scale[prompt, rows])

    def _encode(
        self, x: Float[Tensor, "row input"], standing: Float[Tensor, "row output"]
    ) -> Float[Tensor, "row feature"]:
        read = x if self.attached.mlp_input is not None else standing.to(self.clean.dtype) * self.attached.factor
        return self.attached.dictionary.encode(read, linear=self.linear)

    def _add_means(
        self, prompt: int, groups: Sequence[int], code: Float[Tensor, "row feature"], scale: Float[Tensor, "row"] | None
    ) -> None:
        if scale is not None:
            code = code / scale[:, None].to(code)
        change = code.unflatten(0, (len(groups), self.patches)).mean(1) - self.clean[prompt]
        for readout, decoded in enumerate(self.decoded[prompt].T):
            found = change * decoded
            self.change[readout, groups] += found
            self.absolute[readout, groups] += found.abs()
            self.square[readout, groups] += found.square_()

    def sums(self) -> FeatureSums:
        """Return the sums by override.

        An override that hasn't joined has those of the rows that it leaves.
        """
        places = []
        for group in self.plan.index:
            while group and group not in self.read and group not in self.frozen:
                group = self.plan.groups[group].parent
            # Nothing was added to group 0, the clean row's.
            places.append(0 if group in self.frozen else group)
        return FeatureSums(
            torch.einsum("pf,pfo->of", self.clean, self.decoded),
            self.change[:, places],
            self.absolute[:, places],
            self.square[:, places],
        )


def _rows(groups: Sequence[int], first: dict[int, int], patches: int) -> slice | Tensor:
    """Return the rows of some groups: without a copy where they stand one after another."""
    starts = [first[group] for group in groups]
    if all(after - before == patches for before, after in pairwise(starts)):
        return slice(starts[0], starts[-1] + patches)
    return torch.cat([torch.arange(start, start + patches) for start in starts])


def _fastest_linear(attached: AttachedDictionary) -> Linear:
    """Return the fastest way to multiply by the encoder, as for the model's own products."""
    encoder = attached.dictionary.encoder
    if encoder.device.type != "cpu" or encoder.dtype != torch.float32:
        return torch.nn.functional.linear
    product = Product(encoder.shape[1], encoder.shape[0], False, "")
    routine = ROUTINES[fastest(time_routines(product, encoder.dtype, torch.get_num_threads()))]
    return lambda rows, weight, bias: routine(rows, weight, bias, "")
