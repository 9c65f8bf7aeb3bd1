"""A page's question: a prompt, an override, an ablation and positions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydrascope.ablations import parse
from hydrascope.ablations.ablation import NamedAblation
from hydrascope.ablations.names import LIVE_ABLATIONS
from hydrascope.prompts.positions import NAMES, SUBJECT
from hydrascope.prompts.prompt import Prompt
from hydrascope.utils.errors import HydrascopeError

#: Of a prompt, in characters: longer ones aren't looked at.
LONGEST = 20_000
#: Patches, and components of one override.
MOST_PATCHES, MOST_COMPONENTS = 200, 256

_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("text", "run", "ablation", "counterfactual", "at", "subject"), (str,)),
    **dict.fromkeys(("patches", "seed", "target"), (int,)),
    "noise_scale": (int, float),
    "different_target": (bool,),
    "heads": (list,),
}


@dataclass(frozen=True)
class Question:
    """A question about one prompt.

    Attributes:
        text: the prompt.
        run: the override, as `attn.3+mlp.5|mlp.7`; empty for none.
        ablation: one of `LIVE_ABLATIONS`.
        patches, noise_scale, seed, different_target: as in `hydrascope.Noise` and `hydrascope.Resample`; ablations
            without such a setting ignore it.
        counterfactual: the prompt's counterfactual, for the ablation `counterfactual`.
        at: `last`, `all`, `subject`, `subject-last`, or positions from the prompt's end, as `-3,-2`.
        subject: the prompt's, as it is written there; empty where it has none, or the set knows it.
        target: the token that is read; the likeliest by default.
        heads: blocks whose heads are read, too, with their attention.
    """

    text: str
    run: str = ""
    ablation: str = "resample"
    patches: int = 15
    noise_scale: float = 3.0
    seed: int = 0
    different_target: bool = False
    counterfactual: str = ""
    at: str = "last"
    subject: str = ""
    target: int | None = None
    heads: tuple[int, ...] = ()

    @classmethod
    def of(cls, asked: Any) -> "Question":
        """Return the question in a JSON object.

        Raises:
            HydrascopeError: it is none, or is too large.
        """
        if not isinstance(asked, Mapping) or not isinstance(asked.get("text"), str):
            raise HydrascopeError("this is no question: send an object with a text")
        given = {name: value for name, value in asked.items() if value is not None}
        for name, value in given.items():
            kinds = _FIELDS.get(name)
            if kinds is None or not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise HydrascopeError(f"{name} can't be {value!r:.60}: see docs/explore.md")
        heads = tuple(given.pop("heads", ()))
        if not all(type(layer) is int for layer in heads):
            raise HydrascopeError("heads must be numbers of layers")
        question = cls(**given, heads=heads)
        question.require_limits()
        return question

    def require_limits(self) -> None:
        """Refuse an empty prompt, and a question that is too large.

        Raises:
            HydrascopeError: it is empty, or too large.
        """
        if not self.text.strip():
            raise HydrascopeError("the prompt is empty: write one")
        if len(self.text) > LONGEST:
            raise HydrascopeError(
                f"the prompt is {len(self.text):,} characters long, and {LONGEST:,} are read: shorten it"
            )
        for name, text in (("prompt", self.text), ("counterfactual", self.counterfactual), ("subject", self.subject)):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise HydrascopeError(f"the {name} holds half a surrogate pair: mend it") from None
        if self.ablation not in LIVE_ABLATIONS:
            raise HydrascopeError(f"{self.ablation!r} replaces nothing: choose {', '.join(LIVE_ABLATIONS)}")
        if not 1 <= self.patches <= MOST_PATCHES:
            raise HydrascopeError(f"{self.patches} patches: ask for 1 to {MOST_PATCHES}")
        if self.run.count("+") + self.run.count("|") >= MOST_COMPONENTS:
            raise HydrascopeError(f"the override has more than {MOST_COMPONENTS} components: name fewer")
        if max(map(len, (self.run, self.at, self.counterfactual, self.subject))) > LONGEST or len(self.heads) > 64:
            raise HydrascopeError("this question is too long: ask for less")
        self.positions()

    def prompt(self) -> Prompt:
        """Return the prompt as the library takes it."""
        return Prompt(self.text, subject=self.subject or None, counterfactual=self.counterfactual or None)

    def make_ablation(self) -> NamedAblation:
        """Return the ablation."""
        options = parse.options_of(self.ablation)
        return parse.ablation(self.ablation, **{option: getattr(self, option) for option in options})

    def positions(self) -> list[int]:
        """Return the positions of `at` from the prompt's end, ascending; none where they are named.

        Raises:
            HydrascopeError: they are no such numbers.
        """
        if self.at in NAMES:
            return []
        try:
            found = sorted({int(word) for word in self.at.split(",")})
        except ValueError:
            found = [0]
        if found[-1] >= 0:
            raise HydrascopeError(f"{self.at!r:.60} are no positions: give {', '.join(NAMES)}, or numbers below 0")
        return found

    @property
    def at_subject(self) -> bool:
        """Whether the subject's tokens are ablated."""
        return self.at in SUBJECT

    @property
    def is_alone(self) -> bool:
        """Whether the prompt is measured without others, since its counterfactual patches it."""
        return self.ablation == "counterfactual"
