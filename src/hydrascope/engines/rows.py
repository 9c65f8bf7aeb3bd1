"""What an engine is asked, and what it answers: a plan of rows in, effects per row out.

A *row* is one ablated run of one prompt: some components write something else than they would have, at the
final position, and everything downstream follows. All of hydrascope's experiments are plans of rows; what the
effects mean is said elsewhere (`hydrascope.experiment`, `hydrascope.measures`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components import Component


class Clean(Enum):
    """The value that a component has in the clean run: overriding with it freezes the component."""

    CLEAN = "clean"


CLEAN = Clean.CLEAN

#: What an override writes: a patch, by its index among the component's patches, or the clean value.
Value = int | Clean


@dataclass(frozen=True)
class Row:
    """One ablated run: the components that are overridden, and with what. No override: the clean run."""

    overrides: tuple[tuple[Component, Value], ...]

    @property
    def start(self) -> Component:
        """The first overridden component; upstream of it the row is the clean run."""
        return min(component for component, _ in self.overrides)


@dataclass(frozen=True)
class Request:
    """A batch of prompts and the plan of rows to run on each of them.

    Attributes:
        tokens: each prompt's token ids, of any lengths.
        targets: `[prompt]` the token whose centred logit is read.
        rows: the plan, the same for every prompt.
        patches: per component that a row overrides with a patch, `[prompt, patch, width]`.
    """

    tokens: Sequence[Sequence[int]]
    targets: Int[Tensor, "prompt"]
    rows: tuple[Row, ...]
    patches: Mapping[Component, Float[Tensor, "prompt patch width"]]


@dataclass(frozen=True)
class Effects:
    """What an engine measured, in logits unless said otherwise, float32 or wider, on the CPU.

    Attributes:
        unembed: `[prompt, component]` ⟨y_c, r(σ)⟩ of the clean run (Eq. 10).
        embed: `[prompt]` ⟨e, r(σ)⟩, what the embedding adds.
        logit: `[prompt]` π̂, the clean run's centred logit.
        row_unembed: `[prompt, row, component]` ⟨y_c^k, r(σ)⟩ at the clean run's σ (Eq. 13).
        row_logit: `[prompt, row]` π̂^k, the ablated run's centred logit (Eq. 12).
        row_frozen: `[prompt, row]` π̂^k as it would be had the final norm kept the clean run's σ.
        row_direct: `[prompt, row]` π̂(z + δ), δ being what the overrides change (Def. 3.3).
        row_indirect: `[prompt, row]` π̂(z^k − δ) (Def. 3.4).
        row_scale: `[prompt, row]` σ/σ^k, without unit.
        clean_error: the largest difference in π̂ between the engine's two ways to the clean run.
    """

    unembed: Float[Tensor, "prompt component"]
    embed: Float[Tensor, "prompt"]
    logit: Float[Tensor, "prompt"]
    row_unembed: Float[Tensor, "prompt row component"]
    row_logit: Float[Tensor, "prompt row"]
    row_frozen: Float[Tensor, "prompt row"]
    row_direct: Float[Tensor, "prompt row"]
    row_indirect: Float[Tensor, "prompt row"]
    row_scale: Float[Tensor, "prompt row"]
    clean_error: float


def sweep_plan(components: Sequence[Component], patches: int) -> tuple[Row, ...]:
    """The paper's plan: every component overridden by each of its patches, one at a time, patches innermost."""
    return tuple(Row(((component, patch),)) for component in components for patch in range(patches))
