"""Read terms of a dictionary by dot products, without the vectors that they write.

A feature's contribution is f_j ⟨w_j, a⟩. The error's is ⟨y, a⟩ − Σ_j f_j ⟨w_j, a⟩ − ⟨r, a⟩, so that nothing is decoded.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.interface import Request
from hydrascope.engines.readouts import Readouts
from hydrascope.engines.wavefront.row_streams import TermWrite
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.language_model import LanguageModel


def vectors_of(
    model: LanguageModel,
    readouts: Readouts,
    attached: AttachedDictionary,
    directions: Float[Tensor, "prompt width readout"] | None = None,
) -> Float[Tensor, "prompt output readout"]:
    """Return the vectors that read shares of y for each readout; 0 for readouts below the site.

    Args:
        model: the model.
        readouts: the readouts.
        attached: the dictionary.
        directions: the readouts' directions; those of all prompts by default.
    """
    scale = 1.0 if attached.home.kind == "stream" else model.residual_scale
    directions = (readouts.directions if directions is None else directions) * scale
    below = readouts.belongs(attached.home)
    directions = directions if below is None else directions * below
    return attached.read_vectors(directions).to(attached.dictionary.encoder.dtype)


class TermReads:
    """The terms of one dictionary that are read, and the vectors that read them."""

    def __init__(
        self, model: LanguageModel, request: Request, attached: AttachedDictionary, terms: Sequence[Component]
    ) -> None:
        self.attached = attached
        self.terms = terms
        readouts = request.readouts
        #: [prompt, output, readout] the vectors that read y; one for all prompts where these share their readouts.
        self.vectors = vectors_of(model, readouts, attached, readouts.directions[:1] if readouts.shared else None)
        whole = any(term.kind == "error" or (term.kind == "feature" and term.unit < 0) for term in terms)
        self.features = torch.tensor(
            [term.unit for term in terms if term.unit >= 0], dtype=torch.long, device=model.device
        )
        #: The features that are encoded: all if their sum is read.
        self.encoded: Tensor | slice = slice(None) if whole else self.features
        #: [prompt, feature, readout] ⟨w_j, a⟩ of those.
        self.decoded = attached.dictionary.decoder[self.encoded] @ self.vectors

    def read(
        self,
        x: Float[Tensor, "prompt row input"],
        standing: Float[Tensor, "prompt row output"],
        writes: Sequence[TermWrite],
    ) -> Float[Tensor, "prompt row term readout"]:
        """Return ⟨share of y, a⟩ of each term, to be divided by a norm's scale where one follows.

        Args:
            x: the vector that the dictionary reads.
            standing: the vector at its site, before terms are overwritten.
            writes: the terms that are overwritten.
        """
        readouts = self.vectors.shape[-1]
        found = self.vectors.new_empty(*standing.shape[:2], len(self.terms), readouts)
        for prompt in range(len(standing)):
            place = prompt if len(self.vectors) > 1 else 0
            found[prompt] = self._read_prompt(x[prompt], standing[prompt], self.vectors[place], self.decoded[place])
        self._overwrite(found, writes)
        return found

    def _read_prompt(
        self,
        x: Float[Tensor, "row input"],
        standing: Float[Tensor, "row output"],
        vectors: Float[Tensor, "output readout"],
        decoded: Float[Tensor, "feature readout"],
    ) -> Float[Tensor, "row term readout"]:
        dictionary = self.attached.dictionary
        y = standing.to(vectors.dtype) * self.attached.factor
        x = x.to(vectors.dtype) if self.attached.mlp_input is not None else y
        kinds = {term.kind for term in self.terms}
        rest = dictionary.rest(x) @ vectors if kinds & {"error", "bias"} else None
        code = dictionary.encode(x, self.encoded) if "feature" in kinds or "error" in kinds else None
        total = None if code is None or not isinstance(self.encoded, slice) else code @ decoded
        singles = self.features if isinstance(self.encoded, slice) else slice(None)
        read = []
        if len(self.features):
            assert code is not None
            single = code[:, singles, None] * decoded[singles]
        number = 0
        for term in self.terms:
            if term.unit >= 0:
                read.append(single[:, number])
                number += 1
            elif term.kind == "feature":
                assert total is not None
                read.append(total)
            elif term.kind == "bias":
                assert rest is not None
                read.append(rest)
            else:
                assert total is not None
                assert rest is not None
                read.append(y @ vectors - total - rest)
        return torch.stack(read, 1)

    def _overwrite(self, read: Float[Tensor, "prompt row term readout"], writes: Sequence[TermWrite]) -> None:
        """Read overwritten terms anew in their rows."""
        for write in writes:
            component = write.component
            for number, term in enumerate(self.terms):
                rows = read[:, write.rows, number]
                if component == term or (component.site == term and component.kind == "feature"):
                    change = self.attached.write(component, write.after - write.before) @ self.vectors
                    if component == term:
                        # Not the sum of before and a change, which would leave a rounding error where it is 0.
                        rows[:] = self.attached.write(component, write.after) @ self.vectors
                    else:
                        rows += change
                elif term.site == component and component.kind == "feature":
                    rows[:] = self.attached.write(term, write.after[..., term.unit, None]) @ self.vectors
