"""Parts of the change that an ablation makes, written in place of the whole change."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from hydrascope.utils.errors import HydrascopeError

PartKind = Literal["readout", "content", "dose"]

#: The part of an override's label, at its end.
_LABEL = re.compile(r":(?:(readout|content)\((.*)\)|dose\(([^()]+)\)|(boost))$")


@dataclass(frozen=True)
class Part:
    """A part of δ, the change that an ablation makes to what a component writes.

    `str()` returns its label:

        >>> str(Part("readout", "logit")), str(Part("dose", dose=0.5)), str(BOOST)
        ('readout(logit)', 'dose(0.5)', 'boost')

    Attributes:
        kind: `readout`, the projection of δ on a readout's direction; `content`, the rest of δ, which has no direct
            effect on that readout; `dose`, a multiple of δ.
        readout: the label of the readout that splits δ; empty for a dose.
        dose: the multiple of δ: 1 is the whole change, −1 its opposite.
    """

    kind: PartKind
    readout: str = ""
    dose: float = 1.0

    def __str__(self) -> str:
        if self.kind != "dose":
            return f"{self.kind}({self.readout})"
        return "boost" if self.dose == -1 else f"dose({self.dose:g})"


#: The opposite of an ablation's change: the component writes more of the same.
BOOST = Part("dose", dose=-1.0)


def cut_part(label: str) -> tuple[str, Part | None]:
    """Cut the part off the label of an override.

        >>> cut_part("attn.3:content(logit)"), cut_part("attn.3|mlp.5")
        (('attn.3', Part(kind='content', readout='logit', dose=1.0)), ('attn.3|mlp.5', None))

    Raises:
        HydrascopeError: the dose is no number.
    """
    found = _LABEL.search(label)
    if found is None:
        return label, None
    kind, readout, dose, boost = found.groups()
    if boost:
        part = BOOST
    elif kind:
        part = Part(cast(PartKind, kind), readout)
    else:
        part = Part("dose", dose=_number(dose))
    return label[: found.start()], part


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise HydrascopeError(f"{text!r} is no dose: give a number") from None
